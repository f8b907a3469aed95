"""The ports of one simulated process: AWS in memory, at the other end of a wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from headrace.errors import CancellationReason, CloudError, Throttled, TransactionCanceled
from headrace.ports import (
    Action,
    BusEntry,
    Clock,
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
    Randomness,
    Update,
)
from headrace.testing.letters import name_of
from headrace.testing.memory import MemoryBus, MemoryQueues, MemoryStore
from headrace.testing.memory.queries import Query
from headrace.testing.memory.scheduler import MemoryScheduler
from headrace.testing.simulation.chance import Chance
from headrace.testing.simulation.cloud import Cloud
from headrace.testing.simulation.poll import Poll, received
from headrace.testing.simulation.trace import Kind
from headrace.testing.simulation.wire import Subject, Wire
from headrace.testing.simulation.wording import (
    described,
    detail_body,
    ids_in,
    ids_in_key,
    read_as,
    subject_of_actions,
    subject_of_bodies,
)

Entry = TypeVar("Entry")

SQS: Final = "SQS"
EVENTS: Final = "EventBridge"
DYNAMODB: Final = "DynamoDB"
SCHEDULER: Final = "Scheduler"
SERVICES: Final = (SQS, EVENTS, DYNAMODB, SCHEDULER)


class WiredQueues:
    """SQS from a process."""

    def __init__(self, wire: Wire, queues: MemoryQueues) -> None:
        self._wire = wire
        self._queues = queues

    async def receive(
        self,
        queue: str,
        *,
        limit: int,
        wait: timedelta,
        visibility: timedelta | None = None,
    ) -> list[Delivery]:
        self._wire.has_polled = True
        look = partial(
            self._queues.receive_now, queue, limit=limit, wait=wait, visibility=visibility
        )
        found = await self._wire.call(SQS, "ReceiveMessage", partial(received, self._wire, look))
        if found or not wait:
            return found
        poll = Poll(self._wire, self._queues, queue, limit, visibility)
        return await poll.answered(wait.total_seconds())

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        def subject() -> tuple[str, tuple[str, ...]]:
            return subject_of_bodies(entry.body for entry in entries)

        return await self._batch("SendMessageBatch", entries, partial(self._send, queue), subject)

    def _send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        failures = self._queues.send_now(queue, entries)
        for entry in entries if self._wire.trace.on else ():
            text = f"sends {name_of(entry.body)} to {queue}"
            self._wire.note(Kind.SENT, text, ids_in(entry.body))
        return failures

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        subject = partial(self._subject, queue, receipts)
        call = partial(self._delete, queue)
        return await self._batch("DeleteMessageBatch", receipts, call, subject)

    def _delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        named, about = self._subject(queue, receipts)
        failures = self._queues.delete_now(queue, receipts)
        if self._wire.trace.on:
            text = f"deletes {named or _messages(len(receipts))} from {queue}"
            self._wire.note(Kind.SETTLED, text, about)
        return failures

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        subject = partial(self._subject, queue, [receipt for receipt, _ in changes])
        return await self._batch(
            "ChangeMessageVisibilityBatch", changes, partial(self._hide, queue), subject
        )

    def _hide(self, queue: str, changes: Sequence[tuple[str, timedelta]]) -> list[EntryFailure]:
        failures = self._queues.change_visibility_now(queue, changes)
        if self._wire.trace.on:
            named, about = self._subject(queue, [receipt for receipt, _ in changes])
            spans = ", ".join(f"{span.total_seconds():.1f} s" for _, span in changes)
            text = f"hides {named or _messages(len(changes))} of {queue} for {spans}"
            self._wire.note(Kind.SETTLED, text, about)
        return failures

    def _subject(self, queue: str, receipts: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        if not self._wire.trace.on:
            return "", ()
        return subject_of_bodies(self._queues.bodies(queue, receipts))

    async def depth(self, queue: str) -> QueueDepth:
        return await self._wire.call(
            SQS, "GetQueueAttributes", partial(self._queues.depth_now, queue)
        )

    async def _batch(
        self,
        operation: str,
        entries: Sequence[Entry],
        call: Callable[[Sequence[Entry]], list[EntryFailure]],
        subject: Subject,
    ) -> list[EntryFailure]:
        effect = partial(_partly, self._wire, operation, entries, call, subject)
        return await self._wire.call(SQS, operation, effect, subject)


class WiredBus:
    """EventBridge from a process."""

    def __init__(self, wire: Wire, bus: MemoryBus) -> None:
        self._wire = wire
        self._bus = bus

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        def subject() -> tuple[str, tuple[str, ...]]:
            about = [id for e in entries for id in ids_in(detail_body(e.detail))[:1]]
            return ", ".join(entry.detail_type for entry in entries), tuple(about)

        call = partial(self._put, bus)
        effect = partial(_partly, self._wire, "PutEvents", entries, call, subject)
        return await self._wire.call(EVENTS, "PutEvents", effect, subject)

    def _put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        failures = self._bus.put_now(bus, entries)
        for entry in entries if self._wire.trace.on else ():
            text = f"puts {entry.detail_type} on the bus {bus}"
            self._wire.note(Kind.SENT, text, ids_in(detail_body(entry.detail)))
        return failures

    async def require(self, bus: str) -> None:
        await self._wire.call(EVENTS, "DescribeEventBus", partial(self._bus.require_now, bus))


class WiredStore:
    """DynamoDB from a process."""

    def __init__(self, wire: Wire, store: MemoryStore) -> None:
        self._wire = wire
        self._store = store

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        return await self._wire.call(DYNAMODB, "BatchGetItem", partial(self._get, keys))

    def _get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        found = self._store.get_now(keys)
        for key, item in zip(keys, found, strict=True) if self._wire.trace.on else ():
            text = f"reads {read_as(key, item)}"
            self._wire.note(Kind.READ, text, ids_in_key(key.pk))
        return found

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        effect = partial(self._transact, actions, token)
        subject = partial(subject_of_actions, actions)
        await self._wire.call(DYNAMODB, "TransactWriteItems", effect, subject)

    def _transact(self, actions: Sequence[Action], token: str) -> None:
        hard = self._wire.chance.strikes("conflict")
        if hard is not None:
            index = int(hard * len(actions))
            self._wire.call_fault(
                "TransactWriteItems",
                partial(subject_of_actions, actions),
                f"is cancelled: a conflict on {actions[index].key.pk}",
            )
            reasons: list[CancellationReason | None] = [None] * len(actions)
            reasons[index] = CancellationReason(
                "TransactionConflict", "Transaction is ongoing for the item"
            )
            raise TransactionCanceled(reasons)
        network, now = self._wire.network, self._wire.loop.time()
        network.written((action.key for action in actions), now)
        self._written_or_refused(actions, partial(self._store.transact_now, actions, token=token))

    def _written_or_refused(self, actions: Sequence[Action], write: Callable[[], None]) -> None:
        try:
            write()
        except CloudError as error:
            self._note(f"may not write ({_why(error)})", actions)
            raise
        self._note("writes", actions)

    def _note(self, what: str, actions: Sequence[Action]) -> None:
        if self._wire.trace.on:
            text = f"{what} {', '.join(described(action) for action in actions)}"
            about = tuple(id for action in actions for id in ids_in_key(action.key.pk))
            self._wire.note(Kind.WRITTEN, text, about)

    async def change(self, action: Put | Update | Delete) -> None:
        operation, subject = _CHANGES[type(action)], partial(subject_of_actions, [action])
        await self._wire.call(DYNAMODB, operation, partial(self._change, action), subject)

    def _change(self, action: Put | Update | Delete) -> None:
        contended = self._wire.network.is_contended(action.key, self._wire.loop.time())
        if contended and self._wire.chance.strikes("conflict") is not None:
            operation = _CHANGES[type(action)]
            self._wire.call_fault(
                operation,
                partial(subject_of_actions, [action]),
                "is refused: a transaction is at work on the item",
            )
            raise Throttled(
                f"{operation} met a transaction.",
                operation=operation,
                code="TransactionConflictException",
            )
        self._written_or_refused([action], partial(self._store.change_now, action))

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        subject = partial(subject_of_actions, actions)
        return await self._wire.call(
            DYNAMODB, "BatchWriteItem", partial(self._written, actions), subject
        )

    def _written(self, actions: Sequence[Put | Delete]) -> list[int]:
        left = _left_out(self._wire.chance, len(actions))
        if left:
            out = [actions[index] for index in left]
            counted = _counted(len(left), len(actions))
            self._wire.call_fault(
                "BatchWriteItem", partial(subject_of_actions, out), f"leaves {counted}"
            )
        written = [action for index, action in enumerate(actions) if index not in left]
        if written:
            self._store.write_now(written)
            self._note("writes", written)
        return left

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
        asked = Query(pk, sk_prefix, sk_before, index, limit, start, forward, consistent)
        return await self._wire.call(DYNAMODB, "Query", partial(self._query, table, asked))

    def _query(self, table: str, asked: Query) -> Page:
        page = self._store.query_now(table, asked)
        # What a relay finds in its index, mostly nothing, is no part of any story.
        if self._wire.trace.on and asked.index is None:
            items = ", ".join(item["sk"]["S"] for item in page.items) or "nothing"
            self._wire.note(Kind.READ, f"reads the partition {asked.pk}: {items}")
        return page


_CHANGES: Final = {Put: "PutItem", Update: "UpdateItem", Delete: "DeleteItem"}


class WiredScheduler:
    """EventBridge Scheduler from a process."""

    def __init__(self, wire: Wire, scheduler: MemoryScheduler) -> None:
        self._wire = wire
        self._scheduler = scheduler

    async def schedule(self, name: str, at: datetime, queue: str, entry: QueueEntry) -> None:
        effect = partial(self._scheduler.schedule_now, name, at, queue, entry)
        await self._wire.call(SCHEDULER, "CreateSchedule", effect)

    async def cancel(self, name: str) -> None:
        effect = partial(self._scheduler.cancel_now, name)
        await self._wire.call(SCHEDULER, "DeleteSchedule", effect)


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _why(error: CloudError) -> str:
    if isinstance(error, TransactionCanceled):
        return ", ".join(dict.fromkeys(reason.code for reason in error.reasons if reason))
    return error.code or type(error).__name__


def _partly(
    wire: Wire,
    operation: str,
    entries: Sequence[Entry],
    call: Callable[[Sequence[Entry]], list[EntryFailure]],
    subject: Subject,
) -> list[EntryFailure]:
    """A batch call, of which some entries may fail for themselves."""
    left = _left_out(wire.chance, len(entries))
    if not left:
        return call(entries)
    wire.call_fault(operation, subject, f"fails for {_counted(len(left), len(entries))}")
    failed = [EntryFailure(index, "InternalError", "Try again.") for index in left]
    places = [index for index in range(len(entries)) if index not in left]
    if not places:
        return failed
    answers = call([entries[place] for place in places])
    return failed + [EntryFailure(places[f.index], f.code, f.message, f.retryable) for f in answers]


def _left_out(chance: Chance, count: int) -> list[int]:
    """The entries of a batch that fail, if some do: a run of them, from anywhere."""
    hard = chance.strikes("partial")
    if hard is None:
        return []
    first = int(hard * count)
    length = 1 + int(hard * count * count) % count
    return sorted({(first + step) % count for step in range(length)})


def _counted(some: int, all_: int) -> str:
    return f"{some} of {all_} entries"


def wired_ports(wire: Wire, cloud: Cloud, clock: Clock, randomness: Randomness) -> Ports:
    """AWS as one process has it."""
    return Ports(
        queues=WiredQueues(wire, cloud.queues),
        bus=WiredBus(wire, cloud.bus),
        store=WiredStore(wire, cloud.store),
        scheduler=WiredScheduler(wire, cloud.scheduler),
        clock=clock,
        randomness=randomness,
    )
