"""The fate of one delivery, where something on its way is not as it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from headrace import Ack, DeadLetter, Entity, Event, Retry, Service, Transaction
from headrace.coalesce import Coalescer
from headrace.errors import (
    CancellationReason,
    ConditionNotMet,
    DefinitionError,
    DispatchError,
    NotJson,
    Refused,
    Throttled,
    TransactionCanceled,
    Unreachable,
)
from headrace.ports import (
    Action,
    BusEntry,
    Delete,
    Delivery,
    EntryFailure,
    Item,
    ItemKey,
    Put,
)
from tests.unit.depot import Bus, CrateMoved, CrateSeen, Depot, Shelf, Through


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
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        assert await tx.get(Shelf, event.sku) is None

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
