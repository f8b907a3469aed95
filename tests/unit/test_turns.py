"""Deliveries begin in their order, so many at a time, and no tenant has all the turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from headrace import Delivery
from headrace.turns import Turns


def of(number: int, tenant: str | None = None, *, fifo: bool = False) -> Delivery:
    return Delivery(f"m-{number}", f"r-{number}", "{}", "q", group_id=tenant, fifo=fifo)


class Stage:
    """Who has the turn, until the test ends it."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.running: list[str] = []
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def enter(self, *deliveries: Delivery) -> None:
        for delivery in deliveries:
            id = delivery.message_id
            self._ends[id] = asyncio.Event()
            self._tasks[id] = asyncio.create_task(self._play(delivery))
        await settled()

    async def _play(self, delivery: Delivery) -> None:
        id = delivery.message_id
        async with self.turns.of(delivery):
            self.running.append(id)
            self.begun.append(id)
            try:
                await self._ends[id].wait()
            finally:
                self.running.remove(id)

    async def leave(self, *numbers: int) -> None:
        for number in numbers:
            self._ends[f"m-{number}"].set()
        await settled()

    async def cancel(self, *numbers: int) -> None:
        for number in numbers:
            self._tasks[f"m-{number}"].cancel()
        await settled()

    async def end(self) -> None:
        for end in self._ends.values():
            end.set()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def settled() -> None:
    """Everything that is ready has run."""
    for _ in range(10):
        await asyncio.sleep(0)


def ids(*numbers: int) -> Sequence[str]:
    return [f"m-{number}" for number in numbers]


async def test_so_many_run_at_a_time_and_the_others_follow_in_their_order() -> None:
    stage = Stage(Turns(2))
    await stage.enter(*(of(n) for n in range(5)))
    assert stage.running == ids(0, 1)
    await stage.leave(1)
    assert stage.running == ids(0, 2)
    await stage.leave(0, 2)
    assert stage.running == ids(3, 4)
    await stage.end()


async def test_without_a_limit_all_run_at_once() -> None:
    stage = Stage(Turns())
    await stage.enter(*(of(n) for n in range(50)))
    assert len(stage.running) == 50
    assert not stage.turns.is_full
    await stage.end()


async def test_it_is_full_while_as_many_are_at_work_as_may_be() -> None:
    turns = Turns(1)
    stage = Stage(turns)
    seen = [turns.is_full]
    await stage.enter(of(0))
    seen.append(turns.is_full)
    await stage.leave(0)
    seen.append(turns.is_full)
    assert seen == [False, True, False]


async def test_of_one_tenant_so_many_run_and_those_of_another_go_first() -> None:
    stage = Stage(Turns(4, per_tenant=2))
    await stage.enter(*(of(n, "loud") for n in range(10)), of(10, "quiet"))
    assert stage.running == ids(0, 1, 10)
    await stage.leave(0)
    assert stage.running == ids(1, 10, 2)
    await stage.enter(of(11, "quiet"), of(12, "quiet"))
    assert stage.running == ids(1, 10, 2, 11)
    await stage.end()
    assert [id for id in stage.begun if id in ids(*range(10))] == ids(*range(10))


async def test_those_passed_by_keep_their_order_among_themselves() -> None:
    stage = Stage(Turns(2, per_tenant=1))
    await stage.enter(of(0, "a"), of(1, "a"), of(2, "b"), of(3, "b"), of(4, "a"))
    assert stage.running == ids(0, 2)
    await stage.leave(0)
    await stage.leave(2)
    assert stage.running == ids(1, 3)
    await stage.leave(1)
    assert stage.running == ids(3, 4)
    await stage.end()


async def test_those_passed_by_go_before_those_who_came_later() -> None:
    stage = Stage(Turns(2, per_tenant=1))
    await stage.enter(of(0, "a"), of(1, "b"), of(2, "a"), of(3, "c"), of(4, "d"))
    await stage.leave(1)
    assert stage.running == ids(0, 3)
    await stage.leave(0)
    assert stage.running == ids(3, 2)
    await stage.end()


