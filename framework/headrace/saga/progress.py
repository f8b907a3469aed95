"""How far a saga is: a value that only transitions make anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from headrace.saga.definition import Definition, Saga


class StepStatus(StrEnum):
    """Where a step is.

    `paused` is to be sent again; `unknown` was given up without an answer, so that it may have
    happened; `undo paused` is to be undone again.
    """

    WAITING = "waiting"
    SENT = "sent"
    PAUSED = "paused"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    UNKNOWN = "unknown"
    UNDOING = "undoing"
    UNDO_PAUSED = "undo paused"
    UNDONE = "undone"


class Direction(StrEnum):
    """Which way a saga goes: its steps are done, or undone."""

    FORWARD = "forward"
    BACK = "back"


class Status(StrEnum):
    """How a saga stands, for those who look at it."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One step. `attempt` counts what was sent in the current direction. At `due` it is sent again,
    or given up. `place` is the order in which steps were done; `unanswered` says that an answer
    did not come in time once, so that it may still come."""

    status: StepStatus = StepStatus.WAITING
    attempt: int = 0
    due: datetime | None = None
    place: int = 0
    unanswered: bool = False
    exhausted: bool = False


@dataclass(frozen=True, slots=True)
class Timer:
    """The message that will wake a saga. Its `turn` tells it from those that were set earlier, and
    are of no interest when they come."""

    turn: int
    at: datetime
    scheduled: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """One saga between two messages. `turn` counts its transitions, `reason` is why
    it is undone, and `stuck` names the step that waits for an operator, with its `trouble`."""

    state: Saga
    begun: datetime
    deadline: datetime | None = None
    steps: Mapping[str, StepProgress] = field(default_factory=dict)
    direction: Direction = Direction.FORWARD
    ended: bool = False
    stuck: str | None = None
    trouble: str | None = None
    reason: str | None = None
    timer: Timer | None = None
    turn: int = 0

    def step(self, name: str) -> StepProgress:
        return self.steps.get(name, NOT_BEGUN)

    @property
    def status(self) -> Status:
        if self.stuck is not None:
            return Status.STUCK
        if self.direction is Direction.FORWARD:
            return Status.COMPLETED if self.ended else Status.RUNNING
        return Status.COMPENSATED if self.ended else Status.COMPENSATING

    def past_pivot(self, definition: Definition) -> bool:
        """Whether nothing will be undone any more."""
        pivot = definition.pivot
        return pivot is not None and self.step(pivot.name).status in OVER


OVER = frozenset({StepStatus.DONE, StepStatus.SKIPPED})
"""What lets the steps behind begin."""

NOT_BEGUN: Final = StepProgress()
