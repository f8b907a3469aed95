"""The fate of one delivery, where something on its way is not as it should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import Ack, Command, DeadLetter, Entity, Event, Retry, Service, Transaction
from headrace.coalesce import Coalescer
from headrace.envelope import Outgoing, queue_body, root_metadata, seal
from headrace.errors import (
    CancellationReason,
    ConditionNotMet,
    DefinitionError,
    DispatchError,
    NotJson,
    Refused,
    Throttled,
    TooLarge,
    TransactionCanceled,
    Unreachable,
)
from headrace.group import GroupCommit, Overtaken
from headrace.inbox import Inbox
from headrace.observer import Unobserved
from headrace.outbox import Outbox, refuse_unsendable
from headrace.pipeline import TURNS
from headrace.ports import (
    Action,
    BusEntry,
    Delete,
    Delivery,
    EntryFailure,
    Item,
    ItemKey,
    Page,
    Put,
    QueueEntry,
)
from headrace.record import RELAY_INDEX, moment
from headrace.testing.memory import SeededRandomness
from headrace.topology.model import Table
from tests.unit.depot import Bus, CrateMoved, CrateSeen, Depot, Shelf, Through
from tests.unit.timeless import timeless


def seeing(service: Service, **options: Any) -> None:
    @service.on(CrateMoved, **options)
    async def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
        tx.update(Shelf, event.sku, change="ADD #count :n", values={"n": 1})
        return CrateSeen(note=event.sku)


# --- before the handler ---


async def test_a_body_that_cannot_be_read_is_a_dead_letter(depot: Depot) -> None:
    seeing(depot.service)
    async with depot.pipeline() as pipeline:
        outcome = await pipeline.consume(Delivery("m", "r", "{", "depot"))
    assert isinstance(outcome, DeadLetter)
    assert isinstance(outcome.error, NotJson)


async def test_a_message_in_a_fifo_group_gets_as_many_receives_as_its_queue_gives(
    depot: Depot,
) -> None:
    """It is received with those that hold it back, and not tried then."""

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved) -> None:
        raise ValueError("no")

    async def fate(receive_count: int, *, fifo: bool) -> type[Any]:
        delivery = replace(depot.delivery(receive_count=receive_count), fifo=fifo)
        async with depot.pipeline() as pipeline:
            return type(await pipeline.consume(delivery))

    assert [await fate(n, fifo=False) for n in (4, 5)] == [Retry, DeadLetter]
    assert [await fate(n, fifo=True) for n in (8, 9)] == [Retry, DeadLetter]


class Blind(Bus):
    """A bus that may be put to and not described."""

    async def require(self, bus: str) -> None:
        raise Refused("not allowed")


async def test_a_bus_that_cannot_be_seen_is_told_in_the_log_and_used(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    seeing(depot.service)
    bus = Blind()
    async with depot.pipeline(bus=bus) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert "Whether the bus 'yard' exists could not be seen: not allowed" in caplog.text
    assert bus.notes == ["a"]


async def test_a_service_that_emits_no_events_needs_no_bus(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved) -> None: ...

    async with depot.pipeline(bus=Blind()) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert caplog.text == ""


# --- what the handler reads and says ---


class Picky(Through):
    """A store that answers no call that asks for a certain item, as one whose key is too long."""

    def __init__(self, depot: Depot, pk: str) -> None:
        super().__init__(depot)
        self._pk = pk
        self.gets: list[set[str]] = []

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        self.gets.append({key.pk for key in keys})
        if self._pk in self.gets[-1]:
            raise Refused("One of these keys is no key.")
        return await self.store.get(keys)


async def test_a_read_that_is_refused_fails_its_own_delivery_only(depot: Depot) -> None:
    await depot.run(counted)

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        shelf = await tx.get(Shelf, event.sku)
        assert (shelf is not None) == (event.sku == "a")

    store = Picky(depot, "shelf#b")
    async with depot.pipeline(store=store) as pipeline:
        deliveries = [depot.delivery(CrateMoved(sku=sku), id=sku) for sku in "abc"]
        outcomes = await asyncio.gather(*map(pipeline.consume, deliveries))
    assert [type(outcome) for outcome in outcomes] == [Ack, Retry, Ack]
    assert store.gets[0] == {"shelf#a", "shelf#b", "shelf#c"}
    assert {"shelf#b"} in store.gets


async def test_a_read_that_is_not_answered_is_a_retry_of_all_that_shared_it(depot: Depot) -> None:
    class Down(Through):
        async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
            self.transacts.append([])
            raise Unreachable("down")

    @depot.service.on(CrateMoved, idempotent=True)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        await tx.get(Shelf, event.sku)

    store = Down(depot)
    async with depot.pipeline(store=store) as pipeline:
        deliveries = [depot.delivery(CrateMoved(sku=sku), id=sku) for sku in "ab"]
        outcomes = await asyncio.gather(*map(pipeline.consume, deliveries))
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == ["down"] * 2
    assert len(store.transacts) == 1


class Rack(Entity, pk="shelf#{sku}"):
    """Under the key of another entity, which it must not be."""

    sku: str


async def test_one_item_is_not_read_as_two_entities(depot: Depot) -> None:
    async def act(tx: Transaction) -> None:
        tx.put(Shelf(sku="a"))
        await tx.get(Rack, "a")

    error = await depot.refusal(act)
    assert "was read as Shelf and now as Rack: two entities share a key template" in str(error)


async def test_an_item_that_no_longer_fits_its_entity_says_what_to_do(depot: Depot) -> None:
    item = {"pk": {"S": "shelf#a"}, "sk": {"S": "-"}, "sku": {"S": "a"}, "count": {"S": "many"}}
    await depot.cloud.store.write([Put("depot", item)])

    async def act(tx: Transaction) -> None:
        await tx.get(Shelf, "a")

    error = await depot.refusal(act)
    assert "The stored item 'shelf#a' does not fit Shelf" in str(error)
    assert "Give new fields a default, or migrate the items first" in str(error)


class BucketFilled(Event, source="aws.buckets", native=True):
    name: str = ""


async def test_a_native_event_is_not_published(depot: Depot) -> None:
    async def act(tx: Transaction) -> None:
        tx.publish(BucketFilled())

    error = await depot.refusal(act)
    assert "BucketFilled is a native event of another producer" in str(error)


def test_an_entity_without_a_key_is_refused_at_import() -> None:
    with pytest.raises(DefinitionError, match="has an empty pk or sk"):

        class Broken(Entity, pk=""):
            name: str


# --- the commit ---


async def test_a_handler_cannot_write_its_own_record(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        tx.write(Delete(depot.key("inbox#depot.move#e-1")))

    async with depot.pipeline() as pipeline:
        outcome = await pipeline.consume(depot.delivery())
        assert isinstance(outcome, Retry)
        assert isinstance(outcome.error, Refused)
        # And nobody waits for it afterwards.
        assert await pipeline.consume(depot.delivery()) != Ack()
    assert await depot.record() is None


class Once(Through):
    """A store whose first transaction is cancelled for these reasons."""

    def __init__(self, depot: Depot, *codes: str) -> None:
        super().__init__(depot)
        self._codes = codes

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        codes, self._codes = self._codes, ()
        if codes:
            raise TransactionCanceled([CancellationReason(code) for code in codes])
        await super().transact(actions, token=token)


async def test_two_writers_at_once_do_not_look_like_a_condition_that_does_not_hold(
    depot: Depot,
) -> None:
    runs = []

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        runs.append(event)
        condition = "attribute_not_exists(#sku)"
        tx.update(Shelf, "a", change="REMOVE #note", condition=condition)

    async with depot.pipeline(store=Once(depot, "None", "TransactionConflict")) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert len(runs) == 2


@pytest.mark.parametrize("codes", [("None", "ItemCollectionSizeLimitExceeded"), ("None", "None")])
async def test_a_cancellation_for_another_reason_is_told_as_it_is(
    depot: Depot, codes: tuple[str, ...]
) -> None:
    seeing(depot.service)
    async with depot.pipeline(store=Once(depot, *codes)) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, TransactionCanceled)
    assert codes[1] in outcome.reason


async def test_a_changed_item_beside_two_writers_at_once_is_a_conflict(depot: Depot) -> None:
    seeing(depot.service)
    store = Once(depot, "ConditionalCheckFailed", "TransactionConflict")
    async with depot.pipeline(store=store) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()


async def test_a_line_that_does_not_grow_shorter_is_left_after_a_hundred_turns(
    depot: Depot,
) -> None:
    class AlwaysAhead(Through):
        async def transact(self, actions: Sequence[Action], *, token: str) -> None:
            self.tokens.append(token)
            raise Overtaken([None, CancellationReason("ConditionalCheckFailed")])

    depot.service = Service("depot", bus="yard", group_commit=False)
    seeing(depot.service)
    store = AlwaysAhead(depot)
    async with depot.pipeline(store=store) as pipeline:
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)
    assert len(store.tokens) == TURNS == 100


async def test_a_throttle_among_the_reasons_decides(depot: Depot) -> None:
    seeing(depot.service)
    store = Once(depot, "ConditionalCheckFailed", "ThrottlingError")
    async with depot.pipeline(store=store) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, Throttled)
    assert outcome.error.operation == "TransactWriteItems"
    assert outcome.error.code == "TransactionCanceledException"


async def test_an_idempotent_handler_runs_again_after_a_conflict(depot: Depot) -> None:
    await depot.run(counted)
    runs = []

    @depot.service.on(CrateMoved, idempotent=True)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        shelf = await tx.get(Shelf, "a")
        runs.append(shelf)
        assert shelf is not None
        tx.put(shelf.model_copy(update={"note": "seen"}))

    async with depot.pipeline(store=Once(depot, "TransactionConflict")) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert len(runs) == 2


async def counted(tx: Transaction) -> None:
    tx.update(Shelf, "a", change="ADD #count :n", values={"n": 1})


async def test_an_idempotent_handler_is_told_of_its_conditions(depot: Depot) -> None:
    told = []

    @depot.service.on(CrateMoved, idempotent=True)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        try:
            tx.update(Shelf, "a", change="REMOVE #note", condition="attribute_exists(#sku)")
        except ConditionNotMet as error:
            told.append(error.item)

    async with depot.pipeline() as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert told == [None]


async def test_a_partition_is_read_as_it_stands_and_not_as_it_stood(depot: Depot) -> None:
    asked = []

    class Noting(Through):
        async def query(self, *args: Any, **options: Any) -> Page:
            asked.append(options["consistent"])
            return await self.store.query(*args, **options)

    async def act(tx: Transaction) -> None:
        await tx.query(Shelf, "a")

    assert await depot.run(act, store=Noting(depot)) == Ack()
    assert asked == [True]


async def test_a_record_counts_until_the_second_it_expires_at_is_over(depot: Depot) -> None:
    failing: list[bool] = []

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        if failing:
            raise ValueError("it trips over its own effects")

    async with depot.pipeline() as pipeline:
        await pipeline.consume(depot.delivery())
        failing.append(True)
        depot.advance(depot.service.redelivery_horizon.total_seconds())
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
        depot.advance(1)
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)


async def test_everything_that_waits_to_be_relayed_is_found_page_by_page(depot: Depot) -> None:
    depot.cloud.store.create(Table("relayed", indexes=(RELAY_INDEX,)))
    items = [
        {
            "pk": {"S": f"inbox#{number}"},
            "sk": {"S": "-"},
            "relay_pk": {"S": f"depot#{number % 2 * 7}"},
            "relay_sk": {"S": moment(depot.cloud.clock.now())},
        }
        for number in range(250)
    ]
    for item in items:
        await depot.cloud.store.write([Put("relayed", item)])
    inbox = Inbox(
        depot.cloud.store,
        GroupCommit(depot.cloud.store, depot.cloud.randomness),
        depot.cloud.clock,
        depot.cloud.randomness,
        table="relayed",
        keep=timedelta(days=1),
    )
    later = depot.cloud.clock.now() + timedelta(seconds=1)
    pages = [page async for page in inbox.pending("depot", later)]
    assert sorted(len(page) for page in pages) == [25, 25, 100, 100]
    assert {each.key.pk for page in pages for each in page} == {item["pk"]["S"] for item in items}


# --- what goes out ---


async def test_a_dispatch_that_is_cancelled_cancels_the_delivery(depot: Depot) -> None:
    class Ending(Bus):
        async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
            raise asyncio.CancelledError

    seeing(depot.service)
    async with depot.pipeline(bus=Ending()) as pipeline:
        with pytest.raises(asyncio.CancelledError):
            await pipeline.consume(depot.delivery())
    record = await depot.record()
    assert record is not None
    assert record["status"] == {"S": "pending"}


async def test_an_entry_that_is_refused_for_good_is_not_sent_again(depot: Depot) -> None:
    seeing(depot.service)

    class Refusing(Bus):
        calls = 0

        async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
            self.calls += 1
            return [EntryFailure(0, "NotAuthorized", "no", retryable=False)]

    bus = Refusing()
    async with depot.pipeline(bus=bus) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, DispatchError)
    assert isinstance(outcome.error.__cause__, Refused)
    assert outcome.error.__cause__.code == "NotAuthorized"
    assert "The entry was refused (NotAuthorized: no)" in outcome.reason
    assert bus.calls == 1


async def test_messages_that_cannot_all_go_out_are_counted(depot: Depot) -> None:
    class Half(Bus):
        async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
            self.details += [entry.detail for entry in entries[1:]]
            return [EntryFailure(0, "NotAuthorized", "no", retryable=False)]

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved) -> list[CrateSeen]:
        return [CrateSeen(note=note) for note in "abc"]

    bus = Half()
    async with depot.pipeline(bus=bus) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert "1 of 3 messages are not out yet" in outcome.reason
    assert bus.notes == ["b", "c"]


async def test_a_note_that_dynamodb_had_no_time_for_is_told_in_the_log(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    class Busy(Through):
        async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
            pks = [action.key.pk for action in actions]
            return [pks.index("inbox#depot.move#b")]

    seeing(depot.service)
    async with depot.pipeline(store=Busy(depot)) as pipeline:
        for id in "abc":
            assert await pipeline.consume(depot.delivery(id=id)) == Ack()
    assert caplog.text.count("was not marked as done") == 1
    assert "inbox#depot.move#b was not marked as done: DynamoDB was busy." in caplog.text


async def test_a_defect_in_noting_what_is_out_does_not_go_unheard(depot: Depot) -> None:
    class Broken(Through):
        async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
            raise ZeroDivisionError("a defect")

    heard: list[BaseException | None] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: heard.append(context.get("exception"))
    )
    seeing(depot.service)
    async with depot.pipeline(store=Broken(depot)) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert [type(error) for error in heard] == [ZeroDivisionError]


async def test_a_duplicate_after_the_dispatch_sends_nothing_again(depot: Depot) -> None:
    """The note that everything is out is still on its way."""
    seeing(depot.service)
    bus = Bus()
    async with depot.pipeline(bus=bus) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
        record = await depot.record()
        assert record is not None
        assert record["status"] == {"S": "pending"}
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
    assert bus.notes == ["a"]
    record = await depot.record()
    assert record is not None
    assert record["status"] == {"S": "done"}
    assert "outgoing" not in record


async def test_a_call_that_answers_for_too_few_fails_all_of_them() -> None:
    async def call(entries: Sequence[int]) -> list[int | Exception]:
        return [1]

    coalescer = Coalescer(call, max_entries=2)
    answers = await asyncio.gather(*map(coalescer.add, [1, 2]), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["2 entries got 1 answers."] * 2


async def test_a_note_that_is_cut_off_with_everything_else_is_no_failure(
    depot: Depot, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(Through):
        def __init__(self, depot: Depot) -> None:
            super().__init__(depot)
            self.asked = asyncio.Event()

        async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
            self.asked.set()
            await asyncio.Event().wait()
            raise AssertionError

    seeing(depot.service)
    store = Silent(depot)
    async with depot.pipeline(store=store) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
        flushing = asyncio.create_task(pipeline.flush())
        await store.asked.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task(), flushing}:
            task.cancel()
        await flushing
    assert caplog.text == ""


class Drawing(SeededRandomness):
    """Chance that notes between what it was asked to choose, and chooses the least."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: list[tuple[float, float]] = []

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return low


