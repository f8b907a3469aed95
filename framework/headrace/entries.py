"""Batch calls that answer 200 and say which of their entries failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from headrace.errors import CloudError, Refused, Throttled
from headrace.ports import EntryFailure

Entry = TypeVar("Entry")

Call: TypeAlias = Callable[[Sequence[Entry]], Awaitable[list[EntryFailure]]]


async def answers(entries: Sequence[Entry], call: Call[Entry]) -> list[Exception | None]:
    """What became of each entry. Raises `CloudError`.

    A call that is refused as a whole is made for each entry by itself: for the fault of one,
    perhaps, the others must not stay behind.
    """
    try:
        failures = await call(entries)
    except CloudError as error:
        if len(entries) == 1:
            return [error]
        if not isinstance(error, Refused):
            raise
        alone = await asyncio.gather(*(answers([entry], call) for entry in entries))
        return [answer for (answer,) in alone]
    return _aligned(len(entries), failures)


def _aligned(count: int, failures: Sequence[EntryFailure]) -> list[Exception | None]:
    aligned: list[Exception | None] = [None] * count
    for failure in failures:
        kind = Throttled if failure.retryable else Refused
        aligned[failure.index] = kind(
            f"The entry was refused ({failure.code}: {failure.message}).", code=failure.code
        )
    return aligned
