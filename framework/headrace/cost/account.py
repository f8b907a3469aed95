"""The account in memory, as the work sees it that is to be paid for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import Final

from headrace.client import send
from headrace.connection import Connection
from headrace.connection import connect as open_connection
from headrace.entity import Entity, key_of, to_item, version_of
from headrace.envelope import root_metadata, seal
from headrace.errors import ConfigurationError, NoTable
from headrace.events import Command, Event, Message, contract_of
from headrace.outbox import bus_entry
from headrace.ports import Ports, Put
from headrace.service import Service
from headrace.testing.memory import MemoryBus, MemoryStore
from headrace.topology.derive import DEFAULT_BUS
from headrace.transaction import first_version

OUTSIDE: Final = ""
"""Whose sends those are that the work makes itself."""


class Account:
    """Where work is done: what it sends is handled by the services, and counted.

    `times` is how many units of work are to be done, in all.
    """

    def __init__(
        self,
        services: Sequence[Service],
        ports: Mapping[str, Ports],
        store: MemoryStore,
        bus: MemoryBus,
        times: int,
        at_a_time: int,
        settled: Callable[[], Awaitable[None]],
        begun: Callable[[], None],
    ) -> None:
        """`ports` are those that count for each service, and for `OUTSIDE`."""
        self.times = times
        self.done = 0
        self._services = {service.name: service for service in services}
        self._ports = ports
        self._store = store
        self._bus = bus
        self._at_a_time = at_a_time
        self._settled = settled
        self._begun = begun

    async def put(self, *entities: Entity, service: Service) -> None:
        """Let these entities stand in the table of a service. That is not counted."""
        if service.table is None:
            raise NoTable(f"The service {service.name!r} has no table for entities.")
        for entity in entities:
            key = key_of(entity, service.table)
            (old,) = self._store.look([key])
            version = first_version(self._now()) if old is None else version_of(old)
            await self._store.change(Put(key.table, to_item(entity, key, version + 1)))

    async def publish(self, *events: Event, bus: str | None = None) -> None:
        """Put events on the bus of the services, in one call for ten. Events of AWS itself come
        over the default bus, and cost nothing there."""
        of_aws = [event for event in events if (contract_of(event).source or "")[:4] == "aws."]
        for event in of_aws:
            self._emit(event)
        own = [event for event in events if event not in of_aws]
        if own:
            await send(self._ports[OUTSIDE], own, bus=bus or self._only_bus())

    async def send(self, *commands: Command) -> None:
        """Put commands into the queues of their owners, in one call for ten."""
        await send(self._ports[OUTSIDE], commands, bus=DEFAULT_BUS)

    def connect(self, service: Service) -> AbstractAsyncContextManager[Connection]:
        """A service from outside of its handlers, as `headrace.connection.connect` opens it: what
        is done there counts as its own."""
        return open_connection(service, self._ports[service.name])

    async def settled(self) -> None:
        """Wait until the services have nothing in hand. What is to come later is not waited for."""
        await self._settled()

    async def units(self) -> AsyncIterator[int]:
        """The numbers of the units of work, from 0 on. What came before is not counted. Some are
        given at a time, and then the services come to rest before there are more."""
        await self._settled()
        self._begun()
        for number in range(self.times):
            yield number
            self.done = number + 1
            if self.done % self._at_a_time == 0:
                await self._settled()
        await self._settled()

    def _now(self) -> datetime:
        return self._ports[OUTSIDE].clock.now()

    def _emit(self, event: Message) -> None:
        id = str(self._ports[OUTSIDE].randomness.uuid())
        entry = bus_entry(seal(event, root_metadata(event, id=id, now=self._now())))
        if contract_of(event).native:
            entry = replace(entry, detail=event.model_dump_json(by_alias=True))
        self._bus.emit(DEFAULT_BUS, entry)

    def _only_bus(self) -> str:
        buses = sorted({service.bus for service in self._services.values()})
        if len(buses) > 1:
            raise ConfigurationError(
                f"The services listen on the buses {' and '.join(buses)}: say which one the work "
                f'publishes on, as in publish(…, bus="{buses[0]}").'
            )
        return buses[0]
