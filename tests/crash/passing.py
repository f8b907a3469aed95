"""What an instrumented module calls at its sites, and the life that may end there."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

Value = TypeVar("Value")
Side: TypeAlias = Literal["before", "after", "raised"]
"""Of a site: before it is waited there, after an answer, or after an exception."""


class Moment(NamedTuple):
    """The `nth` time that one side of a site is passed in a life, counted from 1."""

    site: str
    side: Side
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.side} {self.site} (pass {self.nth})"


@dataclass(slots=True)
class Life:
    """A consumer from its start to its end, and what it passed. At the moment it `ends_at`,
    `end` is called: it kills the process, or cancels what then ends by itself. Whoever makes its
    calls counts those that were answered in `calls`."""

    ends_at: Moment | None = None
    end: Callable[[], None] | None = None
    ended: bool = False
    calls: int = 0
    trail: list[tuple[Moment, int]] = field(default_factory=list)
    _passed: Counter[tuple[str, Side]] = field(default_factory=Counter)

    def ends(self, site: str, side: Side) -> bool:
        """Pass a site; whether this was the end."""
        if self.ended:
            return False
        self._passed[site, side] += 1
        here = Moment(site, side, self._passed[site, side])
        self.trail.append((here, self.calls))
        self.ended = here == self.ends_at
        if self.ended and self.end is not None:
            self.end()
        return self.ended

    def moments(self) -> list[Moment]:
        """The first and the last time each side of a site was passed."""
        return [m for m, _ in self.trail if m.nth in (1, self._passed[m.site, m.side])]

    def moments_apart(self) -> list[Moment]:
        """One moment before, between and after each two answered calls. What a process did since
        its last call dies with it, so nobody can tell these moments from those left out."""
        return list({calls: moment for moment, calls in reversed(self.trail)}.values())[::-1]


_lives = [Life()]


@contextmanager
def living(life: Life) -> Iterator[None]:
    """Whatever passes a site meanwhile belongs to this life."""
    _lives.append(life)
    try:
        yield
    finally:
        _lives.remove(life)


async def awaited(awaitable: Awaitable[Value], site: str) -> Value:
    """`await awaitable`, as a site."""
    try:
        await _pass(site, "before")
    except asyncio.CancelledError:
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise
    value = await _answer(awaitable, site)
    await _pass(site, "after")
    return value


class Iterated(Generic[Value]):
    """`async for … in iterable`, where each step is a site."""

    def __init__(self, iterable: AsyncIterable[Value], site: str) -> None:
        self._iterator: AsyncIterator[Value] = aiter(iterable)
        self._site = site

    def __aiter__(self) -> Iterated[Value]:
        return self

    async def __anext__(self) -> Value:
        return await awaited(anext(self._iterator), self._site)


class Entered(Generic[Value]):
    """`async with manager`, whose entry and exit are sites.

    No cancellation comes between an entry and the body, nor between the body and the exit:
    Python runs these in one go. It comes at the next await.
    """

    def __init__(
        self, manager: AbstractAsyncContextManager[Value], entry: str, departure: str
    ) -> None:
        self._manager = manager
        self._entry = entry
        self._exit = departure

    async def __aenter__(self) -> Value:
        await _pass(self._entry, "before")
        value = await _answer(self._manager.__aenter__(), self._entry)
        _lives[-1].ends(self._entry, "after")
        return value

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        _lives[-1].ends(self._exit, "before")
        handled = await _answer(self._manager.__aexit__(kind, error, traceback), self._exit)
        await _pass(self._exit, "after")
        return handled


async def _answer(awaitable: Awaitable[Value], site: str) -> Value:
    try:
        return await awaitable
    except (Exception, asyncio.CancelledError):
        await _pass(site, "raised")
        raise


async def _pass(site: str, side: Side) -> None:
    if _lives[-1].ends(site, side):
        # A cancellation arrives where a coroutine is suspended; one that reaches this one by
        # way of another needs some turns of the loop.
        for _ in range(_TURNS):
            await asyncio.sleep(0)


_TURNS = 4
