"""The Scheduler port in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from headrace.errors import NotProvisioned
from headrace.ports import Clock, QueueEntry
from headrace.schedules import require_name, require_schedulable
from headrace.testing.memory.chance import ManualClock
from headrace.testing.memory.queues import MemoryQueues


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A message that is still to come."""

    name: str
    at: datetime
    queue: str
    entry: QueueEntry


class MemoryScheduler:
    """EventBridge Scheduler. `calls` counts calls by the name of the port's method.

    A schedule fires at its time, and is gone. On a `ManualClock` that is when the clock is
    advanced. Another clock does not tell when it moves, and nothing runs in the background here:
    whoever moves it asks `next_due` how far, and then calls `due`.
    """

    def __init__(self, clock: Clock, queues: MemoryQueues) -> None:
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._queues = queues
        self._standing: dict[str, Scheduled] = {}
        if isinstance(clock, ManualClock):
            clock.on_advance(self._advanced)

    def _advanced(self) -> None:
        self.due(self._clock.now())

    # --- what stands ---

    def peek(self) -> list[Scheduled]:
        """Everything that is still to come, the next one first."""
        return sorted(self._standing.values(), key=lambda scheduled: scheduled.at)

    def next_due(self) -> datetime | None:
        """When the next one fires."""
        return min((scheduled.at for scheduled in self._standing.values()), default=None)

    def due(self, now: datetime) -> list[Scheduled]:
        """Send what is due by then, in the order of its time, and say what that was."""
        due = [scheduled for scheduled in self.peek() if scheduled.at <= now]
        for scheduled in due:
            del self._standing[scheduled.name]
            self._queues.deliver(scheduled.queue, scheduled.entry)
        return due

    # --- the port ---

    async def schedule(self, name: str, at: datetime, queue: str, entry: QueueEntry) -> None:
        await asyncio.sleep(0)
        self.schedule_now(name, at, queue, entry)

    async def cancel(self, name: str) -> None:
        await asyncio.sleep(0)
        self.cancel_now(name)

    # --- the same without waiting, for whoever keeps the time himself ---

    def schedule_now(self, name: str, at: datetime, queue: str, entry: QueueEntry) -> None:
        """`schedule`, at once."""
        self.calls["schedule"] += 1
        require_schedulable(name, at, queue, entry, now=self._clock.now())
        self._require_queue(queue)
        self._standing.setdefault(name, Scheduled(name, at, queue, entry))

    def cancel_now(self, name: str) -> None:
        """`cancel`, at once."""
        self.calls["cancel"] += 1
        require_name(name, "DeleteSchedule")
        self._standing.pop(name, None)

    def _require_queue(self, queue: str) -> None:
        # AWS looks at the queue when it fires. The adapter asks for its URL, and so for itself.
        if not self._queues.exists(queue):
            raise NotProvisioned(
                f"There is no queue {queue!r}; provision a topology that names it.",
                operation="GetQueueUrl",
                code="QueueDoesNotExist",
            )
