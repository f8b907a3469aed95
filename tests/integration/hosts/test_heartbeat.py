"""On an emulator: what takes longer than its visibility is done once, by one worker or another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from headrace import Ack, Command, Entity, Outcome, Retry, Service, Transaction
from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.client import send
from headrace.connection import connect
from headrace.errors import Refused
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import run_worker
from headrace.ports import Delivery, EntryFailure, Ports, Queues
from headrace.topology.derive import topology
from tests.integration.hosts.memory_hosts import PATIENCE, Watch

pytestmark = pytest.mark.emulator

VISIBILITY = timedelta(seconds=1)


class SmeltOre(Command, owner="smelter"):
    batch: str


class Ingot(Entity, pk="ingot#{batch}"):
    batch: str
    castings: int = 0


class Smelter:
    """A service that takes `seconds` for the first delivery of its message, on an emulator."""

    def __init__(self, ports: Ports, service: Service, begun: list[int]) -> None:
        self.ports = ports
        self.service = service
        self.begun = begun

    async def work(self, watch: Watch, queues: Queues | None = None) -> list[Outcome]:
        """One worker, until it has settled as many as `watch` wants."""
        ports = replace(self.ports, queues=queues or self.ports.queues)
        async with asyncio.timeout(PATIENCE):
            await run_worker(
                [self.service],
                ports,
                settings=WorkerSettings(visibility=VISIBILITY, wait=timedelta(seconds=1)),
                observer=watch,
                stop=watch.done,
            )
        return [outcome for _, outcome in watch.outcomes]

    async def left(self) -> int:
        depth = await self.ports.queues.depth("smelter")
        return depth.visible + depth.in_flight


def smelting(seconds: float, begun: list[int]) -> Service:
    service = Service("smelter", bus="default")

    @service.on(SmeltOre)
    async def smelt(command: SmeltOre, delivery: Delivery, tx: Transaction) -> None:
        begun.append(delivery.receive_count)
        if delivery.receive_count == 1:
            await asyncio.sleep(seconds)
        ingot = await tx.get(Ingot, command.batch) or Ingot(batch=command.batch)
        tx.put(ingot.model_copy(update={"castings": ingot.castings + 1}))

    return service


@asynccontextmanager
async def smelter(url: str, seconds: float) -> AsyncIterator[Smelter]:
    begun: list[int] = []
    service = smelting(seconds, begun)
    endpoints = {"sqs": url, "events": url, "dynamodb": url}
    config = AwsConfig(namespace=f"test{uuid4().hex[:10]}", endpoints=endpoints)
    await provision(topology(service), config)
    async with open_ports(config) as ports:
        await send(ports, [SmeltOre(batch="b-1")], bus="default")
        yield Smelter(ports, service, begun)


class Beats:
    """Counts the heartbeats, and lets none pass if they are `refused`."""

    def __init__(self, inner: Queues, *, refused: bool = False) -> None:
        self.inner = inner
        self.refused = refused
        self.count = 0
        self.received: list[Delivery] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        if self.refused and self.received:
            # The other worker is to have it.
            await asyncio.sleep(how["wait"].total_seconds())
            return []
        found = await self.inner.receive(queue, **how)
        self.received += found
        return found

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        self.count += 1
        if self.refused:
            raise Refused("The role may not sqs:ChangeMessageVisibility.")
        return await self.inner.change_visibility(queue, changes)


async def castings(at: Smelter) -> int:
    async with connect(at.service, at.ports) as connection:
        ingot = await connection.get(Ingot, "b-1")
    return 0 if ingot is None else ingot.castings


async def test_a_handler_of_three_visibility_timeouts_is_run_once(ministack_url: str) -> None:
    async with smelter(ministack_url, 3 * VISIBILITY.total_seconds()) as at:
        beats = Beats(at.ports.queues)
        assert await at.work(Watch(1), beats) == [Ack()]

        assert at.begun == [1]
        assert [delivery.receive_count for delivery in beats.received] == [1]
        assert beats.count >= 6
        assert await castings(at) == 1
        assert await at.left() == 0


async def test_what_a_worker_cannot_keep_hidden_is_done_once_by_another(ministack_url: str) -> None:
    async with smelter(ministack_url, PATIENCE) as at:
        begun = asyncio.Event()

        class Begun(Watch):
            def received(self, service: str, delivery: Delivery) -> None:
                begun.set()

        refused = Beats(at.ports.queues, refused=True)
        losing = asyncio.create_task(at.work(Begun(1), refused))
        await begun.wait()
        assert await at.work(Watch(1)) == [Ack()]
        (lost,) = await losing

        assert isinstance(lost, Retry)
        assert refused.count >= 3
        assert at.begun == [1, 2]
        assert await castings(at) == 1
        assert await at.left() == 0
