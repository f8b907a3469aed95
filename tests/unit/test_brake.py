"""When everything fails, messages are received slowly, and not used up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from headrace import Ack, DeadLetter, Delivery, Outcome, PoisonMessage, Policy, Retry, RetryLater
from headrace.errors import LeaseHeld, NotJson, TooLarge, Unreachable
from headrace.hosts.brake import Brake
from headrace.hosts.pulse import Phase
from headrace.policy import Backoff
from headrace.ports import EntryFailure
from tests.unit.kitchen import (
    VISIBILITY,
    DishOrdered,
    Kitchen,
    Longest,
    Noted,
    burning,
    now,
    taking,
)
from tests.unit.timeless import timeless

FAILED = Retry("it failed", handler="kitchen.serve", error=OSError("secret-4711"))


def delivery(number: int) -> Delivery:
    return Delivery(f"m-{number}", f"r-{number}", "{}", "kitchen")


def brake_after(*outcomes: Outcome, trip: int = 10) -> Brake:
    """A brake that has seen these outcomes, each of another message."""
    brake = Brake("kitchen", Longest(), trip=trip)
    for number, outcome in enumerate(outcomes):
        brake.settled(delivery(number), outcome)
    return brake


async def seconds(passing: Awaitable[int]) -> float:
    began = now()
    await passing
    return now() - began


def probed(brake: Brake, number: int, outcome: Outcome) -> None:
    brake.received(delivery(number))
    brake.settled(delivery(number), outcome)


# --- when it is pulled -----------------------------------------------------------------------


async def test_it_is_pulled_by_so_many_messages_that_fail_and_by_no_fewer() -> None:
    assert not brake_after(*[FAILED] * 9).is_pulled
    assert brake_after(*[FAILED] * 10).is_pulled


async def test_one_message_that_fails_again_and_again_does_not_pull_it() -> None:
    brake = Brake("kitchen", Longest())
    for _ in range(50):
        brake.settled(delivery(1), FAILED)
    assert not brake.is_pulled


async def test_one_success_begins_the_count_anew() -> None:
    assert not brake_after(*[FAILED] * 9, Ack(), *[FAILED] * 9).is_pulled


@pytest.mark.parametrize(
    "outcome",
    [
        Retry("later", error=RetryLater(delay=timedelta(seconds=5))),
        Retry("held", error=LeaseHeld(delay=timedelta(seconds=5))),
        Retry("there was no time left"),
        Retry("its copy was not written", error=PoisonMessage("never")),
        Retry("its copy was not written", error=NotJson("no json")),
        Retry("its copy was not written", error=TooLarge("large", size=2, limit=1)),
        DeadLetter("never", error=PoisonMessage("never")),
        DeadLetter("no json", error=NotJson("no json")),
    ],
    ids=lambda outcome: f"{type(outcome).__name__} {type(outcome.error).__name__}",
)
async def test_what_says_something_of_its_message_alone_does_not_pull_it(outcome: Outcome) -> None:
    brake = brake_after(*[outcome] * 20)
    assert not brake.is_pulled


@pytest.mark.parametrize("outcome", [DeadLetter("no json", error=NotJson("no json"))])
async def test_what_says_something_of_its_message_alone_does_not_release_it(
    outcome: Outcome,
) -> None:
    brake = brake_after(*[FAILED] * 10)
    probed(brake, 11, outcome)
    assert brake.is_pulled


async def test_a_message_whose_last_attempt_failed_counts_as_the_others_do() -> None:
    gave_up = DeadLetter(
        "Gave up after 1 receives", "kitchen.serve", OSError("secret-4711"), gave_up=True
    )
    assert brake_after(*[gave_up] * 10).is_pulled


async def test_its_cause_has_no_words_of_an_exception() -> None:
    brake = brake_after(*[FAILED] * 10)
    assert brake.cause == (
        "the last 10 messages all failed, in the end with OSError in kitchen.serve."
    )


# --- while it is pulled ----------------------------------------------------------------------


@timeless
async def test_as_long_as_it_is_not_pulled_everybody_passes_at_once() -> None:
    brake = brake_after(*[FAILED] * 9)
    assert await brake.passed(10, probes=True) == 10
    assert await brake.passed(10, probes=False) == 10
    assert now() == 0


@timeless
async def test_one_at_a_time_passes_and_the_pauses_grow_up_to_half_a_minute() -> None:
    brake = brake_after(*[FAILED] * 10)
    pauses = []
    for number in range(10, 17):
        pauses.append(await seconds(brake.passed(10, probes=True)))
        assert await brake.passed(10, probes=True) == 1
        probed(brake, number, FAILED)
    assert pauses == pytest.approx([2, 4, 8, 16, 30, 30, 30])


@timeless
async def test_a_pause_is_never_nothing() -> None:
    class Shortest(Longest):
        def uniform(self, low: float, high: float) -> float:
            return low

    brake = Brake("kitchen", Shortest())
    for number in range(10):
        brake.settled(delivery(number), FAILED)
    assert await seconds(brake.passed(10, probes=True)) == pytest.approx(0.5)


@timeless
async def test_nothing_more_passes_until_the_one_is_settled() -> None:
    brake = brake_after(*[FAILED] * 10)
    await brake.passed(10, probes=True)
    brake.received(delivery(11))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(25):
            await brake.passed(10, probes=True)
    brake.settled(delivery(3), FAILED)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(25):
            await brake.passed(10, probes=True)
    passing = asyncio.create_task(brake.passed(10, probes=True))
    brake.settled(delivery(11), Retry("there was no time left"))
    assert await passing == 1


@timeless
async def test_one_that_is_not_settled_within_a_minute_is_not_waited_for() -> None:
    brake = brake_after(*[FAILED] * 10)
    await brake.passed(10, probes=True)
    brake.received(delivery(11))
    began = now()
    assert await brake.passed(10, probes=True) == 1
    assert now() - began == pytest.approx(60)


@timeless
async def test_those_who_do_not_probe_wait_for_the_release() -> None:
    brake = brake_after(*[FAILED] * 10)
    waiting = asyncio.create_task(brake.passed(10, probes=False))
    await asyncio.sleep(3600)
    assert not waiting.done()
    probed(brake, 11, Ack())
    assert await waiting == 10


@timeless
async def test_the_first_success_releases_it_and_the_pauses_begin_anew() -> None:
    brake = brake_after(*[FAILED] * 10)
    for number in range(10, 14):
        await brake.passed(10, probes=True)
        probed(brake, number, FAILED)
    probed(brake, 14, Ack())
    assert (brake.is_pulled, brake.cause) == (False, None)
    assert await seconds(brake.passed(10, probes=True)) == 0
    for number in range(10):
        brake.settled(delivery(number), FAILED)
    assert await seconds(brake.passed(10, probes=True)) == pytest.approx(2)


@timeless
async def test_a_success_of_what_was_received_before_releases_it_too() -> None:
    brake = brake_after(*[FAILED] * 10)
    brake.received(delivery(11))
    brake.settled(delivery(12), Ack())
    assert await brake.passed(10, probes=True) == 10
    brake.settled(delivery(11), FAILED)
    assert not brake.is_pulled


@timeless
async def test_the_last_attempt_of_a_message_is_followed_by_a_pause_too() -> None:
    brake = brake_after(*[FAILED] * 10)
    await brake.passed(10, probes=True)
    probed(brake, 11, DeadLetter("Gave up after 5 receives", "kitchen.serve", OSError()))
    assert await seconds(brake.passed(10, probes=True)) == pytest.approx(4)


@timeless
async def test_what_was_received_before_it_was_pulled_is_not_waited_for() -> None:
    brake = Brake("kitchen", Longest())
    brake.received(delivery(50))
    for number in range(10):
        brake.settled(delivery(number), FAILED)
    assert await seconds(brake.passed(10, probes=True)) == pytest.approx(2)


@timeless
async def test_what_was_received_before_the_release_is_not_waited_for_when_it_is_pulled_again() -> (
    None
):
    brake = brake_after(*[FAILED] * 10)
    brake.received(delivery(50))
    brake.settled(delivery(3), Ack())
    for number in range(10):
        brake.settled(delivery(number), FAILED)
    assert await seconds(brake.passed(10, probes=True)) == pytest.approx(2)


# --- in a worker -----------------------------------------------------------------------------

PATIENT = Policy(attempts=100, backoff=Backoff(base=timedelta(seconds=1)))


def per_minute(received: list[float], minute: int) -> int:
    return sum(60 * minute <= at < 60 * (minute + 1) for at in received)


class Timed(Noted):
    """When each message was received."""

    def __init__(self, kitchen: Kitchen) -> None:
        super().__init__(kitchen.cloud.queues)
        self.times: list[float] = []

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        found = await super().receive(queue, **how)
        self.times += [now()] * len(found)
        return found


@pytest.mark.parametrize(
    "policy", [PATIENT, Policy(), Policy(attempts=1)], ids=lambda policy: f"{policy.attempts}"
)
@timeless
async def test_while_everything_fails_a_backlog_is_not_moved_to_the_dead_letters(
    policy: Policy,
) -> None:
    kitchen = Kitchen(burning, policy=policy)
    await kitchen.order(*range(1000))
    queues = Timed(kitchen)
    async with kitchen.working(queues, drain=timedelta(0)) as shift:
        await asyncio.sleep(600)
        assert shift.pulse.phase is Phase.SLOWED
    assert len(queues.times) < 100
    assert max(per_minute(queues.times, minute) for minute in range(1, 10)) <= 20
    assert kitchen.dead_letters() < 100


@timeless
async def test_a_backlog_with_one_attempt_left_each_is_not_moved_to_the_dead_letters() -> None:
    kitchen = Kitchen(burning)
    await kitchen.order(*range(200))
    for _ in range(4):
        await received_once_more(kitchen)
    async with kitchen.working(drain=timedelta(0)):
        await asyncio.sleep(600)
    assert kitchen.dead_letters() <= 60


async def received_once_more(kitchen: Kitchen) -> None:
    """Each message was received by somebody, and is there again."""
    while await kitchen.cloud.queues.receive(
        "kitchen", limit=10, wait=timedelta(0), visibility=timedelta(seconds=5)
    ):
        pass
    await asyncio.sleep(6)


@timeless
async def test_from_the_moment_when_it_is_pulled_one_message_at_a_time_is_received() -> None:
    kitchen = Kitchen(burning, policy=PATIENT)
    await kitchen.order(*range(50))
    async with kitchen.working(drain=timedelta(0)) as shift:
        await asyncio.sleep(120)
        limits = [call.count for call in shift.queues.of("receive")]
    assert limits[:2] == [10, 1]
    assert set(limits[1:]) == {1}


@pytest.mark.parametrize(("concurrency", "failing"), [(1, 9), (50, 49)])
@timeless
async def test_as_many_as_are_handled_at_a_time_may_fail_and_ten_in_any_case(
    concurrency: int, failing: int
) -> None:
    kitchen = Kitchen(burning, policy=PATIENT, max_receive_count=2)
    await kitchen.order(*range(failing))
    async with kitchen.working(concurrency=concurrency) as shift:
        await shift.settles(failing)
        await asyncio.sleep(30)
        assert shift.pulse.phase is Phase.RECEIVING


@timeless
async def test_a_slowed_queue_that_cannot_be_received_from_says_so() -> None:
    class Closing(Noted):
        is_closed = False

        async def receive(self, queue: str, **how: Any) -> list[Delivery]:
            if self.is_closed:
                raise Unreachable("no route to SQS")
            return await super().receive(queue, **how)

    kitchen = Kitchen(burning, policy=PATIENT)
    await kitchen.order(*range(50))
    queues = Closing(kitchen.cloud.queues)
    async with kitchen.working(queues, drain=timedelta(0)) as shift:
        await asyncio.sleep(120)
        queues.is_closed = True
        await asyncio.sleep(120)
        assert (shift.pulse.phase, shift.pulse.cause) == (Phase.FAILING, "no route to SQS")


@timeless
async def test_it_goes_on_as_before_once_one_is_handled() -> None:
    is_broken = True

    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        if is_broken:
            raise OSError("the oven is out of order")

    kitchen = Kitchen(cook, policy=PATIENT)
    await kitchen.order(*range(200))
    async with kitchen.working() as shift:
        await asyncio.sleep(600)
        assert await kitchen.served() == {}
        is_broken = False
        await asyncio.sleep(90)
        assert len(await kitchen.served()) > 150
        assert (shift.pulse.phase, shift.pulse.cause) == (Phase.RECEIVING, None)


@timeless
async def test_the_pulse_says_why_it_is_slow_without_the_words_of_an_exception(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kitchen = Kitchen(burning, policy=PATIENT)
    await kitchen.order(*range(50))
    async with kitchen.working(drain=timedelta(0)) as shift:
        await asyncio.sleep(120)
        phase, cause = shift.pulse.phase, shift.pulse.cause
        assert shift.pulse.is_ready
    assert phase is Phase.SLOWED
    assert cause is not None
    assert "OSError in kitchen.serve" in cause
    assert "secret" not in cause
    assert caplog.text.count("is received from slowly, one message at a time") == 1


@timeless
async def test_what_nobody_can_read_does_not_slow_a_worker() -> None:
    kitchen = Kitchen(taking(0))
    await kitchen.spoil(10)
    await kitchen.spoil(10)
    await kitchen.order(1)
    async with kitchen.working() as shift:
        await shift.settles(21)
        assert now() < 5
    assert kitchen.dead_letters() == 20


@timeless
async def test_a_probe_that_is_cut_does_not_keep_the_brake_pulled() -> None:
    """Its lock is lost, so nobody ever says what became of it."""
    is_broken = True

    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        if delivery.receive_count > 1 and is_broken:
            await asyncio.Event().wait()
        if is_broken:
            raise OSError("the oven is out of order")

    class Unheard(Noted):
        """Heartbeats are refused; what hands a message back is not."""

        async def change_visibility(
            self, queue: str, changes: Sequence[tuple[str, timedelta]]
        ) -> list[EntryFailure]:
            if changes[0][1] == VISIBILITY:
                raise OSError("not now")
            return await super().change_visibility(queue, changes)

    kitchen = Kitchen(cook, policy=PATIENT)
    await kitchen.order(*range(10))
    async with kitchen.working(Unheard(kitchen.cloud.queues)) as shift:
        await shift.settles(12)
        is_broken = False
        async with asyncio.timeout(300):
            while len(await kitchen.served()) < 10:
                await shift.settles(len(shift.outcomes) + 1)


@timeless
async def test_a_probe_that_hangs_does_not_stop_a_worker_for_hours() -> None:
    """The database was down; what began meanwhile hangs, and all the others would succeed."""
    is_broken = True

    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        if is_broken and delivery.receive_count > 1:
            await asyncio.Event().wait()
        if is_broken:
            raise OSError("the oven is out of order")

    kitchen = Kitchen(cook, policy=PATIENT)
    await kitchen.order(*range(20))
    async with kitchen.working(drain=timedelta(0)) as shift:
        await shift.begins(11)
        await asyncio.sleep(60)
        is_broken = False
        await asyncio.sleep(3600)
        assert len(await kitchen.served()) >= 15
