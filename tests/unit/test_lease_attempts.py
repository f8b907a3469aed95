"""Attempts under a lease: what counts as one is a failure of the handler, not a receive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace import Ack, PoisonMessage, Retry, RetryLater, Service, Transaction
from headrace.errors import ConditionFailed, LeaseHeld, LeaseLost, Throttled, Unreachable
from headrace.outcome import DeadLetter, Outcome
from headrace.policy import Policy
from headrace.ports import Delete, Item, ItemKey, Put, Update
from headrace.record import milliseconds
from tests.crash.skipping import LoopClock
from tests.unit.depot import Bus, CrateMoved, CrateSeen, Depot, Shelf, Through, open_depot
from tests.unit.leases import releases, renews
from tests.unit.timeless import timeless

LEASE = timedelta(minutes=10)
DOWN = ValueError("the mail server is down")


class Mailer:
    """A leased handler that fails as it is told, and how often it ran."""

    def __init__(self, depot: Depot, **options: Any) -> None:
        self.runs = 0
        self.error: Exception | None = DOWN
        self.started, self.end = asyncio.Event(), asyncio.Event()
        self.end.set()
        chosen: dict[str, Any] = {"lease": LEASE, "policy": Policy(attempts=3)} | options

        @depot.service.on(CrateMoved, **chosen)
        async def move(event: CrateMoved, tx: Transaction) -> None:
            self.runs += 1
            self.started.set()
            await self.end.wait()
            if self.error is not None:
                raise self.error


async def received(depot: Depot, receive_count: int = 1, **ports: Any) -> Outcome:
    """The outcome of one receive in a process of its own."""
    async with depot.pipeline(**ports) as pipeline:
        return await pipeline.consume(depot.delivery(receive_count=receive_count))


async def failed(depot: Depot, *, times: int, **ports: Any) -> None:
    """The handler fails, and its message comes again."""
    for _ in range(times):
        outcome = await received(depot, **ports)
        assert isinstance(outcome, Retry)
        assert outcome.error is DOWN


async def gives_up(depot: Depot, *, after: int) -> None:
    outcome = await received(depot)
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == f"Gave up after {after} failures: ValueError: {DOWN}"


async def counted(depot: Depot) -> int:
    record = await depot.record()
    assert record is not None
    return int(record.get("failures", {"N": "0"})["N"])


async def left_by_a_process_that_died(depot: Depot) -> None:
    """The lease is another's now, and nobody is at work."""
    until = depot.cloud.clock.now() + LEASE
    await depot.cloud.store.change(
        Update(
            depot.key("inbox#depot.move#e-1"),
            "SET #status = :leased, holder = :dead, held_until = :until, commit_id = :dead",
            {"#status": "status"},
            {
                ":leased": {"S": "leased"},
                ":dead": {"S": "the dead"},
                ":until": {"N": milliseconds(until)},
            },
        )
    )


def its_time_goes_by(depot: Depot) -> None:
    depot.advance(LEASE.total_seconds() + 1)


# --- what is no attempt ---


async def test_a_receive_that_only_met_a_held_lease_is_no_attempt(depot: Depot) -> None:
    mailer = Mailer(depot)
    await left_by_a_process_that_died(depot)
    for receive in range(1, 9):
        outcome = await received(depot, receive)
        assert isinstance(outcome, Retry)
        assert isinstance(outcome.error, LeaseHeld)
    its_time_goes_by(depot)
    outcome = await received(depot, 9)
    assert isinstance(outcome, Retry)
    assert outcome.error is DOWN
    assert (mailer.runs, await counted(depot)) == (1, 1)


async def test_a_process_that_died_is_no_attempt(depot: Depot) -> None:
    mailer = Mailer(depot)
    await failed(depot, times=2)
    for _ in range(5):
        await left_by_a_process_that_died(depot)
        its_time_goes_by(depot)
    assert await counted(depot) == 2
    mailer.error = None
    assert await received(depot, 8) == Ack()


