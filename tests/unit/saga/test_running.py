"""A saga at work: what it hears, in which order and how often, and what it leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace import Ack, Command, Entity, Event, Service, Transaction
from headrace.errors import Unreachable
from headrace.observer import Observer, SagaChange
from headrace.pipeline import running
from headrace.ports import EntryFailure, QueueEntry, Queues
from headrace.saga import Retries, Saga, Status, step
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
