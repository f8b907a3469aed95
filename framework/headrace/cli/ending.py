"""The end of a worker's process, whatever does not want to end.

A thread cannot be stopped, and Python waits for those of every executor before it exits. Nor can
anything be done about a resource that does not close. Waiting for either makes ECS kill the task.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from gc import get_referents
from types import AsyncGeneratorType, FrameType
from typing import Any, Final, TypeAlias

from .running import run

logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""What runs until the event is set."""

CLOSING: Final = timedelta(seconds=4)
"""What a stop may take beyond the drain: hand back, flush, close resources. With ECS's 30 s
before SIGKILL and a drain of 25 s, one second is left."""

LEAVING: Final = timedelta(seconds=2)
"""What threads may take to end once everything else has."""

_LAST_WORDS: Final = timedelta(seconds=1)


def run_until_stopped(work: Work, drain: timedelta) -> None:
    """Run `work`, which is told to stop by an event or sets it itself, and see to it that the
    process ends.

    A stop that takes longer than `drain` and `CLOSING` ends the process with 1, and says what is
    still going on. After `work`, threads that were started meanwhile and are not daemons have
    `LEAVING`; if one of them is still alive then, the process ends with 0, or with 1 if `work`
    raised.
    """
    before = frozenset(threading.enumerate())
    stopping, leaving = _Deadline(), _Deadline()

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        watching = asyncio.create_task(_watch(stop, stopping, loop, drain))
        code = 1
        try:
            await work(stop)
            code = 0
        finally:
            watching.cancel()
            if not stop.is_set():
                # It ended by itself, and what is left of it may not.
                _limit(stopping, asyncio.get_running_loop(), CLOSING + LEAVING)
            # From here, as closing the loop waits for threads too.
            leaving.start(LEAVING.total_seconds(), lambda: _leave_behind(before), code)

    try:
        run(main())
    finally:
        stopping.call_off()
        if not _left(before):
            leaving.call_off()


async def _watch(
    stop: asyncio.Event, stopping: _Deadline, loop: asyncio.AbstractEventLoop, drain: timedelta
) -> None:
    await stop.wait()
    _limit(stopping, loop, drain + CLOSING)


def _limit(stopping: _Deadline, loop: asyncio.AbstractEventLoop, limit: timedelta) -> None:
    seconds = limit.total_seconds()
    stopping.start(seconds, lambda: _say_what_goes_on(loop, seconds), 1)


class _Deadline:
    """Ends the process, unless it is called off or there is nothing to say any more.

    It runs in daemon threads: neither a blocked event loop nor Python's wait for other threads
    at its exit holds it up. Both are started early, as nothing can be started during that wait.
    """

    def __init__(self) -> None:
        self._off = threading.Event()
        self._said = threading.Event()

    def start(self, seconds: float, last_words: Callable[[], bool], code: int) -> None:
        """After this time, end with `code`, if `last_words` say that there is a reason to."""
        seconds = min(seconds, threading.TIMEOUT_MAX)
        threading.Thread(target=self._speak, args=(seconds, last_words), daemon=True).start()
        threading.Thread(target=self._end, args=(seconds, code), daemon=True).start()

    def call_off(self) -> None:
        self._off.set()

    def _speak(self, seconds: float, last_words: Callable[[], bool]) -> None:
        if self._off.wait(seconds):
            return
        if last_words():
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        else:
            self.call_off()
        self._said.set()

    def _end(self, seconds: float, code: int) -> None:
        if self._off.wait(seconds):
            return
        # What hangs may hold the lock of a log handler, or a pipe that nobody reads may be full.
        self._said.wait(_LAST_WORDS.total_seconds())
        if not self._off.is_set():
            os._exit(code)


# --- threads ---------------------------------------------------------------------------


def _left(before: frozenset[threading.Thread]) -> list[threading.Thread]:
    """What Python would wait for at its exit."""
    return [t for t in threading.enumerate() if not t.daemon and t not in before]


def _leave_behind(before: frozenset[threading.Thread]) -> bool:
    left = _left(before)
    if left:
        logger.warning(
            "Threads that do not end: %d, so the process ends without them. What a handler does in "
            "one is committed by nobody, and its message comes again. They are %s.",
            len(left),
            ", ".join(_described(thread) for thread in left),
        )
    return bool(left)


def _described(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return f"{thread.name} in {_place(frame)}" if frame else thread.name


# --- tasks -----------------------------------------------------------------------------


def _say_what_goes_on(loop: asyncio.AbstractEventLoop, seconds: float) -> bool:
    logger.error(
        "The stop is not over after %g s, so the process ends now. What was not handed back comes "
        "again when its visibility ends. Still going on:\n%s",
        seconds,
        "\n".join([*_tasks(loop), *_threads()]),
    )
    return True


def _tasks(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    for task in asyncio.all_tasks(loop):
        places = [_place(frame) for frame in _frames(task.get_coro())]
        yield f"- {task.get_name()} in {', in '.join(reversed(places)) or 'a place unknown'}"


def _threads() -> Iterator[str]:
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            yield f"- thread {_described(thread)}"


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Where a suspended coroutine is, from the outside in."""
    while awaited is not None:
        for kind in ("cr", "ag", "gi"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                yield frame
        awaited = _next_awaited(awaited)


def _next_awaited(awaited: Any) -> Any:
    for name in ("cr_await", "ag_await", "gi_yieldfrom"):
        if hasattr(awaited, name):
            return getattr(awaited, name)
    # The step of an asynchronous generator does not say whose it is: `async with` of a function
    # under @asynccontextmanager waits for such a step.
    generators = (g for g in get_referents(awaited) if isinstance(g, AsyncGeneratorType))
    return next(generators, None)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
