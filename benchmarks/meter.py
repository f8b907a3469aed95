"""Ports that count what would stand on the bill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from headrace.attributes import size_of
from headrace.ports import (
    Action,
    Bus,
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

RELAY_KEY = f"{RELAY_INDEX}_pk"
RELAY_SORT_KEY = f"{RELAY_INDEX}_sk"


@dataclass
class Meter:
    """Calls by the name of the AWS operation, and DynamoDB's units.

    A write unit is 1 KB of an item, and two in a transaction; failed conditions are billed too. A
    read unit is 4 KB read consistently. An index unit is an entry that is made, or that goes.
    """

    calls: Counter[str] = field(default_factory=Counter)
    write_units: int = 0
    index_units: int = 0
    read_units: int = 0

    def measured(self, ports: Ports) -> Ports:
        return replace(
            ports,
            queues=_Queues(ports.queues, self),
            bus=_Bus(ports.bus, self),
            store=_Store(ports.store, self),
            scheduler=_Scheduler(ports.scheduler, self),
        )


class _Queues:
    def __init__(self, queues: Queues, meter: Meter) -> None:
        self._queues = queues
        self._calls = meter.calls

    async def receive(self, queue: str, **options: Any) -> list[Delivery]:
        deliveries = await self._queues.receive(queue, **options)
        # An empty answer is the price of waiting, not of a message.
        self._calls["ReceiveMessage"] += 1 if deliveries else 0
        return deliveries

    async def send(self, queue: str, entries: Sequence[Any]) -> list[EntryFailure]:
        self._calls["SendMessageBatch"] += 1
        return await self._queues.send(queue, entries)

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        self._calls["DeleteMessageBatch"] += 1
        return await self._queues.delete(queue, receipts)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        self._calls["ChangeMessageVisibilityBatch"] += 1
        return await self._queues.change_visibility(queue, changes)

    async def depth(self, queue: str) -> QueueDepth:
        return await self._queues.depth(queue)


class _Bus:
    def __init__(self, bus: Bus, meter: Meter) -> None:
        self._bus = bus
        self._calls = meter.calls

    async def put(self, bus: str, entries: Sequence[Any]) -> list[EntryFailure]:
        self._calls["PutEvents"] += 1
        return await self._bus.put(bus, entries)

    async def require(self, bus: str) -> None:
        # Once for each process, not for each message.
        await self._bus.require(bus)


class _Scheduler:
    def __init__(self, scheduler: Scheduler, meter: Meter) -> None:
        self._scheduler = scheduler
        self._calls = meter.calls

    async def schedule(self, name: str, at: datetime, queue: str, entry: QueueEntry) -> None:
        self._calls["CreateSchedule"] += 1
        await self._scheduler.schedule(name, at, queue, entry)

    async def cancel(self, name: str) -> None:
        self._calls["DeleteSchedule"] += 1
        await self._scheduler.cancel(name)


class _Store:
    def __init__(self, store: Store, meter: Meter) -> None:
        self._store = store
        self._meter = meter

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        self._meter.calls["BatchGetItem"] += 1
        items = await self._store.get(keys)
        self._meter.read_units += sum(_units(item, 4096) for item in items)
        return items

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        self._meter.calls["TransactWriteItems"] += 1
        units = await self._written(actions)
        self._meter.write_units += 2 * units
        await self._store.transact(actions, token=token)

    async def change(self, action: Put | Update | Delete) -> None:
        self._meter.calls[f"{type(action).__name__}Item"] += 1
        units = await self._written([action])
        self._meter.write_units += units
        await self._store.change(action)

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        self._meter.calls["BatchWriteItem"] += 1
        units = await self._written(actions)
        self._meter.write_units += units
        return await self._store.write(actions)

    async def query(self, table: str, pk: str, **options: Any) -> Page:
        self._meter.calls["Query"] += 1
        return await self._store.query(table, pk, **options)

    async def _written(self, actions: Iterable[Action]) -> int:
        """The larger of what an item was and is counts."""
        units = 0
        for action in actions:
            (old,) = await self._store.get([action.key])
            new = action.item if isinstance(action, Put) else None
            if isinstance(action, Update) and old is None:
                new = {**action.key.attributes(), **dict(action.values)}
            units += max(_units(old, 1024), _units(new, 1024))
            if isinstance(action, Put):
                self._meter.index_units += _entries(old, new)
        return units


def _entries(old: Item | None, new: Item | None) -> int:
    """How many entries of the index a write makes and takes away: it holds keys only."""
    before, after = (
        None if item is None or RELAY_KEY not in item else (item[RELAY_KEY], item[RELAY_SORT_KEY])
        for item in (old, new)
    )
    return 0 if before == after else (before is not None) + (after is not None)


def _units(item: Item | None, size: int) -> int:
    return 1 if item is None else max(1, ceil(size_of(item) / size))
