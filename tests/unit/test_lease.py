"""Leases: what cannot be undone is done by one delivery at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from headrace import Ack, Retry, Service, Transaction
from headrace.errors import (
    CancellationReason,
    ConditionFailed,
    DefinitionError,
    LeaseHeld,
    LeaseLost,
    TransactionCanceled,
    Unreachable,
)
from headrace.outcome import Outcome
from headrace.pipeline import Pipeline
from headrace.policy import Backoff, Policy
from headrace.ports import Action, Delete, Item, Put, Update
from headrace.record import milliseconds
from headrace.testing.memory import ManualClock
from tests.crash.skipping import START
from tests.unit.depot import Bus, CrateMoved, CrateSeen, Depot, Shelf, Through, open_depot
from tests.unit.leases import claims, releases, renews
from tests.unit.timeless import timeless

LEASE = timedelta(seconds=30)
PATIENT = Policy(backoff=Backoff(base=timedelta(hours=1), cap=timedelta(hours=1)))
"""Waits longer than any lease here, so that a shorter wait is the lease's."""


class LoopTime:
    """The time of day by the loop that is running."""

    def now(self) -> datetime:
        return START + timedelta(seconds=now())


@pytest.fixture
def depot() -> Depot:
    return open_depot(LoopTime())


def now() -> float:
    return asyncio.get_running_loop().time()


class Mailer:
    """What a handler does that cannot be undone, and how long it takes."""

    def __init__(self, depot: Depot, *, seconds: float = 0, **options: Any) -> None:
        self.sent: list[str] = []
        self.keys: list[str] = []
        self.cancelled: list[float] = []
        self.seconds = seconds
        self.error: Exception | None = None
        self.started = asyncio.Event()
        self.swallows = False
        chosen: dict[str, Any] = {"lease": LEASE, "policy": PATIENT} | options

        @depot.service.on(CrateMoved, **chosen)
        async def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
            number = len(self.sent)
            self.sent.append(event.sku)
            self.keys.append(tx.idempotency_key)
            self.started.set()
            try:
                await asyncio.sleep(self.seconds)
            except asyncio.CancelledError:
                self.cancelled.append(now())
                if not self.swallows:
                    raise
            if self.error is not None:
                raise self.error
            shelf = await tx.get(Shelf, event.sku) or Shelf(sku=event.sku)
            tx.put(shelf.model_copy(update={"count": shelf.count + 1, "note": str(number)}))
            return CrateSeen(note=str(number))


async def at(moment: float) -> None:
    await asyncio.sleep(moment - now())


def begun(depot: Depot, pipeline: Pipeline) -> asyncio.Task[Outcome]:
    return asyncio.create_task(pipeline.consume(depot.delivery()))


# --- while it is held ---


@timeless
async def test_a_second_delivery_comes_again_before_the_lease_would_end(depot: Depot) -> None:
    mailer, bus = Mailer(depot, seconds=5), Bus()
    async with depot.pipeline(bus=bus) as pipeline:
        first = begun(depot, pipeline)
        await at(4)
        second = await pipeline.consume(depot.delivery())
        assert isinstance(second, Retry)
        assert isinstance(second.error, LeaseHeld)
        assert second.error.delay == timedelta(seconds=26)
        assert second.delay == timedelta(seconds=26)
        assert await first == Ack()
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
    assert mailer.sent == ["a"]
    assert bus.notes == ["0"]


@timeless
async def test_a_second_delivery_comes_again_as_soon_as_the_policy_lets_it(depot: Depot) -> None:
    """Whoever holds a lease is mostly done long before it ends."""
    quick = Policy(backoff=Backoff(base=timedelta(seconds=1), cap=timedelta(seconds=1)))
    Mailer(depot, seconds=5, policy=quick)
    async with depot.pipeline() as pipeline:
        first = begun(depot, pipeline)
        await at(1)
        second = await pipeline.consume(depot.delivery())
        assert isinstance(second, Retry)
        assert second.delay is not None
        assert second.delay < timedelta(seconds=1)
        await first


