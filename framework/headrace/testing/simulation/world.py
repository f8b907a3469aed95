"""What a scenario does in a simulation, and what an invariant looks at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from random import Random
from typing import Any, Final, TypeVar

import orjson

from headrace.client import send
from headrace.connection import Connection, connect
from headrace.context import current
from headrace.entity import (
    TYPE_ATTRIBUTE,
    Entity,
    EntityT,
    from_item,
    key_for,
    key_of,
    to_item,
    version_of,
)
from headrace.errors import CloudError, Conflict, DefinitionError, DispatchError
from headrace.events import Command, Event, Message, contract_of
from headrace.ports import BusEntry, Item, Put, QueueEntry
from headrace.relay import is_relayed
from headrace.service import Service
from headrace.testing.letters import Letter, letter_of, name_of
from headrace.testing.simulation.chance import Chance
from headrace.testing.simulation.cloud import Cloud
from headrace.testing.simulation.loop import START, SimulatedLoop
from headrace.testing.simulation.process import Life
from headrace.testing.simulation.trace import Kind, Trace
from headrace.topology.derive import DEFAULT_BUS
from headrace.topology.model import dead_letter_queue
from headrace.transaction import first_version

MessageT = TypeVar("MessageT", bound=Message)
EventT = TypeVar("EventT", bound=Event)
CommandT = TypeVar("CommandT", bound=Command)
T = TypeVar("T")

SCENARIO: Final = "scenario"
"""The lane of what the scenario does."""

_LOOK_EVERY: Final = 2.0
"""Seconds between two looks whether everything is settled."""

_PATIENCE: Final = 900.0
"""Seconds after which whoever makes a request gives up: longer than faults last."""

_AGAIN: Final = 3.0
"""Seconds after which, at the latest, whoever made a request makes it again."""


class World:
    """The account that the services under test run in, from outside of them.

    What is done here cannot fail. All methods that look are free of faults, too.
    """

    def __init__(
        self,
        services: Sequence[Service],
        cloud: Cloud,
        chance: Chance,
        trace: Trace,
        dropped: frozenset[int],
        on_settling: Callable[[], AbstractContextManager[None]],
        is_at_work: Callable[[], bool],
        on_progress: Callable[[], None],
    ) -> None:
        self.services = tuple(services)
        """Those under test, of a service that is deployed both versions."""
        self.random: Random = chance.stream("scenario")
        """Draws for the scenario, from the seed of this run."""
        self.poison: list[str] = []
        """The bodies of the messages that nobody can read, put into queues by the simulation."""
        self.sendings = 0
        self._queues = {queue: each for each in services for queue in each.queues}
        self._cloud = cloud
        self._chance = chance
        self._trace = trace
        self._dropped = dropped
        self._on_settling = on_settling
        self._is_at_work = is_at_work
        self._on_progress = on_progress
        self._ledgers: dict[str, list[Any]] = {}
        self._own_ids: set[str] = set()
        self._requests = 0
        self._waiting = 0
        self._refusals: dict[str, str] = {}

    # --- doing ---

    async def publish(self, *events: Event) -> list[Event]:
        """Put events on the bus of the services, or on the default bus if they are of AWS.

        Returns what was published: when a run that went wrong is made smaller, some is left out.
        """
        return await self._send(events)

    async def send(self, *commands: Command) -> list[Command]:
        """Put commands into the queues of their owners; returns what was sent, as `publish`."""
        return await self._send(commands)

    async def _send(self, messages: Sequence[MessageT]) -> list[MessageT]:
        kept = [message for message in messages if self._counts()]
        self._on_progress()
        own = [message for message in kept if not _is_of_aws(message)]
        for message in kept:
            if _is_of_aws(message):
                self._emit(message)
        if not own:
            return kept
        sent = await send(self._cloud.ports, own, bus=self._bus())
        for outgoing in sent:
            self._own_ids.add(outgoing.id)
            self._note(Kind.SENT, f"sends {outgoing.detail_type}", (outgoing.id,))
        return kept

    def _emit(self, event: Message) -> None:
        contract = contract_of(event)
        detail = event.model_dump_json(by_alias=True)
        entry = BusEntry(contract.source or "", contract.name, detail, time=self.now())
        self._cloud.bus.emit(DEFAULT_BUS, entry)
        self._note(Kind.SENT, f"sends {contract.name}")

    async def put_message(self, queue: str, body: str, *, group: str | None = None) -> None:
        """Put a message with this very body into a queue; `group` is for a FIFO queue."""
        if self._counts():
            await self._cloud.ports.queues.send(queue, [QueueEntry(body, group_id=group)])
            self._note(Kind.SENT, f"puts {body[:60]!r} into {queue}")

    async def put(self, *entities: Entity, service: Service) -> None:
        """Write entities into the table of a service."""
        for entity in entities:
            key = key_of(entity, _table(service))
            [old] = self._cloud.store.look([key])
            version = first_version(self.now()) if old is None else version_of(old)
            await self._cloud.store.change(Put(key.table, to_item(entity, key, version + 1)))
            self._note(Kind.WRITTEN, f"puts {key.pk} into {key.table}")

    async def request(
        self, service: Service, serve: Callable[[Connection], Awaitable[T]]
    ) -> T | None:
        """What an HTTP client does: have a request served by a process of this service, and make
        it again, until it has an answer. The process is a new one each time; all faults are on.

        `serve` runs inside of that process. It gives its transaction a key, so that a request
        that is made again is the same one. What it raises that is neither `CloudError` nor
        `Conflict` nor `DispatchError` is raised here. Returns `None` for a request that was left
        out, as `publish` may leave out events.
        """
        if not self._counts():
            return None
        self._requests += 1
        name = f"{service.name}/request {self._requests}"
        until = self._loop.time() + _PATIENCE
        self._waiting += 1
        try:
            while self._loop.time() < until:
                answer = await self._served(service, serve, name)
                if answer is not None:
                    return answer[0]
                await asyncio.sleep(_AGAIN * self.random.random())
        finally:
            self._waiting -= 1
        why = self._refusals.get(name, "it never ended")
        raise AssertionError(f"{name} has had no answer for {_PATIENCE / 60:.0f} minutes: {why}")

    async def _served(
        self, service: Service, serve: Callable[[Connection], Awaitable[T]], name: str
    ) -> tuple[T] | None:
        loop = self._loop
        life = Life(name, self._cloud, self._chance, self._trace, self._cloud.next_number())
        ended = loop.create_future()

        async def live() -> None:
            try:
                async with connect(service, life.ports) as connection:
                    answer = await serve(connection)
                    loop.call_as(loop.world, 0.0, _tell, ended, (answer,), None)
            except (CloudError, Conflict, DispatchError) as error:
                self._trace.note(name, Kind.LOG, f"answers with {error!r}")
                self._refusals[name] = repr(error)
                loop.call_as(loop.world, 0.0, _tell, ended, None, None)
            except Exception as error:  # the scenario hears of it
                loop.call_as(loop.world, 0.0, _tell, ended, None, error)

        self._trace.note(name, Kind.PROCESS, "serves a request")
        loop.begin_as(life, live())
        crash = life.on_last_step

        def died() -> None:
            crash()
            if not life.alive:
                loop.call_as(loop.world, 1.0, _tell, ended, None, None)

        life.on_last_step = died
        answer: tuple[T] | None = await ended
        return answer

    async def outside(self, name: str, effect: Callable[[], T]) -> T:
        """For what handlers reach besides AWS, a mail server or a payment gateway: have `effect`
        happen outside of all processes, over a network that fails as the one to AWS does.

        Called in a process, by its resources or handlers. Raises `ConnectionError` where the
        effect may or may not have happened.
        """
        life = self._loop.current
        if not isinstance(life, Life):
            return effect()
        about = _about_here()

        def happen() -> T:
            life.wire.note(Kind.WRITTEN, f"calls {name}", about)
            return effect()

        try:
            return await life.wire.call(name, name, happen, lambda: ("", about))
        except CloudError as error:
            raise ConnectionError(str(error)) from error

    def ledger(self, name: str) -> list[Any]:
        """A list that outlives every process of this run: what a mail server has sent, say."""
        return self._ledgers.setdefault(name, [])

    def say(self, text: str, *about: str) -> None:
        """Put a line into the timeline."""
        self._trace.note(self._loop.current.name, Kind.LOG, text, about)

    async def settled(self) -> None:
        """Wait until nothing is left to do: no message in a queue of the services, no event that
        was committed and is not out, no schedule, no deployment to come. Faults end some minutes
        after everything else has, so that it comes to that."""
        with self._on_settling():
            while not self._is_settled():  # noqa: ASYNC110 nothing tells of all of this
                await asyncio.sleep(_LOOK_EVERY)

    # --- looking ---

    def now(self) -> datetime:
        return self._cloud.clock.now()

    def published(self, cls: type[EventT]) -> list[EventT]:
        """The events of this class that the services published, in the order in which they reached
        the bus, each id once. What the scenario published is not among them."""
        return [event for id, event in self.traffic(cls) if id not in self._own_ids]

    def sent(self, cls: type[CommandT]) -> list[CommandT]:
        """The commands of this class that the services sent, as in `published`."""
        return [command for id, command in self.traffic(cls) if id not in self._own_ids]

    def traffic(self, cls: type[MessageT]) -> list[tuple[str, MessageT]]:
        """All of this class that reached the bus or a queue, whoever sent it, with their ids, each
        id once. Native events have no ids of their own and are not among them."""
        found: dict[str, MessageT] = {}
        contract = contract_of(cls)
        for detail_type, detail in self._details():
            if detail_type == contract.name:
                fields = orjson.loads(detail)
                id = fields["metadata"]["id"]
                if id not in found:
                    found[id] = cls.model_validate(fields["data"])
        return list(found.items())

    def get(self, cls: type[EntityT], *values: Any, service: Service, **fields: Any) -> EntityT:
        """The entity with this key; an `AssertionError` if there is none."""
        found = self.find(cls, *values, service=service, **fields)
        assert found is not None, f"There is no {cls.__name__} {(*values, *fields.values())}."
        return found

    def find(
        self, cls: type[EntityT], *values: Any, service: Service, **fields: Any
    ) -> EntityT | None:
        """The entity with this key, as it is now, or `None`."""
        [item] = self._cloud.store.look([key_for(cls, _table(service), values, fields)])
        return None if item is None else from_item(cls, item)

    def all(self, cls: type[EntityT], service: Service) -> list[EntityT]:
        """All entities of a class, by their keys."""
        name = {"S": cls.__name__}
        items = self._cloud.store.each(_table(service))
        return [from_item(cls, item) for item in items if item.get(TYPE_ATTRIBUTE) == name]

    def items(self, service: Service) -> list[Item]:
        """Everything in the table of a service as DynamoDB has it, records of the inbox too: to
        look at, not to change."""
        return list(self._cloud.store.each(_table(service)))

    def dead_letters(self, service: Service | None = None) -> list[Letter]:
        """What is in the dead-letter queues of one service, or of all."""
        name = None if service is None else service.name
        return [
            letter_of(each, queue, entry)
            for queue, each in self._queues.items()
            if name in (None, each.name)
            for entry in self._cloud.queues.peek(dead_letter_queue(queue))
        ]

    # --- what the simulation itself asks ---

    def left(self) -> list[str]:
        """What is not settled, a sentence each."""
        found = []
        for queue in self._queues:
            entries = self._cloud.queues.peek(queue)
            if entries:
                names = ", ".join(sorted({name_of(entry.body) for entry in entries}))
                found.append(f"the queue {queue!r} holds {len(entries)} messages ({names})")
        for service in self.services:
            pending = self._pending(service)
            if pending:
                found.append(f"{pending} records of {service.name!r} have events that are not out")
        if self._cloud.scheduler.peek():
            found.append("there are schedules to come")
        if self._waiting:
            found.append(f"{self._waiting} requests have no answer")
        return found

    def next_due(self) -> float | None:
        """When the last of what is hidden or scheduled is due, in seconds of the loop."""
        times = [self._cloud.queues.last_due(queue) for queue in self._queues]
        times += [scheduled.at for scheduled in self._cloud.scheduler.peek()]
        known = [time for time in times if time is not None]
        return (max(known) - START).total_seconds() if known else None

    def _is_settled(self) -> bool:
        queues = self._cloud.queues
        return (
            not self._cloud.network.late
            and not self._waiting
            and not self._is_at_work()
            and all(map(queues.is_empty, self._queues))
            and not self._cloud.scheduler.peek()
            and not any(map(self._pending, self.services))
        )

    def _pending(self, service: Service) -> int:
        if service.table is None or not service.emits:
            return 0
        return sum(is_relayed(i, service.name) for i in self._cloud.store.each(service.table))

    def _details(self) -> list[tuple[str, str]]:
        on_bus = [(t.at, t.entry.detail_type, t.entry.detail) for t in self._cloud.bus.taken]
        in_queues = [
            (taken.at, *found)
            for taken in self._cloud.queues.taken
            # A dead letter is a copy, and no message of its own.
            if taken.queue in self._queues and (found := _detail(taken.entry.body)) is not None
        ]
        return [(name, detail) for _, name, detail in sorted([*on_bus, *in_queues], key=_time)]

    def _counts(self) -> bool:
        """Whether the next sending takes place, in a run that leaves some of them out."""
        number = self.sendings
        self.sendings += 1
        return number not in self._dropped

    def _bus(self) -> str:
        buses = dict.fromkeys(service.bus for service in self.services)
        if len(buses) > 1:
            raise DefinitionError(
                f"The services use several buses ({', '.join(buses)}): simulate them apart."
            )
        return next(iter(buses))

    @property
    def _loop(self) -> SimulatedLoop:
        return self._cloud.loop

    def _note(self, kind: Kind, text: str, about: tuple[str, ...] = ()) -> None:
        self._trace.note(SCENARIO, kind, text, about)


def _about_here() -> tuple[str, ...]:
    """The event that is being handled here."""
    context = current()
    return () if context is None else (context.metadata.id,)


def _is_of_aws(message: Message) -> bool:
    return (contract_of(message).source or "").startswith("aws.")


def _table(service: Service) -> str:
    if service.table is None:
        raise DefinitionError(f"The service {service.name!r} has no table.")
    return service.table


def _time(sent: tuple[float, str, str]) -> float:
    return sent[0]


def _detail(body: str) -> tuple[str, str] | None:
    try:
        wire = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(wire, dict) or "detail" not in wire:
        return None
    return str(wire.get("detail-type")), orjson.dumps(wire["detail"]).decode()


def _tell(future: asyncio.Future[T], answer: T, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)
