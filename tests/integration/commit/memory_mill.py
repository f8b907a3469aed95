"""The mill in memory, where time passes at a word, and ports of it that fail as they are told."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final, TypeAlias, TypeVar
from uuid import UUID

from headrace import Ack, Backoff, Outcome, Policy, Retry
from headrace.batch import Batch
from headrace.observer import Unobserved
from headrace.pipeline import running
from headrace.ports import Bus, BusEntry, Delivery, EntryFailure, Ports, QueueEntry, Queues
from headrace.settle import Settler
from headrace.testing import ManualClock, MemoryCloud, SeededRandomness, memory_ports
from headrace.topology.derive import topology
from headrace.turns import Turns
from tests.integration.commit.mill import (
    Said,
    Told,
    a_mill,
    bakery,
    body_of,
    broom,
    cause_in,
    expected_of,
    hoppers,
    require_said_once,
    sacks_in,
    said_in,
    statuses,
)

BACKOFF: Final = Backoff(base=timedelta(seconds=2), cap=timedelta(minutes=5))
LONG: Final = timedelta(hours=6)
"""Virtual time after which a mill that is still not done never will be."""

EntryT = TypeVar("EntryT")


class Chance:
    """Seeded chance that cuts the waits within a delivery, which are real ones, to nothing. Delays
    between deliveries are virtual: they are drawn from a span of at least the backoff's base."""

    def __init__(self, seed: int) -> None:
        self._seeded = SeededRandomness(seed)

    def uuid(self) -> UUID:
        return self._seeded.uuid()

    def uniform(self, low: float, high: float) -> float:
        return low if high < BACKOFF.base.total_seconds() else self._seeded.uniform(low, high)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One delivery and what became of it."""

    delivery: Delivery
    outcome: Outcome
    at: datetime


class MemoryMill:
    """A mill that is handed what is in its queue, turn by turn, on ports that a test may replace
    by others around them before it opens the mill."""

    def __init__(self, *, seed: int = 0, receives: int = 40) -> None:
        self.service = a_mill(Policy(backoff=BACKOFF), receives=receives)
        self.cloud: MemoryCloud[ManualClock] = memory_ports(randomness=Chance(seed))
        self.cloud.provision(topology(self.service, bakery, broom))
        self.told: dict[str, Told] = {}
        self.attempts: list[Attempt] = []
        self.deletes = Deletes(self)
        self.ports: Ports = replace(self.cloud.ports, queues=self.deletes)

    def replace(self, **ports: Any) -> None:
        """Put others in the place of some ports."""
        self.ports = replace(self.ports, **ports)

    async def tell(self, **told: Told) -> None:
        """Put events into the mill's queue, by their ids."""
        for id, message in told.items():
            entry = QueueEntry(body_of(message, id))
            assert await self.cloud.queues.send("mill", [entry]) == []
        self.told |= told

    async def redrive(self) -> None:
        """Put every dead letter back into the queue, as `StartMessageMoveTask` does."""
        letters = await self.cloud.queues.receive("mill-dlq", limit=10, wait=timedelta(0))
        for letter in letters:
            assert await self.cloud.queues.send("mill", [QueueEntry(letter.body)]) == []
            assert await self.cloud.queues.delete("mill-dlq", [letter.receipt_handle]) == []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[OpenMill]:
        async with running(self.service, self.ports) as pipeline:
            settler = Settler(
                self.ports.queues, self.ports.clock, self.ports.randomness, deletes=True, linger=0
            )
            batch = Batch(
                self.service.name,
                pipeline.consume,
                settler.settle,
                turns=Turns(),
                observer=Unobserved(),
            )
            yield OpenMill(self, batch, settler)
            await settler.flush()

    async def run(self) -> None:
        """Open the mill until its queue is empty."""
        async with self.open() as opened:
            await opened.until_done()

    def left(self) -> list[str]:
        """The causes of what is still in the queue."""
        return [cause_in(entry.body) for entry in self.cloud.queues.peek("mill")]

    def dead_letters(self) -> list[QueueEntry]:
        return self.cloud.queues.peek("mill-dlq")

    def said(self) -> Said:
        """What has reached the bakery and the broom so far."""
        queues = self.cloud.queues
        entries = [*queues.peek("bakery"), *queues.peek("broom")]
        return said_in(entry.body for entry in entries)

    def retries(self) -> dict[str, list[tuple[int, timedelta]]]:
        """Receive count and delay of each delivery of a cause that is to come again."""
        found: dict[str, list[tuple[int, timedelta]]] = defaultdict(list)
        for each in self.attempts:
            if isinstance(each.outcome, Retry):
                assert each.outcome.delay is not None
                said = each.delivery.receive_count, each.outcome.delay
                found[cause_in(each.delivery.body)].append(said)
        return found

    async def require_effects_once(self, *, marked: bool = True) -> None:
        """Every counter is exact, everything is out under one id, and nothing was deleted before
        it was. Where the done-marks were let through, every record is `marked`."""
        expected = sacks_in(self.told.values())
        assert await hoppers(self.cloud.store, expected) == expected
        require_said_once(self.said(), self.told)
        assert self.deletes.early == []
        assert (self.left(), self.dead_letters()) == ([], [])
        found = set((await statuses(self.cloud.store, self.told)).values())
        assert found == {"done"} if marked else found <= {"done", "pending"}


