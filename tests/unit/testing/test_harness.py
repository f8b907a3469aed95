"""A harness carries what a test sends through its services, and tells what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from headrace import Command, Entity, Event, HeadraceError, Metadata, Service, Transaction
from headrace.client import send
from headrace.errors import DefinitionError, DuplicateName, NoTable, NotProvisioned
from headrace.ports import Action, Attribute, BusEntry, EntryFailure, QueueEntry
from headrace.relay import GRACE
from headrace.testing import ManualClock
from headrace.testing.harness import Harness, Unsettled, harness


class LoafOrdered(Event, source="bakery.street"):
    loaf: str
    pieces: int = 1


class LoafBaked(Event, source="bakery.oven"):
    loaf: str
    pieces: int = 1


class LoafMissing(Event, source="bakery.oven"):
    loaf: str


class LoafShelved(Event, source="bakery.counter"):
    loaf: str


class FetchFlour(Command, owner="mill"):
    kilos: int


class SweepOven(Command, owner="oven"):
    broom: str = "old"


class FlourDropped(Event, source="aws.s3", name="Object Restore Completed", native=True):
    key: str


class Flour(Entity, pk="flour#{kind}"):
    kind: str
    kilos: int


class Shelf(Entity, pk="shelf#{loaf}"):
    loaf: str
    pieces: int = 0


oven = Service("oven", bus="bakery", emits=[LoafBaked])
counter = Service("counter", bus="bakery")
RYE = Flour(kind="rye", kilos=5)


@oven.on(LoafOrdered, where=lambda e: e.pieces > 0, emits=[FetchFlour])
async def bake(event: LoafOrdered, tx: Transaction) -> LoafBaked | LoafMissing:
    flour = await tx.get(Flour, event.loaf)
    if flour is None or flour.kilos < event.pieces:
        tx.publish(FetchFlour(kilos=event.pieces))
        return LoafMissing(loaf=event.loaf)
    flour.kilos -= event.pieces
    tx.put(flour)
    return LoafBaked(loaf=event.loaf, pieces=event.pieces)


@oven.on(SweepOven)
async def sweep(command: SweepOven, tx: Transaction) -> None:
    tx.put(Shelf(loaf=f"swept with the {command.broom} broom"))


@oven.on(FlourDropped)
async def pour(event: FlourDropped, tx: Transaction) -> None:
    flour = await tx.get(Flour, event.key) or Flour(kind=event.key, kilos=0)
    flour.kilos += 1
    tx.put(flour)


@counter.on(LoafBaked)
async def shelve(event: LoafBaked, tx: Transaction) -> LoafShelved:
    shelf = await tx.get(Shelf, event.loaf) or Shelf(loaf=event.loaf)
    shelf.pieces += event.pieces
    tx.put(shelf)
    return LoafShelved(loaf=event.loaf)


# --- what goes through -----------------------------------------------------------------


async def test_an_event_is_handled_and_so_is_all_that_comes_of_it() -> None:
    async with harness(oven, counter) as aws:
        await aws.put(RYE, service=oven)
        await aws.publish(LoafOrdered(loaf="rye", pieces=2))
        await aws.settled()
        [baked] = aws.published(LoafBaked)
        assert baked.pieces == 2
        assert aws.get(Flour, "rye", service=oven).kilos == 3
        assert aws.get(Shelf, loaf="rye", service=counter).pieces == 2


async def test_nothing_is_handled_before_the_test_asks_for_it() -> None:
    async with harness(oven) as aws:
        await aws.publish(LoafOrdered(loaf="rye"))
        assert aws.published(Event) == []
        await aws.settled()
        assert aws.published(Event) == [LoafMissing(loaf="rye")]


async def test_a_filter_of_a_handler_holds_in_a_harness_too() -> None:
    async with harness(oven) as aws:
        await aws.publish(LoafOrdered(loaf="rye", pieces=0))
        await aws.settled()
        assert aws.published(Event) == []


async def test_a_command_goes_to_its_owner() -> None:
    async with harness(oven) as aws:
        await aws.send(SweepOven(broom="new"))
        await aws.settled()
        assert aws.find(Shelf, "swept with the new broom") is not None


async def test_an_event_of_aws_itself_arrives_on_the_default_bus() -> None:
    async with harness(oven) as aws:
        await aws.publish(FlourDropped(key="rye"))
        await aws.settled()
        assert aws.get(Flour, "rye").kilos == 1


async def test_a_message_without_any_envelope_goes_in_through_the_account() -> None:
    async with harness(oven) as aws:
        await aws.cloud.queues.send("oven", [QueueEntry('{"detail-type": "SweepOven"}')])
        await aws.settled(dead_letters=1)
        [letter] = aws.dead_letters()
        assert letter.message is None


# --- what was sent ---------------------------------------------------------------------


async def test_what_was_published_is_told_in_the_order_in_which_it_reached_the_bus() -> None:
    async with harness(oven, counter) as aws:
        await aws.put(RYE, service=oven)
        await aws.publish(LoafOrdered(loaf="rye"))
        await aws.settled()
        await aws.publish(LoafOrdered(loaf="oat"))
        await aws.settled()
        assert [type(event) for event in aws.published(Event)] == [
            LoafBaked,
            LoafShelved,
            LoafMissing,
        ]


async def test_what_the_test_itself_published_and_sent_is_not_among_it() -> None:
    async with harness(oven) as aws:
        await aws.publish(LoafOrdered(loaf="rye"))
        await aws.send(SweepOven())
        await aws.settled()
        assert aws.published(LoafOrdered) == []
        assert aws.sent(SweepOven) == []


async def test_a_command_for_a_service_that_is_not_there_is_told_as_sent() -> None:
    async with harness(oven) as aws:
        await aws.publish(LoafOrdered(loaf="rye", pieces=3))
        await aws.settled()
        assert aws.sent(FetchFlour) == [FetchFlour(kilos=3)]
        assert aws.sent(Command) == [FetchFlour(kilos=3)]
        assert aws.published(Event) == [LoafMissing(loaf="rye")]


async def test_what_is_sent_again_under_its_id_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with harness(oven, counter) as aws:
        async with aws.connect(oven) as service:
            async with service.transaction() as tx:
                tx.publish(LoafBaked(loaf="rye"))
            with monkeypatch.context() as patched:
                patched.setattr(aws.cloud.store, "write", unprocessed)
                await service.flush()
        await aws.settled()
        assert aws.cloud.bus.calls["put"] == 3, "the relay sent it again, and it was shelved"
        assert aws.published(LoafBaked) == [LoafBaked(loaf="rye")]


async def unprocessed(actions: Sequence[Action]) -> list[int]:
    """What DynamoDB says when it is too busy to note what was sent."""
    return list(range(len(actions)))


# --- deliveries that come twice --------------------------------------------------------


async def test_an_event_that_is_delivered_twice_counts_once() -> None:
    async with harness(counter) as aws:
        await aws.publish(LoafBaked(loaf="rye"), times=2)
        await aws.settled()
        assert aws.get(Shelf, "rye").pieces == 1


async def test_two_events_of_the_same_content_count_twice() -> None:
    async with harness(counter) as aws:
        await aws.publish(LoafBaked(loaf="rye"))
        await aws.publish(LoafBaked(loaf="rye"))
        await aws.settled()
        assert aws.get(Shelf, "rye").pieces == 2


async def test_a_native_event_that_is_delivered_twice_counts_once() -> None:
    async with harness(oven) as aws:
        await aws.publish(FlourDropped(key="rye"), times=2)
        assert (await aws.cloud.queues.depth("oven")).visible == 2
        await aws.settled()
        assert aws.get(Flour, "rye").kilos == 1


async def test_a_command_can_be_delivered_more_than_once() -> None:
    async with harness(oven) as aws:
        await aws.send(SweepOven(), times=3)
        assert (await aws.cloud.queues.depth("oven")).visible == 3
        await aws.settled()


async def test_what_was_handled_comes_once_more_when_it_is_redelivered() -> None:
    async with harness(oven, counter) as aws:
        await aws.put(RYE, service=oven)
        await aws.publish(LoafOrdered(loaf="rye"))
        await aws.settled()
        await aws.redeliver()
        assert (await aws.cloud.queues.depth("oven")).visible == 1
        assert (await aws.cloud.queues.depth("counter")).visible == 1
        await aws.settled()
        assert aws.get(Shelf, "rye", service=counter).pieces == 1
        assert aws.published(Event) == [LoafBaked(loaf="rye"), LoafShelved(loaf="rye")]


async def test_a_second_redelivery_brings_no_more_than_the_first() -> None:
    runs = []
    service = Service("counter", bus="bakery")

    @service.on(LoafBaked, idempotent=True)
    async def look(event: LoafBaked) -> None:
        runs.append(event)

    async with harness(service) as aws:
        await aws.publish(LoafBaked(loaf="rye"))
        for _ in range(3):
            await aws.settled()
            await aws.redeliver()
        await aws.settled()
    assert len(runs) == 4


async def test_a_message_that_has_no_id_of_its_own_is_the_same_when_it_is_redelivered() -> None:
    named = {"detail-type": Attribute("LoafBaked")}
    async with harness(counter) as aws:
        await aws.cloud.queues.send("counter", [QueueEntry('{"loaf": "rye"}', attributes=named)])
        await aws.settled()
        await aws.redeliver()
        await aws.settled()
        assert aws.get(Shelf, "rye").pieces == 1


async def test_a_fifo_queue_does_not_swallow_a_delivery_that_the_test_wants_twice() -> None:
    runs = []
    service = Service("counter", bus="bakery")

    @service.on(LoafBaked, queue="line.fifo", idempotent=True)
    async def look(event: LoafBaked) -> None:
        runs.append(event)

    async with harness(service) as aws:
        await aws.publish(LoafBaked(loaf="rye"), times=2)
        await aws.settled()
        await aws.redeliver()
        await aws.settled()
    assert len(runs) == 4


# --- tables ----------------------------------------------------------------------------


async def test_what_is_put_replaces_what_stood_there() -> None:
    async with harness(oven) as aws:
        await aws.put(RYE, Flour(kind="oat", kilos=1))
        await aws.put(Flour(kind="rye", kilos=9))
        assert aws.get(Flour, "rye").kilos == 9
        assert aws.get(Flour, "oat").kilos == 1


async def test_an_entity_that_should_be_there_and_is_not_fails_the_test() -> None:
    async with harness(oven) as aws:
        assert aws.find(Flour, "rye") is None
        with pytest.raises(AssertionError, match=r"no Flour 'flour#rye' in the table 'oven'.*find"):
            aws.get(Flour, "rye")


async def test_one_table_is_not_another() -> None:
    async with harness(oven, counter) as aws:
        await aws.put(RYE, service=oven)
        assert aws.find(Flour, "rye", service=counter) is None


async def test_two_harnesses_know_nothing_of_each_other() -> None:
    async with harness(oven) as one, harness(oven) as other:
        await one.put(RYE)
        assert other.find(Flour, "rye") is None


# --- work without a message ------------------------------------------------------------


async def test_a_transaction_outside_of_handlers_reaches_the_other_services() -> None:
    async with harness(oven, counter) as aws:
        async with aws.connect(oven) as service:
            async with service.transaction() as tx:
                tx.publish(LoafBaked(loaf="rye", pieces=4))
            before = aws.clock.now()
            await aws.settled()
            assert aws.clock.now() == before, "there was nothing for the relay"
        assert aws.published(LoafBaked) == [LoafBaked(loaf="rye", pieces=4)]
        assert aws.get(Shelf, "rye", service=counter).pieces == 4


async def test_the_relay_sends_what_a_process_committed_and_did_not_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with harness(oven, counter) as aws:
        began = aws.clock.now()
        async with aws.connect(oven) as service:
            with monkeypatch.context() as patched:
                patched.setattr(aws.cloud.bus, "put", refusing)
                async with service.transaction() as tx:
                    tx.publish(LoafBaked(loaf="rye"))
        assert aws.published(Event) == []
        await aws.settled()
        assert aws.published(Event) == [LoafBaked(loaf="rye"), LoafShelved(loaf="rye")]
        assert aws.clock.now() > began + GRACE


async def refusing(bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
    return [EntryFailure(index, "AccessDenied", retryable=False) for index in range(len(entries))]


async def test_what_an_application_sends_through_the_ports_counts_as_sent_by_the_services() -> None:
    async with harness(oven, counter) as aws:
        await send(aws.ports, [LoafBaked(loaf="rye"), FetchFlour(kilos=1)], bus="bakery")
        assert aws.published(Event) == [LoafBaked(loaf="rye")]
        assert aws.sent(Command) == [FetchFlour(kilos=1)]
        await aws.settled()


# --- what a service needs --------------------------------------------------------------


class Bell:
    def __init__(self) -> None:
        self.rings: list[str] = []

    def ring(self, loaf: str) -> None:
        self.rings.append(loaf)


def open_tower() -> AbstractAsyncContextManager[Bell]:
    raise AssertionError("No test may ring the bells of the town.")


tower = Service("tower", bus="bakery", resources=open_tower)


@tower.on(LoafBaked)
async def announce(event: LoafBaked, bell: Bell) -> None:
    bell.ring(event.loaf)


async def test_resources_stand_in_for_those_of_a_service() -> None:
    bell = Bell()
    async with harness(tower, resources={tower: lambda: nullcontext(bell)}) as aws:
        await aws.publish(LoafBaked(loaf="rye"))
        await aws.settled()
    assert bell.rings == ["rye"]
    assert tower.resources is open_tower


async def test_without_other_resources_those_of_the_service_are_opened() -> None:
    with pytest.raises(AssertionError, match="bells of the town"):
        async with harness(tower):
            pass


async def test_the_clock_is_the_one_that_the_test_gives() -> None:
    times: list[datetime] = []
    service = Service("counter", bus="bakery")

    @service.on(LoafBaked)
    async def note(event: LoafBaked, metadata: Metadata) -> None:
        times.append(metadata.time)

    start = datetime(2031, 5, 1, tzinfo=UTC)
    async with harness(service, clock=ManualClock(start)) as aws:
        await aws.publish(LoafBaked(loaf="rye"))
        aws.clock.advance(timedelta(days=1))
        await aws.publish(LoafBaked(loaf="rye"))
        await aws.settled()
    assert times == [start, start + timedelta(days=1)]


@pytest.fixture
async def bakery() -> AsyncIterator[Harness]:
    async with harness(oven, counter) as aws:
        yield aws


async def test_a_harness_can_be_a_fixture(bakery: Harness) -> None:
    await bakery.put(RYE, service=oven)
    await bakery.publish(LoafOrdered(loaf="rye"))
    await bakery.settled()
    assert bakery.published(LoafShelved) == [LoafShelved(loaf="rye")]


# --- what is wrong is said -------------------------------------------------------------


async def refusal(*services: Service) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        async with harness(*services):
            pass
    return caught.value


async def test_a_harness_without_a_service_is_refused() -> None:
    assert "needs a service" in str(await refusal())


async def test_a_service_that_is_given_twice_is_refused() -> None:
    error = await refusal(oven, counter, oven)
    assert isinstance(error, DuplicateName)
    assert "'oven' twice" in str(error)


async def test_two_services_of_one_name_are_refused() -> None:
    assert "named 'oven'" in str(await refusal(oven, Service("oven", bus="bakery")))


async def test_what_the_check_calls_an_error_is_said_before_anything_runs() -> None:
    service = Service("stall", bus="market", table=None)
    heard = Service("stand", bus="fair")

    @service.on(LoafOrdered)
    async def offer(event: LoafOrdered, tx: Transaction) -> LoafMissing | None:
        return None

    @heard.on(LoafMissing)
    async def shrug(event: LoafMissing) -> None:
        return None

    first, second = str(await refusal(service, heard)).splitlines()
    assert "stall: has no table, but offer needs one" in first
    assert "stand: listens on the bus 'fair', but LoafMissing is published on market" in second


async def test_a_handler_that_comes_later_is_checked_too() -> None:
    service = Service("stall", bus="market", table=None)

    @service.on(LoafOrdered, idempotent=True)
    async def offer(event: LoafOrdered) -> None:
        return None

    async with harness(service):
        pass

    @service.on(LoafBaked)
    async def put_out(event: LoafBaked, tx: Transaction) -> None:
        return None

    assert "has no table, but put_out needs one" in str(await refusal(service))


async def test_resources_of_a_service_that_is_not_there_are_refused() -> None:
    with pytest.raises(DefinitionError, match="resources for 'tower', which is not in the harness"):
        async with harness(oven, resources={tower: lambda: nullcontext(Bell())}):
            pass


async def test_an_event_that_nothing_handles_is_refused() -> None:
    async with harness(oven) as aws:
        with pytest.raises(HeadraceError, match="Nothing in the harness handles LoafShelved"):
            await aws.publish(LoafShelved(loaf="rye"))


async def test_a_command_whose_owner_is_not_there_is_refused_with_its_name() -> None:
    async with harness(oven) as aws:
        with pytest.raises(HeadraceError, match="handles FetchFlour: name the service 'mill'"):
            await aws.send(FetchFlour(kilos=1))


async def test_a_table_must_be_named_where_there_are_several() -> None:
    async with harness(oven, counter) as aws:
        with pytest.raises(HeadraceError, match="there are oven, counter: service=…"):
            await aws.put(RYE)


async def test_a_service_that_is_not_in_the_harness_has_nothing_in_it() -> None:
    async with harness(oven) as aws:
        with pytest.raises(HeadraceError, match="'counter' is not in the harness, only oven"):
            aws.find(Shelf, "rye", service=counter)
        with pytest.raises(HeadraceError, match="not in the harness"):
            aws.dead_letters(counter)


async def test_a_service_without_a_table_has_no_entities() -> None:
    service = Service("stall", bus="market", table=None)

    @service.on(LoafBaked, idempotent=True)
    async def put_out(event: LoafBaked) -> None:
        return None

    async with harness(service) as aws:
        with pytest.raises(NoTable, match="'stall' has no table"):
            await aws.put(RYE)


async def test_an_event_that_is_heard_on_two_buses_needs_one_named() -> None:
    runs = []
    service = Service("stall", bus="market")

    @service.on(LoafBaked)
    async def put_out(event: LoafBaked) -> None:
        runs.append(event)

    async with harness(service, counter) as aws:
        with pytest.raises(HeadraceError, match="on the buses bakery and market"):
            await aws.publish(LoafBaked(loaf="rye"))
        await aws.publish(LoafBaked(loaf="rye"), bus="market")
        await aws.settled()
        assert aws.find(Shelf, "rye", service=counter) is None
    assert len(runs) == 1


async def test_a_bus_that_does_not_exist_is_refused() -> None:
    async with harness(oven) as aws:
        with pytest.raises(NotProvisioned, match="no event bus 'shop'"):
            await aws.publish(LoafOrdered(loaf="rye"), bus="shop")


async def test_a_test_that_ends_before_its_messages_were_handled_fails() -> None:
    with pytest.raises(
        Unsettled, match=r"queue 'oven' holds 1 message \(LoafOrdered\) that nothing"
    ):
        async with harness(oven) as aws:
            await aws.publish(LoafOrdered(loaf="rye"))


async def test_a_test_that_fails_by_itself_fails_for_its_own_reason() -> None:
    async def test() -> None:
        async with harness(oven) as aws:
            await aws.publish(LoafOrdered(loaf="rye"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await test()
