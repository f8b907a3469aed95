"""Looking at letters: what they are, why they are there, what they have in common."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace.dlq.groups import Selection, grouped
from headrace.dlq.holding import holding
from headrace.dlq.reasons import Logged, read_logs
from headrace.errors import Unreachable
from headrace.ports import Attribute, Delivery, Put, QueueEntry
from headrace.testing import delivery_of
from tests.unit.dlq.office import CAUSES, Office, ParcelPosted
from tests.unit.timeless import timeless

NOW = timedelta(0)


# --- groups ------------------------------------------------------------------------------


@timeless
async def test_letters_of_four_causes_are_four_groups() -> None:
    office = Office()
    await office.four_causes(5)

    groups = grouped(await office.letters())

    assert [len(group.letters) for group in groups] == [5] * CAUSES
    assert {group.example.error for group in groups} == {
        "RuntimeError",
        "PoisonMessage",
        "LookupError",
        "NotJson",
    }


@timeless
async def test_a_group_says_what_its_letters_have_in_common() -> None:
    office = Office()
    await office.post("address", "address")
    await office.handled()

    (group,) = grouped(await office.letters())
    said = group.as_json()

    assert group.cause == "LookupError in office.frank, ParcelPosted v2"
    assert said["count"] == 2
    assert said["frames"][-2:] == ["office.py:_fail", "office.py:_find_street"]
    assert said["reason"].endswith("LookupError: There is no street for 1.")
    assert said["first_time"] <= said["last_time"]


@timeless
async def test_letters_are_selected_by_group_id_event_and_handler() -> None:
    office = Office()
    await office.four_causes(1)
    letters = await office.letters()
    (poisoned,) = [letter for letter in letters if letter.error == "PoisonMessage"]
    group = await office.group_of("scale")

    def selected(**given: str) -> list[str | None]:
        return [letter.error for letter in letters if Selection(**given).takes(letter)]

    assert selected(group=group) == selected(group=group[:4]) == ["PoisonMessage"]
    assert selected(id=poisoned.id) == selected(id=poisoned.original_id) == ["PoisonMessage"]
    assert len(selected(event="ParcelPosted")) == 3
    assert len(selected(handler="frank")) == len(selected(handler="office.frank")) == 3
    assert selected(event="ParcelPosted", handler="audit") == []


# --- reasons -----------------------------------------------------------------------------


async def moved_by_sqs(office: Office) -> str:
    """A message that was received too often without anybody saying anything; its id."""
    await office.post("none")
    taken: list[Delivery] = []
    for _ in range(4):
        taken = await office.cloud.queues.receive(
            office.queue, limit=1, wait=NOW, visibility=timedelta(seconds=1)
        )
        await asyncio.sleep(2)
    assert not taken
    (letter,) = await office.letters()
    return letter.id


async def stands(office: Office, **attributes: Any) -> None:
    record = {
        "pk": {"S": "inbox#office.frank#parcel-0"},
        "sk": {"S": "-"},
        "commit_id": {"S": "c-1"},
        **attributes,
    }
    await office.cloud.store.write([Put("office", record)])


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "has not committed it"),
        ({"status": {"S": "done"}}, "has done it"),
        (
            {"status": {"S": "pending"}},
            "committed it: its effects stand, its messages may not be out",
        ),
        ({"status": {"S": "leased"}, "failures": {"N": "4"}}, "failed 4 times under its lease"),
        ({"status": {"S": "done"}, "expires_at": {"N": "1"}}, "has not committed it"),
    ],
    ids=["none", "done", "pending", "leased", "expired"],
)
def test_what_sqs_moved_by_itself_has_a_reason_from_its_record(record: Any, said: str) -> None:
    @timeless
    async def scenario() -> None:
        office = Office()
        await moved_by_sqs(office)
        if record is not None:
            await stands(office, **record)

        (letter,) = await office.letters()

        assert letter.reconstructed
        assert letter.reason.startswith("SQS moved it after 3 receives, and nobody wrote down why.")
        assert f"office.frank {said}" in letter.reason

    scenario()


@timeless
async def test_what_sqs_moved_by_itself_keeps_its_id_by_which_the_logs_know_it() -> None:
    office = Office()
    id = await moved_by_sqs(office)
    lines = [
        "not JSON",
        json.dumps({"message_id": id, "level": "WARNING", "message": "an earlier one"}),
        json.dumps(
            {
                "message_id": id,
                "level": "ERROR",
                "message": "It ended.",
                "exception": {"type": "shop.errors.NoStock", "message": "none", "stack": "…"},
            }
        ),
        json.dumps({"message_id": id, "level": "INFO", "message": "a later one"}),
        json.dumps({"message_id": "another", "level": "ERROR", "message": "not this"}),
    ]

    (letter,) = await office.letters(read_logs(lines))

    assert letter.reason.endswith("The last in the logs: It ended.")
    assert letter.error == "NoStock"
    assert (letter.original_id, letter.reconstructed) == (id, True)


@timeless
async def test_a_reason_that_was_written_down_is_left_as_it_is() -> None:
    office = Office()
    await office.post("scale")
    await office.handled()
    (before,) = await office.letters()

    (letter,) = await office.letters({before.original_id: Logged("something else")})

    assert (letter.reason, letter.reconstructed) == ("Parcel 0 is lighter than air.", False)


@timeless
async def test_a_note_that_somebody_else_wrote_is_no_reason() -> None:
    office = Office()
    body = delivery_of(ParcelPosted(number=0), office.queue).body
    for note in ("{", "[1]", '{"reason": 5, "frames": "x", "attempts": true, "first_time": "x"}'):
        entry = QueueEntry(body, attributes={"headrace": Attribute(note)})
        await office.cloud.queues.send(office.dead_letters, [entry])

    letters = await office.letters()

    assert [letter.reconstructed for letter in letters] == [True] * 3
    assert {(letter.note.frames, letter.note.attempts) for letter in letters} == {((), None)}


@timeless
async def test_a_letter_without_room_for_a_note_is_not_said_to_be_moved_by_sqs() -> None:
    office = Office()
    body = delivery_of(ParcelPosted(number=0, fault="scale"), office.queue, id="parcel-0").body
    crowd = {f"a{number}": Attribute("x") for number in range(10)}
    await office.cloud.queues.send(office.queue, [QueueEntry(body, attributes=crowd)])
    await office.handled()

    (letter,) = await office.letters()

    assert letter.reason.startswith("It has no room for a note: headrace gave it up, or SQS")


# --- holding -----------------------------------------------------------------------------


@timeless
async def test_letters_are_hidden_while_they_are_looked_at_and_seen_again_after() -> None:
    office = Office()
    await office.four_causes(4)
    queues = office.cloud.ports.queues

    async with holding(queues, office.dead_letters, visibility=timedelta(seconds=9)) as held:
        assert len(await held.fill()) == 16
        await asyncio.sleep(100)
        assert await queues.receive(office.dead_letters, limit=10, wait=NOW) == []

    assert (await queues.depth(office.dead_letters)).visible == 16


@timeless
async def test_letters_are_given_back_when_what_looks_at_them_fails() -> None:
    office = Office()
    await office.post("scale")
    await office.handled()
    queues = office.cloud.ports.queues

    async def look() -> None:
        async with holding(queues, office.dead_letters) as held:
            await held.fill()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await look()

    assert (await queues.depth(office.dead_letters)).visible == 1


@timeless
async def test_letters_are_given_back_when_what_looks_at_them_is_interrupted() -> None:
    office = Office()
    await office.post("scale")
    await office.handled()
    queues, reading = office.cloud.ports.queues, asyncio.Event()

    async def look() -> None:
        async with holding(queues, office.dead_letters) as held:
            await held.fill()
            reading.set()
            await asyncio.sleep(3600)

    looking = asyncio.create_task(look())
    await reading.wait()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)

    assert (await queues.depth(office.dead_letters)).visible == 1


@timeless
async def test_what_somebody_else_hides_is_counted() -> None:
    office = Office()
    await office.post("scale", "scale", "scale")
    await office.handled()
    queues = office.cloud.ports.queues
    await queues.receive(office.dead_letters, limit=2, wait=NOW)

    async with holding(queues, office.dead_letters) as held:
        assert (len(await held.fill()), held.elsewhere) == (1, 2)


@timeless
async def test_no_more_letters_are_held_than_are_wanted() -> None:
    office = Office()
    await office.post("scale", times=25)
    await office.handled()

    async with holding(office.cloud.ports.queues, office.dead_letters, most=10) as held:
        assert (len(await held.fill()), held.full) == (10, True)


@timeless
async def test_letters_behind_others_of_their_message_group_are_counted() -> None:
    office = Office(fifo=True)
    await office.post("scale", times=12, group="a")
    await office.handled()
    await office.post("scale", group="b")
    await office.handled()

    async with holding(office.cloud.ports.queues, office.dead_letters) as held:
        assert (len(await held.fill()), held.behind) == (11, 2)


@timeless
async def test_a_failure_to_give_back_is_no_failure_of_what_was_looked_at() -> None:
    office = Office()
    await office.post("scale")
    await office.handled()
    queues: Any = _Stuck(office.cloud.ports.queues)
    ports = replace(office.cloud.ports, queues=queues)

    async with holding(ports.queues, office.dead_letters) as held:
        assert len(await held.fill()) == 1

    await asyncio.sleep(61)
    assert len(await office.letters()) == 1


@timeless
async def test_letters_stay_hidden_although_a_renewal_raised_what_nobody_expects() -> None:
    office = Office()
    await office.post("scale")
    await office.handled()
    queues: Any = _Renewals(office.cloud.ports.queues, broken=1)

    async with holding(queues, office.dead_letters, visibility=timedelta(seconds=9)) as held:
        await held.fill()
        await asyncio.sleep(100)
        taken = await office.cloud.queues.receive(office.dead_letters, limit=10, wait=NOW)

    assert taken == []


@timeless
async def test_a_renewal_on_its_way_comes_before_what_gives_the_letters_back() -> None:
    office = Office()
    await office.post("scale", times=3)
    await office.handled()
    queues: Any = _Renewals(office.cloud.ports.queues, slow=1.0)

    async with holding(queues, office.dead_letters, visibility=timedelta(seconds=9)) as held:
        await held.fill()
        await queues.begun.wait()
        await held.give_back()
        assert queues.arrived == [timedelta(seconds=9), NOW]


@timeless
async def test_a_renewal_on_its_way_comes_before_the_end_of_looking() -> None:
    office = Office()
    await office.post("scale", times=3)
    await office.handled()
    queues: Any = _Renewals(office.cloud.ports.queues, slow=1.0)

    async with holding(queues, office.dead_letters, visibility=timedelta(seconds=9)) as held:
        await held.fill()
        await queues.begun.wait()

    assert queues.arrived == [timedelta(seconds=9), NOW]


@timeless
async def test_what_was_received_before_a_look_failed_is_not_lost_to_it() -> None:
    office = Office()
    await office.post("scale")
    await office.handled()
    queues: Any = _SecondReceiveFails(office.cloud.ports.queues)

    async with holding(queues, office.dead_letters) as held:
        assert len(await held.look()) == 1


class _SecondReceiveFails:
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._receives = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def receive(self, queue: str, **options: Any) -> Any:
        self._receives += 1
        if self._receives == 2:
            raise Unreachable("No answer.")
        return await self._inner.receive(queue, **options)


class _Renewals:
    """Queues to which a renewal is on its way for some seconds, whoever stops waiting for it, or
    where the first so many raise something."""

    def __init__(self, inner: Any, *, slow: float = 0, broken: int = 0) -> None:
        self._inner = inner
        self._slow = slow
        self._broken = broken
        self.begun = asyncio.Event()
        self.arrived: list[timedelta] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def change_visibility(self, queue: str, changes: Any) -> Any:
        ((_, time), *_) = changes
        if time and self._broken:
            self._broken -= 1
            raise ZeroDivisionError
        return await asyncio.shield(self._carried(queue, changes, time))

    async def _carried(self, queue: str, changes: Any, time: timedelta) -> Any:
        if time:
            self.begun.set()
            await asyncio.sleep(self._slow)
        self.arrived.append(time)
        return await self._inner.change_visibility(queue, changes)


class _Stuck:
    """Queues in which no visibility can be changed."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def change_visibility(self, queue: str, changes: Any) -> Any:
        raise Unreachable("No answer.")
