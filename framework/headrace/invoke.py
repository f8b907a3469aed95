"""Running one handler: what it is given, for how long it may run, and how far its failures go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final

from headrace.errors import DefinitionError, HandlerEnded
from headrace.events import Message
from headrace.middleware import Call, Invocation, compose
from headrace.service import Argument, Handler, Service

THREADS: Final = 64
"""At most so many plain functions run at a time. A thread cannot be stopped: one that hangs is
lost until the process ends, so they are not taken from those that everything else shares."""


class Invoker:
    """The handlers of one service, ready to be called with what they ask for."""

    def __init__(self, service: Service, resources: Any) -> None:
        self._resources = resources
        self._threads = _executor(service)
        self._at_work: dict[tuple[str, str], Future[Any]] = {}
        self._calls = {
            handler.name: compose(service.middleware, self._call(handler))
            for handler in service.handlers
        }

    async def run(self, handler: Handler, invocation: Invocation) -> Sequence[Message]:
        """What the handler returns, as messages.

        Raises what the handler raises; `TimeoutError` once it ran longer than it may;
        `HandlerEnded` in place of anything that would end more than this run.
        """
        run = _contained(self._calls[handler.name](invocation))
        return _messages_in(await _in_time(handler, run), handler)

    def is_at_work(self, handler: Handler, event_id: str) -> bool:
        """Whether a plain function is still running for this event: its thread cannot be stopped,
        whatever has become of the run."""
        thread = self._at_work.get((handler.name, event_id))
        return thread is not None and not thread.done()

    def close(self) -> None:
        """Forget the threads; what still runs in them can commit nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _call(self, handler: Handler) -> Call:
        is_async = handler.is_async

        async def call(invocation: Invocation) -> Any:
            arguments = {
                name: self._argument(kind, invocation) for name, kind in handler.arguments.items()
            }
            if is_async:
                return await handler.function(**arguments)
            key = (handler.name, invocation.envelope.metadata.id)
            return await self._in_thread(key, handler.function, arguments)

        return call

    async def _in_thread(
        self, key: tuple[str, str], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Any:
        thread = self._threads.submit(copy_context().run, _finished, function, arguments)
        self._at_work[key] = thread
        thread.add_done_callback(lambda _: self._forget(key, thread))
        return await asyncio.wrap_future(thread)

    def _forget(self, key: tuple[str, str], thread: Future[Any]) -> None:
        if self._at_work.get(key) is thread:
            del self._at_work[key]

    def _argument(self, kind: Argument, invocation: Invocation) -> Any:
        match kind:
            case Argument.MESSAGE:
                return invocation.envelope.message
            case Argument.TRANSACTION:
                return invocation.transaction
            case Argument.METADATA:
                return invocation.envelope.metadata
            case Argument.DELIVERY:
                return invocation.delivery
            case Argument.RESOURCES:
                return self._resources


def _executor(service: Service) -> Executor:
    """Threads for the plain functions of a service, or what the event loop has in their place:
    one that repeats what it did cannot leave the order to real threads."""
    try:
        own = getattr(asyncio.get_running_loop(), "plain_functions", None)
    except RuntimeError:
        own = None
    if isinstance(own, Executor):
        return own
    return ThreadPoolExecutor(THREADS, f"headrace-{service.name}")


async def _contained(run: Awaitable[Any]) -> Any:
    """A handler fails for itself alone, even where it would end its task or the process."""
    task = _running_task()
    try:
        return await run
    except (Exception, KeyboardInterrupt):
        raise
    except GeneratorExit as error:
        if _running_task() is not task:
            # It is not the handler's: whoever closes this coroutine, unfinished, raises it here.
            raise
        raise HandlerEnded("The handler raised GeneratorExit.") from error
    except asyncio.CancelledError as error:
        if task is None or task.cancelling():
            raise
        # Nobody asked this delivery to stop: the handler awaited something that was cancelled.
        raise HandlerEnded("The handler awaited a task that was cancelled.") from error
    except BaseException as error:
        # `sys.exit`, or the panic of an extension module: not for the others of its batch.
        raise HandlerEnded(f"The handler raised {error!r}.") from error


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        # What is left of a loop that was closed.
        return None


def _finished(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        return function(**arguments)
    except StopIteration as error:
        # No future takes a StopIteration, so whoever awaits the thread would wait for ever.
        raise HandlerEnded("The handler raised StopIteration.") from error


async def _in_time(handler: Handler, run: Awaitable[Any]) -> Any:
    if handler.timeout is None:
        return await run
    seconds = handler.timeout.total_seconds()
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await run
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutError(f"It ran longer than its timeout of {seconds:g} s.") from error


def _messages_in(result: Any, handler: Handler) -> Sequence[Message]:
    if result is None:
        return ()
    if isinstance(result, Message):
        return (result,)
    if isinstance(result, (list, tuple)) and all(isinstance(m, Message) for m in result):
        return result
    raise DefinitionError(
        f"The handler {handler.consumer} returned a {type(result).__name__}: return None, one "
        "event, or a list of events."
    )