async def test_what_is_throttled_is_sent_four_times_at_growing_intervals(depot: Depot) -> None:
    class Busy(Bus):
        calls = 0

        async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
            self.calls += 1
            return [EntryFailure(0, "ThrottlingException", "slow down")]

    seeing(depot.service)
    bus, chance = Busy(), Drawing()
    async with depot.pipeline(bus=bus, randomness=chance) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, DispatchError)
    assert isinstance(outcome.error.__cause__, Throttled)
    assert bus.calls == 4
    assert chance.asked[:3] == [(0, 0.2), (0, 0.4), (0, 0.8)]


async def test_conflicts_with_writers_elsewhere_are_waited_out_for_longer_and_longer(
    depot: Depot,
) -> None:
    class Conflicting(Through):
        async def transact(self, actions: Sequence[Action], *, token: str) -> None:
            self.tokens.append(token)
            at_once = CancellationReason("TransactionConflict")
            raise TransactionCanceled([at_once for _ in actions])

    seeing(depot.service)
    store, chance = Conflicting(depot), Drawing()
    async with depot.pipeline(store=store, randomness=chance) as pipeline:
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)
    assert len(set(store.tokens)) == 8
    assert chance.asked[:7] == [(0, high) for high in (0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5)]


class CountCrates(Command, owner="office"):
    note: str = ""


