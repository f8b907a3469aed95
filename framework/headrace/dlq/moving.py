"""All letters of a queue at once, by SQS itself: up to 500 a second, without a canary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

PAUSE: Final = 2.0

RUNNING: Final = "RUNNING"
COMPLETED: Final = "COMPLETED"


class Move(Protocol):
    """How far a move is. `status` is SQS's: RUNNING, COMPLETED, CANCELLING, CANCELLED, FAILED;
    `total` is what there was when it began, if SQS says so."""

    @property
    def status(self) -> str: ...
    @property
    def moved(self) -> int: ...
    @property
    def total(self) -> int | None: ...
    @property
    def failure(self) -> str | None: ...


class Moves(Protocol):
    """Moving messages within SQS."""

    async def start(self, dead_letters: str, queue: str) -> bool:
        """Begin to move all messages of a dead-letter queue to a queue. `False` where there is no
        such call, as on some emulators. Raises `CloudError`."""
        ...

    async def latest(self, dead_letters: str) -> Move | None:
        """How far the latest move from this queue is. Raises `CloudError`."""
        ...


async def move_all(
    moves: Moves,
    dead_letters: str,
    queue: str,
    told: Callable[[Move], None] = lambda move: None,
) -> Move | None:
    """Move everything and wait until that has ended, however it did; a move that is going on
    already is waited for. `None` where SQS cannot do that. Raises `CloudError`."""
    found = await _going_on(moves, dead_letters)
    if found is None and not await moves.start(dead_letters, queue):
        return None
    while True:
        move = await moves.latest(dead_letters)
        if move is not None:
            told(move)
            if move.status not in (RUNNING, "CANCELLING"):
                return move
        await asyncio.sleep(PAUSE)


async def _going_on(moves: Moves, dead_letters: str) -> Move | None:
    move = await moves.latest(dead_letters)
    return move if move is not None and move.status == RUNNING else None
