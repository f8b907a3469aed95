"""Trying again. tenacity decides when; a call that succeeds at once never gets to it.

What tenacity prepares for a call, it prepares for one that succeeds, too; twice for a message, that
was the most expensive single thing that headrace did, and its import a part of every cold start. So
it sees only what has failed once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def retried(
    call: Callable[[], Awaitable[T]],
    *,
    again: Callable[[BaseException], bool],
    stop: Callable[[int], bool],
    wait: Callable[[int, BaseException | None], float],
) -> T:
    """What `call` returns in the end.

    After an error for which `again` says so it is made once more, unless `stop` says that there
    were enough attempts: in as many seconds as `wait` says, by their number and the last error.
    An error that is the last one is raised as it is.
    """
    try:
        return await call()
    except Exception as error:
        if not again(error):
            raise
        failed = [error]
    # Outside of the block above, or whatever comes next would be told as that error's consequence.
    return await _again(call, failed, again, stop, wait)


async def _again(
    call: Callable[[], Awaitable[T]],
    failed: list[Exception],
    again: Callable[[BaseException], bool],
    stop: Callable[[int], bool],
    wait: Callable[[int, BaseException | None], float],
) -> T:
    try:
        from tenacity import AsyncRetrying, retry_if_exception
    except (ImportError, OSError):
        # A bundle without it, or a process without files to open: what failed says more.
        logger.exception("Nothing is tried again, since tenacity cannot be imported.")
        raise failed.pop() from None

    async def attempt() -> T:
        if failed:
            raise failed.pop()
        return await call()

    def pause(state: RetryCallState) -> float:
        return wait(state.attempt_number, state.outcome.exception() if state.outcome else None)

    retrying = AsyncRetrying(
        retry=retry_if_exception(again),
        stop=lambda state: stop(state.attempt_number),
        wait=pause,
        reraise=True,
    )
    return await retrying(attempt)


def after(attempts: int) -> Callable[[int], bool]:
    """Stop once a call was made so many times."""
    return lambda attempt: attempt >= attempts
