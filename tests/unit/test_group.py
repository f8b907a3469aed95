"""Deliveries that end together commit together, and none of them pays for another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from headrace import Ack, Event, Retry, Service, Transaction
from headrace.errors import (
    CancellationReason,
    CloudError,
    ConditionNotMet,
    NotProvisioned,
    Refused,
    Throttled,
    TransactionCanceled,
    Unreachable,
)
from headrace.group import GroupCommit
from headrace.outcome import Outcome
from headrace.pipeline import COMMIT_ATTEMPTS
from headrace.ports import Action, Condition, Delete, ItemKey, Put
from headrace.testing.memory import SeededRandomness
from headrace.transaction import MUST_NOT_EXIST
from tests.unit.depot import Bus, CrateMoved, CrateSeen, Depot, Parcel, Shelf, Through


def counting(service: Service, runs: list[str] | None = None) -> None:
    """Reads a shelf, writes one more on it, and says so."""

    @service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
        if runs is not None:
            runs.append(event.sku)
        shelf = await tx.get(Shelf, event.sku) or Shelf(sku=event.sku)
        shelf.count += event.count
        tx.put(shelf)
        return CrateSeen(sku=event.sku, note=str(shelf.count))


async def consume(depot: Depot, skus: Iterable[str], **ports: Any) -> list[Outcome]:
    """The outcomes of deliveries that come at once, one for each of these."""
    async with depot.pipeline(**ports) as pipeline:
        deliveries = [
            depot.delivery(CrateMoved(sku=sku), id=f"e-{n}") for n, sku in enumerate(skus)
        ]
        return await asyncio.gather(*map(pipeline.consume, deliveries))


async def test_deliveries_that_end_together_share_one_call(depot: Depot) -> None:
    counting(depot.service)
    store, bus = Through(depot), Bus()
    assert await consume(depot, "abcdefghij", store=store, bus=bus) == [Ack()] * 10
    assert [len(actions) for actions in store.transacts] == [20]
    assert len(depot.items()) == 10
    assert sorted(bus.notes) == ["1"] * 10


async def test_without_group_commit_every_delivery_has_a_call_of_its_own(depot: Depot) -> None:
    depot.service = Service("depot", bus="yard", group_commit=False)
    counting(depot.service)
    store = Through(depot)
    assert await consume(depot, "abc", store=store) == [Ack()] * 3
    assert [len(actions) for actions in store.transacts] == [2, 2, 2]
    assert len(set(store.tokens)) == 3


async def test_each_group_is_a_request_under_a_token_of_its_own(depot: Depot) -> None:
    counting(depot.service)
    store = Through(depot)
    async with depot.pipeline(store=store) as pipeline:
        for n in range(2):
            deliveries = [depot.delivery(CrateMoved(sku=s), id=f"{n}{s}") for s in "ab"]
            assert await asyncio.gather(*map(pipeline.consume, deliveries)) == [Ack()] * 2
    assert len(store.tokens) == len(set(store.tokens)) == 2


async def test_a_delivery_alone_commits_under_the_id_of_its_commit(depot: Depot) -> None:
    counting(depot.service)
    store = Through(depot)
    await consume(depot, "a", store=store)
    record = await depot.record("e-0")
    assert record is not None
    assert [record["commit_id"]["S"]] == store.tokens


async def test_two_on_one_item_never_share_a_call(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        tx.update(Shelf, event.sku, change="ADD #count :n", values={"n": event.count})

    store = Through(depot)
    assert await consume(depot, "aabab", store=store) == [Ack()] * 5
    assert (await depot.shelf("a"), await depot.shelf("b")) == (3, 2)
    # First a and b, then a and b again, then the last a; none of them in vain.
    shelves = [sorted(pk for pk in keys if pk.startswith("shelf#")) for keys in store.keys]
    assert shelves == [["shelf#a", "shelf#b"], ["shelf#a", "shelf#b"], ["shelf#a"]]


@pytest.mark.parametrize("exists", [True, False])
async def test_ten_on_one_item_commit_within_one_delivery_each_and_waste_no_call(
    depot: Depot, exists: bool
) -> None:
    if exists:
        await depot.run(stocked("a"))
    runs: list[str] = []
    counting(depot.service, runs)
    store = Through(depot)
    assert await consume(depot, "a" * 10, store=store) == [Ack()] * 10
    assert await depot.shelf("a") == 10
    assert len(store.transacts) == 10
    assert len(runs) <= 10 + 9 * 10 / 2


async def test_a_hot_item_does_not_hold_up_what_has_nothing_to_do_with_it(depot: Depot) -> None:
    await depot.run(stocked("a"))
    counting(depot.service)
    store = Through(depot)
    assert await consume(depot, "aaaxyz", store=store) == [Ack()] * 6
    assert {"shelf#x", "shelf#y", "shelf#z", "shelf#a"} <= store.keys[0]


def stocked(*skus: str) -> Any:
    async def act(tx: Transaction) -> None:
        tx.put(*(Shelf(sku=sku) for sku in skus))

    return act


class Interfering(Through):
    """A store on which another writer changes shelves before some of the transactions."""

    def __init__(self, depot: Depot, *interference: str) -> None:
        super().__init__(depot)
        self._depot = depot
        self._left = list(interference)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        for sku in self._left.pop(0) if self._left else ():
            await self._depot.run(changed(sku))
        await super().transact(actions, token=token)


def changed(sku: str) -> Any:
    async def act(tx: Transaction) -> None:
        tx.update(Shelf, sku, change="ADD #count :n", values={"n": 100})

    return act


async def test_of_a_cancelled_group_only_those_that_failed_are_left_out(depot: Depot) -> None:
    await depot.run(stocked(*"abcde"))
    runs: list[str] = []
    counting(depot.service, runs)
    store = Interfering(depot, "bd")
    assert await consume(depot, "abcde", store=store) == [Ack()] * 5
    assert sorted(runs) == sorted("abcdebd")
    shelves = [sorted(pk[-1] for pk in keys if pk.startswith("shelf#")) for keys in store.keys]
    assert shelves[:2] == [list("abcde"), list("ace")]
    assert sorted(shelves[2:]) in ([["b"], ["d"]], [["b", "d"]])
    assert [await depot.shelf(sku) for sku in "abcde"] == [1, 101, 1, 101, 1]


async def test_a_group_that_is_cancelled_again_is_made_smaller_again(depot: Depot) -> None:
    await depot.run(stocked(*"abc"))
    counting(depot.service)
    store = Interfering(depot, "a", "b")
    assert await consume(depot, "abc", store=store) == [Ack()] * 3
    assert [len(actions) for actions in store.transacts[:3]] == [6, 4, 2]
    assert len(set(store.tokens)) == len(store.tokens)
    assert [await depot.shelf(sku) for sku in "abc"] == [101, 101, 1]


async def test_a_group_of_which_everything_fails_is_not_sent_again_as_it_was(
    depot: Depot,
) -> None:
    await depot.run(stocked(*"ab"))
    runs: list[str] = []
    counting(depot.service, runs)
    store = Interfering(depot, "ab")
    assert await consume(depot, "ab", store=store) == [Ack()] * 2
    assert sorted(runs) == ["a", "a", "b", "b"]
    assert [await depot.shelf(sku) for sku in "ab"] == [101, 101]


async def test_a_writer_elsewhere_that_never_stops_is_a_retry_after_so_many_runs(
    depot: Depot,
) -> None:
    await depot.run(stocked(*"ab"))
    runs: list[str] = []
    counting(depot.service, runs)
    # The first is of both; of those after it, every one meets the other writer.
    store = Interfering(depot, *["a"] * 99)
    outcomes = await consume(depot, "ab", store=store)
    assert isinstance(outcomes[0], Retry)
    assert "changed by another writer" in outcomes[0].reason
    assert outcomes[1] == Ack()
    assert runs.count("a") == COMMIT_ATTEMPTS
    assert runs.count("b") == 1


async def test_duplicates_of_one_event_at_once_have_one_effect(depot: Depot) -> None:
    runs: list[str] = []
    counting(depot.service, runs)
    bus = Bus()
    async with depot.pipeline(bus=bus) as pipeline:
        outcomes = await asyncio.gather(*(pipeline.consume(depot.delivery()) for _ in range(3)))
    assert sorted(outcomes, key=repr) == [Ack(), Ack(duplicate=True), Ack(duplicate=True)]
    assert await depot.shelf() == 1
    assert len(set(bus.ids)) == 1
    assert runs == ["a"] * 3


# --- what bounds a group ---


async def consume_all(depot: Depot, store: Through, *counts: int) -> None:
    """Deliveries that come at once and ask for so many writes each; all of them commit."""
    async with depot.pipeline(store=store) as pipeline:
        moves = [CrateMoved(sku=f"{n}-", count=count) for n, count in enumerate(counts)]
        deliveries = [depot.delivery(move, id=move.sku) for move in moves]
        outcomes = await asyncio.gather(*map(pipeline.consume, deliveries))
    assert outcomes == [Ack()] * len(counts)


async def test_a_group_has_a_hundred_actions_at_most(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        for n in range(event.count):
            tx.put(Parcel(order=event.sku, number=n))

    store = Through(depot)
    await consume_all(depot, store, 48, 50, 2, 95)
    assert [len(actions) for actions in store.transacts] == [100, 99]


async def test_a_group_of_a_hundred_lone_writes_leaves_full(depot: Depot) -> None:
    @depot.service.on(CrateMoved, idempotent=True)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        tx.update(Shelf, event.sku, change="ADD #count :n", values={"n": 1})

    store = Through(depot)
    skus = [str(n) for n in range(150)]
    assert await consume(depot, skus, store=store) == [Ack()] * 150
    assert [len(actions) for actions in store.transacts] == [100, 50]


async def test_a_group_has_four_megabytes_at_most(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        for n in range(event.count):
            tx.put(Parcel(order=event.sku, number=n, label="x" * 390_000))

    store = Through(depot)
    await consume_all(depot, store, 5, 5, 1)
    assert [len(actions) for actions in store.transacts] == [12, 2]


async def test_the_bytes_of_updates_bound_a_group_too(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        values = {"note": "x" * 390_000}
        for n in range(event.count):
            tx.update(Shelf, f"{event.sku}{n}", change="SET #note = :note", values=values)

    store = Through(depot)
    await consume_all(depot, store, 5, 5, 1)
    assert [len(actions) for actions in store.transacts] == [12, 2]


# --- one that DynamoDB does not take ---


async def test_a_member_that_dynamodb_refuses_does_not_hurt_the_others(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        tx.write(Put("elsewhere", {"pk": {"S": event.sku}, "sk": {"S": "-"}, "n": {"N": "one"}}))

    @depot.service.on(Sound)
    async def note(event: Sound, tx: Transaction) -> None:
        tx.put(Shelf(sku=event.sku))

    store = Through(depot)
    async with depot.pipeline(store=store) as pipeline:
        outcomes = await asyncio.gather(
            pipeline.consume(depot.delivery()),
            *(pipeline.consume(depot.of(Sound(sku=sku), id=sku)) for sku in "xyz"),
        )
    assert isinstance(outcomes[0], Retry)
    assert isinstance(outcomes[0].error, Refused)
    assert outcomes[1:] == [Ack()] * 3
    assert len(depot.items()) == 3
    assert [len(actions) for actions in store.transacts] == [8, 2, 2, 2, 2]


class Sound(Event, source="depot.floor"):
    sku: str


async def test_a_table_that_does_not_exist_fails_only_who_writes_to_it(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        table = "nowhere" if event.sku == "a" else "elsewhere"
        tx.write(Put(table, {"pk": {"S": event.sku}, "sk": {"S": "-"}}))

    outcomes = await consume(depot, "abc")
    assert isinstance(outcomes[0], Retry)
    assert isinstance(outcomes[0].error, NotProvisioned)
    assert outcomes[1:] == [Ack()] * 2
    pks = [item["pk"]["S"] for item in depot.cloud.store.items("elsewhere")]
    assert pks == ["b", "c"]


async def test_a_change_that_does_not_fit_its_item_fails_its_own_delivery_only(
    depot: Depot,
) -> None:
    await depot.run(stocked(*"abc"))

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        field = "#note" if event.sku == "b" else "#count"
        tx.update(Shelf, event.sku, change=f"ADD {field} :n", values={"n": 1})

    store = Through(depot)
    outcomes = await consume(depot, "abc", store=store)
    assert [type(outcome) for outcome in outcomes] == [Ack, Retry, Ack]
    assert [await depot.shelf(sku) for sku in "abc"] == [1, 0, 1]
    assert [len(actions) for actions in store.transacts] == [6, 4]


class Failing(Through):
    """A store whose first transactions fail, before or after they happen."""

    def __init__(self, depot: Depot, *errors: CloudError, after: bool = False) -> None:
        super().__init__(depot)
        self._errors = list(errors)
        self._after = after

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        error = self._errors.pop(0) if self._errors else None
        if error is None or self._after:
            await super().transact(actions, token=token)
        if error is not None:
            raise error


async def test_a_throttled_group_comes_again_and_nothing_is_lost(depot: Depot) -> None:
    counting(depot.service)
    store, bus = Failing(depot, Throttled("slow down")), Bus()
    outcomes = await consume(depot, "abc", store=store, bus=bus)
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == ["slow down"] * 3
    assert depot.items() == []
    assert bus.notes == []
    assert await consume(depot, "abc", store=store, bus=bus) == [Ack()] * 3
    assert [await depot.shelf(sku) for sku in "abc"] == [1, 1, 1]
    assert bus.notes == ["1"] * 3


async def test_a_group_that_was_written_and_never_answered_is_found_by_each(
    depot: Depot,
) -> None:
    counting(depot.service)
    store, bus = Failing(depot, Unreachable("no answer"), after=True), Bus()
    outcomes = await consume(depot, "abc", store=store, bus=bus)
    assert outcomes == [Ack(duplicate=True)] * 3
    assert [await depot.shelf(sku) for sku in "abc"] == [1, 1, 1]
    assert sorted(bus.notes) == ["1"] * 3
    assert len(store.transacts) == 1


async def test_a_cancellation_that_says_nothing_is_asked_for_each_alone(depot: Depot) -> None:
    counting(depot.service)
    store = Failing(depot, TransactionCanceled([]))
    assert await consume(depot, "ab", store=store) == [Ack()] * 2
    assert [len(actions) for actions in store.transacts] == [2, 2]


async def test_a_lone_cancellation_that_says_nothing_is_told_as_it_is(depot: Depot) -> None:
    counting(depot.service)
    store = Failing(depot, TransactionCanceled([]))
    (outcome,) = await consume(depot, "a", store=store)
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, TransactionCanceled)
    assert store.transacts == []


@pytest.mark.parametrize("code", ["ThrottlingError", "ProvisionedThroughputExceeded"])
async def test_a_member_that_is_throttled_comes_again_while_the_others_commit(
    depot: Depot, code: str
) -> None:
    counting(depot.service)
    busy = CancellationReason(code)
    store = Failing(
        depot, TransactionCanceled([None, None, None, busy, CancellationReason("None")])
    )
    outcomes = await consume(depot, "abc", store=store)
    assert [type(outcome) for outcome in outcomes] == [Ack, Retry, Ack]
    assert isinstance(outcomes[1], Retry)
    assert isinstance(outcomes[1].error, Throttled)
    assert [await depot.shelf(sku) for sku in "abc"] == [1, None, 1]


async def test_two_transactions_at_once_on_one_item_are_a_conflict(depot: Depot) -> None:
    runs: list[str] = []
    counting(depot.service, runs)
    at_once = CancellationReason("TransactionConflict")
    store = Failing(depot, TransactionCanceled([None, at_once]))
    assert await consume(depot, "a", store=store) == [Ack()]
    assert runs == ["a", "a"]


async def test_an_error_that_nobody_foresaw_reaches_every_member(depot: Depot) -> None:
    class Broken(Through):
        async def transact(self, actions: Sequence[Action], *, token: str) -> None:
            raise ZeroDivisionError("a defect")

    counting(depot.service)
    outcomes = await consume(depot, "ab", store=Broken(depot))
    reasons = [getattr(outcome, "reason", None) for outcome in outcomes]
    assert reasons == ["ZeroDivisionError: a defect"] * 2
    # And whoever comes after them does not wait for them.
    assert await consume(depot, "ab") == [Ack()] * 2


# --- who is cancelled, and who waits ---


class Gated(Through):
    """A store whose transactions wait to be let through."""

    def __init__(self, depot: Depot) -> None:
        super().__init__(depot)
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        self.arrived.set()
        await self.gate.wait()
        await super().transact(actions, token=token)


def a_put(pk: str) -> list[Action]:
    return [Put("depot", {"pk": {"S": pk}, "sk": {"S": "-"}})]


async def test_a_caller_that_is_cancelled_before_its_group_left_writes_nothing(
    depot: Depot,
) -> None:
    store = Through(depot)
    group = GroupCommit(store, SeededRandomness())
    leaving = asyncio.create_task(group.transact(a_put("a"), token="t-1"))
    staying = asyncio.create_task(group.transact(a_put("b"), token="t-2"))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert leaving.cancelled()
    assert store.keys == [{"b"}]
    assert store.tokens == ["t-2"]


async def test_whoever_waited_for_one_that_was_cancelled_goes_ahead(depot: Depot) -> None:
    store = Through(depot)
    group = GroupCommit(store, SeededRandomness())
    leaving = asyncio.create_task(group.transact(a_put("a"), token="t-1"))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(group.transact(a_put("a"), token="t-2"))
    await asyncio.sleep(0)
    leaving.cancel()
    await waiting
    assert store.tokens == ["t-2"]


async def test_a_caller_that_is_cancelled_after_its_group_left_is_written(depot: Depot) -> None:
    store = Gated(depot)
    group = GroupCommit(store, SeededRandomness())
    leaving = asyncio.create_task(group.transact(a_put("a"), token="t-1"))
    staying = asyncio.create_task(group.transact(a_put("b"), token="t-2"))
    await store.arrived.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    # Its item is still being written, so whoever wants it waits.
    deleting = asyncio.create_task(group.transact([Delete(key("a"))], token="t-3"))
    store.gate.set()
    await staying
    await deleting
    assert store.keys == [{"a", "b"}, {"a"}]
    assert [item["pk"]["S"] for item in depot.items()] == ["b"]


def key(pk: str) -> ItemKey:
    return ItemKey("depot", pk, "-")


async def test_a_flush_waits_for_what_was_handed_over(depot: Depot) -> None:
    store = Through(depot)
    group = GroupCommit(store, SeededRandomness())
    written = asyncio.create_task(group.transact(a_put("a"), token="t-1"))
    await asyncio.sleep(0)
    await group.flush()
    assert store.tokens == ["t-1"]
    await written


async def test_a_delivery_that_is_cancelled_while_its_group_is_out_counts_as_not_handled(
    depot: Depot,
) -> None:
    counting(depot.service)
    store, bus = Gated(depot), Bus()
    async with depot.pipeline(store=store, bus=bus) as pipeline:
        consuming = asyncio.create_task(pipeline.consume(depot.delivery()))
        await store.arrived.wait()
        consuming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consuming
        store.gate.set()
    assert bus.notes == []
    async with depot.pipeline(bus=bus) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
    assert await depot.shelf() == 1
    assert bus.notes == ["1"]


# --- one after the other ---


async def test_whoever_reads_anew_goes_ahead_of_no_pause(depot: Depot) -> None:
    """Those that another delivery of the process overtook run again at once."""
    await depot.run(stocked("a"))
    counting(depot.service)
    drawn: list[float] = []

    class Counting(SeededRandomness):
        def uniform(self, low: float, high: float) -> float:
            drawn.append(high)
            return low

    assert await consume(depot, "aaaa", randomness=Counting(1)) == [Ack()] * 4
    assert drawn == []


async def test_a_check_alone_does_not_overtake_anybody(depot: Depot) -> None:
    await depot.run(stocked("a", "b"))
    runs: list[str] = []

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        runs.append(event.sku)
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None
        tx.check(shelf)
        tx.update(Shelf, event.sku, change="ADD #count :n", values={"n": 1})

    assert await consume(depot, "xyz") == [Ack()] * 3
    assert sorted(runs) == ["x", "y", "z"]


async def test_a_check_is_overtaken_by_who_writes_what_it_is_about(depot: Depot) -> None:
    await depot.run(stocked("a"))
    runs: list[str] = []
    store = Through(depot)

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        runs.append(event.sku)
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None
        if event.sku == "a":
            tx.put(shelf)
        else:
            tx.check(shelf)
            tx.put(Shelf(sku=event.sku))

    assert await consume(depot, "ab", store=store) == [Ack()] * 2
    assert runs == ["a", "b", "b"]
    assert len(store.transacts) == 2


async def test_whoever_is_overtaken_hears_which_of_its_items_it_was(depot: Depot) -> None:
    group = GroupCommit(Through(depot), SeededRandomness())
    version = Condition("#_v = :_v", {"#_v": "_version"}, {":_v": {"N": "1"}})
    late = Put("depot", {"pk": {"S": "a"}, "sk": {"S": "-"}}, version)
    ahead, behind = await asyncio.gather(
        group.transact(a_put("a"), token="t-1"),
        group.transact([*a_put("b"), late, *a_put("c")], token="t-2"),
        return_exceptions=True,
    )
    assert ahead is None
    assert isinstance(behind, TransactionCanceled)
    codes = [reason and reason.code for reason in behind.reasons]
    assert codes == [None, "ConditionalCheckFailed", None]
    assert depot.cloud.store.calls["transact"] == 1


async def test_whoever_wants_nothing_there_is_not_overtaken_by_who_deletes(depot: Depot) -> None:
    group, store = GroupCommit(Through(depot), SeededRandomness()), depot.cloud.store
    await store.write([Put("depot", {"pk": {"S": "a"}, "sk": {"S": "-"}})])
    anew = Put("depot", {"pk": {"S": "a"}, "sk": {"S": "-"}, "n": {"N": "1"}}, MUST_NOT_EXIST)
    await asyncio.gather(
        group.transact([Delete(depot.key("a"))], token="t-1"),
        group.transact([anew], token="t-2"),
    )
    assert [item.get("n") for item in depot.items()] == [{"N": "1"}]


async def test_a_condition_of_the_handler_is_answered_with_the_item_in_the_way(
    depot: Depot,
) -> None:
    told = []

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        item = {**depot.key("one").attributes(), "sku": {"S": event.sku}}
        try:
            tx.write(Put("depot", item, Condition("attribute_not_exists(pk)")))
        except ConditionNotMet as error:
            told.append(error.item)

    assert await consume(depot, "ab") == [Ack()] * 2
    assert told == depot.items()


async def test_what_others_failed_to_write_overtakes_nobody(depot: Depot) -> None:
    """The one ahead is refused; whoever waited for it commits what it read."""
    await depot.run(stocked("a"))
    runs: list[str] = []
    counting(depot.service, runs)
    store = Failing(depot, Throttled("slow down"))
    outcomes = await consume(depot, "aa", store=store)
    assert [type(outcome) for outcome in outcomes] == [Retry, Ack]
    assert runs == ["a", "a"]
    assert await depot.shelf() == 1
