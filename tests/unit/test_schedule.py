"""`tx.schedule` and `tx.unschedule`: commands that come later, with the commit that wants them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from headrace import Command, Event, Service, Transaction
from headrace.envelope import Cancellation, Outgoing, root_metadata, seal
from headrace.errors import DefinitionError, HeadraceError, Unreachable
from headrace.outcome import Retry
from headrace.pipeline import running
from headrace.ports import ItemKey
from headrace.reads import SharedReads
from headrace.record import Record, Status
from headrace.testing import ManualClock, MemoryCloud, delivery_of, memory_ports
from headrace.testing.harness import harness
from headrace.topology.derive import topology
from headrace.transaction import Transaction as Unit


class EggLaid(Event, source="schedule.hen"):
    egg: str
    days: int = 21


class EggEaten(Event, source="schedule.hen"):
    egg: str


class LookAfterEgg(Command, owner="henhouse"):
    egg: str
    note: str = ""


class ChickHatched(Event, source="schedule.henhouse"):
    egg: str
    note: str = ""


NOTE = "<aws.scheduler.execution-id>"

henhouse = Service("henhouse", bus="farm")


@henhouse.on(EggLaid, emits=[LookAfterEgg])
async def brood(event: EggLaid, tx: Transaction) -> None:
    command = LookAfterEgg(egg=event.egg, note=NOTE)
    tx.schedule(command, at=tx.now + timedelta(days=event.days), name=f"egg-{event.egg}")


@henhouse.on(EggEaten)
async def give_up(event: EggEaten, tx: Transaction) -> None:
    tx.unschedule(f"egg-{event.egg}")


@henhouse.on(LookAfterEgg)
async def look(command: LookAfterEgg) -> ChickHatched:
    return ChickHatched(egg=command.egg, note=command.note)


async def test_a_command_comes_when_it_is_due_and_not_before() -> None:
    async with harness(henhouse) as aws:
        await aws.publish(EggLaid(egg="e1"))
        await aws.settled()
        await aws.elapsed(timedelta(days=20))
        assert aws.published(ChickHatched) == []
        await aws.elapsed(timedelta(days=2))
        assert aws.published(ChickHatched) == [ChickHatched(egg="e1", note=NOTE)]


async def test_what_is_due_within_15_minutes_waits_in_the_queue() -> None:
    async with harness(henhouse) as aws:
        await aws.publish(EggLaid(egg="e1", days=0))
        await aws.settled()
        assert aws.published(ChickHatched) == [ChickHatched(egg="e1", note=NOTE)]
        assert aws.cloud.scheduler.calls["schedule"] == 0


async def test_what_is_called_off_does_not_come() -> None:
    async with harness(henhouse) as aws:
        await aws.publish(EggLaid(egg="e1"))
        await aws.publish(EggEaten(egg="e1"))
        await aws.settled()
        await aws.elapsed(timedelta(days=30))
        assert aws.published(ChickHatched) == []


async def test_to_call_off_what_is_not_there_is_harmless() -> None:
    async with harness(henhouse) as aws:
        await aws.publish(EggEaten(egg="e2"))
        await aws.settled()
        assert aws.dead_letters() == []


async def test_what_scheduler_would_replace_arrives_as_it_was() -> None:
    async with harness(henhouse) as aws:
        await aws.publish(EggLaid(egg="e1"))
        await aws.settled()
        (scheduled,) = aws.cloud.scheduler.peek()
        assert "<aws.scheduler" not in scheduled.entry.body
        await aws.elapsed(timedelta(days=30))
        (hatched,) = aws.published(ChickHatched)
        assert hatched.note == NOTE


async def test_a_schedule_that_cannot_be_made_is_made_when_the_message_comes_again() -> None:
    cloud = memory_ports()
    cloud.provision(topology(henhouse))
    delivery = delivery_of(EggLaid(egg="e1"), "henhouse")
    down = replace(cloud.ports, scheduler=_Down())
    async with running(henhouse, down) as pipeline:
        assert isinstance(await pipeline.consume(delivery), Retry)
    async with running(henhouse, cloud.ports) as pipeline:
        await pipeline.consume(delivery)
        await pipeline.consume(delivery)
    assert [scheduled.name for scheduled in cloud.scheduler.peek()] == ["egg-e1"]


class _Down:
    async def schedule(self, *_: Any) -> None:
        raise Unreachable("No answer.")

    async def cancel(self, *_: Any) -> None:
        raise Unreachable("No answer.")


def transaction(cloud: MemoryCloud[ManualClock]) -> Unit:
    return Unit(SharedReads(cloud.store), table="henhouse", idempotency_key="k")


def test_a_time_without_a_zone_is_refused() -> None:
    tx = transaction(memory_ports())
    with pytest.raises(DefinitionError, match="has no time zone"):
        tx.schedule(LookAfterEgg(egg="e1"), at=datetime(2026, 1, 1), name="e1")


def test_an_event_is_refused_as_a_schedule_sends_to_a_queue() -> None:
    tx = transaction(memory_ports())
    event: Any = ChickHatched(egg="e1")
    with pytest.raises(DefinitionError, match="ChickHatched is no command"):
        tx.schedule(event, at=tx.now, name="e1")


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 41])
def test_a_name_that_no_schedule_can_have_is_refused(name: str) -> None:
    tx = transaction(memory_ports())
    with pytest.raises(HeadraceError, match="letters, digits"):
        tx.schedule(LookAfterEgg(egg="e1"), at=tx.now, name=name)
    with pytest.raises(HeadraceError, match="letters, digits"):
        tx.unschedule(name)


def test_a_savepoint_takes_back_what_was_scheduled_in_it() -> None:
    tx = transaction(memory_ports())
    with suppress(ValueError), tx.savepoint():
        tx.schedule(LookAfterEgg(egg="e1"), at=tx.now, name="e1")
        raise ValueError
    assert list(tx.close().messages) == []


def test_a_record_keeps_when_a_command_is_due_and_what_is_called_off() -> None:
    now = memory_ports().clock.now()
    command = LookAfterEgg(egg="e1")
    sealed: Outgoing = seal(command, root_metadata(command, id="c-1", now=now))
    outgoing = (replace(sealed, due=now, schedule="egg-e1"), Cancellation("egg-e0"))
    key = ItemKey("henhouse", "inbox#henhouse.brood#e-1", "-")
    record = Record(key, "commit", Status.PENDING, None, outgoing)
    assert Record.from_item("henhouse", record.as_item()) == record
