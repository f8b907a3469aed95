"""Ports that count what would stand on the bill."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from headrace.attributes import size_of
from headrace.cost.usage import (
    READ_UNIT_BYTES,
    WRITE_UNIT_BYTES,
    Action,
    QueueKind,
    Request,
    Usage,
    chunks,
    event_bytes,
    kind_of,
    message_bytes,
    units,
)
from headrace.errors import Refused
from headrace.ports import Action as Write
from headrace.ports import (
    Bus,
    BusEntry,
    Check,
    Delete,
    Delivery,
    EntryFailure,
    Item,
    ItemKey,
    Page,
    Ports,
    Put,
    QueueDepth,
    QueueEntry,
    Queues,
    Scheduler,
    Store,
    Update,
)
from headrace.record import RELAY_INDEX
from headrace.relay import is_relayed
from headrace.testing.expressions import CannotUpdate
from headrace.testing.memory.actions import prepare

_INDEX_KEY: Final = f"{RELAY_INDEX}_pk"
_INDEX_SORT_KEY: Final = f"{RELAY_INDEX}_sk"


@dataclass
class Meter(Usage):
    """Counts what goes through ports that it measures.

    Each call takes `seconds` of the event loop, which is for a loop whose time is not real. The
    store is asked what stands in it, so it should be one in memory.
    """

    service: str = ""
    """Whose relay looks after what is left to it."""
    seconds: float = 0
    fair: set[str] = field(default_factory=set)
    """Standard queues that were seen with a message that has a group."""

    def measured(self, ports: Ports) -> Ports:
        return replace(
            ports,
            queues=_Queues(ports.queues, self),
            bus=_Bus(ports.bus, self),
            store=_Store(ports.store, self),
            scheduler=_Scheduler(ports.scheduler, self),
        )

    def reset(self) -> None:
        """Count from 0 again."""
        for each in fields(Usage):
            setattr(self, each.name, type(getattr(self, each.name))())

    def usage(self) -> Usage:
        """What was counted so far, which counts no more."""
        counted = {each.name: copy(getattr(self, each.name)) for each in fields(Usage)}
        return Usage(**counted)

    async def called(self, operation: str) -> None:
        """One call, and its time."""
        self.calls[operation] += 1
        if self.seconds:
            await asyncio.sleep(self.seconds)

    def asked(self, action: Action, queue: str, messages: Sequence[QueueEntry | Delivery]) -> None:
        """One request of SQS with these messages, there or back."""
        size = sum(map(message_bytes, messages))
        self.payload_bytes += size
        self.requests[Request(action, self._kind(queue, messages))] += chunks(size)

    def arrived(self, queue: str, entry: QueueEntry) -> None:
        """What a rule or a schedule put into a queue."""
        self.asked(Action.ARRIVE, queue, [entry])

    def _kind(self, queue: str, messages: Sequence[QueueEntry | Delivery]) -> QueueKind:
        kind = kind_of(queue, messages)
        if kind is QueueKind.FAIR:
            self.fair.add(queue)
        return QueueKind.FAIR if queue in self.fair else kind


class _Queues:
    def __init__(self, queues: Queues, meter: Meter) -> None:
        self._queues = queues
        self._meter = meter

    async def receive(self, queue: str, **options: Any) -> list[Delivery]:
        deliveries = await self._queues.receive(queue, **options)
        if deliveries:
            self._meter.received += len(deliveries)
            self._meter.receives += 1
            self._meter.asked(Action.RECEIVE, queue, deliveries)
            await self._meter.called("ReceiveMessage")
        return deliveries

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        self._meter.asked(Action.SEND, queue, entries)
        await self._meter.called("SendMessageBatch")
        return await self._queues.send(queue, entries)

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        self._meter.asked(Action.DELETE, queue, [])
        await self._meter.called("DeleteMessageBatch")
        return await self._queues.delete(queue, receipts)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        self._meter.asked(Action.CHANGE, queue, [])
        await self._meter.called("ChangeMessageVisibilityBatch")
        return await self._queues.change_visibility(queue, changes)

    async def depth(self, queue: str) -> QueueDepth:
        return await self._queues.depth(queue)


class _Bus:
    def __init__(self, bus: Bus, meter: Meter) -> None:
        self._bus = bus
        self._meter = meter

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        sizes = [event_bytes(entry) for entry in entries]
        self._meter.payload_bytes += sum(sizes)
        self._meter.events += sum(map(chunks, sizes))
        await self._meter.called("PutEvents")
        return await self._bus.put(bus, entries)

    async def require(self, bus: str) -> None:
        # Once for each process, not for each message.
        await self._bus.require(bus)


class _Scheduler:
    def __init__(self, scheduler: Scheduler, meter: Meter) -> None:
        self._scheduler = scheduler
        self._meter = meter

    async def schedule(self, name: str, at: datetime, queue: str, entry: QueueEntry) -> None:
        await self._meter.called("CreateSchedule")
        await self._scheduler.schedule(name, at, queue, entry)

    async def cancel(self, name: str) -> None:
        await self._meter.called("DeleteSchedule")
        await self._scheduler.cancel(name)


class _Store:
    def __init__(self, store: Store, meter: Meter) -> None:
        self._store = store
        self._meter = meter

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        await self._meter.called("BatchGetItem")
        items = await self._store.get(keys)
        self._meter.read_units += sum(units(_bytes(item), READ_UNIT_BYTES) for item in items)
        return items

    async def transact(self, actions: Sequence[Write], *, token: str) -> None:
        await self._meter.called("TransactWriteItems")
        weight = await self._weigh(actions)
        self._meter.write_units += 2 * weight.units
        await self._store.transact(actions, token=token)
        self._wrote(weight)

    async def change(self, action: Put | Update | Delete) -> None:
        await self._meter.called(f"{type(action).__name__}Item")
        weight = await self._weigh([action])
        self._meter.write_units += weight.units
        await self._store.change(action)
        self._wrote(weight)

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        await self._meter.called("BatchWriteItem")
        weight = await self._weigh(actions)
        self._meter.write_units += weight.units
        left = await self._store.write(actions)
        self._wrote(weight)
        return left

    async def query(self, table: str, pk: str, **options: Any) -> Page:
        await self._meter.called("Query")
        page = await self._store.query(table, pk, **options)
        self._read(page, of_index=options.get("index") is not None, **options)
        return page

    def _read(self, page: Page, *, of_index: bool, consistent: bool = False, **_: Any) -> None:
        """A query reads what its items have together, and half of that if it may be stale."""
        read = units(sum(map(size_of, page.items)), READ_UNIT_BYTES) * (1 if consistent else 0.5)
        if of_index:
            self._meter.index_read_units += read
        else:
            self._meter.read_units += read

    async def _weigh(self, actions: Iterable[Write]) -> _Weight:
        """The larger of what an item was and is counts."""
        written = index = relayed = 0
        for action in actions:
            (old,) = await self._store.get([action.key])
            new = _after(action, old)
            written += units(max(_bytes(old), _bytes(new)), WRITE_UNIT_BYTES)
            index += _entries(old, new)
            relayed += new is not None and is_relayed(new, self._meter.service)
        return _Weight(written, index, relayed)

    def _wrote(self, weight: _Weight) -> None:
        """A write that fails is billed, and changes no index."""
        self._meter.index_units += weight.index_units
        self._meter.relayed += weight.relayed


class _Weight(NamedTuple):
    """What some writes cost, if they succeed."""

    units: int
    index_units: int
    relayed: int


def _after(action: Write, old: Item | None) -> Item | None:
    """What stands there if the action is done."""
    match action:
        case Put():
            return action.item
        case Delete():
            return None
        case Check():
            return old
        case Update():
            try:
                return prepare(action).applied(old)
            except (CannotUpdate, Refused):
                return old


def _entries(old: Item | None, new: Item | None) -> int:
    """How many entries of the index a write makes and takes away: it holds keys only."""
    before, after = (
        None
        if item is None or _INDEX_KEY not in item
        else (item[_INDEX_KEY], item[_INDEX_SORT_KEY])
        for item in (old, new)
    )
    return 0 if before == after else (before is not None) + (after is not None)


def _bytes(item: Item | None) -> int:
    return 0 if item is None else size_of(item)
