"""The end of an invocation, and what has to be done by when.

deadline - margin      nothing more is started; what runs is cancelled, and what is left handed back
deadline - margin / 2  what has not ended by then, as it swallows that, is handed back too
deadline - ANSWERING   the answer leaves, and names all that is not done
deadline               Lambda ends the environment, and the whole batch comes again
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from headrace.batch import CutShort
from headrace.ports import Clock, Delivery

ANSWERING: Final = timedelta(milliseconds=150)
"""Time kept free for the answer itself: up to 10,000 identifiers, and the way to Lambda."""

_EACH: Final = timedelta(microseconds=50)
"""To hand back 10,000 messages takes 1,000 calls, ten at a time: half a second."""

_NO_TIME: Final = "There was no time left to start it."
_STOPPED: Final = "It was not done by the deadline and was stopped."


class Deadline:
    """An invocation that began just now, and has so much time `left`. The `margin` is for
    settling what is not done, and longer by a little for each of many messages."""

    def __init__(
        self, clock: Clock, left: timedelta, margin: timedelta, *, messages: int = 1
    ) -> None:
        self._clock = clock
        # Without half of the time for handlers, nothing would ever be handled.
        margin = min(margin + messages * _EACH, left / 2)
        self.at = clock.now() + left
        self._stop = self.at - margin
        self._cut = self.at - margin / 2
        self._answer = self.at - min(margin / 4, ANSWERING)

    @property
    def is_near(self) -> bool:
        """Whether nothing more may be started."""
        return self._clock.now() >= self._stop

    @property
    def until_cut(self) -> float:
        """Seconds until what still runs is left to itself."""
        return max((self._cut - self._clock.now()).total_seconds(), 0)

    @property
    def until_answer(self) -> float:
        """Seconds until the answer has to leave."""
        return max((self._answer - self._clock.now()).total_seconds(), 0)

    @asynccontextmanager
    async def stay(self, delivery: Delivery) -> AsyncIterator[None]:
        """Handle a delivery until the margin begins; cancels what is in the block then, and raises
        `CutShort`."""
        left = (self._stop - self._clock.now()).total_seconds()
        if left <= 0:
            raise CutShort(_NO_TIME, timedelta(0))
        limit = asyncio.timeout(left)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise CutShort(_STOPPED, timedelta(0)) from None
