"""Leases where something else goes wrong: threads that go on, answers that are lost, renewals that
fail, and processes that die."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from headrace import Ack, Retry, Service, Transaction
from headrace.errors import LeaseHeld, LeaseLost, Throttled, Unreachable
from headrace.middleware import Call, Invocation
from headrace.outcome import Outcome
from headrace.policy import Policy
from headrace.ports import Delete, Put, Update
from headrace.record import milliseconds
from headrace.testing.memory import SeededRandomness
from tests.crash.skipping import START, LoopClock
from tests.unit.depot import CrateMoved, CrateSeen, Depot, Through, open_depot
from tests.unit.leases import renews
from tests.unit.timeless import timeless

LEASE = timedelta(minutes=10)


async def leased(depot: Depot, *, until: datetime) -> None:
    """The record as a process left it that died in its handler."""
    record = {
        **depot.key("inbox#depot.move#e-1").attributes(),
        "commit_id": {"S": "c"},
        "status": {"S": "leased"},
        "holder": {"S": "the dead"},
        "held_until": {"N": milliseconds(until)},
        "expires_at": {"N": str(int(until.timestamp()) + 1_000_000)},
    }
    await depot.cloud.store.write([Put("depot", record)])


async def is_held(depot: Depot) -> bool:
    record = await depot.record()
    if record is None or record["status"] != {"S": "leased"}:
        return False
    return record["held_until"] != {"N": "0"}


# --- how soon a delivery comes again ---


@pytest.mark.parametrize("receive_count", [1, 2, 3])
def test_the_first_receives_come_again_before_the_lease_is_over(receive_count: int) -> None:
    held, randomness = LeaseHeld(delay=LEASE), SeededRandomness()
    outcome = Policy().decide(held, receive_count=receive_count, randomness=randomness)
    assert isinstance(outcome, Retry)
    assert outcome.delay is not None
    assert outcome.delay <= timedelta(seconds=4)


def test_no_receive_comes_again_later_than_the_lease_is_over() -> None:
    held = LeaseHeld(delay=timedelta(0))
    outcome = Policy().decide(held, receive_count=3, randomness=SeededRandomness())
    assert isinstance(outcome, Retry)
    assert outcome.delay == timedelta(0)


def next_look(receive_count: int, left: timedelta) -> timedelta | None:
    """When a delivery comes again that met a lease of which so much was left."""
    held, randomness = LeaseHeld(delay=left), SeededRandomness()
    outcome = Policy().decide(held, receive_count=receive_count, randomness=randomness)
    assert isinstance(outcome, Retry)
    return outcome.delay


def test_the_receive_after_those_comes_again_when_the_lease_is_over() -> None:
    assert next_look(4, LEASE) == LEASE


def test_while_a_lease_is_renewed_and_renewed_a_message_comes_again_less_and_less_often() -> None:
    minute = timedelta(minutes=1)
    looks = [next_look(receives, minute) for receives in (4, 5, 6, 7, 8, 9, 99)]
    assert looks == [minute, 2 * minute, 4 * minute, 8 * minute, *[15 * minute] * 3]


@pytest.mark.parametrize("receive_count", [4, 9, 99])
def test_no_look_comes_long_before_a_long_lease_is_over(receive_count: int) -> None:
    hour = timedelta(hours=1)
    assert next_look(receive_count, hour) == hour


class Impatient:
    """Randomness that has everything come again at once."""

    def uuid(self) -> UUID:
        return UUID(int=1)

    def uniform(self, low: float, high: float) -> float:
        return low


@pytest.mark.parametrize("randomness", [Impatient(), *map(SeededRandomness, range(4))])
async def test_a_message_whose_process_died_under_a_long_lease_is_handled_before_it_is_moved(
    depot: Depot, randomness: Any
) -> None:
    """Its queue moves it to the dead-letter queue after so many receives."""

    @depot.service.on(CrateMoved, lease=LEASE)
    async def move(event: CrateMoved, tx: Transaction) -> None: ...

    await leased(depot, until=depot.cloud.clock.now() + LEASE)
    outcomes: list[Outcome] = []
    async with depot.pipeline(randomness=randomness) as pipeline:
        for receive in range(2, depot.service.queue_settings.max_receive_count + 1):
            outcome = await pipeline.consume(depot.delivery(receive_count=receive))
            outcomes.append(outcome)
            if isinstance(outcome, Retry) and outcome.delay is not None:
                depot.cloud.clock.advance(outcome.delay + timedelta(seconds=1))
    assert Ack() in outcomes


# --- threads ---


class Charging:
    """A plain handler that goes on until it is told to end, and how many are at it at once."""

    def __init__(self) -> None:
        self.begun = 0
        self.started = asyncio.Event()
        self.end = threading.Event()
        self.loop = asyncio.get_running_loop()
        self.error: Exception | None = None

    def charge(self, event: CrateMoved, tx: Transaction) -> CrateSeen | None:
        self.begun += 1
        self.loop.call_soon_threadsafe(self.started.set)
        if self.error is not None:
            raise self.error
        assert self.end.wait(10)
        return None


@pytest.fixture
async def charging() -> AsyncIterator[Charging]:
    charging = Charging()
    yield charging
    charging.end.set()


async def test_a_plain_handler_that_times_out_keeps_its_lease_while_it_may_work(
    depot: Depot, charging: Charging
) -> None:
    options: dict[str, Any] = {"lease": LEASE, "timeout": timedelta(milliseconds=20)}
    depot.service.on(CrateMoved, name="move", **options)(charging.charge)
    async with depot.pipeline() as pipeline:
        first = await pipeline.consume(depot.delivery())
        second = await pipeline.consume(depot.delivery(receive_count=2))
    assert isinstance(first, Retry)
    assert isinstance(first.error, TimeoutError)
    assert isinstance(second, Retry)
    assert isinstance(second.error, LeaseHeld)
    assert charging.begun == 1


async def test_a_plain_handler_that_is_cut_short_keeps_its_lease_while_it_may_work(
    depot: Depot, charging: Charging
) -> None:
    depot.service.on(CrateMoved, name="move", lease=LEASE)(charging.charge)
    async with depot.pipeline() as pipeline:
        first = asyncio.create_task(pipeline.consume(depot.delivery()))
        await charging.started.wait()
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        assert await is_held(depot)


async def test_middleware_that_gives_up_does_not_end_the_lease_of_what_may_still_work(
    depot: Depot, charging: Charging
) -> None:
    async def impatient(invocation: Invocation, call_next: Call) -> Any:
        call = asyncio.ensure_future(call_next(invocation))
        await charging.started.wait()
        call.cancel()
        await asyncio.wait([call])
        raise RuntimeError("gave up")

    depot.service = Service("depot", bus="yard", middleware=[impatient])
    depot.service.on(CrateMoved, name="move", lease=LEASE)(charging.charge)
    async with depot.pipeline() as pipeline:
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)
        assert await is_held(depot)


@pytest.mark.parametrize("error", [TimeoutError("the bank is slow"), ValueError("no")])
async def test_a_plain_handler_that_ended_leaves_no_lease_whatever_it_raised(
    depot: Depot, charging: Charging, error: Exception
) -> None:
    charging.error = error
    depot.service.on(CrateMoved, name="move", lease=LEASE)(charging.charge)
    async with depot.pipeline() as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert outcome.reason == f"{type(error).__name__}: {error}"
    assert not await is_held(depot)


async def test_an_async_handler_that_times_out_leaves_no_lease(depot: Depot) -> None:
    options: dict[str, Any] = {"lease": LEASE, "timeout": timedelta(milliseconds=1)}

    @depot.service.on(CrateMoved, **options)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        await asyncio.Event().wait()

    async with depot.pipeline() as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, TimeoutError)
    assert not await is_held(depot)


# --- answers that are lost ---


def handling(depot: Depot) -> list[str]:
    handled: list[str] = []

    @depot.service.on(CrateMoved, lease=LEASE)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        handled.append(event.sku)

    return handled


async def test_a_lease_whose_taking_was_not_answered_is_let_go(depot: Depot) -> None:
    class Lost(Through):
        lost = False

        async def change(self, action: Put | Update | Delete) -> None:
            await self.store.change(action)
            if not self.lost:
                self.lost = True
                raise Unreachable("the answer was lost")

    handled = handling(depot)
    async with depot.pipeline(store=Lost(depot)) as pipeline:
        first = await pipeline.consume(depot.delivery())
        assert isinstance(first, Retry)
        assert isinstance(first.error, Unreachable)
        assert handled == []
        assert await pipeline.consume(depot.delivery(receive_count=2)) == Ack()
    assert handled == ["a"]


async def test_a_lease_that_is_being_taken_when_the_delivery_is_cut_short_is_let_go(
    depot: Depot,
) -> None:
    written = asyncio.Event()

    class Silent(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            await self.store.change(action)
            if not written.is_set():
                written.set()
                await asyncio.Event().wait()

    handled = handling(depot)
    async with depot.pipeline(store=Silent(depot)) as pipeline:
        first = asyncio.create_task(pipeline.consume(depot.delivery()))
        await written.wait()
        first.cancel()
        await asyncio.wait([first])
        assert await pipeline.consume(depot.delivery(receive_count=2)) == Ack()
    assert handled == ["a"]


# --- renewals that fail ---


def now() -> float:
    return (LoopClock().now() - START).total_seconds()


class Failing(Through):
    """The store of an account that answers no renewal, after so many seconds."""

    def __init__(self, depot: Depot, *, seconds: float, failures: int = 1000) -> None:
        super().__init__(depot)
        self.seconds = seconds
        self.failures = failures
        self.tries: list[float] = []

    async def change(self, action: Put | Update | Delete) -> None:
        if renews(action):
            self.tries.append(now())
            if len(self.tries) <= self.failures:
                await asyncio.sleep(self.seconds)
                raise Throttled("slow down")
        await self.store.change(action)


def sleeping(depot: Depot, lease: timedelta) -> list[float]:
    """A handler that takes hours, and when it was cancelled."""
    cancelled: list[float] = []

    @depot.service.on(CrateMoved, lease=lease)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        try:
            await asyncio.sleep(10_000)
        except asyncio.CancelledError:
            cancelled.append(now())
            raise

    return cancelled


@pytest.mark.parametrize("seconds", [0, 1, 6, 19, 100])
@timeless
async def test_a_handler_whose_lease_cannot_be_renewed_ends_with_it(seconds: float) -> None:
    """However long the failures take: from then on another delivery may be at work."""
    depot = open_depot(LoopClock())
    cancelled = sleeping(depot, timedelta(seconds=60))
    async with depot.pipeline(store=Failing(depot, seconds=seconds)) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, LeaseLost)
    assert cancelled == [pytest.approx(60, abs=0.01)]


@timeless
async def test_a_renewal_that_failed_is_tried_again_sooner_and_sooner() -> None:
    depot = open_depot(LoopClock())
    sleeping(depot, timedelta(seconds=60))
    store = Failing(depot, seconds=0)
    async with depot.pipeline(store=store) as pipeline:
        await pipeline.consume(depot.delivery())
    assert store.tries[:5] == pytest.approx([20, 40, 50, 55, 57.5])


@timeless
async def test_a_renewal_that_succeeds_after_failures_keeps_the_handler_at_work() -> None:
    depot = open_depot(LoopClock())
    cancelled = sleeping(depot, timedelta(seconds=60))
    store = Failing(depot, seconds=0, failures=3)
    async with depot.pipeline(store=store) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert cancelled == []
    # After the one that succeeds, a third of the lease goes by again.
    assert store.tries[3:6] == pytest.approx([55, 75, 95])


class Paused(LoopClock):
    """The time of day of a process that was stopped for a while, and its loop does not know."""

    gone = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.gone


@timeless
async def test_a_lease_that_was_renewed_after_a_failure_may_outlive_a_pause_of_the_process() -> (
    None
):
    clock = Paused()
    depot = open_depot(clock)

    @depot.service.on(CrateMoved, lease=timedelta(seconds=60))
    async def move(event: CrateMoved, tx: Transaction) -> None:
        await asyncio.sleep(60)
        clock.gone = timedelta(seconds=100)
        await asyncio.sleep(60)

    store = Failing(depot, seconds=0, failures=1)
    async with depot.pipeline(store=store) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