@timeless
async def test_a_lease_that_is_held_never_makes_a_dead_letter(depot: Depot) -> None:
    Mailer(depot, seconds=5)
    async with depot.pipeline() as pipeline:
        first = begun(depot, pipeline)
        await at(1)
        assert isinstance(await pipeline.consume(depot.delivery(receive_count=99)), Retry)
        await first


@timeless
async def test_a_second_delivery_that_waits_is_a_duplicate_in_the_end(depot: Depot) -> None:
    mailer, bus = Mailer(depot, seconds=5, on_held="wait"), Bus()
    async with depot.pipeline(bus=bus) as pipeline:
        first = begun(depot, pipeline)
        await at(1)
        second = begun(depot, pipeline)
        assert await first == Ack()
        assert await second == Ack(duplicate=True)
    assert mailer.sent == ["a"]
    assert len(set(bus.ids)) == 1


@timeless
async def test_a_delivery_that_waits_looks_again_at_growing_intervals(depot: Depot) -> None:
    looks: list[float] = []

    class Looked(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            if claims(action):
                looks.append(round(now(), 2))
            await self.store.change(action)

    Mailer(depot, seconds=29, on_held="wait")
    async with depot.pipeline(store=Looked(depot)) as pipeline:
        first = begun(depot, pipeline)
        await at(0.01)
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
        await first
    # Twice as long each time, up to a third of the lease; the first is the holder's own.
    assert looks == [0, 0.01, 0.06, 0.16, 0.36, 0.76, 1.56, 3.16, 6.36, 12.76, 22.76, 32.76]


@timeless
async def test_a_delivery_that_waits_goes_on_as_soon_as_the_lease_ends_of_itself(
    depot: Depot,
) -> None:
    mailer = Mailer(depot, on_held="wait")
    await depot.cloud.store.write([Put("depot", await leased_by(depot, "another", until=20))])
    async with depot.pipeline() as pipeline:
        await at(12)
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert mailer.sent == ["a"]
    assert 20 < now() < 20.2


@timeless
async def test_a_delivery_waits_no_longer_than_a_lease_lasts(depot: Depot) -> None:
    Mailer(depot, seconds=100, on_held="wait")
    async with depot.pipeline() as pipeline:
        first = begun(depot, pipeline)
        await at(1)
        second = await pipeline.consume(depot.delivery())
        assert isinstance(second, Retry)
        assert isinstance(second.error, LeaseHeld)
        assert 31 <= now() <= 41
        assert await first == Ack()


async def leased_by(depot: Depot, holder: str, *, until: float) -> Item:
    """The record as a delivery left it that died."""
    return {
        "pk": {"S": "inbox#depot.move#e-1"},
        "sk": {"S": "-"},
        "commit_id": {"S": "c"},
        "status": {"S": "leased"},
        "holder": {"S": holder},
        "held_until": {"N": milliseconds(START + timedelta(seconds=until))},
        "expires_at": {"N": str(int(START.timestamp()) + 1_000_000)},
    }


# --- when it ends ---


async def died(depot: Depot) -> None:
    """A delivery was begun, and its process died."""
    await depot.cloud.store.write([Put("depot", await leased_by(depot, "the dead", until=30))])


@timeless
async def test_a_lease_whose_holder_died_ends_by_itself(depot: Depot) -> None:
    mailer = Mailer(depot)
    await died(depot)
    async with depot.pipeline() as pipeline:
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)
        await at(29.9)
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)
        assert mailer.sent == []
        await at(30.1)
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert mailer.sent == ["a"]
    assert await depot.shelf() == 1


class Paused(Through):
    """A store to which no renewal gets through."""

    async def change(self, action: Put | Update | Delete) -> None:
        if renews(action):
            await asyncio.Event().wait()
        await self.store.change(action)


def stopped(depot: Depot) -> dict[str, Any]:
    """What a process has that stands still: it renews nothing, and notices nothing."""
    return {"store": Paused(depot), "clock": ManualClock()}


