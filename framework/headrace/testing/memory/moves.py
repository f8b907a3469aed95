"""Moving the messages of a dead-letter queue, in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from headrace.errors import Refused
from headrace.limits import SQS_BATCH_ENTRIES
from headrace.ports import Delivery, QueueEntry
from headrace.testing.memory.queues import MemoryQueues


@dataclass(frozen=True, slots=True)
class MemoryMove:
    """How far a move is, in SQS's words. As in SQS, it has no `handle` once it has ended."""

    status: str
    moved: int
    total: int
    failure: str | None = None
    handle: str | None = None
    started: int = 0


class MemoryMoves:
    """`headrace.dlq.moving.Moves` on queues in memory. A move goes on by ten messages at each look
    at it, up to as many as there were when it began; one that was begun is listed from the next
    look but `lag` on."""

    def __init__(self, queues: MemoryQueues, *, lag: int = 0) -> None:
        self._queues = queues
        self._lag = lag
        self._unlisted = self._cancelling = 0
        self._to: dict[str, str] = {}
        self._moves: dict[str, list[MemoryMove]] = {}

    async def start(self, dead_letters: str, queue: str) -> str | None:
        """Begin to move what can be received now. Raises `Refused` while a move is going on."""
        moves = self._moves.setdefault(dead_letters, [])
        if moves and moves[-1].status in ("RUNNING", "CANCELLING"):
            raise Refused("There is already a task running.", operation="StartMessageMoveTask")
        total = (await self._queues.depth(dead_letters)).visible
        self._to[dead_letters] = queue
        handle, self._unlisted = f"move-{len(moves) + 1}", self._lag
        moves.append(MemoryMove("RUNNING", 0, total, handle=handle, started=len(moves) + 1))
        return handle

    async def recent(self, dead_letters: str) -> list[MemoryMove]:
        moves = self._moves.get(dead_letters, [])
        if self._unlisted:
            self._unlisted -= 1
            return moves[-2::-1]
        if moves:
            moves[-1] = await self._go_on(dead_letters, moves[-1])
        return moves[::-1]

    def cancel(self, dead_letters: str) -> None:
        """As somebody else may do: the move is CANCELLING at the next look, and then CANCELLED."""
        moves = self._moves[dead_letters]
        moves[-1] = replace(moves[-1], status="CANCELLING", handle=None)
        self._cancelling = 1

    async def _go_on(self, dead_letters: str, move: MemoryMove) -> MemoryMove:
        if move.status == "CANCELLING" and self._cancelling:
            self._cancelling -= 1
            return move
        if move.status == "CANCELLING":
            return replace(move, status="CANCELLED")
        if move.status != "RUNNING":
            return move
        limit = min(SQS_BATCH_ENTRIES, move.total - move.moved)
        some = await self._some(dead_letters, limit) if limit else []
        if not some:
            return replace(move, status="COMPLETED", handle=None)
        await self._queues.send(self._to[dead_letters], [_entry(delivery) for delivery in some])
        await self._queues.delete(dead_letters, [delivery.receipt_handle for delivery in some])
        return replace(move, moved=move.moved + len(some))

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
