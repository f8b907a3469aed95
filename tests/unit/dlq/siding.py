"""A service whose message groups wait, for what the command line does about that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from headrace import Entity, Event, PoisonMessage, Service, Transaction
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import Worker
from headrace.pipeline import running
from headrace.ports import ItemKey, Ports, QueueEntry
from headrace.testing import delivery_of
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from tests.unit.dlq import desk

T = TypeVar("T")

QUEUE = "siding-cars.fifo"
DEAD_LETTERS = "siding-cars-dlq.fifo"


class CarShunted(Event, source="siding.cars"):
    track: str
    number: int


class Rails(Entity, pk="rails#{track}"):
    track: str
    numbers: tuple[int, ...] = ()


broken: set[int] = set()


async def shunt(event: CarShunted, tx: Transaction) -> None:
    if event.number in broken:
        raise PoisonMessage(f"Car {event.number} has no brakes.")
    rails = await tx.get(Rails, event.track) or Rails(track=event.track)
    tx.put(rails.model_copy(update={"numbers": (*rails.numbers, event.number)}))


def service(name: str = "shunt", *, park: bool = True) -> Service:
    """The service, with its handler by that name."""
    made = Service("siding")
    made.on(CarShunted, queue="cars.fifo", park=park, name=name)(shunt)
    return made


siding = service()


def made(*tracks: str, by: Service = siding) -> MemoryCloud[Any]:
    """An account in which car 1 of every track is a dead letter, and 2 and 3 wait behind it."""
    cloud = memory_ports()
    cloud.provision(topology(by))
    broken.update({1})

    async def fail() -> None:
        for track in tracks:
            await come(cloud, track, 1, 2, 3)
        async with at_work(cloud, by):
            await emptied(cloud)

    run(fail())
    broken.clear()
    return cloud


async def come(cloud: MemoryCloud[Any], track: str, *numbers: int) -> None:
    for number in numbers:
        event = CarShunted(track=track, number=number)
        body = delivery_of(event, QUEUE, id=f"{track}-{number}").body
        await cloud.queues.send(QUEUE, [QueueEntry(body, group_id=track)])


async def letter_goes(cloud: MemoryCloud[Any], track: str) -> None:
    """Somebody deletes the letter of a track."""
    letters = await cloud.queues.receive(DEAD_LETTERS, limit=10, wait=timedelta(0))
    for letter in letters:
        if letter.group_id == track:
            await cloud.queues.delete(DEAD_LETTERS, [letter.receipt_handle])
        else:
            await cloud.queues.change_visibility(
                DEAD_LETTERS, [(letter.receipt_handle, timedelta(0))]
            )


def numbers(cloud: MemoryCloud[Any], track: str) -> list[int]:
    """What was shunted onto a track, in its order."""
    return run(shunted(cloud.ports, track))


async def emptied(cloud: MemoryCloud[Any]) -> None:
    changed = asyncio.Event()
    unwatch = cloud.queues.watch(QUEUE, changed.set)
    while not cloud.queues.is_empty(QUEUE):
        await changed.wait()
        changed.clear()
    unwatch()


@asynccontextmanager
async def at_work(cloud: MemoryCloud[Any], by: Service = siding) -> AsyncIterator[None]:
    async with working(cloud.ports, by):
        yield


@asynccontextmanager
async def working(ports: Ports, by: Service = siding) -> AsyncIterator[None]:
    """A worker is at work within this block."""
    stop = asyncio.Event()
    async with running(by, ports) as pipeline:
        settings = WorkerSettings(wait=timedelta(seconds=1))
        worker = asyncio.create_task(Worker([pipeline], settings=settings).run(stop))
        try:
            yield
        finally:
            stop.set()
            await worker


async def shunted(ports: Ports, track: str) -> list[int]:
    """What was shunted onto a track, in its order."""
    (item,) = await ports.store.get([ItemKey("siding", f"rails#{track}", "-")])
    return [] if item is None else [int(number["N"]) for number in item["numbers"]["L"]]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Without waiting for anybody."""
    return desk.run(main)


def run_beside_a_worker(cloud: MemoryCloud[Any], main: Coroutine[Any, Any, T]) -> T:
    async def both() -> T:
        async with at_work(cloud):
            found = await main
            await emptied(cloud)
            return found

    return run(both())
