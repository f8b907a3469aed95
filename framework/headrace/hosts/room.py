"""Room for deliveries: taken before a receive, so that no more come than there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from headrace.limits import SQS_BATCH_ENTRIES

_LINGER: Final = 0.005
"""Seconds to wait for more room before a receive for less than a full batch: handlers that have
committed together end together."""


class Room:
    """Places for `running` deliveries that are handled, and for as many more that wait as
    `waiting` says. Where those who have a place may have to wait while others need not, `is_idle`
    says that somebody could be handled at once."""

    def __init__(
        self, running: int, waiting: int = 0, *, is_idle: Callable[[], bool] = lambda: False
    ) -> None:
        self._waiting = waiting
        self._size = running + waiting
        self._is_idle = is_idle
        self._held = 0
        self._given = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether there is nothing to be received for: no place, or too few of them for those who
        would only wait."""
        free = self._size - self._held
        if free and self._is_idle():
            return False
        return free < max(1, min(self._waiting, SQS_BATCH_ENTRIES))

    async def take(self, most: int) -> int:
        """Wait for room, then take up to `most` places; returns how many.

        As long as something waits to be handled, a receive is worth a full batch, or what is left
        of the places; when a handler has nothing to do, any.
        """
        while True:
            while self.is_full:
                self._given.clear()
                await self._given.wait()
            if self._held == 0 or self._size - self._held >= most:
                break
            await self._more(most)
            if not self.is_full:
                break
        taken = min(self._size - self._held, most)
        self._held += taken
        return taken

    def give(self, count: int) -> None:
        self._held -= count
        self._given.set()

    async def _more(self, most: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while self._size - self._held < most:
                    self._given.clear()
                    await self._given.wait()
