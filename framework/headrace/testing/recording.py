"""Ports that write down what a role would have to allow for the calls that go through them.

    recorder = Recorder("inventory")
    async with running(inventory, recorder.recorded(cloud.ports)):
        ...
    assert Call("dynamodb:PutItem", (Resource.TABLE, "inventory")) in recorder.needed

A call is written down before it is made, as AWS asks for the permission first: one that fails
later has needed it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from headrace.ports import (
    Action,
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
from headrace.topology.access import Resource

Target: TypeAlias = tuple[Resource, str]
"""What a call is made on, by its logical name: an index as `table/index`, and of a role for
EventBridge Scheduler the service that it belongs to."""


class Call(NamedTuple):
    """An IAM action, as `sqs:SendMessage`, on one resource.

    IAM knows no `SendMessageBatch`, `DeleteMessageBatch` or `ChangeMessageVisibilityBatch`: they
    are allowed as what they do once. `BatchGetItem` and `BatchWriteItem` are actions of their
    own, and `TransactWriteItems` is none: each of its parts is asked for by itself, where a check
    is `ConditionCheckItem`. A query of an index is asked for on the index, and not on its table.
    """

    action: str
    resource: Target


@dataclass
class Recorder:
    """What one service has asked of AWS, in order. `service` is whose role Scheduler is given."""

    service: str
    calls: list[Call] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    @property
    def needed(self) -> frozenset[Call]:
        """All of it, once."""
        return frozenset(self.calls)

    def recorded(self, ports: Ports) -> Ports:
        """These ports, written down by this recorder. As a process does, it asks for the URL of a
        queue at the first use of it: make another recorder for another process."""
        return replace(
            ports,
            queues=_Queues(ports.queues, self),
            bus=_Bus(ports.bus, self),
            store=_Store(ports.store, self),
            scheduler=_Scheduler(ports.scheduler, self),
        )

    def note(self, action: str, kind: Resource, name: str) -> None:
        self.calls.append(Call(action, (kind, name)))

    def note_queue(self, action: str, queue: str) -> None:
        self.note_url(queue)
        self.note(action, Resource.QUEUE, queue)

    def note_url(self, queue: str) -> None:
        if queue not in self._known:
            self._known.add(queue)
            self.note("sqs:GetQueueUrl", Resource.QUEUE, queue)

    def note_tables(self, action: str, tables: Iterable[str]) -> None:
        for table in dict.fromkeys(tables):
            self.note(action, Resource.TABLE, table)


class _Queues:
    def __init__(self, queues: Queues, recorder: Recorder) -> None:
        self._queues = queues
        self._recorder = recorder

    async def receive(
        self,
        queue: str,
        *,
        limit: int,
        wait: timedelta,
        visibility: timedelta | None = None,
    ) -> list[Delivery]:
        self._recorder.note_queue("sqs:ReceiveMessage", queue)
        return await self._queues.receive(queue, limit=limit, wait=wait, visibility=visibility)

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        self._recorder.note_queue("sqs:SendMessage", queue)
        return await self._queues.send(queue, entries)

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        self._recorder.note_queue("sqs:DeleteMessage", queue)
        return await self._queues.delete(queue, receipts)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        self._recorder.note_queue("sqs:ChangeMessageVisibility", queue)
        return await self._queues.change_visibility(queue, changes)

    async def depth(self, queue: str) -> QueueDepth:
        self._recorder.note_queue("sqs:GetQueueAttributes", queue)
        return await self._queues.depth(queue)


class _Bus:
    def __init__(self, bus: Bus, recorder: Recorder) -> None:
        self._bus = bus
        self._recorder = recorder

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        self._recorder.note("events:PutEvents", Resource.BUS, bus)
        return await self._bus.put(bus, entries)

    async def require(self, bus: str) -> None:
        self._recorder.note("events:DescribeEventBus", Resource.BUS, bus)
        await self._bus.require(bus)


class _Scheduler:
    """A schedule is made under its own name, and sends as a role of its service, which whoever
    makes it has to be allowed to pass on."""

    def __init__(self, scheduler: Scheduler, recorder: Recorder) -> None:
        self._scheduler = scheduler
        self._recorder = recorder

    async def schedule(self, name: str, at: datetime, queue: str, entry: QueueEntry) -> None:
        self._recorder.note_url(queue)
        self._recorder.note("scheduler:CreateSchedule", Resource.SCHEDULE, name)
        self._recorder.note("iam:PassRole", Resource.SCHEDULER_ROLE, self._recorder.service)
        await self._scheduler.schedule(name, at, queue, entry)

    async def cancel(self, name: str) -> None:
        self._recorder.note("scheduler:DeleteSchedule", Resource.SCHEDULE, name)
        await self._scheduler.cancel(name)


class _Store:
    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store = store
        self._recorder = recorder

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        self._recorder.note_tables("dynamodb:BatchGetItem", (key.table for key in keys))
        return await self._store.get(keys)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        for action in actions:
            self._note(action)
        await self._store.transact(actions, token=token)

    async def change(self, action: Put | Update | Delete) -> None:
        self._note(action)
        await self._store.change(action)

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        tables = (action.key.table for action in actions)
        self._recorder.note_tables("dynamodb:BatchWriteItem", tables)
        return await self._store.write(actions)

    async def query(
        self,
        table: str,
        pk: str,
        *,
        sk_prefix: str = "",
        sk_before: str | None = None,
        index: str | None = None,
        limit: int | None = None,
        start: Item | None = None,
        forward: bool = True,
        consistent: bool = False,
    ) -> Page:
        if index is None:
            self._recorder.note("dynamodb:Query", Resource.TABLE, table)
        else:
            self._recorder.note("dynamodb:Query", Resource.INDEX, f"{table}/{index}")
        return await self._store.query(
            table,
            pk,
            sk_prefix=sk_prefix,
            sk_before=sk_before,
            index=index,
            limit=limit,
            start=start,
            forward=forward,
            consistent=consistent,
        )

    def _note(self, action: Action) -> None:
        self._recorder.note(_WRITES[type(action)], Resource.TABLE, action.key.table)


_WRITES: Final[Mapping[type[Action], str]] = {
    Put: "dynamodb:PutItem",
    Update: "dynamodb:UpdateItem",
    Delete: "dynamodb:DeleteItem",
    Check: "dynamodb:ConditionCheckItem",
}