async def test_copies_that_come_while_the_handler_runs_are_no_attempts(depot: Depot) -> None:
    mailer = Mailer(depot)
    mailer.end.clear()
    async with depot.pipeline() as pipeline:
        first = asyncio.create_task(pipeline.consume(depot.delivery(receive_count=7)))
        await mailer.started.wait()
        for _ in range(5):
            assert isinstance(await pipeline.consume(depot.delivery()), Retry)
        mailer.end.set()
        outcome = await first
    assert isinstance(outcome, Retry)
    assert outcome.error is DOWN
    assert await counted(depot) == 1


@pytest.mark.parametrize("error", [RetryLater("later"), Throttled("slow down"), LeaseLost()])
async def test_what_is_no_fault_of_the_handler_is_no_attempt(
    depot: Depot, error: Exception
) -> None:
    mailer = Mailer(depot)
    mailer.error = error
    for receive in range(1, 6):
        assert isinstance(await received(depot, receive), Retry)
    mailer.error = DOWN
    await failed(depot, times=2)
    assert await counted(depot) == 2


async def test_a_delivery_that_is_stopped_is_no_attempt(depot: Depot) -> None:
    mailer = Mailer(depot)
    mailer.end.clear()
    async with depot.pipeline() as pipeline:
        delivery = asyncio.create_task(pipeline.consume(depot.delivery()))
        await mailer.started.wait()
        delivery.cancel()
        await asyncio.wait([delivery])
    # Nor is the count asked for.
    assert depot.cloud.store.calls["get"] == 0
    assert await counted(depot) == 0


# --- what is one ---


async def test_failures_of_the_handler_count_from_process_to_process(depot: Depot) -> None:
    mailer = Mailer(depot)
    await failed(depot, times=2)
    await gives_up(depot, after=3)
    assert mailer.runs == 3


async def test_failures_count_over_all_messages_of_an_event(depot: Depot) -> None:
    Mailer(depot)
    async with depot.pipeline() as pipeline:
        outcomes = [
            await pipeline.consume(replace(depot.delivery(), message_id=message_id))
            for message_id in ("original", "copy", "original")
        ]
    assert [type(outcome) for outcome in outcomes] == [Retry, Retry, DeadLetter]


async def test_events_are_counted_apart(depot: Depot) -> None:
    Mailer(depot)
    async with depot.pipeline() as pipeline:
        for id in "abcdef":
            assert isinstance(await pipeline.consume(depot.delivery(id=id)), Retry)


async def test_deliveries_that_wait_for_each_other_fail_one_by_one(depot: Depot) -> None:
    Mailer(depot, on_held="wait")
    async with depot.pipeline() as pipeline:
        outcomes = await asyncio.gather(*(pipeline.consume(depot.delivery()) for _ in range(3)))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        "DeadLetter",
        "Retry",
        "Retry",
    ]


async def test_failures_in_a_fifo_group_count_up_to_the_attempts_of_the_policy(
    depot: Depot,
) -> None:
    """There a receive says nothing, as a message comes with those that hold it back."""
    Mailer(depot)
    async with depot.pipeline() as pipeline:
        outcomes = [
            await pipeline.consume(
                replace(depot.delivery(receive_count=receives), fifo=True, group_id="g")
            )
            for receives in (50, 51, 52)
        ]
    assert [type(outcome) for outcome in outcomes] == [Retry, Retry, DeadLetter]


async def test_a_handler_that_fails_after_its_lease_was_lost_leaves_it_to_who_has_it(
    depot: Depot,
) -> None:
    mailer = Mailer(depot, policy=Policy(attempts=1))
    mailer.end.clear()
    async with depot.pipeline() as pipeline:
        first = asyncio.create_task(pipeline.consume(depot.delivery()))
        await mailer.started.wait()
        await left_by_a_process_that_died(depot)
        mailer.end.set()
        outcome = await first
    assert isinstance(outcome, Retry)
    assert outcome.error is DOWN
    assert await counted(depot) == 0


