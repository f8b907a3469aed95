"""What a worker knows of the polling of one queue, for whoever asks how it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Phase(StrEnum):
    """What the polling of a queue is at."""

    STARTING = "starting"
    """Nothing has been received from, yet."""
    RECEIVING = "receiving"
    """The last receive was answered, if only with nothing."""
    FULL = "full"
    """There is no room for more: handlers are at work."""
    SLOWED = "slowed"
    """Everything that is handled fails, so one message at a time is received, after pauses."""
    FAILING = "failing"
    """The last receive failed, or was not answered; it is tried again."""
    STOPPED = "stopped"
    """Nothing more is received."""


@dataclass(slots=True)
class Pulse:
    """The polling of one queue. Written on the event loop, and read on any thread.

    `cause` says in a sentence why the phase is `FAILING` or `SLOWED`; `restarts` counts how often
    the poll loop ended unexpectedly and was started again.
    """

    queue: str
    phase: Phase = Phase.STARTING
    cause: str | None = None
    last_receive: datetime | None = None
    restarts: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether messages are received as they should be."""
        return self.phase in (Phase.RECEIVING, Phase.FULL, Phase.SLOWED)
