"""Letting go of letters: not before what they caused is out, and they are written down."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.dlq.drop import Dropped, dropping
from headrace.dlq.groups import Selection
from headrace.errors import ConfigurationError, Refused
from headrace.ports import Attribute, Ports, Put, QueueEntry
from headrace.testing import delivery_of
from tests.unit.dlq.office import Office, ParcelPosted
from tests.unit.dlq.test_redrive import Killed, mortal
from tests.unit.timeless import timeless


async def drop(
    office: Office, file: Path, selection: Selection | None = None, ports: Ports | None = None
) -> Dropped:
    async with dropping(
        office.service, ports or office.cloud.ports, office.queue, selection or Selection()
    ) as dropping_:
        return await dropping_.run(file)


def written(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def pending_letter(office: Office) -> None:
    """A letter whose handler has committed, and whose event is not out."""
    await office.post("none")
    await office.handled()
    (record,) = [item for item in office.cloud.store.items("office") if "commit_id" in item]
    fields = {
        "id": "franked-0",
        "type": "ParcelFranked",
        "detail": '{"data":{"number":0}}',
        "time": "2026-01-01T00:00:00+00:00",
        "source": "office",
    }
    outgoing = {"L": [{"M": {name: {"S": text} for name, text in fields.items()}}]}
    pending = {**record, "status": {"S": "pending"}, "outgoing": outgoing}
    await office.cloud.store.write([Put("office", pending)])
    body = delivery_of(ParcelPosted(number=0), office.queue, id="parcel-0").body
    await office.cloud.queues.send(office.dead_letters, [QueueEntry(body)])


def test_what_is_dropped_is_in_the_file_whole(tmp_path: Path) -> None:
    @timeless
    async def scenario() -> None:
        office = Office()
        attributes = {"colour": Attribute("red"), "seal": Attribute(b"\x00\x01", "Binary")}
        await office.cloud.queues.send(office.queue, [QueueEntry("{", attributes=attributes)])
        await office.post("scale")
        await office.handled()
        group = await office.group_of("scale")

        dropped = await drop(office, tmp_path / "kept", Selection(group=group))
        assert len(dropped.letters) == 1
        assert list(office.there()) == ["{"]
        dropped = await drop(office, tmp_path / "kept")
        assert len(dropped.letters) == 1
        assert not office.there()

    scenario()
    first, second = written(tmp_path / "kept")
    assert first["reason"] == "Parcel 0 is lighter than air."
    assert json.loads(first["body"])["detail"]["data"]["fault"] == "scale"
    assert (second["body"], second["attributes"]["colour"]["value"]) == ("{", "red")
    assert second["attributes"]["seal"] == {"type": "Binary", "base64": "AAE="}
    assert "The body is not JSON" in json.loads(second["attributes"]["headrace"]["value"])["reason"]
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600


def test_what_a_letter_has_caused_is_sent_before_it_is_dropped(tmp_path: Path) -> None:
    @timeless
    async def scenario() -> None:
        office = Office(publishes=True)
        await pending_letter(office)
        before = office.cloud.bus.calls["put"]

        dropped = await drop(office, tmp_path / "kept")

        assert (dropped.sent, len(dropped.letters), dropped.kept) == (1, 1, [])
        assert office.cloud.bus.calls["put"] == before + 1
        (record,) = [item for item in office.cloud.store.items("office") if "commit_id" in item]
        assert record["status"]["S"] == "done"

    scenario()


def test_a_letter_whose_messages_cannot_be_sent_stays(tmp_path: Path) -> None:
    @timeless
    async def scenario() -> None:
        office = Office(publishes=True)
        await pending_letter(office)
        bus: Any = _Closed()

        dropped = await drop(office, tmp_path / "kept", ports=replace(office.cloud.ports, bus=bus))

        ((letter, why),) = dropped.kept
        assert letter.event_id == "parcel-0"
        assert why.startswith("What it caused is not out: ")
        assert office.there().total() == 1
        assert written(tmp_path / "kept") == []

    scenario()


def test_nothing_is_dropped_when_the_file_cannot_be_written(tmp_path: Path) -> None:
    @timeless
    async def scenario() -> None:
        office = Office()
        await office.post("scale")
        await office.handled()

        with pytest.raises(ConfigurationError, match="name another file"):
            await drop(office, tmp_path / "nowhere" / "kept")

        assert len(await office.letters()) == 1

    scenario()


def test_letters_behind_others_of_their_message_group_are_dropped_too(tmp_path: Path) -> None:
    @timeless
    async def scenario() -> None:
        office = Office(fifo=True)
        await office.post("scale", times=14, group="a")
        await office.handled()

        dropped = await drop(office, tmp_path / "kept")

        assert len(dropped.letters) == 14
        assert not office.there()

    scenario()


def test_what_was_parked_behind_a_letter_goes_on_when_it_is_dropped(tmp_path: Path) -> None:
    @timeless
    async def scenario() -> None:
        office = Office(fifo=True, park=True)
        await office.post("scale", "none", group="a")
        await office.handled()
        assert office.order == []

        await drop(office, tmp_path / "kept")
        await office.handled()

        assert office.order == [1]

    scenario()


def test_a_letter_stays_when_what_waits_for_it_cannot_go_on(tmp_path: Path) -> None:
    @timeless
    async def scenario() -> None:
        office = Office(fifo=True, park=True)
        await office.post("scale", "none", group="a")
        await office.handled()
        store: Any = _NoChanges(office.cloud.ports.store)

        dropped = await drop(
            office, tmp_path / "kept", ports=replace(office.cloud.ports, store=store)
        )

        ((letter, why),) = dropped.kept
        assert letter.event_id == "parcel-0"
        assert why == "The message group a waits still: You may not. Run this again."
        assert office.there().total() == 1
        await drop(office, tmp_path / "kept")
        await office.handled()
        assert office.order == [1]

    scenario()


@pytest.mark.parametrize("after", [False, True], ids=["before a call", "after a call"])
def test_a_drop_that_is_killed_anywhere_loses_no_letter(tmp_path: Path, after: bool) -> None:
    calls = 1
    while _survives(calls, tmp_path / f"kept-{calls}", after=after):
        calls += 1
    assert calls > 5


def _survives(calls: int, file: Path, *, after: bool) -> bool:
    killed = False

    @timeless
    async def scenario() -> None:
        nonlocal killed
        office = Office(publishes=True)
        await pending_letter(office)
        await office.cloud.queues.send(office.dead_letters, [QueueEntry("{")])
        begun = sum(office.there().values())
        before = office.cloud.bus.calls["put"]
        try:
            await drop(office, file, ports=mortal(office.cloud.ports, [calls], after=after))
        except Killed:
            killed = True
        await asyncio.sleep(61)
        await drop(office, file)
        assert {line["body"] for line in written(file)} >= {"{"}
        assert len({line["body"] for line in written(file)}) == begun
        assert not office.there()
        assert office.cloud.bus.calls["put"] > before

    scenario()
    return killed


class _NoChanges:
    """A store that changes no item by itself."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def change(self, action: Any) -> None:
        raise Refused("You may not.")


class _Closed:
    """A bus that takes nothing."""

    async def require(self, bus: str) -> None:
        raise Refused("You may not describe it.")

    async def put(self, bus: str, entries: Any) -> Any:
        raise Refused("You may not put events.")