async def test_an_event_that_was_handled_after_all_keeps_no_count(depot: Depot) -> None:
    mailer = Mailer(depot)
    await failed(depot, times=2)
    mailer.error = None
    assert await received(depot) == Ack()
    assert await counted(depot) == 0


async def test_a_plain_handler_that_hangs_fails_and_keeps_its_lease(
    depot: Depot, hanging: threading.Event
) -> None:
    def charge(event: CrateMoved, tx: Transaction) -> CrateSeen | None:
        assert hanging.wait(10)
        return None

    options: dict[str, Any] = {"lease": LEASE, "timeout": timedelta(milliseconds=20)}
    depot.service.on(CrateMoved, name="move", policy=Policy(attempts=2), **options)(charge)
    async with depot.pipeline() as pipeline:
        first = await pipeline.consume(depot.delivery())
        assert isinstance(first, Retry)
        assert isinstance(first.error, TimeoutError)
        its_time_goes_by(depot)
        second = await pipeline.consume(depot.delivery(receive_count=2))
        assert isinstance(second, DeadLetter)
        assert second.reason.startswith("Gave up after 2 failures: TimeoutError")
        redriven = await pipeline.consume(depot.delivery())
    assert isinstance(redriven, Retry)
    assert isinstance(redriven.error, LeaseHeld)
    assert await counted(depot) == 0


@pytest.fixture
async def hanging() -> AsyncIterator[threading.Event]:
    """What a plain handler waits for, until the test is over."""
    end = threading.Event()
    yield end
    end.set()


# --- a new beginning ---


async def test_a_message_that_is_redriven_gets_all_its_attempts_again(depot: Depot) -> None:
    mailer = Mailer(depot)
    for _ in range(2):
        await failed(depot, times=2)
        await gives_up(depot, after=3)
    mailer.error = None
    assert await received(depot) == Ack()
    assert mailer.runs == 7


async def test_a_poison_message_that_is_redriven_gets_all_its_attempts_again(
    depot: Depot,
) -> None:
    mailer = Mailer(depot)
    await failed(depot, times=2)
    mailer.error = PoisonMessage("no such address")
    assert isinstance(await received(depot), DeadLetter)
    mailer.error = DOWN
    await failed(depot, times=2)


async def test_a_handler_that_gave_up_begins_anew_only_when_the_others_are_done(
    depot: Depot,
) -> None:
    """Else it would have attempts left by the time that they have none."""
    Mailer(depot, policy=Policy(attempts=2))
    receives = 0

    @depot.service.on(CrateMoved)
    async def count(event: CrateMoved) -> None:
        nonlocal receives
        receives += 1
        if receives < 4:
            raise RetryLater("not yet")

    outcomes = [await received(depot, receive) for receive in range(1, 5)]
    assert [type(outcome) for outcome in outcomes] == [Retry, Retry, Retry, DeadLetter]
    assert await counted(depot) == 0


