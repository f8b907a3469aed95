"""What a test holds in its hand: an account in memory, with services in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from headrace.connection import Connection
from headrace.connection import connect as open_connection
from headrace.entity import Entity, EntityT, from_item, key_for, key_of, to_item, version_of
from headrace.envelope import Outgoing, root_metadata, seal
from headrace.errors import HeadraceError, NoTable
from headrace.events import Command, Event, Message, contract_of
from headrace.outbox import bus_entry, queue_entry, refuse_unsendable
from headrace.ports import BusEntry, ItemKey, Ports, Put, QueueEntry
from headrace.saga.definition import Definition, Saga, definition_of
from headrace.saga.handling import SagaHandler, sagas_of
from headrace.saga.item import SagaItem, progress_of
from headrace.saga.progress import Progress
from headrace.service import Handler, Service
from headrace.testing.harness.pump import Pump, unexpected
from headrace.testing.harness.sendings import Sendings
from headrace.testing.letters import Letter
from headrace.testing.memory import ManualClock, MemoryCloud
from headrace.topology.derive import DEFAULT_BUS
from headrace.transaction import first_version

EventT = TypeVar("EventT", bound=Event)
CommandT = TypeVar("CommandT", bound=Command)


class Harness:
    """AWS, as a test of some services sees it. Make one with `harness`.

    Where a method takes a `service`, it can be left out if there is only one. `cloud` is the whole
    account, for what has no method here.
    """

    def __init__(
        self,
        services: Sequence[Service],
        cloud: MemoryCloud[ManualClock],
        sendings: Sendings,
        pump: Pump,
    ) -> None:
        self.cloud = cloud
        self._services = tuple(services)
        self._sendings = sendings
        self._pump = pump

    @property
    def clock(self) -> ManualClock:
        """The time of the account: `aws.clock.advance(timedelta(days=1))`."""
        return self.cloud.clock

    @property
    def ports(self) -> Ports:
        """The account as the services have it, for what opens ports itself, such as an HTTP
        application. What goes out through them counts as sent by the services."""
        return self._sendings.ports

    # --- tables ---

    async def put(self, *entities: Entity, service: Service | None = None) -> None:
        """Let these entities stand in the table of a service, whatever stood there before."""
        table = self._table(service)
        for entity in entities:
            key = key_of(entity, table)
            (old,) = self.cloud.store.look([key])
            version = version_of(old) if old else first_version(self.clock.now())
            await self.cloud.store.change(Put(table, to_item(entity, key, version + 1)))

    def get(
        self, cls: type[EntityT], *values: Any, service: Service | None = None, **fields: Any
    ) -> EntityT:
        """The entity with this key, as `tx.get` names it; an `AssertionError` if there is none."""
        key = key_for(cls, self._table(service), values, fields)
        found = self._read(cls, key)
        __tracebackhide__ = True
        if found is None:
            raise AssertionError(
                f"There is no {cls.__name__} {key.pk!r} in the table {key.table!r}. If that is "
                "right, write `assert aws.find(…) is None`."
            )
        return found

    def find(
        self, cls: type[EntityT], *values: Any, service: Service | None = None, **fields: Any
    ) -> EntityT | None:
        """The entity with this key, or `None`."""
        return self._read(cls, key_for(cls, self._table(service), values, fields))

    def saga(self, cls: type[Saga], key: str) -> Progress:
        """How far the saga with this key is: its `status`, its `state`, its `steps`; an
        `AssertionError` if there is none."""
        definition = definition_of(cls)
        handler = self._handler_of(definition)
        found = self.find(SagaItem, handler.consumer, key, service=handler.service)
        __tracebackhide__ = True
        if found is None:
            raise AssertionError(f"There is no saga {handler.consumer} {key!r}.")
        return progress_of(definition, found)

    def _handler_of(self, definition: Definition) -> SagaHandler:
        for service in self._services:
            handler = sagas_of(service).get(definition.name)
            if handler is not None and definition in handler.versions.values():
                return handler
        raise HeadraceError(
            f"No service in the harness runs the saga {definition.cls.__name__}: write "
            f"class {definition.cls.__name__}(Saga, service=…), and harness(…) with that service."
        )

    def _read(self, cls: type[EntityT], key: ItemKey) -> EntityT | None:
        (item,) = self.cloud.store.look([key])
        return None if item is None else from_item(cls, item)

    @asynccontextmanager
    async def connect(self, service: Service | None = None) -> AsyncIterator[Connection]:
        """A service from outside of its handlers, as `headrace.connection.connect` opens it."""
        async with open_connection(self._only(service), self.ports) as connection:
            self._pump.connections.add(connection)
            try:
                yield connection
            finally:
                self._pump.connections.discard(connection)

    # --- messages ---

    async def publish(self, event: Event, *, times: int = 1, bus: str | None = None) -> None:
        """Put an event on the bus where the services listen for it, as if another service had
        published it. `times` is how often it is delivered, under one id.

        Raises `HeadraceError` for an event that none of the services handles, and if they listen
        for it on several buses and `bus` does not say which.
        """
        handlers = self._handlers_of(event)
        entry = _entry_of(event, self._sealed(event))
        before = {intake.queue: self._peek(intake.queue) for intake in self._pump.intakes}
        self.cloud.bus.emit(bus or self._bus_of(event, handlers), entry)
        for queue, known in before.items():
            for arrived in self._peek(queue)[len(known) :]:
                self._deliver(queue, arrived, times - 1)

    async def send(self, command: Command, *, times: int = 1) -> None:
        """Send a command to the queue of its owner; `times` as in `publish`. Raises `HeadraceError`
        if its owner is not in the harness, or has no handler for it."""
        self._handlers_of(command)
        sealed = self._sealed(command)
        self._deliver(sealed.owner or "", queue_entry(sealed), times)

    async def redeliver(self) -> None:
        """Bring every message that was handled so far once more, as SQS may do with any."""
        for intake in self._pump.intakes:
            intake.redeliver()

    async def settled(self, *, dead_letters: int = 0) -> None:
        """Handle all messages, and those that come of them, until there are none.

        What is hidden until a retry is due is not waited for: the clock is moved there. So it is
        for what a relay has to send, but not for what is scheduled.

        Raises `Unsettled` if there are other than so many new dead letters, with the exception of
        the handler as its cause; if an hour of the clock was not enough; and if messages set each
        other off without end.
        """
        __tracebackhide__ = True
        await self._pump.settle()
        self._expect(dead_letters)

    async def elapsed(self, time: timedelta, *, dead_letters: int = 0) -> None:
        """Let so much time pass, and handle everything when it is due; what is due later is left.

        Raises `Unsettled` as `settled` does, but for messages that have to wait.
        """
        __tracebackhide__ = True
        await self._pump.elapse(time)
        self._expect(dead_letters)

    def _expect(self, dead_letters: int) -> None:
        __tracebackhide__ = True
        letters = self._pump.new_letters()
        if len(letters) != dead_letters:
            raise unexpected(letters, dead_letters)

    # --- what came of it ---

    def published(self, cls: type[EventT]) -> list[EventT]:
        """The events of this type that the services published, in the order in which they reached
        the bus, each id once. What the test published is not among them. `Event` itself stands for
        all."""
        return self._sendings.of(cls)

    def sent(self, cls: type[CommandT]) -> list[CommandT]:
        """The commands of this type that the services sent, as in `published`, also to owners that
        are not in the harness."""
        return self._sendings.of(cls)

    def dead_letters(self, service: Service | None = None) -> list[Letter]:
        """What is in the dead-letter queues, of one service or of all, oldest first."""
        name = None if service is None else self._only(service).name
        intakes = [i for i in self._pump.intakes if name in (None, i.service.name)]
        return [letter for intake in intakes for letter in intake.letters()]

    # --- how ---

    def _only(self, service: Service | None) -> Service:
        if service is None and len(self._services) == 1:
            return self._services[0]
        names = ", ".join(known.name for known in self._services)
        if service is None:
            raise HeadraceError(f"Say which service is meant, as there are {names}: service=….")
        if service not in self._services:
            raise HeadraceError(
                f"The service {service.name!r} is not in the harness, only {names}: write "
                f"harness({service.name}, …)."
            )
        return service

    def _table(self, service: Service | None) -> str:
        named = self._only(service)
        if named.table is None:
            raise NoTable(f"The service {named.name!r} has no table for entities.")
        return named.table

    def _handlers_of(self, message: Message) -> list[tuple[Service, Handler]]:
        found = [
            (service, handler)
            for service in self._services
            for handler in service.handlers
            if type(message) in handler.takes
        ]
        if not found:
            owner = contract_of(message).owner
            raise HeadraceError(
                f"Nothing in the harness handles {type(message).__name__}: name "
                f"{f'the service {owner!r}' if owner else 'the service that does'}, and import the "
                "module with its handlers."
            )
        return found

    def _bus_of(self, event: Event, handlers: Sequence[tuple[Service, Handler]]) -> str:
        if (contract_of(event).source or "").startswith("aws."):
            return DEFAULT_BUS
        buses = sorted({service.bus for service, _ in handlers})
        if len(buses) > 1:
            raise HeadraceError(
                f"{type(event).__name__} is handled on the buses {' and '.join(buses)}: say which "
                f'one it is published on, as in bus="{buses[0]}".'
            )
        return buses[0]

    def _sealed(self, message: Message) -> Outgoing:
        id = str(self.cloud.randomness.uuid())
        sealed = seal(message, root_metadata(message, id=id, now=self.clock.now()))
        refuse_unsendable(sealed)
        return sealed

    def _peek(self, queue: str) -> list[QueueEntry]:
        return self.cloud.queues.peek(queue)

    def _deliver(self, queue: str, entry: QueueEntry, times: int) -> None:
        for _ in range(times):
            # A FIFO queue would take what says the same for the same.
            id = str(self.cloud.randomness.uuid())
            self.cloud.queues.deliver(queue, replace(entry, deduplication_id=id))


def _entry_of(event: Event, sealed: Outgoing) -> BusEntry:
    """The event on its way to the bus; of a native one, the detail is all there is."""
    if contract_of(event).native:
        return replace(bus_entry(sealed), detail=event.model_dump_json(by_alias=True))
    return bus_entry(sealed)
