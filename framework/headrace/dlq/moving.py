"""All letters of a queue at once, by SQS itself: up to 500 a second, without a canary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from headrace.errors import HeadraceError

PAUSE: Final = 2.0

RUNNING: Final = "RUNNING"
CANCELLING: Final = "CANCELLING"
COMPLETED: Final = "COMPLETED"

_LOOKS: Final = 30
"""How often a move may be missing in SQS's list, in a row, after it was begun."""


class Move(Protocol):
    """How far a move is. `status` is SQS's: RUNNING, COMPLETED, CANCELLING, CANCELLED, FAILED;
    `total` is what there was when it began, if SQS says so. `handle` names it, and only while it is
    RUNNING; `started` is when it began, in milliseconds of the epoch."""

    @property
    def status(self) -> str: ...
    @property
    def moved(self) -> int: ...
    @property
    def total(self) -> int | None: ...
    @property
    def failure(self) -> str | None: ...
    @property
    def handle(self) -> str | None: ...
    @property
    def started(self) -> int: ...


class Moves(Protocol):
    """Moving messages within SQS."""

    async def start(self, dead_letters: str, queue: str) -> str | None:
        """Begin to move all messages of a dead-letter queue to a queue; returns the handle of the
        move. `None` where there is no such call, as on some emulators. Raises `CloudError`."""
        ...

    async def recent(self, dead_letters: str) -> Sequence[Move]:
        """The latest moves from this queue, as far as SQS remembers them. Raises `CloudError`."""
        ...


async def move_all(
    moves: Moves,
    dead_letters: str,
    queue: str,
    told: Callable[[Move], None] = lambda move: None,
) -> Move | None:
    """Move everything and wait until that has ended, however it did; a move that is going on
    already is waited for, and one that is being cancelled has to end first. `None` where SQS cannot
    do that. Raises `CloudError`, and `HeadraceError` if SQS does not list the move."""
    before = await _without_cancelling(moves, dead_letters, told)
    following = _going_on(before)
    if following is None:
        handle = await moves.start(dead_letters, queue)
        if handle is None:
            return None
        following = _Followed(handle, _latest(before))
    missing = 0
    while missing < _LOOKS:
        move = following.among(await moves.recent(dead_letters))
        missing = missing + 1 if move is None else 0
        if move is not None:
            told(move)
            if move.status not in (RUNNING, CANCELLING):
                return move
        await asyncio.sleep(PAUSE)
    raise HeadraceError(
        f"SQS began to move the messages of {dead_letters} and does not list that move: see with "
        "`aws sqs list-message-move-tasks` how far it is."
    )


@dataclass(frozen=True, slots=True)
class _Followed:
    """One move, which SQS names by its `handle` while it runs and not any more when it has ended:
    then it is the first that began after that time, as SQS runs one at a time."""

    handle: str | None
    after: int

    def among(self, recent: Sequence[Move]) -> Move | None:
        for move in recent:
            if move.handle is not None and move.handle == self.handle:
                return move
        ended = [
            move
            for move in recent
            if move.started > self.after and (move.status != RUNNING or not self.handle)
        ]
        return min(ended, key=lambda move: move.started, default=None)


async def _without_cancelling(
    moves: Moves, dead_letters: str, told: Callable[[Move], None]
) -> Sequence[Move]:
    while True:
        found = await moves.recent(dead_letters)
        cancelling = [move for move in found if move.status == CANCELLING]
        if not cancelling:
            return found
        # SQS begins no other as long as it is there.
        told(cancelling[0])
        await asyncio.sleep(PAUSE)


def _going_on(recent: Sequence[Move]) -> _Followed | None:
    for move in recent:
        if move.status == RUNNING:
            return _Followed(move.handle, _latest([m for m in recent if m is not move]))
    return None


def _latest(moves: Sequence[Move]) -> int:
    return max((move.started for move in moves), default=-1)