@timeless
async def test_who_comes_late_cannot_complete_what_another_has_completed(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=100)
    late_bus, bus = Bus(), Bus()
    async with (
        depot.pipeline(bus=late_bus, **stopped(depot)) as late,
        depot.pipeline(bus=bus) as other,
    ):
        first = begun(depot, late)
        await at(40)
        mailer.seconds = 0
        assert await other.consume(depot.delivery()) == Ack()
        assert await first == Ack(duplicate=True)
    assert mailer.sent == ["a", "a"]
    assert len(set(mailer.keys)) == 1
    assert await depot.shelf() == 1
    item = await depot.item("shelf#a")
    assert item is not None
    assert item["note"] == {"S": "1"}
    assert set(bus.notes + late_bus.notes) == {"1"}


@timeless
async def test_who_comes_late_cannot_complete_while_another_is_at_work(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=50)
    late_bus, bus = Bus(), Bus()
    async with (
        depot.pipeline(bus=late_bus, **stopped(depot)) as late,
        depot.pipeline(bus=bus) as other,
    ):
        first = begun(depot, late)
        await at(40)
        second = begun(depot, other)
        outcome = await first
        assert isinstance(outcome, Retry)
        assert isinstance(outcome.error, LeaseLost)
        assert await depot.shelf() is None
        assert await second == Ack()
    assert mailer.keys == ["depot.move#e-1"] * 2
    assert (await depot.shelf(), late_bus.notes, bus.notes) == (1, [], ["1"])


@timeless
async def test_who_comes_late_with_nothing_to_write_cannot_complete_either(depot: Depot) -> None:
    """A record without effects is completed outside of a transaction."""

    @depot.service.on(CrateMoved, lease=LEASE, policy=PATIENT)
    async def move(event: CrateMoved) -> None:
        await asyncio.sleep(50)

    async with depot.pipeline(**stopped(depot)) as late, depot.pipeline() as other:
        first = begun(depot, late)
        await at(40)
        second = begun(depot, other)
        outcome = await first
        assert isinstance(outcome, Retry)
        assert isinstance(outcome.error, LeaseLost)
        assert await second == Ack()


@timeless
async def test_who_comes_late_and_finds_no_lease_cannot_complete(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=100)
    async with depot.pipeline(**stopped(depot)) as pipeline:
        first = begun(depot, pipeline)
        await at(40)
        await depot.cloud.store.write([Delete(depot.key("inbox#depot.move#e-1"))])
        outcome = await first
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, LeaseLost)
    assert mailer.sent == ["a"]
    assert await depot.shelf() is None


# --- renewals ---


class Counted(Through):
    """A store that notes when a lease was taken, renewed, released, and fails as it is told."""

    def __init__(
        self, depot: Depot, fails: Callable[[int], Exception | None] = lambda number: None
    ) -> None:
        super().__init__(depot)
        self.taken: list[float] = []
        self.renewed: list[float] = []
        self.released: list[float] = []
        self.fails = fails

    async def change(self, action: Put | Update | Delete) -> None:
        if renews(action):
            self.renewed.append(now())
            if (error := self.fails(len(self.renewed))) is not None:
                raise error
        elif releases(action):
            self.released.append(now())
        elif claims(action):
            self.taken.append(now())
        await self.store.change(action)


@timeless
async def test_a_lease_is_renewed_for_as_long_as_the_handler_runs(depot: Depot) -> None:
    mailer, store = Mailer(depot, seconds=95), Counted(depot)
    async with depot.pipeline(store=store) as pipeline:
        first = begun(depot, pipeline)
        await at(94)
        second = await pipeline.consume(depot.delivery())
        assert isinstance(second, Retry)
        assert isinstance(second.error, LeaseHeld)
        assert second.error.delay == timedelta(seconds=26)
        assert await first == Ack()
    assert store.renewed == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert mailer.sent == ["a"]


@timeless
async def test_two_renewals_may_fail(depot: Depot, caplog: pytest.LogCaptureFixture) -> None:
    mailer = Mailer(depot, seconds=45)
    store = Counted(depot, lambda n: Unreachable("down") if n in (2, 3) else None)
    async with depot.pipeline(store=store) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert mailer.sent == ["a"]
    assert caplog.text.count("The lease inbox#depot.move#e-1 was not renewed: down") == 2


