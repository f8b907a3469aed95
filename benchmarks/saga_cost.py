"""What a saga costs in calls and write units: `python -m benchmarks.saga_cost`.

A service with a saga runs in the worker, on ports in memory that count; those that answer it run
beside it, and are not counted. A step is a command that is answered: what the saga commits, sends,
receives and deletes for it. Alone is one saga after the other; together are all at once, and share
their calls. Index units are those of the index that lists sagas and their history. Not counted are
the long polls that find nothing.

The last line is of a saga of four steps, together; `item_bytes` is what its item in the table has
at the end, and `item_bytes_after_100_answers` the same after a hundred answers that came late.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from headrace import Command, Delivery, Event, Outcome, Service
from headrace.attributes import size_of
from headrace.cost.meter import Meter
from headrace.envelope import queue_body, root_metadata, seal
from headrace.events import Message
from headrace.hosts.worker import run_worker
from headrace.observer import Observer, SagaChange
from headrace.ports import QueueEntry
from headrace.saga import Saga, step
from headrace.system import SystemClock
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology

STEPS = 4
ANSWER = timedelta(minutes=1)


class TourBooked(Event, source="benchmark.tours"):
    tour: str
    fails: bool = False


class BookLeg(Command, owner="legs"):
    """One command for all legs would have one answer for all of them."""

    tour: str


class BookTrain(BookLeg, owner="legs"):
    pass


class TrainBooked(Event, source="benchmark.legs"):
    tour: str


class BookFerry(BookLeg, owner="legs"):
    pass


class FerryBooked(Event, source="benchmark.legs"):
    tour: str


class BookHut(BookLeg, owner="legs"):
    pass


class HutBooked(Event, source="benchmark.legs"):
    tour: str


class BookGuide(BookLeg, owner="legs"):
    fails: bool


class GuideBooked(Event, source="benchmark.legs"):
    tour: str


class GuideMissing(Event, source="benchmark.legs"):
    tour: str


class CancelLeg(Command, owner="legs"):
    tour: str


class CancelTrain(CancelLeg, owner="legs"):
    pass


class TrainCancelled(Event, source="benchmark.legs"):
    tour: str


class CancelFerry(CancelLeg, owner="legs"):
    pass


class FerryCancelled(Event, source="benchmark.legs"):
    tour: str


class CancelHut(CancelLeg, owner="legs"):
    pass


class HutCancelled(Event, source="benchmark.legs"):
    tour: str


tours = Service("tours", bus="benchmark")
legs = Service("legs", bus="benchmark", table=None)


class Tour(Saga, service=tours, starts_on=TourBooked, key="tour", deadline=timedelta(hours=1)):
    """Four legs, one after the other."""

    tour: str
    fails: bool

    @classmethod
    def begin(cls, event: TourBooked) -> Tour:
        return cls(tour=event.tour, fails=event.fails)

    @step(done=TrainBooked, timeout=ANSWER)
    def train(self) -> BookTrain:
        return BookTrain(tour=self.tour)

    @train.undo(done=TrainCancelled)
    def cancel_train(self) -> CancelTrain:
        return CancelTrain(tour=self.tour)

    @step(done=FerryBooked, timeout=ANSWER)
    def ferry(self) -> BookFerry:
        return BookFerry(tour=self.tour)

    @ferry.undo(done=FerryCancelled)
    def cancel_ferry(self) -> CancelFerry:
        return CancelFerry(tour=self.tour)

    @step(done=HutBooked, timeout=ANSWER)
    def hut(self) -> BookHut:
        return BookHut(tour=self.tour)

    @hut.undo(done=HutCancelled)
    def cancel_hut(self) -> CancelHut:
        return CancelHut(tour=self.tour)

    @step(done=GuideBooked, failed=GuideMissing, timeout=ANSWER)
    def guide(self) -> BookGuide:
        return BookGuide(tour=self.tour, fails=self.fails)


@legs.on(BookTrain, idempotent=True)
async def book_train(command: BookTrain) -> TrainBooked:
    return TrainBooked(tour=command.tour)


@legs.on(BookFerry, idempotent=True)
async def book_ferry(command: BookFerry) -> FerryBooked:
    return FerryBooked(tour=command.tour)


@legs.on(BookHut, idempotent=True)
async def book_hut(command: BookHut) -> HutBooked:
    return HutBooked(tour=command.tour)


@legs.on(BookGuide, idempotent=True)
async def book_guide(command: BookGuide) -> GuideBooked | GuideMissing:
    return (GuideMissing if command.fails else GuideBooked)(tour=command.tour)


@legs.on(CancelTrain, idempotent=True)
async def cancel_train(command: CancelTrain) -> TrainCancelled:
    return TrainCancelled(tour=command.tour)


@legs.on(CancelFerry, idempotent=True)
async def cancel_ferry(command: CancelFerry) -> FerryCancelled:
    return FerryCancelled(tour=command.tour)


@legs.on(CancelHut, idempotent=True)
async def cancel_hut(command: CancelHut) -> HutCancelled:
    return HutCancelled(tour=command.tour)


# --- counting ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """Of some sagas. `steps` are those of one of them, with those that undo."""

    name: str
    sagas: int
    steps: int
    meter: Meter
    item_bytes: int

    def per_step(self, count: float) -> float:
        return count / (self.sagas * self.steps)

    @property
    def calls(self) -> float:
        return self.per_step(sum(self.meter.calls.values()))

    @property
    def write_units(self) -> float:
        return self.per_step(self.meter.write_units)

    @property
    def index_units(self) -> float:
        return self.per_step(self.meter.index_units)

    def row(self) -> str:
        operations = ", ".join(
            f"{name} {self.per_step(count):.2f}" for name, count in sorted(self.meter.calls.items())
        )
        reads = self.per_step(self.meter.read_units)
        return (
            f"{self.name:<44} {self.calls:>6.2f} {self.write_units:>6.2f} "
            f"{self.index_units:>6.2f} {reads:>6.2f}  {operations}"
        )


class _Ends(Observer):
    """Tells when a saga is over."""

    def __init__(self) -> None:
        self._over = asyncio.Semaphore(0)
        self._more = asyncio.Event()
        self.settled_so_far = 0

    def saga(self, service: str, change: SagaChange) -> None:
        if change.status in ("completed", "compensated"):
            self._over.release()

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self.settled_so_far += 1
        self._more.set()

    async def settle(self, count: int) -> None:
        """Wait until so many messages are settled in all."""
        while self.settled_so_far < count:
            self._more.clear()
            await self._more.wait()

    async def wait_for(self, count: int) -> None:
        for _ in range(count):
            await self._over.acquire()


@asynccontextmanager
async def _at_work(cloud: MemoryCloud[SystemClock], meter: Meter) -> AsyncIterator[_Ends]:
    ends, stop = _Ends(), asyncio.Event()
    workers = [
        asyncio.create_task(
            run_worker([tours], meter.measured(cloud.ports), observer=ends, stop=stop)
        ),
        asyncio.create_task(run_worker([legs], cloud.ports, stop=stop)),
    ]
    try:
        yield ends
    finally:
        stop.set()
        await asyncio.gather(*workers)


async def cost_of(name: str, sagas: int, *, fails: bool, together: bool) -> Cost:
    cloud = memory_ports(clock=SystemClock())
    cloud.provision(topology(tours, legs))
    meter = Meter()
    async with _at_work(cloud, meter) as ends:
        for start in range(0, sagas, sagas if together else 1):
            count = sagas if together else 1
            numbers = range(start, start + count)
            await _send(cloud, [TourBooked(tour=f"tour-{n}", fails=fails) for n in numbers])
            await ends.wait_for(count)
    # Three legs are undone where the fourth fails.
    steps = STEPS + 3 if fails else STEPS
    return Cost(name, sagas, steps, meter, _item_bytes(cloud))


async def bytes_after_late_answers(answers: int) -> int:
    """What the item of one saga has after answers that nothing waits for."""
    cloud = memory_ports(clock=SystemClock())
    cloud.provision(topology(tours, legs))
    async with _at_work(cloud, Meter()) as ends:
        await _send(cloud, [TourBooked(tour="tour-0")])
        await ends.wait_for(1)
        settled = ends.settled_so_far
        await _send(cloud, [TrainBooked(tour="tour-0")] * answers)
        await ends.settle(settled + answers)
    return _item_bytes(cloud)


async def _send(cloud: MemoryCloud[SystemClock], messages: list[Message]) -> None:
    now = cloud.clock.now()
    bodies = [
        queue_body(seal(each, root_metadata(each, id=f"{each}-{n}", now=now)))
        for n, each in enumerate(messages)
    ]
    for start in range(0, len(bodies), 10):
        entries = [QueueEntry(body) for body in bodies[start : start + 10]]
        await cloud.queues.send("tours", entries)


def _item_bytes(cloud: MemoryCloud[SystemClock]) -> int:
    items = cloud.store.items("tours")
    return max(size_of(item) for item in items if item["pk"]["S"].startswith("saga#"))


async def _measure(sagas: int) -> tuple[list[Cost], int]:
    costs = [
        await cost_of("four steps, together", sagas, fails=False, together=True),
        await cost_of("four steps, alone", sagas // 10, fails=False, together=False),
        await cost_of("three steps and their undo, together", sagas, fails=True, together=True),
        await cost_of("three steps and their undo, alone", sagas // 10, fails=True, together=False),
    ]
    return costs, await bytes_after_late_answers(100)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sagas", type=int, default=500)
    costs, later = asyncio.run(_measure(parser.parse_args().sagas))
    rows = [f"{'per step':<44} {'calls':>6} {'write':>6} {'index':>6} {'read':>6}  of which"]
    rows += [cost.row() for cost in costs]
    first = costs[0]
    rows.append(
        f"write_units_per_step={first.write_units:.2f} "
        f"index_units_per_step={first.index_units:.2f} "
        f"calls_per_step={first.calls:.2f} item_bytes={first.item_bytes} "
        f"item_bytes_after_100_answers={later}"
    )
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
