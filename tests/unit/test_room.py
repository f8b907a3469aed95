"""No more is received than there is room for, and a receive is worth its money."""

from __future__ import annotations

import asyncio

import pytest

from headrace.hosts.room import Room
from tests.unit.kitchen import now
from tests.unit.timeless import timeless


def blocked(room: Room, most: int) -> asyncio.Task[int]:
    return asyncio.create_task(room.take(most))


@timeless
async def test_an_empty_room_gives_all_its_places_at_once() -> None:
    assert await Room(7).take(10) == 7
    assert await Room(7, 20).take(10) == 10
    assert now() == 0


@timeless
async def test_what_is_taken_is_not_given_twice() -> None:
    room = Room(12)
    assert [await room.take(10), await room.take(10)] == [10, 2]
    waiting = blocked(room, 10)
    await asyncio.sleep(60)
    assert not waiting.done()
    room.give(12)
    assert await waiting == 10


@timeless
async def test_many_who_wait_never_take_more_than_there_is() -> None:
    room = Room(10)
    held = await room.take(10)
    takers = [blocked(room, 10) for _ in range(5)]
    most = held
    for _ in range(5):
        room.give(held)
        done, rest = await asyncio.wait(takers, return_when=asyncio.FIRST_COMPLETED)
        held = sum(taker.result() for taker in done)
        most = max(most, held)
        takers = list(rest)
    assert most == 10


@timeless
async def test_one_free_place_waits_a_moment_for_others() -> None:
    room = Room(10)
    await room.take(10)
    waiting = blocked(room, 10)
    room.give(1)
    await asyncio.sleep(0.003)
    room.give(4)
    assert await waiting == 5
    assert now() == pytest.approx(0.005)


@timeless
async def test_one_free_place_is_taken_after_a_moment_if_no_other_comes() -> None:
    room = Room(10)
    await room.take(10)
    waiting = blocked(room, 10)
    room.give(1)
    assert await waiting == 1
    assert now() == pytest.approx(0.005)


@timeless
async def test_who_finds_nothing_left_after_that_moment_waits_on() -> None:
    room = Room(10)
    await room.take(10)
    first, second = blocked(room, 10), blocked(room, 10)
    room.give(4)
    await asyncio.sleep(1)
    assert (first.result(), second.done()) == (4, False)
    room.give(3)
    assert await second == 3


@timeless
async def test_that_moment_is_over_once_there_is_a_full_batch() -> None:
    room = Room(10)
    await room.take(10)
    waiting = blocked(room, 10)
    room.give(1)
    await asyncio.sleep(0.001)
    room.give(9)
    assert await waiting == 10
    assert now() == pytest.approx(0.001)


@timeless
async def test_a_full_batch_of_free_places_waits_for_no_other() -> None:
    room = Room(20)
    await room.take(10)
    await room.take(10)
    waiting = blocked(room, 10)
    room.give(10)
    assert await waiting == 10
    assert now() == 0


@timeless
async def test_while_handlers_are_at_work_places_to_wait_are_filled_by_full_batches() -> None:
    room = Room(10, 20)
    assert [await room.take(10) for _ in range(3)] == [10, 10, 10]
    waiting = blocked(room, 10)
    for _ in range(9):
        room.give(1)
        await asyncio.sleep(1)
        assert not waiting.done()
    room.give(1)
    assert await waiting == 10


@timeless
async def test_where_fewer_than_a_batch_may_wait_all_of_their_places_are_filled_together() -> None:
    room = Room(10, 3)
    assert [await room.take(10), await room.take(10)] == [10, 3]
    waiting = blocked(room, 10)
    room.give(2)
    await asyncio.sleep(1)
    assert not waiting.done()
    room.give(1)
    assert await waiting == 3


@timeless
async def test_a_handler_with_nothing_to_do_is_reason_enough_for_a_small_batch() -> None:
    room = Room(10, 3)
    await room.take(10)
    await room.take(10)
    room.give(9)
    assert await room.take(5) == 5
    assert not room.is_full
    assert await room.take(1) == 1
    assert await room.take(10) == 3


@timeless
async def test_one_who_could_be_handled_at_once_is_reason_enough_for_a_small_batch() -> None:
    is_idle = False
    room = Room(2, 40, is_idle=lambda: is_idle)
    for _ in range(4):
        await room.take(10)
    seen = [room.is_full]
    is_idle = True
    seen.append(room.is_full)
    assert await room.take(10) == 2
    seen.append(room.is_full)
    assert seen == [True, False, True]


@timeless
async def test_a_taker_that_is_cancelled_has_taken_nothing() -> None:
    room = Room(10)
    await room.take(10)
    waiting = blocked(room, 10)
    room.give(5)
    await asyncio.sleep(0.001)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert await room.take(10) == 5
