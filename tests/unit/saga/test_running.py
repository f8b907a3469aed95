"""A saga at work: what it hears, in which order and how often, and what it leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import Ack, Command, DeadLetter, Entity, Event, Retry, Service, Transaction
from headrace.errors import Unreachable
from headrace.observer import Observer, SagaChange
from headrace.pipeline import running
from headrace.ports import Action, EntryFailure, QueueEntry, Queues, Store
from headrace.saga import Retries, Saga, Status, step
from headrace.saga.messages import signals_of
from headrace.testing import delivery_of, memory_ports
from headrace.testing.harness import Harness, harness
from headrace.topology.derive import topology

A_DAY = timedelta(days=1)


class WeddingSet(Event, source="saga.couple"):
    couple: str
    guests: int = 80


class RentHall(Command, owner="halls"):
    couple: str
    guests: int


class HallRented(Event, source="saga.halls"):
    couple: str


class HallTaken(Event, source="saga.halls"):
    couple: str


class ReturnHall(Command, owner="halls"):
    couple: str


class HallReturned(Event, source="saga.halls"):
    couple: str


class BakeCake(Command, owner="bakers"):
    couple: str


class CakeBaked(Event, source="saga.bakers"):
    couple: str


class CakeBurnt(Event, source="saga.bakers"):
    couple: str


class EatCake(Command, owner="bakers"):
    couple: str


class WeddingReady(Event, source="saga.couple"):
    couple: str


class Rented(Entity, pk="rented#{couple}"):
    """How often a hall was rented and returned."""

    couple: str
    rented: int = 0
    returned: int = 0


couple = Service("couple", bus="wedding")
halls = Service("halls", bus="wedding")
bakers = Service("bakers", bus="wedding")


class Wedding(
    Saga, service=couple, starts_on=WeddingSet, key="couple", deadline=timedelta(days=30)
):
    """A hall and a cake, side by side."""

    couple: str
    guests: int

    @classmethod
    def begin(cls, event: WeddingSet) -> Wedding:
        return cls(couple=event.couple, guests=event.guests)

    @step()
    def set_the_day(self) -> None: ...

    @step(done=HallRented, failed=HallTaken, timeout=A_DAY, after=set_the_day)
    def hall(self) -> RentHall:
        return RentHall(couple=self.couple, guests=self.guests)

    @hall.undo(done=HallReturned, retries=Retries(attempts=2))
    def give_back(self) -> ReturnHall:
        return ReturnHall(couple=self.couple)

    @step(done=CakeBaked, failed=CakeBurnt, timeout=timedelta(minutes=5), after=set_the_day)
    def cake(self) -> BakeCake:
        return BakeCake(couple=self.couple)

    @cake.undo()
    def eat(self) -> EatCake:
        return EatCake(couple=self.couple)

    @step(after=(hall, cake))
    def ready(self) -> WeddingReady:
        return WeddingReady(couple=self.couple)


@halls.on(RentHall)
async def rent(command: RentHall, tx: Transaction) -> HallRented | HallTaken | None:
    if command.guests > 1000:
        return None  # they never answer
    if command.guests > 100:
        return HallTaken(couple=command.couple)
    hall = await tx.get(Rented, command.couple) or Rented(couple=command.couple)
    hall.rented += 1
    tx.put(hall)
    return HallRented(couple=command.couple)


@halls.on(ReturnHall)
async def take_back(command: ReturnHall, tx: Transaction) -> HallReturned:
    hall = await tx.get(Rented, command.couple) or Rented(couple=command.couple)
    hall.returned += 1
    tx.put(hall)
    return HallReturned(couple=command.couple)


@bakers.on(BakeCake)
async def bake(command: BakeCake, tx: Transaction) -> CakeBaked:
    return CakeBaked(couple=command.couple)


@bakers.on(EatCake)
async def eat(command: EatCake, tx: Transaction) -> None: ...


@pytest.fixture
async def aws() -> AsyncIterator[Harness]:
    async with harness(couple, halls, bakers) as account:
        yield account


def records_of(account: Harness) -> list[str]:
    """The keys of the inbox records that the saga has left."""
    items = account.cloud.store.items("couple")
    return [str(item["pk"]["S"]) for item in items if item["pk"]["S"].startswith("inbox#couple.")]


async def test_it_is_completed_when_all_have_answered(aws: Harness) -> None:
    await aws.publish(WeddingSet(couple="A&B"))
    await aws.settled()
    assert aws.saga(Wedding, "A&B").status is Status.COMPLETED
    assert aws.published(WeddingReady) == [WeddingReady(couple="A&B")]


async def test_what_failed_is_undone_by_the_others(aws: Harness) -> None:
    await aws.publish(WeddingSet(couple="C&D", guests=200))
    await aws.settled()
    assert aws.saga(Wedding, "C&D").status is Status.COMPENSATED
    assert aws.sent(EatCake) == [EatCake(couple="C&D")]
    assert aws.sent(ReturnHall) == []


async def test_two_events_that_begin_one_saga_at_once_begin_it_once(aws: Harness) -> None:
    await aws.publish(WeddingSet(couple="A&B"))
    await aws.publish(WeddingSet(couple="A&B", guests=70))
    await aws.settled()
    assert len(aws.sent(RentHall)) == 1
    assert aws.get(Rented, "A&B", service=halls).rented == 1


async def test_every_message_that_comes_twice_takes_effect_once(aws: Harness) -> None:
    await aws.publish(WeddingSet(couple="A&B"), times=2)
    await aws.settled()
    await aws.redeliver()
    await aws.settled()
    assert len(aws.published(WeddingReady)) == 1


async def test_many_sagas_at_once_do_not_disturb_each_other(aws: Harness) -> None:
    for number in range(20):
        await aws.publish(WeddingSet(couple=f"couple {number}", guests=80 + number % 2 * 100))
    await aws.settled()
    statuses = [aws.saga(Wedding, f"couple {number}").status for number in range(20)]
    assert statuses == [Status.COMPLETED, Status.COMPENSATED] * 10


async def test_an_answer_for_a_saga_that_nobody_knows_leaves_nothing_behind(aws: Harness) -> None:
    await aws.publish(HallRented(couple="nobody"))
    await aws.settled()
    assert aws.cloud.store.items("couple") == []


async def test_a_message_that_does_not_say_for_whom_it_is_becomes_a_dead_letter(
    aws: Harness,
) -> None:
    await aws.publish(WeddingSet(couple=""))
    await aws.settled(dead_letters=1)
    (letter,) = aws.dead_letters()
    assert "does not say which wedding it is for: its couple has 0 bytes" in letter.reason


async def test_an_answer_for_a_saga_that_is_over_is_told_in_its_history(aws: Harness) -> None:
    await aws.publish(WeddingSet(couple="A&B"))
    await aws.settled()
    before = aws.saga(Wedding, "A&B")
    await aws.publish(CakeBurnt(couple="A&B"))
    await aws.settled()
    assert aws.saga(Wedding, "A&B") == before
    notes = [str(item.get("note")) for item in aws.cloud.store.items("couple")]
    assert any("CakeBurnt is ignored: cake is done" in note for note in notes)


async def test_a_timer_that_comes_after_the_end_leaves_no_record(aws: Harness) -> None:
    await aws.publish(WeddingSet(couple="A&B"))
    await aws.settled()
    before = records_of(aws)
    await aws.elapsed(timedelta(minutes=10))
    assert aws.cloud.queues.peek("couple") == []
    assert records_of(aws) == before


async def test_what_is_never_answered_is_undone_a_day_later(aws: Harness) -> None:
    await aws.publish(WeddingSet(couple="E&F", guests=2000))
    await aws.settled()
    assert aws.saga(Wedding, "E&F").status is Status.RUNNING
    await aws.elapsed(timedelta(hours=23))
    assert aws.saga(Wedding, "E&F").status is Status.RUNNING
    await aws.elapsed(timedelta(hours=2))
    assert aws.saga(Wedding, "E&F").status is Status.COMPENSATED
    assert aws.get(Rented, "E&F", service=halls).returned == 1


async def test_a_timeout_up_to_15_minutes_waits_in_the_queue(aws: Harness) -> None:
    await aws.publish(WeddingSet(couple="A&B"))
    await aws.settled()
    assert aws.cloud.scheduler.calls["schedule"] == 0


async def test_a_longer_timeout_is_scheduled_and_called_off_when_it_is_answered(
    aws: Harness,
) -> None:
    await aws.publish(WeddingSet(couple="E&F", guests=2000))
    await aws.settled()
    await aws.elapsed(timedelta(minutes=6))  # the timer of the cake, which was answered
    assert len(aws.cloud.scheduler.peek()) == 1
    await aws.publish(HallRented(couple="E&F"))
    await aws.settled()
    assert aws.cloud.scheduler.peek() == []
    assert aws.saga(Wedding, "E&F").status is Status.COMPLETED


async def test_a_saga_that_is_over_expires_and_one_that_is_not_does_not(aws: Harness) -> None:
    await aws.publish(WeddingSet(couple="A&B"))
    await aws.publish(WeddingSet(couple="E&F", guests=2000))
    await aws.settled()
    items = {i["pk"]["S"]: i for i in aws.cloud.store.items("couple")}
    assert "expires_at" in items["saga#couple.wedding#A&B"]
    assert "relay_pk" not in items["saga#couple.wedding#A&B"]
    assert "expires_at" not in items["saga#couple.wedding#E&F"]
    assert "relay_pk" in items["saga#couple.wedding#E&F"]


async def test_a_timer_whose_commands_were_not_sent_sends_them_when_it_comes_again() -> None:
    """The saga that it finds then wants nothing of it: what it wanted stands in the record."""
    cloud = memory_ports()
    cloud.provision(topology(couple, halls, bakers))
    mute = replace(cloud.ports, queues=_Mute(cloud.queues))
    async with (
        running(couple, cloud.ports) as pipeline,
        running(couple, mute) as dying,
    ):
        await pipeline.consume(delivery_of(WeddingSet(couple="A&B"), "couple"))
        await pipeline.consume(delivery_of(HallRented(couple="A&B"), "couple", id="2"))
        cloud.clock.advance(timedelta(minutes=6))
        (timer,) = await cloud.queues.receive("couple", limit=10, wait=timedelta(0))
        await dying.consume(timer)
        before = [entry.body for entry in cloud.queues.peek("halls")]
        assert await pipeline.consume(timer) == Ack(duplicate=True)
    after = [entry.body for entry in cloud.queues.peek("halls")]
    assert [("ReturnHall" in body) for body in after if body not in before] == [True]


async def test_a_saga_whose_end_was_not_told_is_told_of_when_its_message_comes_again() -> None:
    told: list[str] = []

    class Listener(Observer):
        def saga(self, service: str, change: SagaChange) -> None:
            told.append(change.status)

    cloud = memory_ports()
    cloud.provision(topology(couple, halls, bakers))
    mute = replace(cloud.ports, queues=_Mute(cloud.queues), store=_Deaf(cloud.store))
    begun = delivery_of(WeddingSet(couple="A&B"), "couple")
    async with running(couple, mute) as dying:
        await dying.consume(begun)
    async with running(couple, cloud.ports, Listener()) as pipeline:
        await pipeline.consume(begun)
        await pipeline.consume(begun)
    assert told == ["started"]


async def test_a_timer_that_no_saga_here_knows_waits_for_a_worker_that_does() -> None:
    """While the version with the first saga is deployed, workers without it share its queue."""
    cloud = memory_ports()
    other = Service("couple", bus="wedding")

    @other.on(WeddingReady)
    async def dance(event: WeddingReady) -> None: ...

    cloud.provision(topology(other))
    timer = signals_of("couple", "wedding").timer(saga="wedding", key="A&B", turn=1, at=NEVER)
    delivery = delivery_of(timer, "couple")
    async with running(other, cloud.ports) as pipeline:
        assert isinstance(await pipeline.consume(delivery), Retry)
        last = replace(delivery, receive_count=9)
        assert isinstance(await pipeline.consume(last), DeadLetter)


class PartyAsked(Event, source="saga.couple"):
    couple: str


class PartyWished(Event, source="saga.couple"):
    couple: str


async def test_an_event_that_only_an_older_version_begins_with_begins_that() -> None:
    """It may have waited in a queue while the newer one was deployed."""
    hosts = Service("hosts", bus="wedding")

    class Party(Saga, service=hosts, starts_on=PartyAsked, key="couple"):
        couple: str

        @classmethod
        def begin(cls, event: PartyAsked) -> Party:
            return cls(couple=event.couple)

        @step(done=HallRented, timeout=A_DAY)
        def hall(self) -> RentHall:
            return RentHall(couple=self.couple, guests=1)

    class LaterParty(
        Saga, service=hosts, starts_on=PartyWished, key="couple", name="party", version=2
    ):
        couple: str

        @classmethod
        def begin(cls, event: PartyWished) -> LaterParty:
            return cls(couple=event.couple)

        @step(done=CakeBaked, timeout=A_DAY)
        def cake(self) -> BakeCake:
            return BakeCake(couple=self.couple)

    async with harness(hosts) as aws:
        await aws.publish(PartyAsked(couple="A&B"))
        await aws.publish(PartyWished(couple="C&D"))
        await aws.settled()
        assert aws.saga(Party, "A&B").status is Status.RUNNING
        assert aws.saga(LaterParty, "C&D").status is Status.RUNNING
        assert len(aws.sent(RentHall)) == len(aws.sent(BakeCake)) == 1


NEVER = datetime(2099, 1, 1, tzinfo=UTC)


class _Deaf:
    """A table that takes what it is given, and does not say so."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        await self._store.transact(actions, token=token)
        raise Unreachable("No answer.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _Mute:
    """Queues to which nothing can be sent."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        raise Unreachable("No answer.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queues, name)


async def test_observers_are_told_of_its_beginning_and_its_end_once_each() -> None:
    told: list[tuple[str, str]] = []

    class Listener(Observer):
        def saga(self, service: str, change: SagaChange) -> None:
            told.append((change.key, change.status))

    cloud = memory_ports()
    cloud.provision(topology(couple, halls, bakers))
    begun = delivery_of(WeddingSet(couple="A&B"), "couple")
    async with running(couple, cloud.ports, Listener()) as pipeline:
        await pipeline.consume(begun)
        await pipeline.consume(begun)
        await pipeline.consume(delivery_of(CakeBaked(couple="A&B"), "couple", id="2"))
        await pipeline.consume(delivery_of(HallRented(couple="A&B"), "couple", id="3"))
    assert told == [("A&B", "started"), ("A&B", "completed")]
