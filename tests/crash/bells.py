"""A bell tower: one pull at a rope rings a bell once, says so, and has it written down.

Each service is the same tower with another kind of handler. What they say and command goes to
the chronicle, where a test finds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from typing import Any

from pydantic import Field

from headrace import (
    Command,
    ConditionNotMet,
    Entity,
    Event,
    PoisonMessage,
    Service,
    Transaction,
)
from headrace.codec import Codec
from headrace.middleware import Call, Invocation
from headrace.policy import Policy
from headrace.saga import Saga, step
from headrace.service import QueueSettings
from tests.crash.troubles import in_trouble


class RopePulled(Event, source="crash.ringer"):
    pull: str
    bell: str


class BellRang(Event, source="crash.tower"):
    pull: str


class WriteDown(Command, owner="chronicle"):
    pull: str


class Toll(Command, owner="chronicle"):
    pull: str


class BellTolled(Event, source="crash.chronicle"):
    pull: str


class Bell(Entity, pk="bell#{bell}"):
    bell: str
    rings: int = 0
    heard: list[str] = Field(default_factory=list)


class Ring(Entity, pk="ring#{pull}"):
    pull: str
    times: int = 0


A_MOMENT = timedelta(seconds=10)
A_WHILE = timedelta(minutes=16)
"""Further ahead than the 15 minutes for which a queue can hide a message."""


# --- handlers --------------------------------------------------------------------------


async def ring(event: RopePulled, tx: Transaction) -> list[BellRang | WriteDown]:
    bell = await tx.get(Bell, event.bell) or Bell(bell=event.bell)
    # Read, so that a second run would write it again: nothing but the record is in the way.
    again = await tx.get(Ring, event.pull) or Ring(pull=event.pull)
    _ring(bell, again, event, tx)
    return _said(event)


async def ring_tersely(event: RopePulled, tx: Transaction) -> BellRang:
    """One message, as most handlers send."""
    await ring(event, tx)
    return BellRang(pull=event.pull)


async def ring_after_looking(event: RopePulled, tx: Transaction) -> list[BellRang | WriteDown]:
    """With the other kinds of reads."""
    bells = await tx.query(Bell, event.bell)
    (again,) = await tx.get_many(Ring, [event.pull])
    bell = next(iter(bells), Bell(bell=event.bell))
    _ring(bell, again or Ring(pull=event.pull), event, tx)
    return _said(event)


async def ring_unseen(event: RopePulled, tx: Transaction) -> list[BellRang | WriteDown]:
    """Without a read, and first under a condition that does not hold."""
    try:
        _update(event, tx, condition="#rings < :none", values={"none": 0})
    except ConditionNotMet:
        _update(event, tx)
    tx.update(Ring, event.pull, change="ADD #times :one", values={"one": 1})
    return _said(event)


async def ring_anyhow(event: RopePulled, tx: Transaction) -> None:
    """Twice does no harm, and nobody is told."""
    bell = await tx.get(Bell, event.bell) or Bell(bell=event.bell)
    again = await tx.get(Ring, event.pull) or Ring(pull=event.pull)
    bell.rings, bell.heard, again.times = 1, [event.pull], 1
    tx.put(bell, again)


def ring_plainly(event: RopePulled, tx: Transaction) -> list[BellRang | WriteDown]:
    """A plain function, which cannot await a read."""
    _ring(Bell(bell=event.bell), Ring(pull=event.pull), event, tx)
    return _said(event)


async def say(event: RopePulled, tx: Transaction) -> list[BellRang | WriteDown]:
    """Nothing is written but the record, if there is one."""
    rang, write_down = _said(event)
    tx.publish(rang)
    return [write_down]


async def ring_and_remind(event: RopePulled, tx: Transaction) -> BellRang:
    """What is to be written down is due later than a queue could hide it."""
    await ring(event, tx)
    tx.schedule(WriteDown(pull=event.pull), at=tx.now + A_WHILE, name=f"later-{event.pull}")
    tx.unschedule(f"never-{event.pull}")
    return BellRang(pull=event.pull)


async def ring_and_remind_soon(event: RopePulled, tx: Transaction) -> BellRang:
    """It waits in its queue, hidden."""
    await ring(event, tx)
    tx.schedule(WriteDown(pull=event.pull), at=tx.now + A_MOMENT, name=f"soon-{event.pull}")
    return BellRang(pull=event.pull)


async def turn_away(event: RopePulled, tx: Transaction) -> list[BellRang | WriteDown]:
    await ring(event, tx)
    raise PoisonMessage("Nobody may pull here.")


async def turn_the_first_away(event: RopePulled, tx: Transaction) -> list[BellRang | WriteDown]:
    """Pulls are numbered from 0 in their group."""
    said = await ring(event, tx)
    if event.pull.endswith(".0"):
        raise PoisonMessage("The first may not pull here.")
    return said


async def crack(event: RopePulled, tx: Transaction) -> list[BellRang | WriteDown]:
    await ring(event, tx)
    raise ValueError("The bell is cracked.")


def _ring(bell: Bell, ring: Ring, event: RopePulled, tx: Transaction) -> None:
    bell.rings += 1
    bell.heard = [*bell.heard, event.pull]
    ring.times += 1
    tx.put(bell, ring)


def _update(
    event: RopePulled,
    tx: Transaction,
    *,
    condition: str | None = None,
    values: dict[str, int] | None = None,
) -> None:
    tx.update(
        Bell,
        event.bell,
        change="ADD #rings :one SET #heard = list_append(if_not_exists(#heard, :nobody), :pull)",
        condition=condition,
        values={"one": 1, "nobody": [], "pull": [event.pull], **(values or {})},
    )


def _said(event: RopePulled) -> list[BellRang | WriteDown]:
    return [BellRang(pull=event.pull), WriteDown(pull=event.pull)]


# --- services --------------------------------------------------------------------------


async def handling(invocation: Invocation, call_next: Call) -> Any:
    """The middleware that lets a handler be in trouble."""
    return await in_trouble("handle", call_next, invocation)


@asynccontextmanager
async def ropes() -> AsyncIterator[None]:
    yield


class Tower(Service):
    """A service that makes its codecs once, however many consumers of it come and go: they would
    be most of the time of a life."""

    @cache  # noqa: B019 - a tower lives as long as its module
    def codec(self, queue: str) -> Codec:
        return super().codec(queue)


def tower(
    name: str,
    handler: Callable[..., Any],
    *,
    group_commit: bool = True,
    receives: int = 20,
    **options: Any,
) -> Service:
    """A service with one handler, `ring`; `options` are those of `Service.on`."""
    service = tower_without_handler(name, group_commit=group_commit, receives=receives)
    service.on(RopePulled, name="ring", **options)(handler)
    return service


def tower_without_handler(name: str, *, group_commit: bool = True, receives: int = 20) -> Service:
    return Tower(
        name,
        bus="crash",
        resources=ropes,
        middleware=(handling,),
        # Longer than a test may take: nothing comes again but when the test wants it.
        queues=QueueSettings(visibility=timedelta(minutes=10), max_receive_count=receives),
        group_commit=group_commit,
    )


LEASE = timedelta(seconds=30)

belfry = tower("belfry", ring)
in_line = tower("in-line", ring, queue="rope.fifo")
alone = tower("alone", ring, group_commit=False)
terse = tower("terse", ring_tersely)
looking = tower("looking", ring_after_looking)
unseen = tower("unseen", ring_unseen)
plain = tower("plain", ring_plainly)
anyhow = tower("anyhow", ring_anyhow, idempotent=True)
saying = tower("saying", say)
repeating = tower("repeating", say, idempotent=True)
closed = tower("closed", turn_away)
hurried = tower("hurried", ring, timeout=timedelta(seconds=5))
leased = tower("leased", ring, lease=LEASE)
awaiting = tower("awaiting", ring, lease=LEASE, on_held="wait")
cracked = tower("cracked", crack, lease=LEASE, policy=Policy(attempts=2))
in_waiting = tower("in-waiting", turn_the_first_away, queue="rope.fifo", park=True)
impatient = tower("impatient", turn_the_first_away, receives=3, queue="rope.fifo", park=True)
barred = tower("barred", turn_away, lease=LEASE)
reminding = tower("reminding", ring_and_remind, emits=[WriteDown])
reminding_soon = tower("reminding-soon", ring_and_remind_soon, emits=[WriteDown])
briefly = tower("briefly", ring, lease=timedelta(seconds=1))

chronicle = Service("chronicle", bus="crash")

pealing = tower_without_handler("pealing")
dozing = tower_without_handler("dozing")


class Peal(Saga, service=pealing, starts_on=RopePulled, key="pull", name="ring"):
    """One that nobody answers: it wakes by its timer, and writes down that it is undone."""

    pull: str

    @classmethod
    def begin(cls, event: RopePulled) -> Peal:
        return cls(pull=event.pull)

    @step()
    def ring(self) -> BellRang:
        return BellRang(pull=self.pull)

    @step(done=BellTolled, timeout=A_MOMENT)
    def toll(self) -> Toll:
        return Toll(pull=self.pull)

    @toll.undo()
    def write_down(self) -> WriteDown:
        return WriteDown(pull=self.pull)


@chronicle.on(BellRang, WriteDown, idempotent=True)
async def keep(event: BellRang | WriteDown) -> None: ...


@chronicle.on(Toll, idempotent=True)
async def stay_silent(command: Toll) -> None: ...


class Doze(Saga, service=dozing, starts_on=BellTolled, key="pull", name="ring"):
    """Nothing ever begins one, so no answer finds it."""

    pull: str

    @classmethod
    def begin(cls, event: BellTolled) -> Doze:
        return cls(pull=event.pull)

    @step(done=RopePulled, timeout=A_MOMENT)
    def toll(self) -> Toll:
        return Toll(pull=self.pull)