class Office(Bus):
    """Queues, and a bus, that remember what they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[str] = []

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        self.bodies += [entry.body for entry in entries]
        return []


def outbox_of(depot: Depot, office: Any) -> Outbox:
    return Outbox(
        "depot", "yard", replace(depot.cloud.ports, bus=office, queues=office), Unobserved()
    )


def sealed(message: Event | Command, id: str = "e-1") -> Outgoing:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return seal(message, root_metadata(message, id=id, now=now))


async def test_what_cannot_be_sent_is_refused_before_anything_is(depot: Depot) -> None:
    @depot.service.on(CrateMoved, idempotent=True)
    async def move(event: CrateMoved) -> list[CrateSeen]:
        return [CrateSeen(note="small"), CrateSeen(note="x" * 1_000_000)]

    bus = Bus()
    async with depot.pipeline(bus=bus) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert isinstance(outcome, DeadLetter)
    assert isinstance(outcome.error, TooLarge)
    assert bus.details == []


async def test_an_idempotent_handler_says_different_things_under_different_ids(
    depot: Depot,
) -> None:
    notes = iter(["one", "two", "two"])

    @depot.service.on(CrateMoved, idempotent=True)
    async def move(event: CrateMoved) -> CrateSeen:
        return CrateSeen(note=next(notes))

    bus = Bus()
    async with depot.pipeline(bus=bus) as pipeline:
        for _ in range(3):
            assert await pipeline.consume(depot.delivery()) == Ack()
    first, second, third = bus.ids
    assert first != second == third


class Slow(Bus):
    """A store and a bus that answer a good while after they were asked."""

    def __init__(self, depot: Depot, method: str) -> None:
        super().__init__()
        self.store = depot.cloud.store
        self.asked = asyncio.Event()
        self.answered = False
        self._method = method

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        await self._wait("transact")
        await self.store.transact(actions, token=token)

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        await self._wait("get")
        return await self.store.get(keys)

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        await self._wait("put")
        return []

    async def _wait(self, method: str) -> None:
        if method == self._method:
            self.asked.set()
            for _ in range(100):
                await asyncio.sleep(0)
            self.answered = True


@pytest.mark.parametrize("method", ["get", "transact", "put"])
async def test_whoever_closes_waits_for_every_answer(depot: Depot, method: str) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
        await tx.get(Shelf, "a")
        tx.put(Shelf(sku="b"))
        return CrateSeen()

    slow = Slow(depot, method)
    async with depot.pipeline(store=slow, bus=slow) as pipeline:
        consuming = asyncio.create_task(pipeline.consume(depot.delivery()))
        await slow.asked.wait()
        consuming.cancel()
        await asyncio.wait((consuming,))
        assert not slow.answered
    assert slow.answered


async def test_what_handlers_need_is_opened_once_and_closed_when_all_is_over(
    depot: Depot,
) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def opened() -> AsyncIterator[list[str]]:
        told.append("opened")
        yield told
        told.append("closed")

    depot.service = Service("depot", bus="yard", resources=opened)

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, resources: list[str]) -> None:
        resources.append(event.sku)

    async with depot.pipeline() as pipeline:
        for sku in "ab":
            assert await pipeline.consume(depot.delivery(CrateMoved(sku=sku), id=sku)) == Ack()
    assert told == ["opened", "a", "b", "closed"]


@timeless
async def test_a_flush_sends_what_was_handed_over_to_the_bus_and_to_queues(depot: Depot) -> None:
    office = Office()
    outbox = outbox_of(depot, office)
    sending = asyncio.create_task(outbox.dispatch([sealed(CrateSeen()), sealed(CountCrates())]))
    # As far as it goes before the first call.
    for _ in range(5):
        await asyncio.sleep(0)
    assert (office.details, office.bodies) == ([], [])
    await outbox.flush()
    assert (len(office.details), len(office.bodies)) == (1, 1)
    await sending


@pytest.mark.parametrize(
    ("cls", "limit", "where"),
    [(CrateSeen, 999_999, "EventBridge"), (CountCrates, 1_048_576, "SQS")],
)
async def test_a_message_may_be_as_large_as_its_way_takes_and_no_larger(
    cls: type[CrateSeen | CountCrates], limit: int, where: str
) -> None:
    bare = sealed(cls())
    if where == "SQS":
        size = len(queue_body(bare).encode())
    else:
        size = 14 + len(f"{bare.source}{bare.detail_type}{bare.detail}".encode())
    refuse_unsendable(sealed(cls(note="x" * (limit - size))))
    with pytest.raises(TooLarge, match=f"{where} takes {limit:,}") as refusal:
        refuse_unsendable(sealed(cls(note="x" * (limit - size + 1))))
    assert (refusal.value.size, refusal.value.limit) == (limit + 1, limit)


async def test_a_trace_goes_on_in_what_a_later_delivery_sends(depot: Depot) -> None:
    trace = "Root=1-0123abcd-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=1"

    headers: list[str | None] = []

    class Traced(Bus):
        async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
            headers.extend(entry.trace_header for entry in entries)
            return await super().put(bus, entries)

    seeing(depot.service)
    bus = Traced(down=True)
    delivery = replace(depot.delivery(), trace_header=trace)
    async with depot.pipeline(bus=bus) as pipeline:
        assert isinstance(await pipeline.consume(delivery), Retry)
        bus.down = False
        assert await pipeline.consume(depot.delivery()) == Ack(duplicate=True)
    assert headers == [trace, trace]


async def test_a_note_that_is_cancelled_is_nobodys_error(depot: Depot) -> None:
    class Ended(Through):
        async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
            raise asyncio.CancelledError

    heard: list[BaseException | None] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: heard.append(context.get("exception"))
    )
    seeing(depot.service)
    async with depot.pipeline(store=Ended(depot)) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert heard == []
