"""A worker takes what it has room for, and leaves nothing hidden behind when it stops."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace import Event, Service
from headrace.errors import ConfigurationError, NotProvisioned, Unreachable
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import Worker, run_worker
from headrace.pipeline import running
from headrace.ports import Delivery, QueueEntry
from headrace.testing import delivery_of
from headrace.testing.memory import MemoryCloud, MemoryQueues, memory_ports
from headrace.topology.derive import topology


class Knocked(Event, source="house.door"):
    times: int = 1


class Wrapped:
    """Queues whose receive a test decides."""

    def __init__(self, queues: MemoryQueues) -> None:
        self.queues = queues
        self.limits: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.queues, name)

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        self.limits.append(how["limit"])
        return await self.queues.receive(queue, **how)


class House:
    """A service that opens the door, an account in memory, and knocks in its queue."""

    def __init__(self, knocks: int) -> None:
        self.service = Service("house")
        self.opened: list[int] = []
        self.stop = asyncio.Event()
        self.knocks = knocks

        @self.service.on(Knocked)
        async def open_door(event: Knocked) -> None:
            self.opened.append(event.times)
            if len(self.opened) == self.knocks:
                self.stop.set()

        self.cloud: MemoryCloud[Any] = memory_ports()
        self.cloud.provision(topology(self.service))

    async def knock(self) -> None:
        for n in range(self.knocks):
            body = delivery_of(Knocked(times=n), "house", id=f"k-{n}").body
            await self.cloud.queues.send("house", [QueueEntry(body)])

    async def work(self, queues: Any, concurrency: int = 10) -> None:
        ports = replace(self.cloud.ports, queues=queues)
        async with running(self.service, ports) as pipeline:
            settings = WorkerSettings(concurrency=concurrency)
            await Worker([pipeline], settings=settings).run(self.stop)


async def test_what_is_in_the_queue_is_handled_and_deleted() -> None:
    house = House(knocks=25)
    await house.knock()
    await house.work(house.cloud.queues)
    assert sorted(house.opened) == list(range(25))
    depth = await house.cloud.queues.depth("house")
    assert (depth.visible, depth.in_flight) == (0, 0)


async def test_no_more_is_received_than_there_is_room_for() -> None:
    house = House(knocks=9)
    await house.knock()
    queues = Wrapped(house.cloud.queues)
    await house.work(queues, concurrency=3)
    assert max(queues.limits) <= 3


class Late(Wrapped):
    """The worker is told to stop while the answer of a receive is on its way."""

    def __init__(self, queues: MemoryQueues, stop: asyncio.Event) -> None:
        super().__init__(queues)
        self.stop = stop

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        deliveries = await self.queues.receive(queue, **how)
        self.stop.set()
        await asyncio.sleep(0.02)
        return deliveries


async def test_what_was_on_its_way_at_the_stop_is_handed_back_and_not_hidden() -> None:
    house = House(knocks=10)
    await house.knock()
    await house.work(Late(house.cloud.queues, house.stop))
    assert house.opened == []
    depth = await house.cloud.queues.depth("house")
    assert (depth.visible, depth.in_flight) == (10, 0)


class Failing(Wrapped):
    """The first receives fail."""

    def __init__(self, queues: MemoryQueues, *errors: Exception) -> None:
        super().__init__(queues)
        self.errors = list(errors)

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        if self.errors:
            raise self.errors.pop(0)
        return await self.queues.receive(queue, **how)


async def test_a_receive_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    house = House(knocks=1)
    await house.knock()
    await house.work(Failing(house.cloud.queues, Unreachable("down"), Unreachable("down")))
    assert house.opened == [0]
    assert caplog.text.count("cannot be received from for now: down") == 1


async def test_a_queue_that_is_not_there_ends_the_worker_with_a_sentence() -> None:
    house = House(knocks=1)
    with pytest.raises(NotProvisioned, match="house"):
        await house.work(Failing(house.cloud.queues, NotProvisioned("There is no queue house.")))


async def test_a_queue_that_vanishes_later_may_come_back() -> None:
    house = House(knocks=2)

    class Vanishing(Wrapped):
        async def receive(self, queue: str, **how: Any) -> list[Delivery]:
            self.limits.append(1)
            if len(self.limits) == 2:
                raise NotProvisioned("gone")
            return await self.queues.receive(queue, **{**how, "limit": 1})

    await house.knock()
    await house.work(Vanishing(house.cloud.queues))
    assert sorted(house.opened) == [0, 1]


async def test_room_for_nothing_is_refused() -> None:
    house = House(knocks=1)
    with pytest.raises(ConfigurationError, match="concurrency is 0: give a whole number from 1 up"):
        await run_worker([house.service], house.cloud.ports, concurrency=0)


async def test_a_handler_that_does_not_end_is_cut_short_and_its_message_is_handed_back() -> None:
    service, started, stop = Service("house"), asyncio.Event(), asyncio.Event()

    @service.on(Knocked)
    async def wait(event: Knocked) -> None:
        started.set()
        await asyncio.Event().wait()

    cloud = memory_ports()
    cloud.provision(topology(service))
    await cloud.queues.send("house", [QueueEntry(delivery_of(Knocked(), "house").body)])
    async with running(service, cloud.ports) as pipeline:
        settings = WorkerSettings(drain=timedelta(milliseconds=10))
        work = asyncio.create_task(Worker([pipeline], settings=settings).run(stop))
        await started.wait()
        stop.set()
        await work
    # Not before the receive that was open at the stop would be over: SQS might answer it still.
    cloud.clock.advance(timedelta(seconds=21))
    depth = await cloud.queues.depth("house")
    assert (depth.visible, depth.in_flight) == (1, 0)
