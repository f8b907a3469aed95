"""A service whose dead letters the command line is tried on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from headrace import Entity, Event, Metadata, PoisonMessage, Service, Transaction
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import Worker
from headrace.observe.redaction import Sensitive
from headrace.pipeline import running
from headrace.ports import QueueEntry
from headrace.testing import delivery_of
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from tests.crash.skipping import SkippingLoop

T = TypeVar("T")


class TicketOpened(Event, source="desk.counter"):
    number: int
    email: Annotated[str, Sensitive]
    good: bool = False


class Ticket(Entity, pk="ticket#{event_id}"):
    event_id: str
    times: int = 0


desk = Service("desk")
mended: set[int] = set()


@desk.on(TicketOpened)
async def answer(event: TicketOpened, metadata: Metadata, tx: Transaction) -> None:
    if not event.good and event.number not in mended:
        raise PoisonMessage(f"Nobody can answer ticket {event.number}.")
    before = await tx.get(Ticket, metadata.id) or Ticket(event_id=metadata.id)
    tx.put(Ticket(event_id=metadata.id, times=before.times + 1))


def made(count: int) -> MemoryCloud[Any]:
    """An account with so many dead letters, and one that is not JSON."""
    mended.clear()
    cloud = memory_ports()
    cloud.provision(topology(desk))
    tickets = [TicketOpened(number=n, email="ada@example.com") for n in range(count)]
    bodies = [delivery_of(t, "desk", id=f"ticket-{t.number}").body for t in tickets]

    async def fail() -> None:
        for body in (*bodies, "{"):
            await cloud.queues.send("desk", [QueueEntry(body)])
        async with at_work(cloud):
            await emptied(cloud)

    run(fail())
    return cloud


async def emptied(cloud: MemoryCloud[Any]) -> None:
    changed = asyncio.Event()
    unwatch = cloud.queues.watch("desk", changed.set)
    while not cloud.queues.is_empty("desk"):
        await changed.wait()
        changed.clear()
    unwatch()


@asynccontextmanager
async def at_work(cloud: MemoryCloud[Any]) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with running(desk, cloud.ports) as pipeline:
        settings = WorkerSettings(wait=timedelta(seconds=1))
        worker = asyncio.create_task(Worker([pipeline], settings=settings).run(stop))
        try:
            yield
        finally:
            stop.set()
            await worker


def run(main: Coroutine[Any, Any, T]) -> T:
    """Without waiting for anybody."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(main)


def run_beside_a_worker(cloud: MemoryCloud[Any], main: Coroutine[Any, Any, T]) -> T:
    async def both() -> T:
        async with at_work(cloud):
            return await main

    return run(both())
