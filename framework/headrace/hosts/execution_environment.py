"""What lives as long as Lambda keeps a process: one event loop, and what was opened on it.

Both are made at the first invocation, not at import, so that a SnapStart snapshot holds neither a
connection nor a random state.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, Protocol, TypeAlias, TypeVar

from headrace.aws.config import AwsConfig
from headrace.ports import Ports

OpenPorts: TypeAlias = Callable[[AwsConfig], AbstractAsyncContextManager[Ports]]

Opened = TypeVar("Opened")
Answer = TypeVar("Answer")


class LambdaContext(Protocol):
    """The part of Lambda's context object that matters here."""

    @property
    def aws_request_id(self) -> str: ...

    def get_remaining_time_in_millis(self) -> int: ...


class ExecutionEnvironment(Generic[Opened]):
    """Runs invocations one after the other on one loop, with one `Opened` that stays open.

    What fails to open is opened again at the next invocation.
    """

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[Opened]]) -> None:
        self._open = open
        self._runner: asyncio.Runner | None = None
        self._stack = AsyncExitStack()
        self._opened: Opened | None = None

    def run(self, invoke: Callable[[Opened], Awaitable[Answer]]) -> Answer:
        """What `invoke` answers, given what is open; raises what it raises, or the opening did."""
        if self._runner is None:
            # botocore draws the jitter of its retries from this generator, and its state is part
            # of a snapshot: all environments would try again at the same moments.
            random.seed()
            self._runner = asyncio.Runner()
        return self._runner.run(self._invoke(invoke))

    def close(self) -> None:
        """Close everything; the next invocation starts afresh. For tests: Lambda itself never
        says goodbye."""
        if self._runner is not None:
            self._runner.run(self._stack.aclose())
            self._runner.close()
        self._runner = self._opened = None

    async def _invoke(self, invoke: Callable[[Opened], Awaitable[Answer]]) -> Answer:
        if self._opened is None:
            self._opened = await self._stack.enter_async_context(self._open())
            # What is imported and open by now stays for good. To walk through all of it takes a
            # full collection a quarter of a second, of the little there is before a deadline.
            gc.freeze()
        return await invoke(self._opened)