@timeless
async def test_a_lease_that_cannot_be_renewed_until_it_ends_is_lost(depot: Depot) -> None:
    mailer, store = Mailer(depot, seconds=95), Counted(depot, lambda n: Unreachable("down"))
    async with depot.pipeline(store=store) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, LeaseLost)
    assert mailer.cancelled == [30]
    assert await depot.shelf() is None


@timeless
async def test_a_renewal_that_fails_in_a_way_nobody_foresaw_is_one_that_failed(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    mailer, store = Mailer(depot, seconds=95), Counted(depot, lambda n: ZeroDivisionError())
    async with depot.pipeline(store=store) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, LeaseLost)
    assert mailer.cancelled == [30]
    assert "was not renewed: ZeroDivisionError()" in caplog.text


@timeless
async def test_a_lease_whose_renewals_are_not_answered_until_it_ends_is_lost(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    mailer = Mailer(depot, seconds=95)
    async with depot.pipeline(store=Paused(depot)) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, LeaseLost)
    assert mailer.cancelled == [30]
    assert "was not renewed: TimeoutError()" in caplog.text
    assert await depot.shelf() is None


@timeless
async def test_a_renewal_that_finds_another_holder_cancels_the_handler(depot: Depot) -> None:
    mailer, store, bus = Mailer(depot, seconds=95), Counted(depot), Bus()
    async with depot.pipeline(store=store, bus=bus) as pipeline:
        first = begun(depot, pipeline)
        await at(5)
        stolen = await leased_by(depot, "a thief", until=60)
        await depot.cloud.store.write([Put("depot", stolen)])
        outcome = await first
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, LeaseLost)
    assert "The lease ended before the handler did" in outcome.reason
    assert mailer.cancelled == [10]
    assert (await depot.shelf(), bus.notes, store.transacts) == (None, [], [])
    # And the thief keeps it.
    assert await depot.record() == stolen


@timeless
async def test_a_renewal_that_is_refused_as_the_handler_ends_still_counts(depot: Depot) -> None:
    class Late(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            if not renews(action):
                await self.store.change(action)
                return
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ConditionFailed from None

    mailer, store = Mailer(depot, seconds=15), Late(depot)
    async with depot.pipeline(store=store) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, LeaseLost)
    assert (mailer.sent, mailer.cancelled, store.transacts) == (["a"], [], [])


@timeless
async def test_a_handler_that_swallows_its_cancellation_commits_nothing_either(
    depot: Depot,
) -> None:
    mailer, store = Mailer(depot, seconds=95), Counted(depot)
    mailer.swallows = True
    async with depot.pipeline(store=store) as pipeline:
        first = begun(depot, pipeline)
        await at(5)
        await depot.cloud.store.write([Put("depot", await leased_by(depot, "a thief", until=60))])
        outcome = await first
        assert isinstance(outcome, Retry)
        assert isinstance(outcome.error, LeaseLost)
    assert mailer.cancelled == [10]
    assert store.transacts == []


class Jumping(LoopTime):
    """The time of day in a process that is stopped, and goes on later."""

    def __init__(self) -> None:
        self.slept = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.slept


