"""SQS's own move of all letters."""

from __future__ import annotations

import pytest

from headrace.dlq.moving import Move, move_all
from headrace.errors import HeadraceError
from headrace.testing.memory.moves import MemoryMoves
from tests.unit.dlq.office import Office
from tests.unit.timeless import timeless


@timeless
async def test_all_letters_are_moved_with_their_notes_and_it_is_told_how_far_it_is() -> None:
    office = Office()
    await office.post("scale", times=25)
    await office.handled()
    before = office.cloud.queues.peek(office.dead_letters)
    told: list[Move] = []

    move = await move_all(
        MemoryMoves(office.cloud.queues), office.dead_letters, office.queue, told.append
    )

    assert move is not None
    assert (move.status, move.moved, move.total) == ("COMPLETED", 25, 25)
    assert [each.moved for each in told] == [10, 20, 25, 25]
    after = office.cloud.queues.peek(office.queue)
    assert [e.attributes for e in after] == [e.attributes for e in before]
    assert not office.there()


@timeless
async def test_a_move_that_is_going_on_is_waited_for_and_not_begun_again() -> None:
    office = Office()
    await office.post("scale")
    await office.handled()
    moves = _Counted(office)
    await moves.start(office.dead_letters, office.queue)

    await move_all(moves, office.dead_letters, office.queue)

    assert moves.started == 1


@timeless
async def test_a_move_right_after_another_is_not_taken_for_that_one() -> None:
    office = Office()
    await office.post("scale")
    await office.handled()
    moves = MemoryMoves(office.cloud.queues, lag=2)
    await move_all(moves, office.dead_letters, office.queue)
    await office.handled()
    told: list[Move] = []

    move = await move_all(moves, office.dead_letters, office.queue, told.append)

    assert move is not None
    assert (move.status, move.moved, move.started) == ("COMPLETED", 1, 2)
    assert {each.started for each in told} == {2}
    assert not office.there()


@timeless
async def test_a_move_that_is_being_cancelled_is_waited_for_before_another_is_begun() -> None:
    office = Office()
    await office.post("scale", times=15)
    await office.handled()
    moves = MemoryMoves(office.cloud.queues)
    await moves.start(office.dead_letters, office.queue)
    moves.cancel(office.dead_letters)

    move = await move_all(moves, office.dead_letters, office.queue)

    assert move is not None
    assert (move.status, move.moved, move.started) == ("COMPLETED", 15, 2)


@timeless
async def test_a_move_that_somebody_cancels_ends_as_cancelled() -> None:
    office = Office()
    await office.post("scale", times=15)
    await office.handled()
    moves = MemoryMoves(office.cloud.queues)

    def cancel(move: Move) -> None:
        if move.status == "RUNNING":
            moves.cancel(office.dead_letters)

    move = await move_all(moves, office.dead_letters, office.queue, cancel)

    assert move is not None
    assert (move.status, move.moved) == ("CANCELLED", 10)


@timeless
async def test_a_move_that_is_never_listed_is_not_waited_for_for_ever() -> None:
    office = Office()
    moves = MemoryMoves(office.cloud.queues, lag=10_000)

    with pytest.raises(HeadraceError, match="does not list that move"):
        await move_all(moves, office.dead_letters, office.queue)


class _Counted(MemoryMoves):
    def __init__(self, office: Office) -> None:
        super().__init__(office.cloud.queues)
        self.started = 0

    async def start(self, dead_letters: str, queue: str) -> str | None:
        self.started += 1
        return await super().start(dead_letters, queue)
