"""The machine's own time and chance."""

from __future__ import annotations

from datetime import UTC, datetime
from random import SystemRandom
from uuid import UUID, uuid4


class SystemClock:
    """The time of day, aware and in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SystemRandomness:
    """The operating system's entropy.

    Not `random.random`: its state is part of a SnapStart snapshot, so every environment
    restored from one would draw the same numbers, and all retries would fall together.
    """

    def __init__(self) -> None:
        self._source = SystemRandom()

    def uuid(self) -> UUID:
        return uuid4()

    def uniform(self, low: float, high: float) -> float:
        return self._source.uniform(low, high)