@timeless
async def test_a_process_that_stood_still_beyond_its_lease_goes_on_if_nobody_took_it(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    mailer, store, clock = Mailer(depot, seconds=15), Counted(depot), Jumping()
    async with depot.pipeline(store=store, clock=clock) as pipeline:
        first = begun(depot, pipeline)
        await at(5)
        clock.slept = timedelta(seconds=100)
        assert await first == Ack()
    assert (mailer.sent, mailer.cancelled, store.renewed) == (["a"], [], [10])
    assert caplog.text == ""


@timeless
async def test_a_delivery_that_is_stopped_as_its_lease_is_lost_is_stopped(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=95)
    store = Counted(depot)
    async with depot.pipeline(store=store) as pipeline:
        first = begun(depot, pipeline)

        def lost_and_stopped(number: int) -> Exception:
            first.cancel()
            return ConditionFailed()

        store.fails = lost_and_stopped
        await asyncio.wait((first,))
    assert first.cancelled()
    assert mailer.cancelled == [10]


@timeless
async def test_runs_after_conflicts_are_all_under_one_lease(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=1)
    await depot.run(shelved)
    store = Raced(depot, times=2)
    async with depot.pipeline(store=store) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert len(mailer.sent) == 3
    assert len(store.taken) == 1
    assert store.released == []
    assert len(set(mailer.keys)) == 1


async def shelved(tx: Transaction) -> None:
    tx.put(Shelf(sku="a"))


async def counted_up(tx: Transaction) -> None:
    tx.update(Shelf, "a", change="ADD #count :n", values={"n": 1})


class Raced(Counted):
    """A store on which another writer is faster, some times."""

    def __init__(self, depot: Depot, *, times: int) -> None:
        super().__init__(depot)
        self._depot = depot
        self._times = times

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        if len(self.transacts) < self._times:
            await self._depot.run(counted_up)
        await super().transact(actions, token=token)


@timeless
async def test_two_writers_at_once_do_not_look_like_a_lease_that_was_lost(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=1)

    class AtOnce(Through):
        async def transact(self, actions: Sequence[Action], *, token: str) -> None:
            if not self.transacts:
                self.transacts.append([])
                raise TransactionCanceled([CancellationReason("TransactionConflict"), None])
            await super().transact(actions, token=token)

    async with depot.pipeline(store=AtOnce(depot)) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert len(mailer.sent) == 2


@timeless
async def test_a_lease_is_renewed_between_runs_none_of_which_is_long(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=9)
    await depot.run(shelved)
    store = Raced(depot, times=6)
    async with depot.pipeline(store=store) as pipeline:
        first = begun(depot, pipeline)
        for moment in (35, 45, 55):
            await at(moment)
            assert isinstance(await pipeline.consume(depot.delivery()), Retry)
        assert await first == Ack()
    assert len(mailer.sent) == 7
    gaps = [after - before for before, after in itertools.pairwise([0, *store.renewed])]
    assert max(gaps) < 30
    assert len(store.taken) == 4


@timeless
async def test_a_lease_that_was_lost_between_two_runs_does_not_run_the_handler_again(
    depot: Depot,
) -> None:
    mailer = Mailer(depot, seconds=9)
    await depot.run(shelved)

    class Conflicting(Raced):
        """A call that takes longer than the lease lasts, while another delivery takes over."""

        async def transact(self, actions: Sequence[Action], *, token: str) -> None:
            await asyncio.sleep(60)
            item = await leased_by(depot, "another", until=1_000)
            await depot.cloud.store.write([Put("depot", item)])
            at_once = CancellationReason("TransactionConflict")
            raise TransactionCanceled([at_once, at_once])

    async with depot.pipeline(store=Conflicting(depot, times=0)) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, LeaseLost)
    assert mailer.sent == ["a"]


# --- how it is given back ---


@timeless
async def test_a_handler_that_fails_lets_the_next_delivery_in_at_once(depot: Depot) -> None:
    mailer, store = Mailer(depot), Counted(depot)
    mailer.error = ValueError("no answer from the provider")
    async with depot.pipeline(store=store) as pipeline:
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)
        mailer.error = None
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert now() == pytest.approx(0, abs=0.2)
    assert len(store.released) == 1
    assert len(set(mailer.keys)) == 1


@timeless
async def test_a_delivery_that_is_stopped_lets_the_next_one_in_at_once(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=5)
    async with depot.pipeline() as pipeline:
        first = begun(depot, pipeline)
        await mailer.started.wait()
        first.cancel()
        await asyncio.wait((first,))
        assert first.cancelled()
        assert await pipeline.consume(depot.delivery()) == Ack()


@timeless
async def test_a_handler_that_takes_too_long_lets_the_next_delivery_in(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=5, timeout=timedelta(seconds=2))
    async with depot.pipeline() as pipeline:
        outcome = await pipeline.consume(depot.delivery())
        assert isinstance(outcome, Retry)
        assert isinstance(outcome.error, TimeoutError)
        mailer.seconds = 0
        assert await pipeline.consume(depot.delivery()) == Ack()


