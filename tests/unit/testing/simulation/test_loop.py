"""The event loop on which time is a number."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from headrace.testing.simulation.loop import (
    START,
    LoopClock,
    OutOfReach,
    Owner,
    SimulatedLoop,
    StandsStill,
    simulated_loop,
)

T = TypeVar("T")

YEAR = 365 * 86400.0


def ran(main: Coroutine[Any, Any, T], seed: int | None = 0) -> T:
    with simulated_loop(seed) as loop:
        return loop.run_until_complete(main)


def own() -> SimulatedLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return loop


def test_sleeping_for_a_year_takes_no_time() -> None:
    async def main() -> float:
        await asyncio.sleep(YEAR)
        return asyncio.get_running_loop().time()

    assert ran(main()) == YEAR


def test_the_clock_shows_the_time_of_the_loop() -> None:
    async def main() -> float:
        clock = LoopClock(own())
        await asyncio.sleep(90)
        return (clock.now() - START).total_seconds()

    assert ran(main()) == 90


def test_timers_run_in_the_order_of_their_time() -> None:
    async def main() -> list[int]:
        woken: list[int] = []

        async def wake(after: int) -> None:
            await asyncio.sleep(after)
            woken.append(after)

        await asyncio.gather(*(wake(after) for after in (5, 1, 4, 2, 3)))
        return woken

    assert ran(main()) == [1, 2, 3, 4, 5]


def test_timeouts_cut_what_takes_longer() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await asyncio.sleep(10)
        return asyncio.get_running_loop().time()

    assert ran(main()) == 3


def test_a_task_group_cancels_its_others() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("on purpose")

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(100))
            group.create_task(fail())

    async def main() -> float:
        with pytest.raises(ExceptionGroup):
            await both()
        return asyncio.get_running_loop().time()

    assert ran(main()) == 1


async def order_of_ten() -> list[int]:
    ran_already: list[int] = []

    async def step(number: int) -> None:
        await asyncio.sleep(1)
        ran_already.append(number)

    await asyncio.gather(*(step(number) for number in range(10)))
    return ran_already


def test_what_is_ready_together_runs_in_an_order_by_the_seed() -> None:
    orders = [ran(order_of_ten(), seed) for seed in range(20)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) > 10


def test_the_same_seed_gives_the_same_order() -> None:
    assert len({tuple(ran(order_of_ten(), 7)) for _ in range(5)}) == 1


def test_without_a_seed_the_first_to_be_ready_is_the_first_to_run() -> None:
    assert ran(order_of_ten(), None) == list(range(10))


def test_callbacks_keep_their_order_whatever_the_seed() -> None:
    async def main() -> list[int]:
        called: list[int] = []
        for number in range(10):
            asyncio.get_running_loop().call_soon(called.append, number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return called

    for seed in range(10):
        assert ran(main(), seed) == list(range(10))


def test_a_function_for_a_thread_runs_at_once_and_in_this_one() -> None:
    async def main() -> tuple[int, float]:
        return await asyncio.to_thread(threading.get_ident), asyncio.get_running_loop().time()

    assert ran(main()) == (threading.get_ident(), 0.0)


def test_an_exception_in_a_thread_reaches_who_awaits_it() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    ran(main())


def test_waiting_for_what_never_comes_is_an_error() -> None:
    with pytest.raises(StandsStill, match="Everything waits"):
        ran(asyncio.Event().wait())


def test_a_killed_process_does_not_even_run_its_finally_blocks() -> None:
    async def main() -> list[str]:
        happened: list[str] = []

        async def live() -> None:
            try:
                happened.append("begun")
                await asyncio.sleep(10)
                happened.append("gone on")
            finally:
                happened.append("cleaned up")

        process = Owner("process")
        own().begin_as(process, live())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(100)
        return list(happened)

    assert ran(main()) == ["begun"]


def test_what_a_killed_process_began_ends_with_it() -> None:
    async def main() -> list[str]:
        happened: list[str] = []

        async def tick() -> None:
            await asyncio.sleep(2)
            happened.append("ticked")

        async def live() -> None:
            # Of a task, of a callback of a task, and of a timer.
            ticking = asyncio.create_task(tick())
            ticking.add_done_callback(lambda _: happened.append("done"))
            asyncio.get_running_loop().call_later(2, happened.append, "called")
            await ticking

        process = Owner("process")
        own().begin_as(process, live())
        await asyncio.sleep(1)
        process.kill()
        await asyncio.sleep(100)
        return list(happened)

    assert ran(main()) == []


def test_another_process_goes_on() -> None:
    async def main() -> list[float]:
        times: list[float] = []

        async def live() -> None:
            await asyncio.sleep(5)
            times.append(asyncio.get_running_loop().time())

        first, second = Owner("first"), Owner("second")
        for process in (first, second):
            own().begin_as(process, live())
        await asyncio.sleep(1)
        first.kill()
        await asyncio.sleep(10)
        return times

    assert ran(main()) == [5]


def test_a_process_dies_at_the_step_it_was_given() -> None:
    async def main() -> list[int]:
        slept: list[int] = []

        async def live() -> None:
            for number in range(10):
                await asyncio.sleep(1)
                slept.append(number)

        process = Owner("process")
        process.steps_left = 4
        own().begin_as(process, live())
        await asyncio.sleep(100)
        return slept

    assert ran(main()) == [0, 1, 2, 3]


def test_a_paused_process_catches_up_when_its_pause_is_over() -> None:
    async def main() -> list[float]:
        times: list[float] = []

        async def live() -> None:
            for _ in range(3):
                await asyncio.sleep(1)
                times.append(asyncio.get_running_loop().time())

        process = Owner("process")
        own().begin_as(process, live())
        await asyncio.sleep(1.5)
        process.paused_until = 10
        await asyncio.sleep(100)
        return times

    assert ran(main()) == [1, 10, 11]


def test_tasks_are_named_after_their_process() -> None:
    async def main() -> list[str]:
        found: list[str] = []

        async def live() -> None:
            task = asyncio.current_task()
            found.append(task.get_name() if task else "")

        own().begin_as(Owner("order/1"), live())
        await asyncio.sleep(1)
        return found

    assert ran(main()) == ["order/1-1"]


def test_leaving_the_loop_throws_away_what_still_waits() -> None:
    closed: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("closed")
            await asyncio.sleep(1)
            closed.append("awaited")

    async def main() -> None:
        own().begin_as(Owner("process"), stubborn())
        await asyncio.sleep(1)

    ran(main())
    assert closed == ["closed"]


def test_sockets_are_out_of_reach_and_the_error_says_what_to_do() -> None:
    async def main() -> None:
        with pytest.raises(OutOfReach, match=r"World\.outside"):
            await asyncio.open_connection("127.0.0.1", 80)

    ran(main())


def test_an_exception_in_a_callback_is_told_to_the_handler() -> None:
    async def main() -> list[str]:
        told: list[str] = []
        own().set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        own().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)
        return told

    assert ran(main()) == ["division by zero"]
