"""Deaths on AWS in memory, in a process whose modules have sites."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from headrace.ports import Delivery, Ports
from headrace.testing import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from headrace.topology.model import dead_letter_queue
from tests.crash.bells import chronicle
from tests.crash.consumer import hurry, live, receive, send
from tests.crash.findings import findings_after, shortcomings
from tests.crash.passing import Life, Moment, living
from tests.crash.scenarios import Scenario, named
from tests.crash.skipping import LoopClock, SkippingLoop
from tests.crash.troubles import Call, Trouble

Value = TypeVar("Value")

BELL = "bell"
_PAUSE = timedelta(minutes=1)
_UNHURRIED = 3600.0
"""Seconds, on a loop where they take no time, until what still runs will run for ever."""


class End(Enum):
    """How a life ends."""

    STOPPED = "its deliveries are cancelled while they wait, what they handed over goes on"
    CANCELLED = "every one of its tasks is cancelled, and it closes"
    KILLED = "nothing that it does has an effect any more"


def sites_passed(name: str) -> set[str]:
    """The ids of the sites that a life in this scenario passes when nothing ends it."""
    life, _ = _run(_lived(named(name), None, End.KILLED, {}))
    return {moment.site for moment in life.moments()}


def ended_everywhere(name: str, end: End) -> tuple[int, list[str]]:
    """End a life in this scenario at each of its moments: how many there were, and what was
    wrong when all was over."""
    scenario, aftermaths = named(name), dict[str, list[str]]()
    life, wrong = _run(_lived(scenario, None, end, aftermaths))
    moments = list(_moments(life, end))
    for moment in moments:
        _, found = _run(_lived(scenario, moment, end, aftermaths))
        wrong += [f"{moment}: {each}" for each in found]
    return len(moments), wrong


Aftermaths: TypeAlias = dict[str, list[str]]
"""What was wrong in the end, by what a life had left behind: the same leads to the same."""


def _moments(life: Life, end: End) -> Iterator[Moment]:
    """Those that are worth an end of this kind: what can be told apart by nothing is one."""
    match end:
        case End.STOPPED:
            # Where it waits, and not for the answer to a cancelled task: the others see to that.
            yield from (moment for moment in life.moments() if moment.side == "before")
        case End.CANCELLED:
            yield from life.moments()
        case End.KILLED:
            yield from life.moments_apart()


def _run(main: Coroutine[Any, Any, Value]) -> Value:
    # Not by a Runner, whose signal handlers would be a tenth of a life.
    loop = SkippingLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


async def _lived(
    scenario: Scenario, moment: Moment | None, end: End, aftermaths: Aftermaths
) -> tuple[Life, list[str]]:
    cloud = memory_ports(clock=LoopClock())
    cloud.provision(topology(scenario.service, chronicle))
    ports, pulls = cloud.ports, scenario.pulls(BELL)
    await send(scenario, ports, pulls)
    for trouble in scenario.before:
        deliveries = await receive(scenario, ports, pulls)
        await live(scenario, ports, deliveries, trouble(pulls[0].bell))
    deliveries = hurry(scenario, ports, await receive(scenario, ports, pulls))
    life = Life(moment)
    wrong = await _live_until(life, end, scenario, ports, deliveries)
    if moment is not None and not life.ended:
        wrong.append("it was not passed again")
    left = f"{life.ended} {_left_behind(scenario, cloud)}"
    if left not in aftermaths:
        aftermaths[left] = [
            each
            for found in await findings_after(scenario, ports, pulls, life.ended, _PAUSE)
            for each in shortcomings(scenario, found, pulls)
        ]
    return life, wrong + aftermaths[left]


def _left_behind(scenario: Scenario, cloud: MemoryCloud[LoopClock]) -> str:
    """All that the next consumer, and whoever looks afterwards, can find."""
    queues = (scenario.queue, dead_letter_queue(scenario.queue), chronicle.name)
    return repr([[cloud.queues.peek(queue) for queue in queues], cloud.store.items(scenario.table)])


async def _live_until(
    life: Life, end: End, scenario: Scenario, ports: Ports, deliveries: Sequence[Delivery]
) -> list[str]:
    """Live until the end, and see that it is one."""
    trouble = _noted(life, end, scenario.goes_wrong(scenario.pulls(BELL)[0].bell))
    keeper = asyncio.current_task()
    with living(life):
        main = asyncio.create_task(live(scenario, ports, deliveries, trouble))
        life.end = _ending(end, main, keeper)
        await asyncio.wait({main})
        late = await _late(keeper)
    wrong = [f"{task} runs after the end" for task in late]
    error = None if main.cancelled() else main.exception()
    if error is not None and end is not End.KILLED:
        wrong.append(f"the consumer raised {error!r}")
    return wrong


def _ending(
    end: End, main: asyncio.Task[None], keeper: asyncio.Task[Any] | None
) -> Callable[[], None]:
    def all_at_once() -> None:
        for task in asyncio.all_tasks() - {keeper}:
            task.cancel()

    def in_order() -> None:
        main.cancel()

    return in_order if end is End.STOPPED else all_at_once


def _noted(life: Life, end: End, trouble: Trouble) -> Trouble:
    """The trouble, whose calls are counted, and which a killed life makes no more of."""

    async def call_while_alive(call: Call) -> Any:
        if life.ended and end is End.KILLED:
            raise asyncio.CancelledError
        try:
            return await trouble(call)
        finally:
            life.calls += 1

    return call_while_alive


async def _late(keeper: asyncio.Task[Any] | None) -> set[asyncio.Task[Any]]:
    """What does not end by itself, though its consumer has; ended all the same."""
    rest = asyncio.all_tasks() - {keeper}
    if not rest:
        return set()
    _, late = await asyncio.wait(rest, timeout=_UNHURRIED)
    for task in late:
        task.cancel()
    return late