@timeless
async def test_a_lease_that_cannot_be_given_back_is_told_in_the_log_and_ends_by_itself(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    class Keeping(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            if releases(action):
                raise Unreachable("down")
            await self.store.change(action)

    mailer = Mailer(depot)
    mailer.error = ValueError("no")
    async with depot.pipeline(store=Keeping(depot)) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
        assert isinstance(outcome, Retry)
        assert outcome.reason == "ValueError: no"
        assert "The lease inbox#depot.move#e-1 ends by itself: down" in caplog.text
        mailer.error = None
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)
        await at(30.1)
        assert await pipeline.consume(depot.delivery()) == Ack()


@timeless
async def test_a_failed_handler_does_not_give_back_what_another_holds(depot: Depot) -> None:
    mailer = Mailer(depot, seconds=5)
    mailer.error = ValueError("no")
    async with depot.pipeline() as pipeline:
        first = begun(depot, pipeline)
        await at(1)
        stolen = await leased_by(depot, "a thief", until=60)
        await depot.cloud.store.write([Put("depot", stolen)])
        assert isinstance(await first, Retry)
    assert await depot.record() == stolen


# --- answers that are lost ---


@timeless
async def test_a_lease_that_was_taken_and_not_answered_is_known_by_its_holder(
    depot: Depot,
) -> None:
    """The client of AWS sends again what was not answered."""

    class Again(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            await self.store.change(action)
            if claims(action):
                await self.store.change(action)

    mailer = Mailer(depot)
    async with depot.pipeline(store=Again(depot)) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert mailer.sent == ["a"]


@timeless
async def test_a_lease_that_could_not_be_taken_does_not_run_the_handler(depot: Depot) -> None:
    class Down(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            raise Unreachable("down")

    mailer = Mailer(depot)
    async with depot.pipeline(store=Down(depot)) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert outcome.reason == "down"
    assert mailer.sent == []


@timeless
async def test_a_lease_refused_without_its_item_is_looked_at_again_at_once(depot: Depot) -> None:
    class Silent(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            raise ConditionFailed

    mailer = Mailer(depot)
    async with depot.pipeline(store=Silent(depot)) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, LeaseHeld)
    assert outcome.delay == timedelta(0)
    assert mailer.sent == []


@timeless
async def test_a_completion_that_was_not_answered_is_found(depot: Depot) -> None:
    class Lost(Counted):
        async def transact(self, actions: Sequence[Action], *, token: str) -> None:
            await super().transact(actions, token=token)
            raise Unreachable("no answer")

    mailer, store, bus = Mailer(depot), Lost(depot), Bus()
    async with depot.pipeline(store=store, bus=bus) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
        record = await depot.record()
    assert record is not None
    assert len(store.released) == 1
    assert (mailer.sent, bus.notes, await depot.shelf()) == (["a"], ["0"], 1)


@timeless
async def test_a_completion_that_was_sent_twice_is_known_by_its_commit(depot: Depot) -> None:
    """As when the client of AWS sends again what was not answered."""

    class Again(Through):
        async def change(self, action: Put | Update | Delete) -> None:
            await self.store.change(action)
            if isinstance(action, Put):
                await self.store.change(action)

    @depot.service.on(CrateMoved, lease=LEASE)
    async def move(event: CrateMoved) -> None: ...

    async with depot.pipeline(store=Again(depot)) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()


# --- what stands already ---


@timeless
async def test_a_delivery_goes_on_with_what_an_earlier_one_left_unsent(depot: Depot) -> None:
    mailer, bus = Mailer(depot), Bus(down=True)
    async with depot.pipeline(bus=bus) as pipeline:
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)
        record = await depot.record()
        assert record is not None
        assert record["status"] == {"S": "pending"}
        bus.down = False
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
    assert mailer.sent == ["a"]
    assert bus.notes == ["0"]
    record = await depot.record()
    assert record is not None
    assert record["status"] == {"S": "done"}


@timeless
async def test_what_is_out_already_is_not_sent_again_before_it_is_noted(depot: Depot) -> None:
    """Between the dispatch and the note of it, a duplicate has nothing to do."""
    Mailer(depot)
    bus = Bus()
    async with depot.pipeline(bus=bus) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
        depot.cloud.store.calls.clear()
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
        # What stands was seen as the lease was asked for; nothing had to be looked up.
        assert dict(depot.cloud.store.calls) == {"change": 1}
    assert len(bus.notes) == 1


@timeless
async def test_a_record_that_is_done_and_over_does_not_stand_in_the_way(depot: Depot) -> None:
    mailer = Mailer(depot)
    async with depot.pipeline() as pipeline:
        await pipeline.consume(depot.delivery())
        await at(depot.service.redelivery_horizon.total_seconds() + 2)
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert mailer.sent == ["a", "a"]


@timeless
async def test_leases_are_completed_together(depot: Depot) -> None:
    Mailer(depot, seconds=1)
    store = Through(depot)
    async with depot.pipeline(store=store) as pipeline:
        deliveries = [depot.delivery(CrateMoved(sku=sku), id=sku) for sku in "abc"]
        assert await asyncio.gather(*map(pipeline.consume, deliveries)) == [Ack()] * 3
    assert [len(actions) for actions in store.transacts] == [6]


# --- deployments ---


def unleased(depot: Depot) -> list[str]:
    ran: list[str] = []
    depot.service = Service("depot", bus="yard")

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        ran.append(event.sku)
        tx.put(Shelf(sku=event.sku, count=1))

    return ran


@timeless
async def test_a_handler_that_is_leased_no_more_takes_over_what_was_left(depot: Depot) -> None:
    await died(depot)
    ran = unleased(depot)
    async with depot.pipeline() as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
    # A duplicate is recognized when it commits.
    assert ran == ["a", "a"]
    assert await depot.shelf() == 1


@timeless
async def test_a_handler_that_becomes_leased_knows_what_was_done_before(depot: Depot) -> None:
    unleased(depot)
    async with depot.pipeline() as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    depot.service = Service("depot", bus="yard")
    mailer = Mailer(depot)
    async with depot.pipeline() as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
    assert mailer.sent == []


@timeless
async def test_a_leased_delivery_of_the_version_before_cannot_complete_after_a_new_one(
    depot: Depot,
) -> None:
    mailer, old = Mailer(depot, seconds=5), depot.service
    async with depot.pipeline() as before:
        first = begun(depot, before)
        await at(1)
        unleased(depot)
        async with depot.pipeline() as after:
            assert await after.consume(depot.delivery()) == Ack()
        assert await first == Ack(duplicate=True)
    assert old is not depot.service
    assert mailer.sent == ["a"]
    item = await depot.item("shelf#a")
    assert item is not None
    assert (item["count"], item["note"]) == ({"N": "1"}, {"S": ""})


# --- definitions ---


async def on(service: Service, **options: Any) -> None:
    @service.on(CrateMoved, **options)
    async def move(event: CrateMoved) -> None: ...


@timeless
async def test_a_lease_needs_a_record_to_keep_it_in(depot: Depot) -> None:
    with pytest.raises(DefinitionError, match="there is none: leave idempotent=True out"):
        await on(depot.service, lease=LEASE, idempotent=True)
    with pytest.raises(DefinitionError, match=r"there is none: .* give the service a table"):
        await on(Service("depot", table=None), lease=LEASE)


@timeless
async def test_a_lease_of_less_than_a_second_is_refused(depot: Depot) -> None:
    with pytest.raises(DefinitionError, match=r"A lease of 0\.999 s is over before it can be"):
        await on(depot.service, lease=timedelta(milliseconds=999))
    await on(depot.service, lease=timedelta(seconds=1))


@timeless
async def test_what_to_do_while_a_lease_is_held_is_one_of_two_things(depot: Depot) -> None:
    with pytest.raises(DefinitionError, match=r"on_held='never'.*'retry' or 'wait'"):
        await on(depot.service, lease=LEASE, on_held="never")


@timeless
async def test_what_to_do_while_a_lease_is_held_goes_with_a_lease(depot: Depot) -> None:
    with pytest.raises(DefinitionError, match=r"on_held='wait'.*without a lease"):
        await on(depot.service, on_held="wait")
