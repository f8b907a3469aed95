"""One in-memory SQS queue: what is in it, what is hidden, and until when.

Nothing here waits; every method is told the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from headrace.limits import SQS_MAX_VISIBILITY
from headrace.ports import Delivery, EntryFailure, QueueDepth, QueueEntry
from headrace.testing.memory.latitude import Latitude
from headrace.topology.model import Queue

DEDUPLICATION_WINDOW: Final = timedelta(minutes=5)
_FIRST: Final = 18_849_496_460_467_696_128
"""About where SQS begins to count; the numbers of a queue are text of 20 digits."""
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Message:
    """One message and its state. `due` is when it can be received (again); `received_at`,
    of the latest receive, starts the 12 hours that a visibility may last."""

    id: str
    entry: QueueEntry
    sent_at: datetime
    due: datetime
    receive_count: int = 0
    receipt: str | None = None
    received_at: datetime | None = None
    sequence: int | None = None


@dataclass(slots=True)
class MemoryQueue:
    """A standard or FIFO queue as `spec` says. `bury` takes a message whose receive count
    would exceed the limit; `uuid` draws ids."""

    spec: Queue
    uuid: Callable[[], UUID]
    bury: Callable[[Queue, Message], None]
    latitude: Latitude
    messages: dict[str, Message] = field(default_factory=dict)
    _hidden: dict[str, Message] = field(default_factory=dict)
    _oldest: datetime = _NEVER
    _last: int = _FIRST
    _seen: dict[tuple[str | None, str], datetime] = field(default_factory=dict)
    _watching: dict[object, Callable[[], None]] = field(default_factory=dict)

    # --- waiting ---

    async def changed(self, within: float) -> None:
        """Until something may have become available, or for so many seconds."""
        changed = asyncio.Event()
        unwatch = self.watch(changed.set)
        try:
            async with asyncio.timeout(within):
                await changed.wait()
        except TimeoutError:
            return
        finally:
            unwatch()

    def watch(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when something may have become available; returns what ends that."""
        key = object()
        self._watching[key] = listener

        def unwatch() -> None:
            self._watching.pop(key, None)

        return unwatch

    def wake(self) -> None:
        for listener in list(self._watching.values()):
            listener()

    def next_due(self, now: datetime) -> datetime | None:
        """When the next hidden message can be received."""
        self._reveal(now)
        return min((message.due for message in self._hidden.values()), default=None)

    def last_due(self, now: datetime) -> datetime | None:
        """When the last hidden message can be received."""
        self._reveal(now)
        return max((message.due for message in self._hidden.values()), default=None)

    # --- sending ---

    def put(self, entry: QueueEntry, now: datetime) -> None:
        if not self.spec.fifo or self._is_new(entry, now):
            due = now + entry.delay
            if not self.spec.fifo:
                due += self.latitude.shows_after(self.spec.name, entry)
            self.keep(Message(str(self.uuid()), entry, sent_at=now, due=due), now)

    def keep(self, message: Message, now: datetime) -> None:
        if self.spec.fifo:
            self._last += 1
            message.sequence = self._last
        self.messages[message.id] = message
        self._oldest = min(self._oldest, message.sent_at)
        if message.due > now:
            self._hidden[message.id] = message
        self.wake()

    def _is_new(self, entry: QueueEntry, now: datetime) -> bool:
        """Whether the deduplication id, or else the body, was not sent in the last 5 minutes."""
        while self._seen and next(iter(self._seen.values())) + DEDUPLICATION_WINDOW <= now:
            del self._seen[next(iter(self._seen))]
        # A hash of the body stands in for a missing id; each group has ids of its own.
        key = entry.group_id, entry.deduplication_id or _hash(entry)
        is_new = key not in self._seen
        self._seen.setdefault(key, now)
        return is_new

    # --- receiving ---

    def take(self, limit: int, visibility: timedelta, now: datetime) -> list[Delivery]:
        """Up to `limit` messages, oldest first, hidden from now on. Those that were received
        often enough go to the dead-letter queue instead."""
        self._expire(now)
        self._reveal(now)
        taken: list[Delivery] = []
        spent: list[Message] = []
        for message in self._available():
            if self._is_spent(message):
                spent.append(message)
            else:
                taken.append(self._receive(message, visibility, now))
            if len(taken) == limit:
                break
        for message in spent:
            self._forget(message)
            self.bury(self.spec, message)
        return taken

    def _available(self) -> Iterator[Message]:
        # A group waits while one of its messages is in flight, but not for those of this call.
        blocked = {m.entry.group_id for m in self._hidden.values()} if self.spec.fifo else set()
        for message in self._in_order():
            if message.id not in self._hidden and message.entry.group_id not in blocked:
                yield message

    def _in_order(self) -> Iterable[Message]:
        if self.spec.fifo:
            return self.messages.values()
        return self.latitude.order(self.spec.name, list(self.messages.values()))

    def _is_spent(self, message: Message) -> bool:
        limit = self.spec.max_receive_count
        return self.spec.dead_letters is not None and message.receive_count >= limit

    def _receive(self, message: Message, visibility: timedelta, now: datetime) -> Delivery:
        message.receive_count += 1
        message.receipt = f"{message.id}/{self.uuid()}"
        message.received_at = now
        hidden = self.latitude.hidden_for(
            self.spec.name,
            visibility,
            message.entry,
            receive_count=message.receive_count,
            fifo=self.spec.fifo,
        )
        self._hide(message, now + hidden, now)
        return self._delivery(message, message.receipt)

    def _delivery(self, message: Message, receipt: str) -> Delivery:
        entry = message.entry
        return Delivery(
            message_id=message.id,
            receipt_handle=receipt,
            body=entry.body,
            queue=self.spec.name,
            receive_count=message.receive_count,
            group_id=entry.group_id,
            fifo=self.spec.fifo,
            sequence=None if message.sequence is None else str(message.sequence),
            sent_at=message.sent_at,
            trace_header=entry.trace_header,
            attributes=dict(entry.attributes),
        )

    def _hide(self, message: Message, until: datetime, now: datetime) -> None:
        message.due = until
        if until > now:
            self._hidden[message.id] = message
        else:
            self._hidden.pop(message.id, None)

    def _reveal(self, now: datetime) -> None:
        for message in [m for m in self._hidden.values() if m.due <= now]:
            del self._hidden[message.id]

    def _expire(self, now: datetime) -> None:
        limit = now - self.spec.retention
        if self._oldest > limit:
            return
        for message in [m for m in self.messages.values() if m.sent_at <= limit]:
            self._forget(message)
        self._oldest = min((m.sent_at for m in self.messages.values()), default=_NEVER)

    def _forget(self, message: Message) -> None:
        self.messages.pop(message.id, None)
        self._hidden.pop(message.id, None)

    # --- settling ---

    def delete(self, index: int, receipt: str, now: datetime) -> EntryFailure | None:
        """A stale receipt deletes nothing: on a standard queue that is answered as success,
        as SQS may do; on a FIFO queue it is a failure."""
        message = self.named(receipt)
        if message is None:
            return None if _is_receipt(receipt) else _not_a_receipt(index)
        stale = message.receipt != receipt
        if self.spec.fifo and (stale or message.due <= now):
            return _invalid(index, "The receipt handle has expired.")
        if not stale:
            self._end(message, now)
        return None

    def _end(self, message: Message, now: datetime) -> None:
        """Delete it; on a standard queue it may still come once more."""
        back = None
        if not self.spec.fifo:
            back = self.latitude.returns_after(
                self.spec.name, message.entry, receive_count=message.receive_count
            )
        if back is None:
            self._forget(message)
        else:
            self._hide(message, now + back, now)
        self.wake()

    def change(
        self, index: int, receipt: str, visibility: timedelta, now: datetime
    ) -> EntryFailure | None:
        if not _is_receipt(receipt):
            return _not_a_receipt(index)
        message = self.named(receipt)
        if message is None or message.receipt != receipt or message.received_at is None:
            return _invalid(index, "The message does not exist or was received again.")
        if message.due <= now:
            return EntryFailure(index, "MessageNotInflight", "It is not in flight.", False)
        if not timedelta(0) <= visibility <= message.received_at + SQS_MAX_VISIBILITY - now:
            return _invalid(index, "The visibility of a message is at most 12 hours in total.")
        self._hide(message, now + visibility, now)
        self.wake()
        return None

    def named(self, receipt: str) -> Message | None:
        """The message that a receipt handle names, whether or not it is the latest one."""
        return self.messages.get(receipt.partition("/")[0])

    # --- counting ---

    def depth(self, now: datetime) -> QueueDepth:
        self._expire(now)
        self._reveal(now)
        in_flight = sum(message.receive_count > 0 for message in self._hidden.values())
        hidden = len(self._hidden)
        return QueueDepth(len(self.messages) - hidden, in_flight, hidden - in_flight)


def _hash(entry: QueueEntry) -> str:
    return sha256(entry.body.encode()).hexdigest()


def _is_receipt(receipt: str) -> bool:
    return "/" in receipt


def _not_a_receipt(index: int) -> EntryFailure:
    return EntryFailure(index, "ReceiptHandleIsInvalid", "It is no receipt handle.", False)


def _invalid(index: int, message: str) -> EntryFailure:
    return EntryFailure(index, "InvalidParameterValue", message, retryable=False)
