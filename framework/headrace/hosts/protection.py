"""When a worker's task is protected from scale-in: only while something takes long.

ECS does not end a protected task, but a deployment waits for it as well. What is done sooner
than the drain is over needs no protection, so quick handlers never ask for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

from headrace.errors import CloudError, Unreachable

logger = logging.getLogger(__name__)

PROTECTED: Final = timedelta(minutes=10)
"""What is asked for at a time; and how long deployments wait if no release gets through."""
RENEWED: Final = PROTECTED / 2
"""When it is asked for again; and when after a refusal, which a deployment or a policy may end."""
RETRIED: Final = timedelta(seconds=30)
"""When a call is tried again that was throttled or not answered."""
LOOK_EVERY: Final = timedelta(seconds=1)
FAREWELL: Final = timedelta(seconds=1)
"""How long the release at the stop may take, of the little time there is then."""

_MINUTES: Final = PROTECTED // timedelta(minutes=1)
_UNPROTECTED: Final = "Scale-in may cut a slow handler of this task short"
_UNRELEASED: Final = f"This task may hold up a deployment for up to {_MINUTES} minutes more"


class Protection(Protocol):
    """Protects this task. Both methods raise `CloudError`."""

    async def protect(self, minutes: int) -> None:
        """Protect it for so many minutes from now."""

    async def release(self) -> None:
        """Let it be ended."""


async def protected_while_slow(
    protection: Protection,
    oldest: Callable[[], timedelta | None],
    *,
    after: timedelta,
    look_every: timedelta = LOOK_EVERY,
) -> None:
    """Protect the task while a delivery has been running for longer than `after`.

    `oldest()` says how long the oldest running delivery has been running, and `None` if nothing
    runs. Calls nothing before something is slow. Runs until it is cancelled, and then releases the
    task if it may be protected, for up to `FAREWELL`. What `protection` raises as a `CloudError`
    is logged, once for each cause, and tried again.
    """
    guard = _Guard(protection)
    try:
        while True:
            age = oldest()
            if age is not None and age > after:
                await guard.hold()
            else:
                await guard.let_go()
            await asyncio.sleep(look_every.total_seconds())
    finally:
        await guard.part()


class _Guard:
    """What is known of the protection of this task, and when the next call is due.

    Times are the event loop's.
    """

    def __init__(self, protection: Protection) -> None:
        self._protection = protection
        self._clock = asyncio.get_running_loop()
        self._until = 0.0
        """The task may be protected until then."""
        self._hold_at = 0.0
        self._let_go_at = 0.0
        self._logged: set[tuple[str, str, str]] = set()

    async def hold(self) -> None:
        """Protect the task, if it is time to."""
        now = self._clock.time()
        if now < self._hold_at:
            return
        self._let_go_at = 0.0
        # Before the call: one that is cancelled, or not answered, may have had its effect.
        before, self._until = self._until, now + PROTECTED.total_seconds()
        try:
            await self._protection.protect(_MINUTES)
            self._hold_at = self._in(RENEWED)
        except CloudError as error:
            if not isinstance(error, Unreachable):
                self._until = before
            self._hold_at = self._in(_pause(error))
            self._log(_UNPROTECTED, error)

    async def let_go(self) -> None:
        """Release the task, if it may be protected and it is time to."""
        now = self._clock.time()
        if now >= self._until or now < self._let_go_at:
            return
        # Released or not, who knows: what is slow next asks at once.
        self._hold_at = 0.0
        try:
            await self._protection.release()
            self._until = 0.0
        except CloudError as error:
            self._let_go_at = self._in(_pause(error))
            self._log(_UNRELEASED, error)

    async def part(self) -> None:
        """Release the task, if it may be protected; or give up soon."""
        if self._clock.time() >= self._until:
            return
        try:
            async with asyncio.timeout(FAREWELL.total_seconds()):
                await self._protection.release()
        except TimeoutError:
            late = f"The release was not answered within {FAREWELL.total_seconds():g} s."
            self._log(_UNRELEASED, Unreachable(late, code="TimeoutError"))
        except CloudError as error:
            self._log(_UNRELEASED, error)

    def _in(self, pause: timedelta) -> float:
        return self._clock.time() + pause.total_seconds()

    def _log(self, what: str, error: CloudError) -> None:
        cause = (what, type(error).__name__, error.code)
        if cause not in self._logged:
            self._logged.add(cause)
            logger.warning("%s: %s", what, error)


def _pause(error: CloudError) -> timedelta:
    return RETRIED if error.retryable else RENEWED
