"""A mill in a valley: the services of the tests here, and what they may be held to afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from headrace import Command, Entity, Event, Policy, Service, Transaction
from headrace.envelope import derived_id
from headrace.ports import Item, ItemKey, Store
from headrace.service import QueueSettings
from tests.integration.hosts.bodies import event


class SackWeighed(Event, source="valley.scale"):
    """The mill counts it in its hopper, and says two things about it."""

    hopper: str


class SackSeen(Event, source="valley.scale"):
    """The mill says the same two things, and counts nothing."""

    hopper: str


class DustSeen(Event, source="valley.scale"):
    """The mill says a command about it, and no event."""

    hopper: str


class FlourMilled(Event, source="valley.mill"):
    hopper: str
    sacks: int = 0


class SweepStones(Command, owner="broom"):
    hopper: str


class Hopper(Entity, pk="hopper#{name}"):
    name: str
    sacks: int = 0


Told: TypeAlias = SackWeighed | SackSeen | DustSeen
Said: TypeAlias = dict[tuple[str, str], set[str]]
"""What was said, in every wording, by the id of its cause and the name of its type."""

HANDLERS: Mapping[type[Told], str] = {
    SackWeighed: "grind",
    SackSeen: "announce",
    DustSeen: "tidy",
}
SAYS: Mapping[type[Told], tuple[str, ...]] = {
    SackWeighed: ("FlourMilled", "SweepStones"),
    SackSeen: ("FlourMilled", "SweepStones"),
    DustSeen: ("SweepStones",),
}


def a_mill(
    policy: Policy | None = None,
    *,
    visibility: timedelta = timedelta(seconds=60),
    receives: int = 40,
) -> Service:
    """The service under test. Its queue gives a message up after a good many receives, so that
    only one that never gets through is found among the dead letters."""
    settings = QueueSettings(visibility=visibility, max_receive_count=receives)
    mill = Service("mill", bus="valley", policy=policy, queues=settings)

    @mill.on(SackWeighed)
    async def grind(event: SackWeighed, tx: Transaction) -> list[FlourMilled | SweepStones]:
        hopper = await tx.get(Hopper, event.hopper) or Hopper(name=event.hopper)
        hopper.sacks += 1
        tx.put(hopper)
        flour = FlourMilled(hopper=hopper.name, sacks=hopper.sacks)
        return [flour, SweepStones(hopper=hopper.name)]

    @mill.on(SackSeen)
    async def announce(event: SackSeen) -> list[FlourMilled | SweepStones]:
        return [FlourMilled(hopper=event.hopper), SweepStones(hopper=event.hopper)]

    @mill.on(DustSeen)
    async def tidy(event: DustSeen) -> SweepStones:
        return SweepStones(hopper=event.hopper)

    return mill


bakery = Service("bakery", bus="valley", table=None)


@bakery.on(FlourMilled, idempotent=True)
async def bake(event: FlourMilled) -> None:
    pass


broom = Service("broom", bus="valley", table=None)


@broom.on(SweepStones, idempotent=True)
async def sweep(command: SweepStones) -> None:
    pass


def body_of(message: Told, id: str) -> str:
    """The message as EventBridge puts it into the mill's queue."""
    return event(message, id=id)


def cause_in(body: str) -> str:
    """The id of the event in a body that the mill received."""
    return str(json.loads(body)["detail"]["metadata"]["id"])


def said_in(bodies: Iterable[str]) -> Said:
    """What stands in the bodies that reached those whom the mill told something."""
    said: Said = {}
    for body in bodies:
        detail: dict[str, Any] = json.loads(body)["detail"]
        about = detail["metadata"]["causation_id"], detail["metadata"]["type"]
        said.setdefault(about, set()).add(json.dumps(detail, sort_keys=True))
    return said


def expected_of(told: Mapping[str, Told]) -> dict[tuple[str, str], str]:
    """What has to be said about these events, given by their ids, and under which id."""
    return {
        (id, name): derived_id(f"mill.{HANDLERS[type(message)]}", id, str(place))
        for id, message in told.items()
        for place, name in enumerate(SAYS[type(message)])
    }


def require_said_once(said: Said, told: Mapping[str, Told]) -> None:
    """Everything was said, and each thing in one wording and under one id, however often."""
    assert {about: words for about, words in said.items() if len(words) != 1} == {}
    assert ids_in(said) == expected_of(told)


def ids_in(said: Said) -> dict[tuple[str, str], str]:
    """The id under which each thing was said, where all of its wordings have one."""
    found = {about: set(map(_id_in, words)) for about, words in said.items()}
    return {about: ids.pop() for about, ids in found.items() if len(ids) == 1}


def _id_in(wording: str) -> str:
    return str(json.loads(wording)["metadata"]["id"])


def sacks_in(told: Iterable[Told]) -> dict[str, int]:
    """What has to stand in each hopper after these events."""
    counted: dict[str, int] = {}
    for message in told:
        counted.setdefault(message.hopper, 0)
        counted[message.hopper] += isinstance(message, SackWeighed)
    return counted


async def hoppers(store: Store, names: Iterable[str]) -> dict[str, int]:
    """What does stand in each."""
    keys = {name: ItemKey("mill", f"hopper#{name}", "-") for name in names}
    found = dict(zip(keys, await store.get(list(keys.values())), strict=True))
    return {name: int(item["sacks"]["N"]) if item else 0 for name, item in found.items()}


async def statuses(store: Store, told: Mapping[str, Told]) -> dict[str, str | None]:
    """The status of the inbox record of each event."""
    found: dict[str, str | None] = {}
    ids = list(told)
    for start in range(0, len(ids), 100):
        part = ids[start : start + 100]
        keys = [ItemKey("mill", _record_of(told[id], id), "-") for id in part]
        found |= {id: _status(item) for id, item in zip(part, await store.get(keys), strict=True)}
    return found


def _record_of(message: Told, id: str) -> str:
    return f"inbox#mill.{HANDLERS[type(message)]}#{id}"


def _status(item: Item | None) -> str | None:
    return None if item is None else str(item["status"]["S"])
