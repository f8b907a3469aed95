"""Lambda and the worker on AWS in memory, behind one small class, and what became of messages."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from headrace import Ack, Delivery, Outcome, Service
from headrace.aws.config import AwsConfig
from headrace.entity import EntityT, from_item, key_for
from headrace.hosts.lambda_ import LambdaHandler
from headrace.hosts.worker import run_worker
from headrace.observer import Unobserved
from headrace.ports import Attribute, Bus, Clock, Item, Ports, QueueEntry, Queues, Store
from headrace.testing import ManualClock, MemoryCloud, memory_ports
from headrace.testing.runtime_api import sqs_event
from headrace.topology.derive import topology
from headrace.topology.model import dead_letter_queue

PATIENCE = 20.0
"""Seconds after which a test that waits in vain is ended."""
AGES = timedelta(hours=3)
"""Longer than any message is hidden in these tests."""


@dataclass(slots=True)
class Watch(Unobserved):
    """An observer that keeps every outcome and says when there were enough."""

    enough: int
    outcomes: list[tuple[Delivery, Outcome]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self.outcomes.append((delivery, outcome))
        if len(self.outcomes) == self.enough:
            self.done.set()

    @property
    def duplicates(self) -> list[bool]:
        return [outcome == Ack(duplicate=True) for _, outcome in self.outcomes]


@dataclass(slots=True)
class MemoryHost(ABC):
    """One service on one host. `ports` stand in for the account's own where a fault is wanted."""

    service: Service
    cloud: MemoryCloud[Any]
    concurrency: int = 10

    @property
    def queue(self) -> str:
        return self.service.queues[0]

    @abstractmethod
    async def handle(self, count: int, *, held_back: int = 0, ports: Ports | None = None) -> Watch:
        """Receive `count` messages of the service's first queue and settle them, where all but
        `held_back` of them get as far as a handler."""

    async def send(
        self,
        *bodies: str,
        group: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> None:
        """Each body as a message of its own, in order."""
        for body in bodies:
            entry = QueueEntry(body, group_id=group, attributes=attributes or {})
            assert await self.cloud.queues.send(self.queue, [entry]) == []

    def later(self) -> None:
        """Everything that was hidden can be received again."""
        self.cloud.clock.advance(AGES)

    def left(self) -> list[str]:
        """The bodies that are still in the queue, received or not."""
        return [entry.body for entry in self.cloud.queues.peek(self.queue)]

    def dead_letters(self) -> list[QueueEntry]:
        return self.cloud.queues.peek(dead_letter_queue(self.queue))

    def items(self) -> list[Item]:
        return self.cloud.store.items(self.service.table or "")

    async def entity(self, cls: type[EntityT], *values: Any) -> EntityT | None:
        key = key_for(cls, self.service.table or "", values, {})
        (item,) = await self.cloud.store.get([key])
        return None if item is None else from_item(cls, item)


@dataclass(slots=True)
class OnLambda(MemoryHost):
    """The handler, in this process, and an event source mapping. `deletes` is the mapping's
    deleting what the function does not report; turned off, that fails for once."""

    remaining: timedelta = timedelta(seconds=30)
    deletes: bool = True

    async def handle(self, count: int, *, held_back: int = 0, ports: Ports | None = None) -> Watch:
        watch = Watch(count - held_back)
        deliveries = await received(self.cloud, self.queue, count)
        reported = await self.invoke(deliveries, ports=ports, watch=watch)
        for delivery in deliveries if self.deletes else ():
            if delivery.message_id not in reported:
                receipts = [delivery.receipt_handle]
                assert await self.cloud.queues.delete(self.queue, receipts) == []
        assert watch.done.is_set()
        return watch

    async def invoke(
        self, deliveries: Sequence[Delivery], *, ports: Ports | None = None, watch: Watch
    ) -> list[str]:
        """The `itemIdentifier` of each batch item failure."""
        event = sqs_event(f"arn:aws:sqs:us-east-1:000000000000:{self.queue}", *deliveries)
        # Lambda calls a plain function, and that runs a loop of its own.
        answer = await asyncio.to_thread(self.call, event, ports=ports, watch=watch)
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def call(self, event: Any, *, ports: Ports | None = None, watch: Watch | None = None) -> Any:
        """One invocation of the handler in a new environment; not from within an event loop."""

        @asynccontextmanager
        async def opened(config: AwsConfig) -> AsyncIterator[Ports]:
            yield ports or self.cloud.ports

        handler = LambdaHandler(
            self.service, concurrency=self.concurrency, observer=watch, ports=opened
        )
        try:
            return handler(event, Remaining(int(self.remaining.total_seconds() * 1000)))
        finally:
            handler.close()


@dataclass(slots=True)
class OnWorker(MemoryHost):
    """The worker, until it has settled as many deliveries as were asked for."""

    async def handle(self, count: int, *, held_back: int = 0, ports: Ports | None = None) -> Watch:
        watch = Watch(count - held_back)
        async with asyncio.timeout(PATIENCE):
            await run_worker(
                [self.service],
                ports or self.cloud.ports,
                concurrency=self.concurrency,
                observer=watch,
                stop=watch.done,
            )
        return watch


@dataclass(slots=True)
class Remaining:
    """The part of Lambda's context object that headrace looks at."""

    milliseconds: int
    aws_request_id: str = "7d0a6d8e-6d4f-4f5e-9c7e-0d6f2f5f7b31"

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


def cloud_for(*services: Service, clock: Clock | None = None) -> MemoryCloud[Any]:
    cloud = memory_ports(clock=clock or ManualClock())
    cloud.provision(topology(*services))
    return cloud


async def received(cloud: MemoryCloud[Any], queue: str, count: int) -> list[Delivery]:
    """So many messages, ten at a time, as an event source mapping collects them."""
    found: list[Delivery] = []
    while len(found) < count:
        limit = min(10, count - len(found))
        batch = await cloud.queues.receive(queue, limit=limit, wait=timedelta(0))
        if not batch:
            raise AssertionError(f"{queue} gave {len(found)} messages, not {count}")
        found += batch
    return found


def with_ports(
    cloud: MemoryCloud[Any],
    *,
    queues: Queues | None = None,
    bus: Bus | None = None,
    store: Store | None = None,
) -> Ports:
    """The account's ports, some of them replaced."""
    return replace(
        cloud.ports,
        queues=queues or cloud.queues,
        bus=bus or cloud.bus,
        store=store or cloud.store,
    )