@dataclass(slots=True)
class OpenMill:
    mill: MemoryMill
    batch: Batch
    settler: Settler

    async def turn(self) -> list[Attempt]:
        """Receive all that can be received now, and carry it through."""
        deliveries: list[Delivery] = []
        queues, clock = self.mill.ports.queues, self.mill.cloud.clock
        while found := await queues.receive("mill", limit=10, wait=timedelta(0)):
            deliveries += found
        outcomes = await self.batch.run(deliveries)
        await self.settler.flush()
        attempts = [Attempt(d, outcomes[d.message_id], clock.now()) for d in deliveries]
        self.mill.attempts += attempts
        return attempts

    async def until_done(self) -> None:
        """Turn after turn, each when the next message is due, until the queue is empty."""
        clock = self.mill.cloud.clock
        end = clock.now() + LONG
        while self.mill.left():
            await self.turn()
            # SQS counts in whole seconds.
            clock.advance(timedelta(seconds=ceil((self._next_due() - clock.now()).total_seconds())))
            assert clock.now() < end, f"{self.mill.left()} are still in the queue"

    def _next_due(self) -> datetime:
        """The earliest time at which something is to come again: after the delay that was asked
        for or, where that was not heard, when the visibility ends."""
        now = self.mill.cloud.clock.now()
        visibility = self.mill.service.queue_settings.visibility
        asked = [a.at + _delay_of(a.outcome) for a in self.mill.attempts]
        ends = [a.at + visibility for a in self.mill.attempts]
        return min((at for at in [*asked, *ends] if at > now), default=now)


def _delay_of(outcome: Outcome) -> timedelta:
    return outcome.delay or timedelta(0) if isinstance(outcome, Retry) else timedelta(0)


class Deletes:
    """The mill's queues, which note whose message is deleted before all that it causes is out."""

    def __init__(self, mill: MemoryMill) -> None:
        self.early: list[str] = []
        self._mill = mill
        self._causes: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mill.cloud.queues, name)

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        deliveries = await self._mill.cloud.queues.receive(queue, **how)
        self._causes |= {d.receipt_handle: cause_in(d.body) for d in deliveries}
        return deliveries

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        said = self._mill.said()
        causes = {self._causes[receipt] for receipt in receipts}
        told = {cause: self._mill.told[cause] for cause in causes}
        self.early += [cause for cause, _ in set(expected_of(told)) - set(said)]
        return await self._mill.cloud.queues.delete(queue, receipts)


# --- ports that fail -------------------------------------------------------------------


Refuse: TypeAlias = Callable[[str], str | None]
"""The code with which an entry is refused, by the text of what it holds; `None` takes it."""

RETRYABLE: Final = frozenset({"ThrottlingException", "InternalFailure"})


@dataclass(slots=True)
class PartialBus:
    """Takes some entries of a call and refuses others. `refused` are the details of those."""

    inner: Bus
    refuse: Refuse
    refused: list[str] = field(default_factory=list)

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        failures = _failures([self.refuse(entry.detail) for entry in entries])
        self.refused += [entries[failure.index].detail for failure in failures]
        if taken := _others(entries, failures):
            assert await self.inner.put(bus, taken) == []
        return failures

    async def require(self, bus: str) -> None:
        await self.inner.require(bus)


@dataclass(slots=True)
class PartialQueues:
    """Takes some entries that are sent to `queue` and refuses others. `refused` are the bodies of
    those."""

    inner: Queues
    queue: str
    refuse: Refuse
    refused: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        refusals = [self.refuse(entry.body) if queue == self.queue else None for entry in entries]
        failures = _failures(refusals)
        self.refused += [entries[failure.index].body for failure in failures]
        if taken := _others(entries, failures):
            assert await self.inner.send(queue, taken) == []
        return failures


def _failures(codes: Sequence[str | None]) -> list[EntryFailure]:
    return [
        EntryFailure(index, code, "Not now.", retryable=code in RETRYABLE)
        for index, code in enumerate(codes)
        if code is not None
    ]


def _others(entries: Sequence[EntryT], failures: Sequence[EntryFailure]) -> list[EntryT]:
    refused = {failure.index for failure in failures}
    return [entry for index, entry in enumerate(entries) if index not in refused]


Fail: TypeAlias = Callable[[str], Exception | None]
"""What a call raises, by the name of the port's method; `None` lets it through."""


class Failing:
    """A port whose calls fail when `fail` says so: before they take place or, if `late`, after.
    `failed` counts them by method."""

    def __init__(self, port: Any, fail: Fail, *, late: bool = False) -> None:
        self.failed: Counter[str] = Counter()
        self._port = port
        self._fail = fail
        self._late = late

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            error = self._fail(name)
            if error is None:
                return await method(*args, **kwargs)
            self.failed[name] += 1
            if self._late:
                await method(*args, **kwargs)
            await asyncio.sleep(0)
            raise error

        return call


def acked(attempts: Sequence[Attempt]) -> set[str]:
    """The causes of what was done."""
    return {cause_in(a.delivery.body) for a in attempts if isinstance(a.outcome, Ack)}
