"""A place to run the contract tests in: the ports, and nothing else of a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Protocol
from uuid import uuid4

from headrace.aws.client import open_ports
from headrace.aws.config import SERVICES, AwsConfig
from headrace.aws.provision import provision
from headrace.ports import Delivery, Ports
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.topology.model import Topology

NO_WAIT = timedelta(0)


class World(Protocol):
    """An account of one's own, empty at first."""

    @property
    def ports(self) -> Ports: ...

    async def provision(self, topology: Topology) -> None: ...

    async def receive_within(self, queue: str, span: timedelta) -> list[Delivery]:
        """What can be received now or, if that is nothing, becomes so within `span`."""
        ...


class MemoryWorld:
    """In memory, where time passes at a word."""

    def __init__(self) -> None:
        self._cloud: MemoryCloud[ManualClock] = memory_ports()
        self.ports = self._cloud.ports

    async def provision(self, topology: Topology) -> None:
        self._cloud.provision(topology)

    async def receive_within(self, queue: str, span: timedelta) -> list[Delivery]:
        found = await self.ports.queues.receive(queue, limit=10, wait=NO_WAIT)
        if found:
            return found
        self._cloud.clock.advance(span)
        return await self.ports.queues.receive(queue, limit=10, wait=NO_WAIT)


class AwsWorld:
    """Whatever the endpoints name, where time takes its time."""

    def __init__(self, ports: Ports, config: AwsConfig) -> None:
        self.ports = ports
        self._config = config

    async def provision(self, topology: Topology) -> None:
        await provision(topology, self._config)

    async def receive_within(self, queue: str, span: timedelta) -> list[Delivery]:
        return await self.ports.queues.receive(queue, limit=10, wait=span)


@asynccontextmanager
async def aws_world(endpoint: str) -> AsyncIterator[World]:
    """All services at one endpoint, under names that nobody else uses."""
    config = AwsConfig(
        namespace=f"t{uuid4().hex[:12]}",
        region="us-east-1",
        endpoints=dict.fromkeys(SERVICES, endpoint),
    )
    async with open_ports(config) as ports:
        yield AwsWorld(ports, config)
