"""Moving the messages of a dead-letter queue, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from headrace.limits import SQS_BATCH_ENTRIES
from headrace.ports import Delivery, QueueEntry
from headrace.testing.memory.queues import MemoryQueues


@dataclass(frozen=True, slots=True)
class MemoryMove:
    """How far a move is, in SQS's words."""

    status: str
    moved: int
    total: int
    failure: str | None = None


class MemoryMoves:
    """`headrace.dlq.moving.Moves` on queues in memory. A move goes on by ten messages at each look
    at it, up to as many as there were when it began."""

    def __init__(self, queues: MemoryQueues) -> None:
        self._queues = queues
        self._to: dict[str, str] = {}
        self._moves: dict[str, MemoryMove] = {}

    async def start(self, dead_letters: str, queue: str) -> bool:
        """Begin to move what can be received now."""
        total = (await self._queues.depth(dead_letters)).visible
        self._to[dead_letters] = queue
        self._moves[dead_letters] = MemoryMove("RUNNING", 0, total)
        return True

    async def latest(self, dead_letters: str) -> MemoryMove | None:
        move = self._moves.get(dead_letters)
        if move is not None and move.status == "RUNNING":
            move = self._moves[dead_letters] = await self._go_on(dead_letters, move)
        return move

    async def _go_on(self, dead_letters: str, move: MemoryMove) -> MemoryMove:
        limit = min(SQS_BATCH_ENTRIES, move.total - move.moved)
        some = await self._some(dead_letters, limit) if limit else []
        if not some:
            return MemoryMove("COMPLETED", move.moved, move.total)
        await self._queues.send(self._to[dead_letters], [_entry(delivery) for delivery in some])
        await self._queues.delete(dead_letters, [delivery.receipt_handle for delivery in some])
        return MemoryMove("RUNNING", move.moved + len(some), move.total)

    async def _some(self, dead_letters: str, limit: int) -> list[Delivery]:
        visibility = timedelta(hours=1)
        return await self._queues.receive(
            dead_letters, limit=limit, wait=timedelta(0), visibility=visibility
        )


def _entry(delivery: Delivery) -> QueueEntry:
    return QueueEntry(
        body=delivery.body,
        group_id=delivery.group_id,
        deduplication_id=delivery.message_id if delivery.fifo else None,
        trace_header=delivery.trace_header,
        attributes=delivery.attributes,
    )