async def test_what_has_no_tenant_is_bounded_by_the_limit_alone() -> None:
    stage = Stage(Turns(3, per_tenant=1))
    await stage.enter(of(0), of(1), of(2), of(3))
    assert stage.running == ids(0, 1, 2)
    await stage.end()


async def test_the_group_of_a_fifo_queue_is_no_tenant() -> None:
    stage = Stage(Turns(3, per_tenant=1))
    await stage.enter(of(0, "A", fifo=True), of(1, "A", fifo=True))
    assert stage.running == ids(0, 1)
    await stage.end()


async def test_without_a_limit_per_tenant_a_tenant_may_have_all_turns() -> None:
    stage = Stage(Turns(3))
    await stage.enter(*(of(n, "loud") for n in range(4)))
    assert len(stage.running) == 3
    await stage.end()


async def test_a_newcomer_does_not_overtake_who_waits() -> None:
    turns = Turns(1)
    stage = Stage(turns)
    await stage.enter(of(0), of(1))
    stage._ends["m-0"].set()
    await stage.enter(of(2))
    assert stage.begun == ids(0, 1)
    await stage.end()
    assert stage.begun == ids(0, 1, 2)


async def test_one_that_is_cancelled_while_it_waits_is_passed_over() -> None:
    stage = Stage(Turns(1))
    await stage.enter(of(0), of(1), of(2))
    await stage.cancel(1)
    await stage.leave(0)
    assert stage.running == ids(2)
    await stage.end()


async def test_one_that_is_cancelled_in_the_moment_of_its_turn_is_passed_over() -> None:
    stage = Stage(Turns(1))
    await stage.enter(of(0), of(1), of(2))
    stage._ends["m-0"].set()
    await stage.cancel(1)
    assert stage.running == ids(2)
    await stage.end()


async def test_one_that_is_cancelled_while_it_runs_gives_its_turn_back() -> None:
    stage = Stage(Turns(1, per_tenant=1))
    await stage.enter(of(0, "a"), of(1, "a"))
    await stage.cancel(0)
    assert stage.running == ids(1)
    await stage.end()


async def test_a_turn_that_was_given_to_one_that_was_cancelled_just_then_is_not_lost() -> None:
    stage = Stage(Turns(1, per_tenant=1))
    await stage.enter(of(0, "a"), of(1, "a"), of(2, "a"))
    # The turn passes on within this step of the loop, and the cancellation comes before the next.
    stage._ends["m-0"].set()
    await asyncio.sleep(0)
    stage._tasks["m-1"].cancel()
    await settled()
    assert stage.begun == ids(0, 2)
    await stage.end()


async def test_once_it_is_open_all_who_wait_and_all_who_come_are_let_in() -> None:
    turns = Turns(1, per_tenant=1)
    stage = Stage(turns)
    await stage.enter(*(of(n, "a") for n in range(5)))
    turns.open()
    await stage.enter(of(5, "a"))
    assert stage.running == ids(*range(6))
    await stage.end()
    assert not turns.is_full


@pytest.mark.parametrize("tenants", [1, 3, 10])
async def test_however_many_tenants_there_are_all_get_their_turn(tenants: int) -> None:
    most: dict[str, int] = {}
    stage = Stage(Turns(5, per_tenant=2))
    await stage.enter(*(of(n, f"t-{n % tenants}") for n in range(60)))
    while len(stage.begun) < 60:
        assert len(stage.running) == min(5, 2 * tenants) or len(stage.begun) > 50
        for tenant in range(tenants):
            running = sum(int(id[2:]) % tenants == tenant for id in stage.running)
            most[f"t-{tenant}"] = max(most.get(f"t-{tenant}", 0), running)
        await stage.leave(int(stage.running[0][2:]))
    await stage.end()
    assert set(most.values()) <= {1, 2}
