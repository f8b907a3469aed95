"""Entries that arrive close together share one call, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from headrace.coalesce import Coalescer


class Calls:
    """Doubles what it is given, refuses what is negative, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    async def __call__(self, entries: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(entries))
        return [ValueError(entry) if entry < 0 else 2 * entry for entry in entries]


async def test_entries_added_together_go_in_one_call_and_are_answered_one_by_one() -> None:
    calls = Calls()
    coalescer = Coalescer(calls, max_entries=10, linger=0)
    assert await asyncio.gather(*map(coalescer.add, [1, 2, 3])) == [2, 4, 6]
    assert calls.batches == [[1, 2, 3]]


async def test_a_full_batch_leaves_at_once() -> None:
    calls = Calls()
    coalescer = Coalescer(calls, max_entries=2, linger=3600)
    assert await asyncio.gather(*map(coalescer.add, [1, 2, 3, 4])) == [2, 4, 6, 8]
    assert calls.batches == [[1, 2], [3, 4]]


async def test_a_batch_never_weighs_more_than_its_limit() -> None:
    calls = Calls()
    coalescer = Coalescer(calls, max_entries=9, max_weight=5, weigh=lambda n: n, linger=0)
    await asyncio.gather(*map(coalescer.add, [3, 2, 4, 1, 5]))
    assert calls.batches == [[3, 2], [4, 1], [5]]


async def test_an_entry_that_is_refused_does_not_hurt_its_neighbours() -> None:
    coalescer = Coalescer(Calls(), max_entries=3)
    good, bad, other = await asyncio.gather(*map(coalescer.add, [1, -1, 3]), return_exceptions=True)
    assert (good, other) == (2, 6)
    assert isinstance(bad, ValueError)


async def test_a_failing_call_fails_every_entry_of_its_batch_and_no_other() -> None:
    async def call(entries: Sequence[int]) -> list[int | Exception]:
        if 0 in entries:
            raise ConnectionError("down")
        return list(entries)

    coalescer = Coalescer(call, max_entries=2)
    answers = await asyncio.gather(*map(coalescer.add, [0, 1, 2, 3]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError, ConnectionError, int, int]


async def test_a_caller_that_is_cancelled_leaves_the_others_their_answers() -> None:
    coalescer = Coalescer(Calls(), max_entries=2, linger=3600)
    leaving = asyncio.create_task(coalescer.add(1))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await coalescer.add(2) == 4
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_flush_sends_what_waits_and_returns_when_it_is_answered() -> None:
    calls = Calls()
    coalescer = Coalescer(calls, max_entries=10, linger=3600)
    waiting = asyncio.create_task(coalescer.add(1))
    await asyncio.sleep(0)
    await coalescer.flush()
    assert calls.batches == [[1]]
    assert await waiting == 2
