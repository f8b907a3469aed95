"""What a handler reads, writes and says is one unit of work, and happens once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, Field, computed_field

from headrace import (
    Ack,
    DeadLetter,
    Delivery,
    Entity,
    Event,
    Retry,
    Service,
    Transaction,
    dead_letter,
)
from headrace.envelope import queue_body, root_metadata, seal
from headrace.errors import (
    DefinitionError,
    HeadraceError,
    NoTable,
    NotProvisioned,
    PoisonMessage,
    Throttled,
    TooLarge,
    Unreachable,
)
from headrace.observe.tally import Tally
from headrace.outcome import Outcome
from headrace.pipeline import Pipeline, running
from headrace.ports import Action, BusEntry, EntryFailure, Item, ItemKey, Put
from headrace.reads import SharedReads
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.topology.model import Bus, Table, Topology


class Counted(Event, source="shop.count"):
    name: str
    by: int = 1


class Changed(Event, source="shop.count"):
    name: str
    value: int


class Ignored(Event, source="shop.count"): ...


class Counter(Entity, pk="counter#{name}"):
    name: str
    value: int = 0
    note: str = ""


@dataclass
class World:
    """A service on an account in memory, and what a test asks of both."""

    cloud: MemoryCloud[ManualClock]
    service: Service
    tally: Tally = field(default_factory=Tally)

    async def deliver(self, event: Event, id: str = "e-1", receive_count: int = 1) -> Outcome:
        async with running(self.service, self.cloud.ports, self.tally) as pipeline:
            return await pipeline.consume(self.delivery(event, id, receive_count))

    def delivery(self, event: Event, id: str = "e-1", receive_count: int = 1) -> Delivery:
        metadata = root_metadata(event, id=id, now=self.cloud.clock.now())
        body = queue_body(seal(event, metadata))
        return Delivery(f"m-{id}", "r-1", body, self.service.name, receive_count)

    @asynccontextmanager
    async def pipeline(self, **ports: Any) -> AsyncIterator[Pipeline]:
        async with running(self.service, replace(self.cloud.ports, **ports)) as pipeline:
            yield pipeline

    async def item(self, pk: str) -> Item | None:
        (item,) = await self.cloud.store.get([ItemKey("count", pk, "-")])
        return item

    async def value(self, name: str = "a") -> int | None:
        item = await self.item(f"counter#{name}")
        return None if item is None else int(item["value"]["N"])


@pytest.fixture
def world() -> World:
    cloud = memory_ports()
    cloud.provision(Topology(buses=(Bus("shop"),), tables=(Table("count"),)))
    return World(cloud, Service("count", bus="shop"))


def counting(service: Service) -> None:
    @service.on(Counted)
    async def count(event: Counted, tx: Transaction) -> Changed:
        counter = await tx.get(Counter, event.name) or Counter(name=event.name)
        counter.value += event.by
        tx.put(counter)
        return Changed(name=counter.name, value=counter.value)


async def test_what_a_handler_puts_and_returns_happens(world: World) -> None:
    counting(world.service)
    assert await world.deliver(Counted(name="a", by=3)) == Ack()
    assert await world.value() == 3
    assert world.tally.services["count"].published == 1


async def test_a_delivery_that_comes_twice_has_one_effect_and_says_it_is_a_duplicate(
    world: World,
) -> None:
    counting(world.service)
    await world.deliver(Counted(name="a"))
    assert await world.deliver(Counted(name="a"), receive_count=2) == Ack(duplicate=True)
    assert await world.value() == 1


async def test_two_events_have_two_effects(world: World) -> None:
    counting(world.service)
    await world.deliver(Counted(name="a"), "e-1")
    await world.deliver(Counted(name="a"), "e-2")
    assert await world.value() == 2


async def test_a_handler_that_fails_leaves_nothing_behind(world: World) -> None:
    @world.service.on(Counted)
    async def count(event: Counted, tx: Transaction) -> None:
        tx.put(Counter(name=event.name, value=1))
        tx.publish(Changed(name=event.name, value=1))
        raise ValueError("half-way")

    outcome = await world.deliver(Counted(name="a"))
    assert isinstance(outcome, Retry)
    assert outcome.reason == "ValueError: half-way"
    assert outcome.handler == "count.count"
    assert await world.value() is None
    assert await world.item("inbox#count.count#e-1") is None


async def test_a_dead_letter_carries_the_correlation_of_its_cause(world: World) -> None:
    @world.service.on(Counted)
    async def count(event: Counted) -> None:
        raise PoisonMessage("never")

    outcome = await world.deliver(Counted(name="a"))
    assert isinstance(outcome, DeadLetter)
    assert (outcome.reason, outcome.correlation_id) == ("never", "e-1")


async def test_a_record_expires_only_after_the_message_cannot_come_again(world: World) -> None:
    counting(world.service)
    await world.deliver(Counted(name="a"))
    record = await world.item("inbox#count.count#e-1")
    assert record is not None
    horizon = world.cloud.clock.now() + world.service.redelivery_horizon
    assert int(record["expires_at"]["N"]) == int(horizon.timestamp())


async def test_an_expired_record_that_ttl_has_not_deleted_yet_no_longer_counts(
    world: World,
) -> None:
    counting(world.service)
    await world.deliver(Counted(name="a"))
    world.cloud.clock.advance(world.service.redelivery_horizon * 1.01)
    assert await world.deliver(Counted(name="a")) == Ack()
    assert await world.value() == 2


async def test_a_record_with_nothing_to_send_is_done_from_the_start(world: World) -> None:
    @world.service.on(Ignored)
    async def note(event: Ignored) -> None: ...

    await world.deliver(Ignored())
    record = await world.item("inbox#count.note#e-1")
    assert record is not None
    assert record["status"] == {"S": "done"}
    # A record alone is no transaction: that would cost twice as much.
    assert (world.cloud.store.calls["transact"], world.cloud.store.calls["change"]) == (0, 1)


class Recording:
    """The bus, remembering what it was given, and refusing what it is told to refuse."""

    def __init__(self, refuse: Callable[[int], bool] = lambda call: False) -> None:
        self.entries: list[BusEntry] = []
        self.calls = 0
        self._refuse = refuse

    async def require(self, bus: str) -> None: ...

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        self.calls += 1
        if self._refuse(self.calls):
            return [EntryFailure(index, "InternalFailure") for index in range(len(entries))]
        self.entries.extend(entries)
        return []


async def test_a_message_is_not_acked_before_its_events_are_out(world: World) -> None:
    counting(world.service)
    delivery = world.delivery(Counted(name="a"))
    async with world.pipeline(bus=Recording(refuse=lambda call: True)) as pipeline:
        outcome = await pipeline.consume(delivery)
    assert isinstance(outcome, Retry)
    assert "1 of 1 messages are not out yet" in outcome.reason
    record = await world.item("inbox#count.count#e-1")
    assert record is not None
    assert record["status"] == {"S": "pending"}


async def test_what_an_earlier_delivery_left_unsent_is_sent_with_the_same_ids(
    world: World,
) -> None:
    counting(world.service)
    delivery = world.delivery(Counted(name="a"))
    async with world.pipeline(bus=Recording(refuse=lambda call: True)) as pipeline:
        await pipeline.consume(delivery)
    record = await world.item("inbox#count.count#e-1")
    assert record is not None
    (stored,) = record["outgoing"]["L"]
    bus = Recording()
    async with world.pipeline(bus=bus) as pipeline:
        assert await pipeline.consume(delivery) == Ack(duplicate=True)
    assert [entry.detail for entry in bus.entries] == [stored["M"]["detail"]["S"]]
    record = await world.item("inbox#count.count#e-1")
    assert record is not None
    assert record["status"] == {"S": "done"}
    assert await world.value() == 1


async def test_an_entry_the_bus_refuses_for_a_moment_is_sent_again_by_itself(world: World) -> None:
    counting(world.service)
    bus = Recording(refuse=lambda call: call == 1)
    async with world.pipeline(bus=bus) as pipeline:
        assert await pipeline.consume(world.delivery(Counted(name="a"))) == Ack()
    assert (len(bus.entries), bus.calls) == (1, 2)


async def test_a_service_does_not_start_on_a_bus_that_would_swallow_its_events(
    world: World,
) -> None:
    world.service = Service("count", bus="nowhere")
    counting(world.service)
    with pytest.raises(NotProvisioned, match="nowhere"):
        await world.deliver(Counted(name="a"))


async def test_a_handler_that_trips_over_its_own_effects_is_a_duplicate_and_not_a_failure(
    world: World,
) -> None:
    @world.service.on(Counted)
    async def create(event: Counted, tx: Transaction) -> Changed:
        if await tx.get(Counter, event.name) is not None:
            raise PoisonMessage("That is counted already.")
        tx.put(Counter(name=event.name))
        return Changed(name=event.name, value=0)

    delivery = world.delivery(Counted(name="a"))
    async with world.pipeline(bus=Recording(refuse=lambda call: True)) as pipeline:
        assert isinstance(await pipeline.consume(delivery), Retry)
    bus = Recording()
    async with world.pipeline(bus=bus) as pipeline:
        assert await pipeline.consume(delivery) == Ack(duplicate=True)
    assert len(bus.entries) == 1


async def test_what_comes_again_out_of_the_dead_letter_queue_is_known_by_its_first_id(
    world: World,
) -> None:
    counting(world.service)
    body = '{"detail-type": "Counted", "detail": {"name": "a"}}'
    first = Delivery("m-1", "r-1", body, "count")
    note = dead_letter.note(first, DeadLetter("never"), world.cloud.clock.now())
    redriven = Delivery("m-2", "r-2", body, "count", attributes={"headrace": note})
    async with world.pipeline() as pipeline:
        assert await pipeline.consume(first) == Ack()
        assert await pipeline.consume(redriven) == Ack(duplicate=True)


async def test_a_key_that_dynamodb_would_refuse_fails_its_own_delivery_only(world: World) -> None:
    counting(world.service)
    names = ["a", "x" * 3_000, "b"]
    deliveries = [world.delivery(Counted(name=name), f"e-{name[:1]}") for name in names]
    async with world.pipeline() as pipeline:
        outcomes = await asyncio.gather(*map(pipeline.consume, deliveries))
    assert [type(outcome) for outcome in outcomes] == [Ack, DeadLetter, Ack]


async def test_failures_of_aws_in_a_task_group_are_not_the_fault_of_the_message(
    world: World,
) -> None:
    @world.service.on(Counted)
    async def count(event: Counted) -> None:
        async def read() -> None:
            raise Throttled("too many")

        async with asyncio.TaskGroup() as reads:
            reads.create_task(read())

    outcome = await world.deliver(Counted(name="a"), receive_count=99)
    assert isinstance(outcome, Retry)
    assert outcome.reason == "too many"


@pytest.mark.parametrize("end", [SystemExit(2), BaseException("panic"), StopIteration()])
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_handler_that_would_end_the_process_only_fails(
    world: World, end: BaseException, kind: str
) -> None:
    async def run(event: Counted) -> None:
        raise end

    def run_plainly(event: Counted) -> None:
        raise end

    world.service.on(Counted)(run if kind == "async" else run_plainly)
    assert isinstance(await world.deliver(Counted(name="a")), Retry)


async def test_what_is_put_and_deleted_unread_leaves_anothers_item_alone(world: World) -> None:
    counting(world.service)
    await world.deliver(Counted(name="a", by=5), "e-1")

    @world.service.on(Ignored)
    async def change(event: Ignored, tx: Transaction) -> None:
        tx.put(Counter(name="a"))
        tx.delete(Counter(name="a"))

    assert isinstance(await world.deliver(Ignored(), "e-2"), Retry)
    assert await world.value() == 5


async def test_what_is_deleted_unread_may_be_put_anew(world: World) -> None:
    counting(world.service)
    await world.deliver(Counted(name="a", by=5), "e-1")

    @world.service.on(Ignored)
    async def reset(event: Ignored, tx: Transaction) -> None:
        tx.delete(Counter(name="a"))
        tx.put(Counter(name="a", value=1))

    assert await world.deliver(Ignored(), "e-2") == Ack()
    assert await world.value() == 1


async def test_the_ids_of_what_is_sent_derive_from_the_cause(world: World) -> None:
    @world.service.on(Counted)
    async def count(event: Counted) -> list[Changed]:
        return [Changed(name="a", value=1), Changed(name="a", value=2)]

    seen = []
    for _ in range(2):
        world.cloud.store.calls.clear()
        bus = Recording()
        fresh = memory_ports()
        fresh.provision(Topology(buses=(Bus("shop"),), tables=(Table("count"),)))
        async with running(world.service, replace(fresh.ports, bus=bus)) as pipeline:
            await pipeline.consume(world.delivery(Counted(name="a")))
        seen.append({entry.detail.split('"id":"')[1][:36] for entry in bus.entries})
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2


class Interfering:
    """A store on which another writer changes the counter before the next commits."""

    def __init__(self, world: World, times: int) -> None:
        self._store = world.cloud.store
        self._left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, actions: list[Action], *, token: str) -> None:
        if self._left > 0:
            self._left -= 1
            item = {"pk": {"S": "counter#a"}, "sk": {"S": "-"}, "name": {"S": "a"}}
            value = {"value": {"N": "100"}, "_version": {"N": str(1000 - self._left)}}
            await self._store.write([Put("count", {**item, **value})])
        await self._store.transact(actions, token=token)


async def test_a_handler_runs_again_on_fresh_reads_when_an_item_changed_under_it(
    world: World,
) -> None:
    counting(world.service)
    async with world.pipeline(store=Interfering(world, times=2)) as pipeline:
        assert await pipeline.consume(world.delivery(Counted(name="a"))) == Ack()
    assert await world.value() == 101


async def test_a_conflict_that_does_not_end_is_a_retry_and_leaves_nothing(world: World) -> None:
    counting(world.service)
    async with world.pipeline(store=Interfering(world, times=99)) as pipeline:
        outcome = await pipeline.consume(world.delivery(Counted(name="a")))
    assert isinstance(outcome, Retry)
    assert "changed by another writer" in outcome.reason
    assert await world.value() == 100


class LosingAnswers:
    """A store whose first write goes through, and which answers nothing from then on."""

    def __init__(self, world: World) -> None:
        self._store = world.cloud.store
        self._gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, keys: list[ItemKey]) -> list[Item | None]:
        if self._gone:
            raise Unreachable("The answer was lost.")
        return await self._store.get(keys)

    async def transact(self, actions: list[Action], *, token: str) -> None:
        await self._store.transact(actions, token=token)
        self._gone = True
        raise Unreachable("The answer was lost.")


async def test_a_commit_whose_answer_was_lost_is_found_by_the_next_delivery(world: World) -> None:
    counting(world.service)
    delivery = world.delivery(Counted(name="a"))
    async with world.pipeline(store=LosingAnswers(world)) as pipeline:
        assert isinstance(await pipeline.consume(delivery), Retry)
    bus = Recording()
    async with world.pipeline(bus=bus) as pipeline:
        assert await pipeline.consume(delivery) == Ack(duplicate=True)
    assert await world.value() == 1
    assert len(bus.entries) == 1


async def test_reading_twice_gives_one_object_and_costs_one_read(world: World) -> None:
    same = []

    @world.service.on(Counted)
    async def count(event: Counted, tx: Transaction) -> None:
        tx.put(Counter(name="a", value=1))
        same.append(await tx.get(Counter, "a") is await tx.get(Counter, name="a"))
        same.append(await tx.get(Counter, "b") is None and await tx.get(Counter, "b") is None)

    await world.deliver(Counted(name="a"))
    assert same == [True, True]


async def test_what_was_deleted_is_gone_for_the_handler_and_after_it(world: World) -> None:
    counting(world.service)
    await world.deliver(Counted(name="a"))
    seen = []

    @world.service.on(Ignored)
    async def clear(event: Ignored, tx: Transaction) -> None:
        counter = await tx.get(Counter, "a")
        assert counter is not None
        tx.delete(counter)
        seen.append(await tx.get(Counter, "a"))

    assert await world.deliver(Ignored(), "e-2") == Ack()
    assert seen == [None]
    assert await world.value() is None


async def test_what_is_put_without_being_read_must_not_exist_yet(world: World) -> None:
    @world.service.on(Counted)
    async def create(event: Counted, tx: Transaction) -> None:
        tx.put(Counter(name=event.name, value=event.by))

    assert await world.deliver(Counted(name="a", by=1), "e-1") == Ack()
    outcome = await world.deliver(Counted(name="a", by=2), "e-2")
    assert isinstance(outcome, Retry)
    assert "count/counter#a exists already, but was put as new" in outcome.reason
    assert await world.value() == 1


async def test_an_item_that_something_else_wrote_can_be_read_and_put(world: World) -> None:
    counting(world.service)
    item = {"pk": {"S": "counter#a"}, "sk": {"S": "-"}, "name": {"S": "a"}, "value": {"N": "5"}}
    await world.cloud.store.write([Put("count", item)])
    assert await world.deliver(Counted(name="a")) == Ack()
    assert await world.value() == 6


async def test_a_transaction_takes_nothing_after_its_handler_returned(world: World) -> None:
    leaked: list[Transaction] = []

    @world.service.on(Counted)
    async def count(event: Counted, tx: Transaction) -> None:
        leaked.append(tx)

    await world.deliver(Counted(name="a"))
    (tx,) = leaked
    with pytest.raises(HeadraceError, match="The transaction is over"):
        tx.put(Counter(name="a"))
    with pytest.raises(HeadraceError, match="The transaction is over"):
        await tx.get(Counter, "a")


async def test_a_plain_function_handles_events_in_a_thread(world: World) -> None:
    @world.service.on(Counted)
    def count(event: Counted, tx: Transaction) -> Changed:
        tx.put(Counter(name=event.name, value=9))
        return Changed(name=event.name, value=9)

    assert await world.deliver(Counted(name="a")) == Ack()
    assert await world.value() == 9


async def test_what_is_published_must_have_been_declared(world: World) -> None:
    @world.service.on(Counted)
    async def count(event: Counted, tx: Transaction) -> None:
        tx.publish(Changed(name="a", value=1))

    outcome = await world.deliver(Counted(name="a"))
    assert isinstance(outcome, Retry)
    assert "publishes Changed without declaring it" in outcome.reason
    assert isinstance(outcome.error, DefinitionError)


async def test_a_service_without_a_table_says_so_when_one_is_needed(world: World) -> None:
    world.service = Service("count", table=None)

    @world.service.on(Counted)
    async def count(event: Counted) -> None: ...

    outcome = await world.deliver(Counted(name="a"))
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, NoTable)
    assert "idempotent=True" in outcome.reason


async def test_an_idempotent_handler_needs_no_table_and_runs_every_time(world: World) -> None:
    world.service = Service("count", table=None, bus="shop")

    @world.service.on(Counted, idempotent=True)
    async def forward(event: Counted) -> Changed:
        return Changed(name=event.name, value=1)

    for _ in range(2):
        assert await world.deliver(Counted(name="a")) == Ack()
    assert world.tally.services["count"].published == 2
    assert not world.cloud.store.calls


async def test_an_entity_that_is_too_large_is_a_dead_letter_with_the_numbers(
    world: World,
) -> None:
    @world.service.on(Counted)
    async def count(event: Counted, tx: Transaction) -> None:
        tx.put(Counter(name="a", note="x" * 500_000))

    outcome = await world.deliver(Counted(name="a"))
    assert isinstance(outcome, DeadLetter)
    assert isinstance(outcome.error, TooLarge)
    assert "a DynamoDB item holds 409,600" in outcome.reason


class Unkeyed(Entity):
    name: str


class Plain(BaseModel):
    name: str


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda tx: Plain(name="a"), "Plain is no entity: derive it as in class Plain(Entity, pk="),
        (lambda tx: Changed(name="a", value=1), "Changed is an event or command, and no entity"),
        (lambda tx: Counter, "Counter is a class, and not an entity"),
        (lambda tx: tx.get(Counter, "a"), "write await before it, as in await tx.get("),
        (lambda tx: Unkeyed(name="a"), "Unkeyed has no key: write class Unkeyed(Entity, pk="),
    ],
)
async def test_what_is_put_and_is_no_entity_is_refused_with_what_to_write(
    world: World, given: Callable[[Transaction], Any], said: str
) -> None:
    @world.service.on(Counted)
    async def count(event: Counted, tx: Transaction) -> None:
        tx.put(given(tx))

    outcome = await world.deliver(Counted(name="a"))

    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, DefinitionError)
    assert said in outcome.reason


async def test_what_is_read_as_no_entity_is_refused(world: World) -> None:
    @world.service.on(Counted)
    async def count(event: Counted, tx: Transaction) -> None:
        await tx.get(Plain, "a")  # type: ignore[type-var]  # that is what is refused

    outcome = await world.deliver(Counted(name="a"))

    assert isinstance(outcome, Retry)
    assert "is no class of entities" in outcome.reason


async def test_too_many_writes_are_refused_with_the_numbers_before_any_call(world: World) -> None:
    @world.service.on(Counted)
    async def count(event: Counted, tx: Transaction) -> None:
        tx.put(*(Counter(name=str(n)) for n in range(100)))

    outcome = await world.deliver(Counted(name="a"))
    assert isinstance(outcome, DeadLetter)
    assert "writes 101 items with its inbox record: one transaction takes 100" in outcome.reason
    assert world.cloud.store.calls["transact"] == 0


async def test_messages_that_do_not_fit_into_one_record_are_refused_with_the_numbers(
    world: World,
) -> None:
    @world.service.on(Counted)
    async def count(event: Counted) -> list[Changed]:
        return [Changed(name="x" * 150_000, value=n) for n in range(3)]

    outcome = await world.deliver(Counted(name="a"))
    assert isinstance(outcome, DeadLetter)
    assert "inbox record with its outgoing messages has 45" in outcome.reason


async def test_two_handlers_of_one_event_take_effect_each_on_its_own(world: World) -> None:
    counting(world.service)
    failing = [True]

    @world.service.on(Counted)
    async def shout(event: Counted) -> None:
        if failing:
            raise ValueError(failing.pop())

    assert isinstance(await world.deliver(Counted(name="a")), Retry)
    assert await world.deliver(Counted(name="a"), receive_count=2) == Ack()
    assert await world.value() == 1


async def test_a_handler_is_not_run_for_what_its_filter_leaves_out(world: World) -> None:
    ran = []

    @world.service.on(Counted, where=lambda event: event.by > 5)
    async def count(event: Counted) -> None:
        ran.append(event.by)

    await world.deliver(Counted(name="a", by=5), "e-1")
    await world.deliver(Counted(name="a", by=6), "e-2")
    assert ran == [6]


async def test_the_idempotency_key_is_the_same_on_every_attempt(world: World) -> None:
    keys = []

    @world.service.on(Counted)
    async def pay(event: Counted, tx: Transaction) -> None:
        keys.append(tx.idempotency_key)
        raise ValueError("no answer from the provider")

    await world.deliver(Counted(name="a"), receive_count=1)
    await world.deliver(Counted(name="a"), receive_count=2)
    assert keys == ["count.pay#e-1"] * 2


class Price(Entity, pk="price#{shop}#{sku}", sk="from#{since}"):
    shop: str
    sku: str
    since: int
    amount: Decimal = Decimal(0)


async def test_fields_in_a_key_never_run_into_each_other(world: World) -> None:
    @world.service.on(Ignored)
    async def price(event: Ignored, tx: Transaction) -> None:
        tx.put(Price(shop="a#b", sku="c", since=1), Price(shop="a", sku="b#c", since=1))
        assert await tx.get(Price, "a#b", "c", 1) is not await tx.get(Price, "a", "b#c", 1)

    assert await world.deliver(Ignored()) == Ack()


@pytest.mark.parametrize(
    ("values", "fields"), [((), {}), (("a", "b"), {}), (("a", "b", 1, 2), {}), ((), {"sku": "b"})]
)
async def test_a_key_that_is_not_complete_names_its_fields(
    world: World, values: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    raised: list[HeadraceError] = []

    @world.service.on(Ignored)
    async def price(event: Ignored, tx: Transaction) -> None:
        with pytest.raises(HeadraceError, match="made of shop, sku, since") as refusal:
            await tx.get(Price, *values, **fields)
        raised.append(refusal.value)

    assert await world.deliver(Ignored()) == Ack()
    assert raised


class Grid(Entity, pk="grid/{row}-{column}"):
    row: str
    column: str


async def test_separators_in_a_key_cannot_be_forged_by_a_value(world: World) -> None:
    @world.service.on(Ignored)
    async def fill(event: Ignored, tx: Transaction) -> None:
        tx.put(Grid(row="a-b", column="c"), Grid(row="a", column="b-c"), Grid(row="%", column="ä"))

    assert await world.deliver(Ignored()) == Ack()
    assert await world.item("grid/a%2Db-c") is not None
    assert await world.item("grid/a-b%2Dc") is not None
    assert await world.item("grid/%25-ä") is not None


async def test_a_key_shows_its_values_as_they_are_where_nothing_can_be_confused(
    world: World,
) -> None:
    counting(world.service)
    await world.deliver(Counted(name="A-1/x y"))
    assert await world.item("counter#A-1/x y") is not None


@pytest.mark.parametrize("value", [None, 1.5, Decimal("1.10"), True, ["a"]])
async def test_a_key_is_not_made_of_what_can_be_written_in_two_ways(
    world: World, value: object
) -> None:
    @world.service.on(Ignored)
    async def read(event: Ignored, tx: Transaction) -> None:
        await tx.get(Counter, value)

    outcome = await world.deliver(Ignored())
    assert isinstance(outcome, Retry)
    assert "a key is made of text, whole numbers, UUIDs, dates and enums" in outcome.reason


class Address(BaseModel):
    zip_code: str = Field("", alias="zip")


class Person(Entity, pk="person#{name}"):
    name: str
    address: Address = Address()
    tags: list[str] = Field(default_factory=list)

    @computed_field  # type: ignore[prop-decorator]  # mypy does not know properties in decorators
    @property
    def shouted(self) -> str:
        return self.name.upper()


async def test_an_entity_is_read_as_it_was_put(world: World) -> None:
    put = Person(name="Ada", address=Address(zip="12345"), tags=["a"])
    found = []

    @world.service.on(Ignored)
    async def keep(event: Ignored, tx: Transaction) -> None:
        known = await tx.get(Person, "Ada")
        found.append(known)
        if known is None:
            tx.put(put)

    await world.deliver(Ignored(), "e-1")
    await world.deliver(Ignored(), "e-2")
    assert found == [None, put]


async def test_what_could_not_be_read_again_is_not_put(world: World) -> None:
    @world.service.on(Ignored)
    async def spoil(event: Ignored, tx: Transaction) -> None:
        person = Person(name="Ada")
        person.tags.append(7)  # type: ignore[arg-type]  # that is what is refused
        tx.put(person)

    outcome = await world.deliver(Ignored())
    assert isinstance(outcome, Retry)
    assert "Person cannot be stored" in outcome.reason


def test_two_classes_cannot_share_a_key_by_inheritance() -> None:
    class Special(Counter):
        colour: str

    tx = Transaction(SharedReads(memory_ports().store), table="count", idempotency_key="k")
    with pytest.raises(
        DefinitionError, match=r"Special has no key: write class Special\(Entity, pk"
    ):
        tx.put(Special(name="a", colour="red"))


@pytest.mark.parametrize("pk", ["line#{number:05d}", "line#{number!r}"])
def test_a_key_template_that_formats_is_refused_at_import(pk: str) -> None:
    with pytest.raises(DefinitionError, match="a template takes plain"):

        class Broken(Entity, pk=pk):
            number: int


@pytest.mark.parametrize("pk", ["{a}{b}", "x{a}and{b}"])
def test_a_key_template_whose_fields_run_together_is_refused_at_import(pk: str) -> None:
    with pytest.raises(DefinitionError, match="write a separator"):

        class Broken(Entity, pk=pk):
            a: str
            b: str


def test_a_key_template_over_an_unknown_field_is_refused_at_import() -> None:
    with pytest.raises(DefinitionError, match="names 'sku', which is not a field of it"):

        class Broken(Entity, pk="broken#{sku}"):
            name: str


def test_a_field_that_headrace_keeps_for_itself_is_refused_at_import() -> None:
    with pytest.raises(DefinitionError, match="'pk', which headrace keeps for itself"):

        class Broken(Entity, pk="broken#{pk}"):
            pk: str
