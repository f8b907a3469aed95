"""Time and chance that a test decides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When a `ManualClock` starts, unless told otherwise."""


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._now = start
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Move the clock and wake who waits for a time that has come. Returns the new time;
        raises `ValueError` for a step back."""
        if by < timedelta(0):
            raise ValueError(f"A clock moves forward only, not by {by}.")
        self._now += by
        for listener in self._listeners:
            listener()
        return self._now

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each `advance`, for as long as the clock lives."""
        self._listeners.append(listener)


class SeededRandomness:
    """The same draws for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)

    def uuid(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)