async def test_a_count_that_cannot_be_forgotten_is_told_in_the_log(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    class Unforgetting(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            if isinstance(action, Update) and action.expression == "REMOVE failures":
                raise Unreachable("down")
            await self.store.change(action)

    Mailer(depot)
    await failed(depot, times=2)
    assert isinstance(await received(depot, store=Unforgetting(depot)), DeadLetter)
    assert "inbox#depot.move#e-1 keeps its count of failures: down" in caplog.text


async def test_a_dead_letter_whose_lease_is_gone_leaves_nothing(depot: Depot) -> None:
    class Expiring(Through):
        async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
            await self.store.write([Delete(key) for key in keys])
            return await self.store.get(keys)

    Mailer(depot, policy=Policy(attempts=1))
    assert isinstance(await received(depot, store=Expiring(depot)), DeadLetter)
    assert await depot.record() is None


# --- answers that are lost ---


async def test_a_failure_whose_count_was_not_answered_counts_once(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    class Lost(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            await self.store.change(action)
            if releases(action):
                raise Unreachable("no answer")

    Mailer(depot)
    await failed(depot, times=3, store=Lost(depot))
    assert await counted(depot) == 3
    assert "The lease inbox#depot.move#e-1 ends by itself: no answer" in caplog.text
    # Nobody knew that they were three, so there was one more attempt, and not one less.
    await gives_up(depot, after=4)


async def test_a_failure_whose_count_was_sent_twice_counts_once(depot: Depot) -> None:
    """As when the client of AWS sends again what was not answered."""

    class Again(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            await self.store.change(action)
            if releases(action):
                await self.store.change(action)

    Mailer(depot)
    await failed(depot, times=2, store=Again(depot))
    assert await counted(depot) == 2
    assert isinstance(await received(depot, store=Again(depot)), DeadLetter)


async def test_a_failure_whose_count_could_not_be_read_comes_again(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    class Unread(Through):
        async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
            raise Unreachable("no answer")

    mailer = Mailer(depot, policy=Policy(attempts=2))
    await failed(depot, times=4, store=Unread(depot))
    assert "The failures of inbox#depot.move#e-1 were not counted: no answer" in caplog.text
    await gives_up(depot, after=5)
    assert mailer.runs == 5


async def test_a_handler_with_one_attempt_gives_up_even_where_nothing_can_be_counted(
    depot: Depot,
) -> None:
    class Down(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            if releases(action):
                raise Unreachable("down")
            await self.store.change(action)

    Mailer(depot, policy=Policy(attempts=1))
    assert isinstance(await received(depot, store=Down(depot)), DeadLetter)


@timeless
async def test_a_renewal_that_arrives_late_does_not_take_back_what_was_let_go() -> None:
    depot = open_depot(LoopClock())
    mailer = Mailer(depot)
    mailer.end.clear()

    class Late(Through):
        late: Any = None

        async def change(self, action: Put | Update | Delete) -> None:
            if renews(action):
                self.late = action
                mailer.end.set()
                await asyncio.Event().wait()
            await self.store.change(action)
            if releases(action):
                with suppress(ConditionFailed):
                    await self.store.change(self.late)

    outcome = await received(depot, store=Late(depot))
    assert isinstance(outcome, Retry)
    assert outcome.error is DOWN
    mailer.error = None
    assert await received(depot) == Ack()


# --- what stood there before ---


async def test_a_lease_leaves_nothing_of_a_record_that_is_over(depot: Depot) -> None:
    names: list[set[str]] = []

    @depot.service.on(CrateMoved, name="move", lease=LEASE)
    async def move(event: CrateMoved) -> CrateSeen:
        record = await depot.record()
        assert record is not None
        names.append(set(record))
        return CrateSeen()

    async with depot.pipeline(bus=Bus(down=True)) as pipeline:
        await pipeline.consume(depot.delivery())
        record = await depot.record()
        assert record is not None
        assert "outgoing" in record
        depot.advance(depot.service.redelivery_horizon.total_seconds() + 2)
        await pipeline.consume(depot.delivery())
    lease = {"pk", "sk", "commit_id", "status", "expires_at", "holder", "held_until"}
    assert names == [lease, lease]


async def test_a_handler_that_is_leased_no_more_goes_by_its_receives(depot: Depot) -> None:
    Mailer(depot)
    await failed(depot, times=2)
    depot.service = Service("depot", bus="yard")
    error: Exception | None = DOWN

    @depot.service.on(CrateMoved, policy=Policy(attempts=3))
    async def move(event: CrateMoved, tx: Transaction) -> None:
        tx.put(Shelf(sku="a", count=1))
        if error is not None:
            raise error

    outcome = await received(depot, 3)
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason.startswith("Gave up after 3 receives")
    error = None
    assert await received(depot) == Ack()
    assert await counted(depot) == 0
