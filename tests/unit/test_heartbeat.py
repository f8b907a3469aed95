"""The heartbeat keeps what is held hidden, and cuts short what is not held any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from headrace import Ack, Delivery, PoisonMessage, Retry, RetryLater
from headrace.errors import Refused, Unreachable
from headrace.hosts.heartbeat import Heartbeat
from headrace.ports import EntryFailure, QueueEntry
from headrace.testing.memory import ManualClock
from tests.unit.kitchen import (
    VISIBILITY,
    DishOrdered,
    Kitchen,
    Noted,
    now,
    pause,
    taking,
)
from tests.unit.timeless import timeless

LINE = "could be kept hidden"


# --- it keeps what is held hidden ------------------------------------------------------------


@timeless
async def test_a_handler_of_three_visibility_timeouts_runs_once_and_commits_once() -> None:
    kitchen = Kitchen(taking(95))
    await kitchen.order(1)
    async with kitchen.working() as shift:
        await shift.settles()
    assert kitchen.begun == [1]
    assert await kitchen.served() == {1: 1}
    assert [delivery.receive_count for delivery in shift.queues.received] == [1]
    assert shift.queues.at("change_visibility") == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert {call.hidden for call in shift.queues.of("change_visibility")} == {(30,)}
    assert await kitchen.left() == (0, 0)


@timeless
async def test_twenty_five_that_are_held_are_kept_hidden_by_three_calls() -> None:
    kitchen = Kitchen(taking(25))
    await kitchen.order(*range(25))
    async with kitchen.working(concurrency=25) as shift:
        await shift.settles(25)
    calls = shift.queues.of("change_visibility")
    assert [call.count for call in calls] == [10, 10, 5, 10, 10, 5]
    assert len(kitchen.begun) == 25


@timeless
async def test_what_was_received_a_little_later_is_kept_hidden_by_the_same_call() -> None:
    kitchen = Kitchen(taking(25))
    await kitchen.order(1)
    async with kitchen.working() as shift:
        await shift.begins()
        await asyncio.sleep(0.9)
        await kitchen.order(2)
        await shift.settles(2)
    assert [call.count for call in shift.queues.of("change_visibility")] == [2, 2]


@timeless
async def test_what_was_received_much_later_is_kept_hidden_by_a_call_of_its_own() -> None:
    kitchen = Kitchen(taking(25))
    await kitchen.order(1)
    async with kitchen.working() as shift:
        await shift.begins()
        await asyncio.sleep(5)
        await kitchen.order(2)
        await shift.settles(2)
    assert shift.queues.at("change_visibility") == [10, 15, 20, 25]


@timeless
async def test_what_waits_for_its_turn_is_kept_hidden_too() -> None:
    kitchen = Kitchen(taking(20))
    await kitchen.order(*range(10))
    async with kitchen.working(concurrency=1, prefetch=9) as shift:
        await shift.settles(10)
    assert kitchen.begun == list(range(10))
    assert {delivery.receive_count for delivery in shift.queues.received} == {1}
    assert set((await kitchen.served()).values()) == {1}


@timeless
async def test_nothing_is_kept_hidden_that_is_done() -> None:
    kitchen = Kitchen(taking(15))
    await kitchen.order(1)
    async with kitchen.working() as shift:
        await shift.settles()
        await asyncio.sleep(600)
    assert shift.queues.at("change_visibility") == [10]


@timeless
async def test_the_visibility_of_the_settings_is_the_one_of_receives_and_heartbeats() -> None:
    kitchen = Kitchen(taking(9))
    await kitchen.order(1)
    async with kitchen.working(visibility=timedelta(seconds=6)) as shift:
        await shift.settles()
    assert shift.queues.at("change_visibility") == [2, 4, 6, 8]
    assert {call.hidden for call in shift.queues.of("change_visibility")} == {(6,)}


@timeless
async def test_it_is_known_for_how_long_the_oldest_has_been_handled() -> None:
    kitchen = Kitchen(taking(100))
    await kitchen.order(1)
    async with kitchen.working(concurrency=2) as shift:
        ages = [shift.worker.oldest()]
        await shift.begins()
        await asyncio.sleep(40)
        await kitchen.order(2)
        await asyncio.sleep(40)
        ages.append(shift.worker.oldest())
        await shift.settles()
        ages.append(shift.worker.oldest())
        await shift.settles(2)
        ages.append(shift.worker.oldest())
    assert [age and round(age.total_seconds()) for age in ages] == [None, 80, 60, None]


@timeless
async def test_a_handler_that_runs_for_long_is_spoken_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kitchen = Kitchen(taking(3600))
    await kitchen.order(1)
    async with kitchen.working() as shift:
        await shift.settles()
    assert caplog.text.count("has been handled for 10 minutes and is kept hidden meanwhile") == 1
    assert caplog.text.count("has been handled for") == 1


# --- it fails --------------------------------------------------------------------------------


class Failing(Noted):
    """A worker's own way to SQS: no heartbeat gets through, as `how` says, and after the first
    messages no other is received."""

    def __init__(self, kitchen: Kitchen, how: Callable[[int], Any]) -> None:
        super().__init__(kitchen.cloud.queues)
        self.how = how

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        if self.received:
            await asyncio.sleep(how["wait"].total_seconds())
            return []
        return await super().receive(queue, **how)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        self.note("change_visibility", len(changes), (hidden for _, hidden in changes))
        answer: list[EntryFailure] = await self.how(len(changes))
        return answer


async def is_unreachable(count: int) -> list[EntryFailure]:
    raise Unreachable("no route to SQS")


async def is_refused(count: int) -> list[EntryFailure]:
    raise Refused("not allowed")


async def is_a_bug(count: int) -> list[EntryFailure]:
    raise RuntimeError("a bug")


async def was_cancelled(count: int) -> list[EntryFailure]:
    raise asyncio.CancelledError


async def never_answers(count: int) -> list[EntryFailure]:
    await asyncio.Event().wait()
    raise AssertionError("nothing sets that event")


async def fails_for_now(count: int) -> list[EntryFailure]:
    return [EntryFailure(index, "InternalError", "try again") for index in range(count)]


async def fails_for_good(count: int) -> list[EntryFailure]:
    return [
        EntryFailure(index, "ReceiptHandleIsInvalid", "gone", retryable=False)
        for index in range(count)
    ]


every_failure = pytest.mark.parametrize(
    "how",
    [
        is_unreachable,
        is_refused,
        is_a_bug,
        was_cancelled,
        never_answers,
        fails_for_now,
        fails_for_good,
    ],
    ids=lambda how: how.__name__,
)


@every_failure
@timeless
async def test_what_is_lost_commits_nothing_and_another_worker_does_it_once(
    how: Callable[[int], Any],
) -> None:
    kitchen = Kitchen(taking(95))
    await kitchen.order(1)
    async with kitchen.working(Failing(kitchen, how)) as losing:
        await losing.begins()
        async with kitchen.working() as other:
            await losing.settles()
            assert await kitchen.served() == {}
            assert now() == pytest.approx(30 if how is not fails_for_good else 10)
            told = losing.queues.of("delete") + losing.queues.of("send")
            assert told == []
            asked = len(losing.queues.calls)
            await other.settles()
            later = losing.queues.calls[asked:]
            assert [call for call in later if call.method != "receive"] == []
    assert isinstance(losing.outcomes[0][1], Retry)
    assert other.outcomes[0][1] == Ack()
    assert [delivery.receive_count for delivery in other.queues.received] == [2]
    assert kitchen.begun == [1, 1]
    assert await kitchen.served() == {1: 1}


@timeless
async def test_a_handler_that_swallows_its_cancellation_commits_at_most_once() -> None:
    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(95)
        await asyncio.sleep(1)

    kitchen = Kitchen(cook)
    await kitchen.order(1)
    async with kitchen.working(Failing(kitchen, is_unreachable)) as losing:
        await losing.begins()
        async with kitchen.working() as other:
            await losing.settles()
            await other.settles()
    assert isinstance(losing.outcomes[0][1], Retry)
    assert isinstance(other.outcomes[0][1], Ack)
    assert losing.queues.of("delete") == []
    assert await kitchen.served() == {1: 1}


@timeless
async def test_what_is_lost_while_it_waits_is_not_begun() -> None:
    kitchen = Kitchen(taking(29))
    await kitchen.order(1, 2)
    async with kitchen.working(
        Failing(kitchen, fails_for_good), concurrency=1, prefetch=1
    ) as losing:
        await losing.settles(2)
    assert kitchen.begun == [1]
    assert [type(outcome) for _, outcome in losing.outcomes] == [Retry, Retry]
    assert await kitchen.left() == (0, 2)


@timeless
async def test_what_failed_before_is_not_waited_for_beyond_its_visibility() -> None:
    failures = iter([True, True])

    async def how(count: int) -> list[EntryFailure]:
        return await (is_unreachable if next(failures, False) else never_answers)(count)

    kitchen = Kitchen(taking(95))
    await kitchen.order(1)
    async with kitchen.working(Failing(kitchen, how)) as losing:
        await losing.settles()
        assert now() == pytest.approx(30)
    assert await kitchen.served() == {}


@timeless
async def test_two_calls_may_fail_before_a_message_is_lost() -> None:
    failures = iter([True, True])

    async def how(count: int) -> list[EntryFailure]:
        return await is_unreachable(count) if next(failures, False) else []

    kitchen = Kitchen(taking(25), clock=ManualClock())
    await kitchen.order(1)
    async with kitchen.working(Failing(kitchen, how)) as shift:
        await shift.settles()
    assert len(shift.queues.of("change_visibility")) == 3
    assert shift.outcomes[0][1] == Ack()


@timeless
async def test_one_call_that_is_never_answered_is_followed_by_another_in_time() -> None:
    silent = iter([True])

    class Silent(Noted):
        async def change_visibility(
            self, queue: str, changes: Sequence[tuple[str, timedelta]]
        ) -> list[EntryFailure]:
            if next(silent, False):
                await asyncio.Event().wait()
            return await super().change_visibility(queue, changes)

    kitchen = Kitchen(taking(95))
    await kitchen.order(1)
    async with kitchen.working(Silent(kitchen.cloud.queues)) as shift:
        await shift.settles()
    assert shift.outcomes[0][1] == Ack()
    assert kitchen.begun == [1]


@timeless
async def test_there_is_one_line_for_each_call_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    kitchen = Kitchen(taking(95))
    await kitchen.order(*range(25))
    async with kitchen.working(Failing25(kitchen), concurrency=25) as losing:
        await losing.settles(25)
    assert len(losing.queues.of("change_visibility")) >= 6
    assert caplog.text.count(LINE) == len(losing.queues.of("change_visibility"))
    assert "(10 failed): no route to SQS" in caplog.text


class Failing25(Failing):
    """The messages come in several receives."""

    def __init__(self, kitchen: Kitchen) -> None:
        super().__init__(kitchen, is_unreachable)

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        if len(self.received) < 25:
            return await Noted.receive(self, queue, **how)
        return await super().receive(queue, **how)


@timeless
async def test_one_refused_entry_costs_its_message_alone() -> None:
    async def how(count: int) -> list[EntryFailure]:
        return (await fails_for_good(1)) if count == 3 else []

    kitchen = Kitchen(taking(25), clock=ManualClock())
    await kitchen.order(1, 2, 3)
    async with kitchen.working(Failing(kitchen, how)) as shift:
        await shift.settles(3)
    assert sorted(await kitchen.served()) == [2, 3]


@timeless
async def test_a_message_that_failed_once_does_not_shorten_the_time_of_the_others() -> None:
    """One of two cannot be kept hidden for now; the other is not lost with it."""

    async def how(count: int) -> list[EntryFailure]:
        return [EntryFailure(0, "InternalError", "try again")]

    kitchen = Kitchen(taking(95), clock=ManualClock())
    await kitchen.order(1, 2)

    class FirstOnly(Failing):
        async def change_visibility(
            self, queue: str, changes: Sequence[tuple[str, timedelta]]
        ) -> list[EntryFailure]:
            self.note("change_visibility", len(changes))
            first = self.received[0].receipt_handle
            return [
                EntryFailure(index, "InternalError", "try again")
                for index, (receipt, _) in enumerate(changes)
                if receipt == first
            ]

    async with kitchen.working(FirstOnly(kitchen, how)) as shift:
        await shift.settles(2)
    assert await kitchen.served() == {2: 1}


@timeless
async def test_a_lost_message_of_a_group_holds_back_those_behind_it() -> None:
    kitchen = Kitchen(taking(35), fifo=True)
    await kitchen.order(1, 2, 3, group="A")
    await kitchen.order(4, group="B")

    class NotA1(Failing):
        async def change_visibility(
            self, queue: str, changes: Sequence[tuple[str, timedelta]]
        ) -> list[EntryFailure]:
            held = self.received[0].receipt_handle
            failures = await Noted.change_visibility(self, queue, changes)
            lost = [index for index, (receipt, _) in enumerate(changes) if receipt == held]
            return failures + [EntryFailure(n, "Invalid", "", retryable=False) for n in lost]

    queues = NotA1(kitchen, is_unreachable)
    async with kitchen.working(queues) as losing:
        await losing.settles(2)
        assert kitchen.begun == [1, 4]
        async with kitchen.working() as other:
            await other.settles(3)
    assert kitchen.begun == [1, 4, 1, 2, 3]
    assert await kitchen.served() == {1: 1, 2: 1, 3: 1, 4: 1}


@timeless
async def test_nothing_is_told_of_those_who_were_lost_behind_the_first_of_their_group() -> None:
    kitchen = Kitchen(taking(95), fifo=True)
    await kitchen.order(1, 2, 3, group="A")
    async with kitchen.working(Failing(kitchen, fails_for_good)) as losing:
        await losing.settles()
        await asyncio.sleep(5)
    assert kitchen.begun == [1]
    assert [call.count for call in losing.queues.of("change_visibility")] == [3]
    assert await kitchen.left() == (0, 3)


# --- the twelve hours ------------------------------------------------------------------------


@timeless
async def test_no_message_is_hidden_for_longer_than_twelve_hours_and_then_it_is_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kitchen = Kitchen(taking(13 * 3600))
    await kitchen.order(1)
    half_an_hour = timedelta(minutes=30)
    async with kitchen.working(visibility=half_an_hour, drain=timedelta(0)) as shift:
        await shift.settles()
        ended = now()
        beats = [call.at + max(call.hidden) for call in shift.queues.of("change_visibility")]
    assert max(beats) <= 12 * 3600
    assert 12 * 3600 - 90 <= ended <= 12 * 3600
    assert isinstance(shift.outcomes[0][1], Retry)
    assert LINE not in caplog.text
    assert "SQS hides a message for 12 hours at most" in caplog.text
    assert await kitchen.served() == {}


@timeless
async def test_a_visibility_of_twelve_hours_is_never_made_shorter() -> None:
    kitchen = Kitchen(taking(11 * 3600))
    await kitchen.order(1)
    async with kitchen.working(visibility=timedelta(hours=12)) as shift:
        await shift.settles()
    assert shift.queues.of("change_visibility") == []
    assert await kitchen.served() == {1: 1}


# --- beside what is told SQS otherwise -------------------------------------------------------


class Slow(Noted):
    """A heartbeat takes half a second to reach SQS; what hands a message back is faster."""

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        if all(hidden == VISIBILITY for _, hidden in changes):
            await asyncio.sleep(0.5)
        return await super().change_visibility(queue, changes)


@timeless
async def test_a_heartbeat_on_its_way_does_not_undo_the_delay_of_a_retry() -> None:
    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        if delivery.receive_count == 1:
            await asyncio.sleep(10.2)
            raise RetryLater(delay=timedelta(seconds=5))

    kitchen = Kitchen(cook)
    await kitchen.order(1)
    async with kitchen.working(Slow(kitchen.cloud.queues)) as shift:
        await shift.settles()
        await shift.settles(2)
        assert now() == pytest.approx(10.5 + 5, abs=0.5)
    assert [call.hidden for call in shift.queues.of("change_visibility")] == [(30,), (5,)]
    assert await kitchen.served() == {1: 1}


@timeless
async def test_a_heartbeat_that_finds_its_message_deleted_is_not_worth_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kitchen = Kitchen(taking(10.2))
    await kitchen.order(1)
    async with kitchen.working(Slow(kitchen.cloud.queues)) as shift:
        await shift.settles()
        await asyncio.sleep(5)
    assert shift.outcomes[0][1] == Ack()
    assert caplog.messages == []


@timeless
async def test_a_message_whose_settling_raises_is_not_held_on_to() -> None:
    class Broken(Noted):
        async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
            raise RuntimeError("a bug")

    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        if delivery.receive_count == 1:
            raise PoisonMessage("never")

    kitchen = Kitchen(cook)
    await kitchen.order(1)
    async with kitchen.working(Broken(kitchen.cloud.queues)) as shift:
        await shift.settles()
        async with asyncio.timeout(2 * VISIBILITY.total_seconds()):
            await shift.settles(2)
    assert await kitchen.served() == {1: 1}


# --- a pause of the whole process ------------------------------------------------------------


@timeless
async def test_after_a_pause_beyond_the_visibility_it_goes_on_if_sqs_agrees() -> None:
    go_on = asyncio.Event()

    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        await go_on.wait()

    kitchen = Kitchen(cook, clock=ManualClock())
    await kitchen.order(1)
    async with kitchen.working() as shift:
        await shift.begins()
        pause(300)
        await asyncio.sleep(1)
        assert len(shift.queues.of("change_visibility")) == 1
        go_on.set()
        await shift.settles()
    assert kitchen.begun == [1]
    assert await kitchen.served() == {1: 1}


@timeless
async def test_what_failed_before_the_pause_and_was_made_good_is_no_reason_to_give_up() -> None:
    kitchen = Kitchen(taking(400), clock=ManualClock())
    await kitchen.order(1)
    failures = iter([True])

    async def how(count: int) -> list[EntryFailure]:
        # What comes late is an answer all the same.
        await asyncio.sleep(0)
        return await is_unreachable(count) if next(failures, False) else []

    async with kitchen.working(Failing(kitchen, how)) as shift:
        await shift.begins()
        await asyncio.sleep(35)
        pause(300)
        await shift.settles()
    assert shift.outcomes[0][1] == Ack()


@timeless
async def test_after_a_pause_beyond_the_visibility_it_is_cut_if_sqs_does_not_agree() -> None:
    kitchen = Kitchen(taking(400))
    await kitchen.order(1)
    async with kitchen.working(drain=timedelta(0)) as shift:
        await shift.begins()
        pause(300)
        await shift.settles()
        assert len(shift.queues.of("change_visibility")) == 1
    assert isinstance(shift.outcomes[0][1], Retry)
    assert await kitchen.served() == {}


# --- by itself -------------------------------------------------------------------------------


def held(number: int) -> Delivery:
    return Delivery(f"m-{number}", f"r-{number}", "{}", "kitchen")


@timeless
async def test_what_nobody_holds_is_lost() -> None:
    heartbeat = Heartbeat(Kitchen(taking(1)).cloud.queues, "kitchen", VISIBILITY)
    assert heartbeat.is_lost(held(1))
    heartbeat.hold([held(1)])
    assert not heartbeat.is_lost(held(1))
    await heartbeat.let_go(held(1))
    assert heartbeat.is_lost(held(1))


@timeless
async def test_a_timeout_of_the_handler_itself_is_not_taken_for_a_loss() -> None:
    heartbeat = Heartbeat(Kitchen(taking(1)).cloud.queues, "kitchen", VISIBILITY)
    heartbeat.hold([held(1)])
    with pytest.raises(TimeoutError, match="its own"):
        async with heartbeat.stay(held(1)):
            raise TimeoutError("its own")
