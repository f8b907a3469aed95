"""Partial failures, throttling and outages, in virtual time: nothing is lost, nothing is said under
two ids, and no message is deleted before all that it caused is out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from headrace.errors import CancellationReason, Throttled, TransactionCanceled, Unreachable
from headrace.ports import Action, Delete, Put
from tests.integration.commit.memory_mill import (
    BACKOFF,
    Fail,
    Failing,
    MemoryMill,
    PartialBus,
    PartialQueues,
    Refuse,
    acked,
)
from tests.integration.commit.mill import DustSeen, SackSeen, SackWeighed, Told, cause_in, ids_in

MINUTE = timedelta(seconds=60)


def sacks(count: int) -> dict[str, Told]:
    """Sacks for four hoppers; of every third one nothing is counted."""
    kinds = (SackWeighed, SackWeighed, SackSeen)
    return {f"s-{n}": kinds[n % 3](hopper=f"hopper {n % 4}") for n in range(count)}


def dust(count: int) -> dict[str, Told]:
    return {f"d-{n}": DustSeen(hopper=f"hopper {n % 4}") for n in range(count)}


def at_random(seed: int, share: float = 0.5) -> Refuse:
    """So many of the entries are refused, with one of the codes that EventBridge wants again."""
    random = Random(seed)

    def refuse(text: str) -> str | None:
        if random.random() >= share:
            return None
        return random.choice(["ThrottlingException", "InternalFailure"])

    return refuse


def require_delays_within_bounds(mill: MemoryMill) -> None:
    """Full jitter: anything up to a bound, which doubles with each receive."""
    for retries in mill.retries().values():
        for receive_count, delay in retries:
            assert timedelta(0) <= delay <= bound(receive_count)


def bound(receive_count: int) -> timedelta:
    doubled: timedelta = BACKOFF.base * 2 ** (receive_count - 1)
    return min(BACKOFF.cap, doubled)


# --- partial failures ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_events_that_put_events_refuses_for_now_all_get_out_in_the_end(seed: int) -> None:
    mill = MemoryMill(seed=seed)
    bus = PartialBus(mill.cloud.bus, at_random(seed, share=0.7))
    mill.replace(bus=bus)
    await mill.tell(**sacks(40))

    await mill.run()

    assert len(bus.refused) > 40
    assert mill.retries() != {}
    require_delays_within_bounds(mill)
    await mill.require_effects_once()


@pytest.mark.parametrize("seed", range(5))
async def test_commands_that_send_message_batch_refuses_for_now_all_get_out_in_the_end(
    seed: int,
) -> None:
    mill = MemoryMill(seed=seed)
    queues = PartialQueues(mill.deletes, "broom", at_random(seed, share=0.7))
    mill.replace(queues=queues)
    await mill.tell(**sacks(40), **dust(20))

    await mill.run()

    assert len(queues.refused) > 40
    assert mill.retries() != {}
    require_delays_within_bounds(mill)
    await mill.require_effects_once()


async def test_an_event_that_is_refused_for_good_keeps_its_own_message_only() -> None:
    mill = MemoryMill(receives=6)
    forbidden = True

    def refuse(detail: str) -> str | None:
        cursed = json.loads(detail)["data"]["hopper"] == "cursed"
        return "NotAuthorizedForSourceException" if cursed and forbidden else None

    bus = PartialBus(mill.cloud.bus, refuse)
    mill.replace(bus=bus)
    others = {**sacks(20), **dust(5)}
    await mill.tell(cursed=SackWeighed(hopper="cursed"), **others)

    async with mill.open() as opened:
        first = await opened.turn()
        assert acked(first) == set(others)
        await opened.until_done()

    # The queue's redrive policy has moved it away, and nothing of it is forgotten.
    (letter,) = mill.dead_letters()
    assert cause_in(letter.body) == "cursed"
    assert mill.deletes.early == []
    (refused,) = {json.loads(detail)["metadata"]["id"] for detail in bus.refused}
    assert ("cursed", "FlourMilled") not in mill.said()

    forbidden = False
    await mill.redrive()
    await mill.run()
    assert ids_in(mill.said())["cursed", "FlourMilled"] == refused
    await mill.require_effects_once()


async def test_a_command_that_is_refused_for_good_keeps_its_own_message_only() -> None:
    mill = MemoryMill(receives=6)
    forbidden = True

    def refuse(body: str) -> str | None:
        cursed = json.loads(body)["detail"]["data"]["hopper"] == "cursed"
        return "AccessDenied" if cursed and forbidden else None

    queues = PartialQueues(mill.deletes, "broom", refuse)
    mill.replace(queues=queues)
    others = {**sacks(20), **dust(5)}
    await mill.tell(cursed=SackWeighed(hopper="cursed"), **others)

    async with mill.open() as opened:
        first = await opened.turn()
        assert acked(first) == set(others)
        await opened.until_done()

    (letter,) = mill.dead_letters()
    assert cause_in(letter.body) == "cursed"
    (refused,) = {json.loads(body)["detail"]["metadata"]["id"] for body in queues.refused}

    forbidden = False
    await mill.redrive()
    await mill.run()
    assert ids_in(mill.said())["cursed", "SweepStones"] == refused
    await mill.require_effects_once()


# --- throttling ------------------------------------------------------------------------


def burst(method: str, count: int) -> Fail:
    """The first calls of a method are throttled."""
    left = count

    def fail(name: str) -> Exception | None:
        nonlocal left
        if name != method or left == 0:
            return None
        left -= 1
        return Throttled("Rate exceeded.")

    return fail


async def methods_called() -> list[tuple[str, str]]:
    """Every call that carrying messages through makes, and giving one back, as port and method."""
    mill = MemoryMill()
    bus = Failing(mill.cloud.bus, burst("put", 8))
    mill.replace(bus=bus)
    await mill.tell(**sacks(3), **dust(1))
    before = mill.cloud.queues.calls.copy()
    await mill.run()
    calls = {
        "store": set(mill.cloud.store.calls),
        "bus": set(mill.cloud.bus.calls),
        # The receives are those of the test.
        "queues": set(mill.cloud.queues.calls - before) - {"receive"},
    }
    return [(port, method) for port, methods in calls.items() for method in sorted(methods)]


async def test_a_burst_of_throttling_on_any_call_is_outlived() -> None:
    """The calls are not listed here: they are seen while messages are carried through."""
    called = await methods_called()
    for port, method in called:
        # None of the bus's marks, which are not tried again, is let through a burst.
        for count in (1, 5, 30):
            mill = MemoryMill()
            failing = Failing(getattr(mill.ports, port), burst(method, count))
            mill.replace(**{port: failing})
            if method == "change_visibility":
                mill.replace(bus=Failing(mill.cloud.bus, burst("put", 8)))
            await mill.tell(**sacks(6), **dust(2))

            await mill.run()

            assert failing.failed[method] > 0, (port, method)
            await mill.require_effects_once(marked=method != "write")
    assert ("queues", "delete") in called
    assert len(called) >= 6


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("late", [False, True], ids=["throttled", "answer lost"])
async def test_the_failure_of_every_third_call_anywhere_is_outlived(seed: int, late: bool) -> None:
    """What is throttled has not taken place; where an answer is lost, it has."""
    random = Random(seed)

    def fail(method: str) -> Exception | None:
        if method == "receive" or random.random() >= 1 / 3:
            return None
        return Unreachable("No answer came back.") if late else Throttled("Rate exceeded.")

    mill = MemoryMill(seed=seed)
    ports = mill.ports
    failing = [Failing(port, fail, late=late) for port in (ports.store, ports.bus, ports.queues)]
    store, bus, queues = failing
    mill.replace(store=store, bus=bus, queues=queues)
    await mill.tell(**sacks(30), **dust(10))

    await mill.run()

    assert all(sum(port.failed.values()) > 0 for port in failing)
    require_delays_within_bounds(mill)
    await mill.require_effects_once(marked=late)


# --- outages ---------------------------------------------------------------------------


def down_until(
    mill: MemoryMill, end: datetime, error: Callable[[], Exception], *methods: str
) -> Fail:
    """Until then, calls of these methods raise the error."""

    def fail(method: str) -> Exception | None:
        down = method in methods and mill.cloud.clock.now() < end
        return error() if down else None

    return fail


@pytest.mark.parametrize("late", [False, True], ids=["not taken", "taken without an answer"])
async def test_a_bus_that_is_down_for_a_minute_holds_up_only_what_is_for_it(late: bool) -> None:
    mill = MemoryMill()
    end = mill.cloud.clock.now() + MINUTE
    down = down_until(mill, end, lambda: Unreachable("No answer came back."), "put")
    bus = Failing(mill.cloud.bus, down, late=late)
    mill.replace(bus=bus)
    for_the_bus, for_a_queue = sacks(30), dust(10)
    await mill.tell(**for_the_bus, **for_a_queue)

    async with mill.open() as opened:
        first = await opened.turn()
        assert acked(first) == set(for_a_queue)
        assert set(mill.left()) == set(for_the_bus)
        await opened.until_done()

    assert bus.failed["put"] > 0
    assert all(each.at >= end for each in mill.attempts if acked([each]) & set(for_the_bus))
    await mill.require_effects_once()


async def test_the_delays_between_deliveries_grow_while_the_bus_is_down() -> None:
    mill = MemoryMill()
    end = mill.cloud.clock.now() + MINUTE
    down = down_until(mill, end, lambda: Unreachable("No answer came back."), "put")
    mill.replace(bus=Failing(mill.cloud.bus, down))
    await mill.tell(**sacks(30))

    await mill.run()

    require_delays_within_bounds(mill)
    retries = mill.retries()
    assert set(retries) == set(mill.told)
    # 2 + 4 + 8 + 16 s at most have passed at the fifth attempt, so that every message has five.
    for attempt in range(2, 6):
        delays = [dict(each)[attempt] for each in retries.values()]
        assert max(delays) > bound(attempt - 1)
        assert len(set(delays)) == len(delays)
    # Nobody hammers a bus that is down: that many would not be by equal delays of the base.
    assert max(map(len, retries.values())) < MINUTE / BACKOFF.base
    await mill.require_effects_once()


def throttled() -> Exception:
    return Throttled("Rate exceeded.")


@pytest.mark.parametrize(
    "methods",
    [("transact", "change"), ("get",), ("get", "transact", "change", "write", "query")],
    ids=["writes", "reads", "everything"],
)
async def test_a_dynamodb_that_throttles_for_a_minute_delays_everything_and_loses_nothing(
    methods: tuple[str, ...],
) -> None:
    mill = MemoryMill()
    end = mill.cloud.clock.now() + MINUTE
    store = Failing(mill.cloud.store, down_until(mill, end, throttled, *methods))
    mill.replace(store=store)
    await mill.tell(**sacks(30), **dust(10))

    await mill.run()

    assert sum(store.failed.values()) > 0
    assert mill.retries() != {}
    require_delays_within_bounds(mill)
    await mill.require_effects_once()


class Busy:
    """A store that cancels transactions, and leaves done-marks unprocessed, until `end`."""

    def __init__(self, mill: MemoryMill, end: datetime, code: str) -> None:
        self.canceled = 0
        self._mill = mill
        self._end = end
        self._code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mill.cloud.store, name)

    @property
    def _over(self) -> bool:
        return self._mill.cloud.clock.now() >= self._end

    async def transact(self, actions: list[Action], *, token: str) -> None:
        if self._over:
            return await self._mill.cloud.store.transact(actions, token=token)
        self.canceled += 1
        reason = CancellationReason(self._code, "Not now.")
        raise TransactionCanceled([None] * (len(actions) - 1) + [reason])

    async def write(self, actions: list[Put | Delete]) -> list[int]:
        if self._over:
            return await self._mill.cloud.store.write(actions)
        return list(range(len(actions)))


@pytest.mark.parametrize(
    "code", ["ThrottlingError", "ProvisionedThroughputExceeded", "TransactionConflict"]
)
async def test_transactions_that_are_cancelled_for_a_minute_go_through_afterwards(
    code: str,
) -> None:
    mill = MemoryMill()
    busy = Busy(mill, mill.cloud.clock.now() + MINUTE, code)
    mill.replace(store=busy)
    await mill.tell(**sacks(30), **dust(10))

    await mill.run()

    assert busy.canceled > 0
    assert mill.retries() != {}
    require_delays_within_bounds(mill)
    await mill.require_effects_once(marked=False)
