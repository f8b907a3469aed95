"""The Queues port in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from headrace.errors import NotProvisioned, Refused
from headrace.limits import SQS_BATCH_ENTRIES, SQS_MAX_VISIBILITY, SQS_MAX_WAIT
from headrace.ports import Clock, Delivery, EntryFailure, QueueDepth, QueueEntry, Randomness
from headrace.testing.memory.chance import ManualClock
from headrace.testing.memory.latitude import ORDERLY, Latitude
from headrace.testing.memory.queue import MemoryQueue, Message
from headrace.testing.memory.refusals import (
    entry_failure,
    require_batch,
    require_batch_size,
    require_groups,
)
from headrace.topology.model import Queue

FIFO_SUFFIX: Final = ".fifo"


class MemoryQueues:
    """SQS. `calls` counts calls by the name of the port's method.

    Times come from the clock; only a long poll's `wait` is the event loop's. On a
    `ManualClock` a hidden message comes back, even into an open poll, when it is advanced.
    """

    def __init__(self, clock: Clock, randomness: Randomness, latitude: Latitude = ORDERLY) -> None:
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._randomness = randomness
        self._latitude = latitude
        self._queues: dict[str, MemoryQueue] = {}
        self._stands_still = isinstance(clock, ManualClock)
        if isinstance(clock, ManualClock):
            clock.on_advance(self._wake_all)

    # --- what exists ---

    def create(self, spec: Queue) -> None:
        """Make a queue, or give an existing one new settings; its messages stay.
        Raises `Refused` unless the name ends in `.fifo` just when it is a FIFO queue."""
        if spec.fifo != spec.name.endswith(FIFO_SUFFIX):
            raise Refused(
                f"The queue {spec.name!r} cannot be made: the name of a FIFO queue ends in "
                f"{FIFO_SUFFIX}, and no other does.",
                operation="CreateQueue",
                code="InvalidParameterValue",
            )
        if spec.name in self._queues:
            self._queues[spec.name].spec = spec
        else:
            self._queues[spec.name] = MemoryQueue(
                spec, self._randomness.uuid, self._bury, self._latitude
            )

    def require_redrive(self) -> None:
        """Raises `NotProvisioned` when a dead-letter queue is not there, and `Refused` when
        it is FIFO and its source is not, or the other way round."""
        for held in self._queues.values():
            target = held.spec.dead_letters
            if target is not None and self.is_fifo(target) != held.spec.fifo:
                raise Refused(
                    f"The queue {held.spec.name!r} and its dead-letter queue {target!r} must "
                    "both be FIFO or both standard.",
                    operation="SetQueueAttributes",
                    code="InvalidParameterValue",
                )

    def exists(self, queue: str) -> bool:
        return queue in self._queues

    def is_fifo(self, queue: str) -> bool:
        return self._queue(queue, "GetQueueAttributes").spec.fifo

    def watch(self, queue: str, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever something may have become available, except by the mere
        passing of time (see `next_due`). Returns what ends that."""
        return self._queue(queue, "ReceiveMessage").watch(listener)

    def next_due(self, queue: str) -> datetime | None:
        """When the next hidden or delayed message of a queue can be received."""
        return self._queue(queue, "ReceiveMessage").next_due(self._clock.now())

    def last_due(self, queue: str) -> datetime | None:
        """When the last hidden or delayed message of a queue can be received."""
        return self._queue(queue, "ReceiveMessage").last_due(self._clock.now())

    def is_empty(self, queue: str) -> bool:
        """Whether nothing is in the queue, hidden or not."""
        return not self._queue(queue, "GetQueueAttributes").messages

    def peek(self, queue: str) -> list[QueueEntry]:
        """Everything in the queue, hidden or not, oldest first, without receiving it."""
        held = self._queue(queue, "ReceiveMessage").messages.values()
        return [message.entry for message in held]

    def bodies(self, queue: str, receipts: Sequence[str]) -> list[str]:
        """The bodies of the messages that these receipt handles name, as far as they are there."""
        held = self._queue(queue, "ReceiveMessage")
        found = map(held.named, receipts)
        return [message.entry.body for message in found if message is not None]

    def _queue(self, name: str, operation: str) -> MemoryQueue:
        if name not in self._queues:
            raise NotProvisioned(
                f"There is no queue {name!r}; provision a topology that names it.",
                operation=operation,
                code="QueueDoesNotExist",
            )
        return self._queues[name]

    def _bury(self, source: Queue, message: Message) -> None:
        now = self._clock.now()
        target = self._queue(source.dead_letters or "", "ReceiveMessage")
        # Only a standard dead-letter queue keeps the time of the first send.
        sent_at = now if target.spec.fifo else message.sent_at
        target.keep(Message(message.id, message.entry, sent_at=sent_at, due=now), now)

    def _wake_all(self) -> None:
        for queue in self._queues.values():
            queue.wake()

    # --- the port ---

    async def receive(
        self,
        queue: str,
        *,
        limit: int,
        wait: timedelta,
        visibility: timedelta | None = None,
    ) -> list[Delivery]:
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        until = loop.time() + wait.total_seconds()
        taken = self.receive_now(queue, limit=limit, wait=wait, visibility=visibility)
        held = self._queue(queue, "ReceiveMessage")
        while not taken and (left := until - loop.time()) > 0:
            await held.changed(min(left, self._until_due(held)))
            taken = self._take(held, limit, visibility)
        return taken

    def _until_due(self, held: MemoryQueue) -> float:
        now = self._clock.now()
        due = held.next_due(now)
        # Sleeping brings a clock that stands still no nearer; its `advance` wakes the poll.
        if due is None or self._stands_still:
            return float("inf")
        return (due - now).total_seconds()

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        await asyncio.sleep(0)
        return self.send_now(queue, entries)

    def deliver(self, queue: str, entry: QueueEntry) -> None:
        """What a rule does: one message, at once, and not a call of ours."""
        self._queue(queue, "SendMessage").put(entry, self._clock.now())

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        await asyncio.sleep(0)
        return self.delete_now(queue, receipts)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        await asyncio.sleep(0)
        return self.change_visibility_now(queue, changes)

    async def depth(self, queue: str) -> QueueDepth:
        await asyncio.sleep(0)
        return self.depth_now(queue)

    # --- the same without waiting, for whoever keeps the time himself ---

    def receive_now(
        self,
        queue: str,
        *,
        limit: int,
        wait: timedelta = timedelta(0),
        visibility: timedelta | None = None,
    ) -> list[Delivery]:
        """What `receive` finds at its first look."""
        self.calls["receive"] += 1
        held = self._queue(queue, "ReceiveMessage")
        _require_range("ReceiveMessage", "limit", 1 <= limit <= SQS_BATCH_ENTRIES)
        _require_range("ReceiveMessage", "wait", timedelta(0) <= wait <= SQS_MAX_WAIT)
        _require_range("ReceiveMessage", "visibility", _is_visibility(visibility))
        return self._take(held, limit, visibility)

    def look_again(
        self, queue: str, *, limit: int, visibility: timedelta | None = None
    ) -> list[Delivery]:
        """What an open `receive` finds at a later look, which is no call of its own."""
        return self._take(self._queue(queue, "ReceiveMessage"), limit, visibility)

    def send_now(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        """`send`, at once."""
        self.calls["send"] += 1
        held = self._queue(queue, "SendMessageBatch")
        require_batch("SendMessageBatch", len(entries))
        require_batch_size(entries)
        if held.spec.fifo:
            require_groups(entries)
        failures = [entry_failure(i, e, fifo=held.spec.fifo) for i, e in enumerate(entries)]
        for entry, failure in zip(entries, failures, strict=True):
            if failure is None:
                held.put(replace(entry, attributes=dict(entry.attributes)), self._clock.now())
        return _failures(failures)

    def delete_now(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        """`delete`, at once."""
        self.calls["delete"] += 1
        held = self._queue(queue, "DeleteMessageBatch")
        require_batch("DeleteMessageBatch", len(receipts))
        now = self._clock.now()
        return _failures(held.delete(index, receipt, now) for index, receipt in enumerate(receipts))

    def change_visibility_now(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        """`change_visibility`, at once."""
        self.calls["change_visibility"] += 1
        held = self._queue(queue, "ChangeMessageVisibilityBatch")
        require_batch("ChangeMessageVisibilityBatch", len(changes))
        now = self._clock.now()
        return _failures(
            held.change(index, receipt, visibility, now)
            for index, (receipt, visibility) in enumerate(changes)
        )

    def depth_now(self, queue: str) -> QueueDepth:
        """`depth`, at once."""
        self.calls["depth"] += 1
        return self._queue(queue, "GetQueueAttributes").depth(self._clock.now())

    def _take(self, held: MemoryQueue, limit: int, visibility: timedelta | None) -> list[Delivery]:
        return held.take(limit, _given(visibility, held.spec.visibility), self._clock.now())


def _failures(answers: Iterable[EntryFailure | None]) -> list[EntryFailure]:
    return [answer for answer in answers if answer is not None]


def _given(visibility: timedelta | None, default: timedelta) -> timedelta:
    return default if visibility is None else visibility


def _is_visibility(visibility: timedelta | None) -> bool:
    return visibility is None or timedelta(0) <= visibility <= SQS_MAX_VISIBILITY


def _require_range(operation: str, name: str, within: bool) -> None:
    if not within:
        raise Refused(
            f"{operation}: `{name}` is outside of what SQS allows.",
            operation=operation,
            code="InvalidParameterValue",
        )
