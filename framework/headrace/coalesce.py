"""Joining entries that arrive close together into one batch call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Generic, TypeVar

Entry = TypeVar("Entry")
Answer = TypeVar("Answer")

_without_linger: ContextVar[bool] = ContextVar("headrace_without_linger", default=False)


@contextmanager
def without_linger() -> Iterator[None]:
    """Batches that begin in this block, or in a task it starts, wait for nobody: what is handed
    over in one turn of the event loop still leaves together. For tests, where calls cost
    nothing."""
    token = _without_linger.set(True)
    try:
        yield
    finally:
        _without_linger.reset(token)


class Coalescer(Generic[Entry, Answer]):
    """Collects the entries of concurrent callers and hands them to `call` in batches.

    A batch leaves when it is full (`max_entries`, or `max_weight` by `weigh`) or `linger`
    seconds after its first entry. `call` gets one batch and answers with one answer or
    exception per entry, in order; an exception it raises goes to every caller of the batch.
    A caller that is cancelled leaves its entry in the batch: what was handed over may happen. With
    `withdraws`, a caller that is cancelled before the batch has left takes its entry out of it.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Entry]], Awaitable[Sequence[Answer | Exception]]],
        *,
        max_entries: int,
        max_weight: int | None = None,
        weigh: Callable[[Entry], int] = lambda entry: 0,
        linger: float = 0.002,
        withdraws: bool = False,
    ) -> None:
        self._call = call
        self._max_entries = max_entries
        self._max_weight = max_weight
        self._weigh = weigh
        self._linger = linger
        self._withdraws = withdraws
        self._waiting: list[tuple[Entry, asyncio.Future[Answer]]] = []
        self._weight = 0
        self._timer: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def add(self, entry: Entry) -> Answer:
        """Hand over one entry and wait for the answer to it."""
        return await self.post(entry)

    def post(self, entry: Entry) -> asyncio.Future[Answer]:
        """Hand over one entry without waiting for the answer."""
        weight = self._weigh(entry)
        if self._max_weight is not None and self._weight + weight > self._max_weight:
            self._leave()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((entry, future))
        self._weight += weight
        if len(self._waiting) >= self._max_entries:
            self._leave()
        elif self._timer is None:
            linger = 0 if _without_linger.get() else self._linger
            self._timer = loop.call_later(linger, self._leave)
        return future

    async def flush(self) -> None:
        """Send what is waiting now, and wait until every call has been answered."""
        self._leave()
        while self._calls:
            await asyncio.wait(set(self._calls))

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting, self._weight = self._waiting, [], 0
        if self._withdraws:
            batch = [(entry, future) for entry, future in batch if not future.cancelled()]
        if batch:
            # In a context of its own: a batch belongs to none of its callers more than another.
            call = asyncio.get_running_loop().create_task(self._carry(batch), context=Context())
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _carry(self, batch: list[tuple[Entry, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._call([entry for entry, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} entries got {len(answers)} answers.")
        except BaseException as error:
            for _, future in batch:
                _fail(future, error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                _fail(future, answer)
            elif not future.done():
                future.set_result(answer)


def _fail(future: asyncio.Future[Answer], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(error)
