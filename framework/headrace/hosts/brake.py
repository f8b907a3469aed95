"""The brake: when everything fails, fewer messages are received, not more of them used up.

Every receive counts towards the dead-letter queue. If a database is down, handling on at full
speed moves the whole queue there within minutes. So once so many messages in a row have failed,
one at a time is received, after longer and longer pauses, until one is handled.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from typing import Final, TypeGuard

from headrace.errors import DecodeError, LeaseHeld, PoisonMessage, RetryLater, TooLarge
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.policy import Backoff
from headrace.ports import Delivery, Randomness

logger = logging.getLogger(__name__)

LEAST: Final = 10
"""At least so many different messages have failed, and none was handled between them."""

_PAUSES: Final = Backoff(base=timedelta(seconds=2), cap=timedelta(seconds=30))
_LEAST_PAUSE: Final = 0.5
_PROBING: Final = 60.0
"""Seconds that are waited for what becomes of the one message."""


class Brake:
    """Watches what becomes of the deliveries of one queue, and says how many may be received.

    `trip` messages that fail in a row pull it. What says something about its message alone (it is
    poison, it cannot be read, it asks for a later time) neither pulls nor releases it.
    """

    def __init__(self, queue: str, randomness: Randomness, *, trip: int = LEAST) -> None:
        self._queue = queue
        self._randomness = randomness
        self._trip = trip
        self._failed: set[str] = set()
        self._pauses = 0
        self._free_at = 0.0
        self._probe: str | None = None
        self._changed = asyncio.Event()
        self.cause: str | None = None
        """Why it is pulled, in a sentence; `None` while it is not."""

    @property
    def is_pulled(self) -> bool:
        return self.cause is not None

    async def passed(self, most: int, *, probes: bool) -> int:
        """Wait until something may be received; returns how many, `most` or one. Whoever does not
        probe waits until it is released."""
        while self.is_pulled:
            left = self._free_at - asyncio.get_running_loop().time()
            if probes and left <= 0:
                return 1
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left if probes else None):
                    await self._changed.wait()
        return most

    def received(self, delivery: Delivery) -> None:
        """While it is pulled, nothing more is received until this one is settled."""
        if self.is_pulled:
            self._probe = delivery.message_id
            # One that hangs must not keep the others from being tried.
            self._free_at = asyncio.get_running_loop().time() + _PROBING

    def settled(self, delivery: Delivery, outcome: Outcome) -> None:
        """Take note of what became of a delivery."""
        if isinstance(outcome, Ack):
            self._release()
        elif _is_failure(outcome):
            self._failed.add(delivery.message_id)
            if not self.is_pulled and len(self._failed) >= self._trip:
                self._pull(outcome)
        if self._probe == delivery.message_id:
            self._probe = None
            self._pause()
            self._changed.set()

    def _pull(self, outcome: Retry | DeadLetter) -> None:
        # Its words stay in the log: they may hold what is nobody's business, and this is shown to
        # whoever asks.
        error, where = type(outcome.error).__name__, outcome.handler or "the commit"
        self.cause = (
            f"the last {len(self._failed)} messages all failed, in the end with {error} in {where}."
        )
        logger.error(
            "%s is received from slowly, one message at a time: %s", self._queue, self.cause
        )
        self._pause()

    def _pause(self) -> None:
        self._pauses += 1
        drawn = _PAUSES.delay(self._pauses, self._randomness).total_seconds()
        pause = max(drawn, _LEAST_PAUSE)
        self._free_at = asyncio.get_running_loop().time() + pause

    def _release(self) -> None:
        self._failed.clear()
        if self.is_pulled:
            logger.info("%s is received from again as before: a message was handled.", self._queue)
            self.cause = self._probe = None
            self._pauses = 0
            self._changed.set()


_OF_THE_MESSAGE: Final = (RetryLater, LeaseHeld, PoisonMessage, DecodeError, TooLarge)


def _is_failure(outcome: Outcome) -> TypeGuard[Retry | DeadLetter]:
    """Whether something went wrong that may be the fault of something else than the message."""
    if isinstance(outcome, DeadLetter):
        return outcome.gave_up
    if not isinstance(outcome, Retry) or outcome.error is None:
        return False
    return not isinstance(outcome.error, _OF_THE_MESSAGE)
