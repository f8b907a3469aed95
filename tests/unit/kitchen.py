"""A service on a worker, in an account on the loop's time, and all that SQS is asked meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

from headrace import Delivery, Entity, Event, Outcome, Policy, Service, Transaction
from headrace.hosts.pulse import Pulse
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import Worker
from headrace.observer import Unobserved
from headrace.pipeline import running
from headrace.ports import Clock, EntryFailure, QueueDepth, QueueEntry, Queues
from headrace.service import QueueSettings
from headrace.testing import delivery_of
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from headrace.topology.model import dead_letter_queue
from tests.crash.skipping import LoopClock, SkippingLoop

VISIBILITY = timedelta(seconds=30)
"""As far as a test says nothing else."""

_VAIN = 20 * 3600.0
"""Virtual seconds after which a test that waits in vain is ended."""


class DishOrdered(Event, source="kitchen.pass"):
    number: int


class Dish(Entity, pk="dish#{number}"):
    number: int
    served: int = 0


Cook: TypeAlias = Callable[[DishOrdered, Delivery], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: when, of which method, about how many, and for how long each is to be hidden."""

    at: float
    method: str
    count: int
    hidden: tuple[float, ...] = ()


class Noted:
    """Queues that keep every call in mind, and every delivery that they gave."""

    def __init__(self, inner: Queues) -> None:
        self.inner = inner
        self.calls: list[Asked] = []
        self.received: list[Delivery] = []

    def of(self, method: str) -> list[Asked]:
        return [call for call in self.calls if call.method == method]

    def at(self, method: str) -> list[float]:
        """When, to a tenth of a second."""
        return [round(call.at, 1) for call in self.of(method)]

    def note(self, method: str, count: int, hidden: Iterable[timedelta] = ()) -> None:
        seconds = tuple(each.total_seconds() for each in hidden)
        self.calls.append(Asked(now(), method, count, seconds))

    async def receive(
        self, queue: str, *, limit: int, wait: timedelta, visibility: timedelta | None = None
    ) -> list[Delivery]:
        self.note("receive", limit)
        found = await self.inner.receive(queue, limit=limit, wait=wait, visibility=visibility)
        self.received += found
        return found

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        self.note("send", len(entries))
        return await self.inner.send(queue, entries)

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        self.note("delete", len(receipts))
        return await self.inner.delete(queue, receipts)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        self.note("change_visibility", len(changes), (hidden for _, hidden in changes))
        return await self.inner.change_visibility(queue, changes)

    async def depth(self, queue: str) -> QueueDepth:
        return await self.inner.depth(queue)


class Longest:
    """Chance that draws no delay short, so that a test can tell them apart."""

    def uuid(self) -> UUID:
        return uuid4()

    def uniform(self, low: float, high: float) -> float:
        return high


@dataclass(slots=True)
class Shift(Unobserved):
    """One worker at work, and what became of its deliveries."""

    queues: Noted
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: list[tuple[Delivery, Outcome]] = field(default_factory=list)
    begun: int = 0
    work: asyncio.Task[None] = field(init=False)
    worker: Worker = field(init=False)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pulse(self) -> Pulse:
        return self.worker.pulses[0]

    def received(self, service: str, delivery: Delivery) -> None:
        self.begun += 1
        self.changed.set()

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self.outcomes.append((delivery, outcome))
        self.changed.set()

    async def begins(self, count: int = 1) -> None:
        """Until so many have been given to their handler."""
        await self._until(lambda: self.begun >= count)

    async def settles(self, count: int = 1) -> None:
        """Until so many that were given to their handler are settled."""
        await self._until(lambda: len(self.outcomes) >= count)

    async def ends(self) -> float:
        """Stop it; returns how many seconds that took."""
        told = now()
        self.stop.set()
        await self.work
        return now() - told

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(_VAIN):
            while not reached():
                self.changed.clear()
                await self.changed.wait()


class Kitchen:
    """A service that cooks what is ordered, and counts in an entity how often it was served."""

    def __init__(
        self,
        cook: Cook,
        *,
        fifo: bool = False,
        clock: Clock | None = None,
        policy: Policy | None = None,
        max_receive_count: int = 10,
    ) -> None:
        settings = QueueSettings(visibility=VISIBILITY, max_receive_count=max_receive_count)
        self.service = Service("kitchen", policy=policy, queues=settings)
        self.begun: list[int] = []
        self.running = self.most_running = 0

        @self.service.on(DishOrdered, queue="lane.fifo" if fifo else None)
        async def serve(event: DishOrdered, delivery: Delivery, tx: Transaction) -> None:
            await self._cooked(cook, event, delivery)
            dish = await tx.get(Dish, event.number) or Dish(number=event.number)
            tx.put(dish.model_copy(update={"served": dish.served + 1}))

        self.cloud: MemoryCloud[Any] = memory_ports(clock=clock or LoopClock())
        self.cloud.provision(topology(self.service))

    @property
    def queue(self) -> str:
        return self.service.queues[0]

    async def _cooked(self, cook: Cook, event: DishOrdered, delivery: Delivery) -> None:
        self.begun.append(event.number)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await cook(event, delivery)
        finally:
            self.running -= 1

    async def order(self, *numbers: int, group: str | None = None) -> None:
        for number in numbers:
            body = delivery_of(DishOrdered(number=number), self.queue, id=f"d-{number}").body
            await self.cloud.queues.send(self.queue, [QueueEntry(body, group_id=group)])

    async def spoil(self, count: int) -> None:
        """So many messages that nobody can read."""
        await self.cloud.queues.send(self.queue, [QueueEntry(f"no {n}") for n in range(count)])

    @asynccontextmanager
    async def working(
        self, queues: Noted | None = None, *, randomness: Any = None, **settings: Any
    ) -> AsyncIterator[Shift]:
        """A worker, which is stopped at the end of the block; `settings` are its own."""
        shift = Shift(queues or self.noted())
        ports = replace(self.cloud.ports, queues=shift.queues)
        if randomness is not None:
            ports = replace(ports, randomness=randomness)
        async with running(self.service, ports) as pipeline:
            shift.worker = Worker([pipeline], settings=WorkerSettings(**settings), observer=shift)
            shift.work = asyncio.create_task(shift.worker.run(shift.stop, shift.hurry))
            try:
                yield shift
            finally:
                await shift.ends()

    def noted(self) -> Noted:
        return Noted(self.cloud.queues)

    async def served(self) -> dict[int, int]:
        """How often each dish was, by its number."""
        items = self.cloud.store.items("kitchen")
        return {
            int(item["number"]["N"]): int(item["served"]["N"]) for item in items if "served" in item
        }

    async def left(self) -> tuple[int, int]:
        """How many messages can be received, and how many are hidden."""
        depth = await self.cloud.queues.depth(self.queue)
        return depth.visible, depth.in_flight

    def dead_letters(self) -> int:
        return len(self.cloud.queues.peek(dead_letter_queue(self.queue)))


async def at_once(event: DishOrdered, delivery: Delivery) -> None:
    """A dish that takes no time."""


def taking(seconds: float) -> Cook:
    """Dishes that take so long."""

    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        await asyncio.sleep(seconds)

    return cook


async def burning(event: DishOrdered, delivery: Delivery) -> None:
    raise OSError("the oven is out of order: secret-4711")


def now() -> float:
    return asyncio.get_running_loop().time()


def pause(seconds: float) -> None:
    """The whole process is held up for so long, as by a laptop's lid."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    loop._skipping.skipped += seconds
