"""What the in-memory scheduler does beyond the contract of every scheduler."""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace.ports import Clock, Delivery, QueueEntry
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.testing.memory.chance import EPOCH
from headrace.testing.memory.scheduler import Scheduled
from headrace.topology.model import Queue, Topology

DAY = timedelta(days=1)
QUEUES = Topology(queues=(Queue("orders", visibility=DAY, retention=4 * DAY),))


class TickingClock:
    """A clock that others move."""

    def __init__(self) -> None:
        self.time = EPOCH

    def now(self) -> datetime:
        return self.time


async def received(aws: MemoryCloud[Clock] | MemoryCloud[ManualClock]) -> list[str]:
    found: list[Delivery] = await aws.queues.receive("orders", limit=10, wait=timedelta(0))
    return [delivery.body for delivery in found]


async def test_a_schedule_fires_when_a_manual_clock_comes_to_its_time() -> None:
    aws = memory_ports()
    aws.provision(QUEUES)
    await aws.scheduler.schedule("reminder", EPOCH + DAY, "orders", QueueEntry("due"))

    aws.clock.advance(DAY - timedelta(microseconds=1))
    assert await received(aws) == []
    aws.clock.advance(timedelta(microseconds=1))
    assert await received(aws) == ["due"]


async def test_a_leap_over_several_schedules_fires_them_in_their_order() -> None:
    aws = memory_ports()
    aws.provision(QUEUES)
    for days in (2, 1, 3):
        at = EPOCH + days * DAY
        await aws.scheduler.schedule(f"in-{days}", at, "orders", QueueEntry(str(days)))

    aws.clock.advance(2 * DAY)

    assert await received(aws) == ["1", "2"]
    assert [scheduled.name for scheduled in aws.scheduler.peek()] == ["in-3"]


async def test_what_is_still_to_come_can_be_looked_at() -> None:
    aws = memory_ports()
    aws.provision(QUEUES)
    entry = QueueEntry("due")
    await aws.scheduler.schedule("later", EPOCH + 2 * DAY, "orders", entry)
    await aws.scheduler.schedule("sooner", EPOCH + DAY, "orders", entry)

    assert aws.scheduler.peek() == [
        Scheduled("sooner", EPOCH + DAY, "orders", entry),
        Scheduled("later", EPOCH + 2 * DAY, "orders", entry),
    ]


async def test_on_another_clock_nothing_fires_before_it_is_asked_for() -> None:
    clock = TickingClock()
    aws: MemoryCloud[Clock] = memory_ports(clock=clock)
    aws.provision(QUEUES)
    await aws.scheduler.schedule("first", EPOCH + DAY, "orders", QueueEntry("first"))
    await aws.scheduler.schedule("second", EPOCH + 2 * DAY, "orders", QueueEntry("second"))
    clock.time = EPOCH + DAY
    assert await received(aws) == []

    fired = aws.scheduler.due(clock.now())

    assert [scheduled.name for scheduled in fired] == ["first"]
    assert await received(aws) == ["first"]
    assert aws.scheduler.due(clock.now()) == []


async def test_the_next_due_time_is_that_of_the_first_to_fire() -> None:
    aws = memory_ports()
    aws.provision(QUEUES)
    assert aws.scheduler.next_due() is None
    await aws.scheduler.schedule("later", EPOCH + 2 * DAY, "orders", QueueEntry("x"))
    await aws.scheduler.schedule("sooner", EPOCH + DAY, "orders", QueueEntry("x"))

    assert aws.scheduler.next_due() == EPOCH + DAY
    await aws.scheduler.cancel("sooner")
    assert aws.scheduler.next_due() == EPOCH + 2 * DAY


async def test_calls_are_counted() -> None:
    aws = memory_ports()
    aws.provision(QUEUES)
    await aws.scheduler.schedule("reminder", EPOCH + DAY, "orders", QueueEntry("x"))
    await aws.scheduler.cancel("reminder")
    await aws.scheduler.cancel("reminder")

    assert aws.scheduler.calls == {"schedule": 1, "cancel": 2}


async def test_a_simulation_can_schedule_and_cancel_without_waiting() -> None:
    aws = memory_ports()
    aws.provision(QUEUES)
    aws.scheduler.schedule_now("kept", EPOCH + DAY, "orders", QueueEntry("kept"))
    aws.scheduler.schedule_now("gone", EPOCH + DAY, "orders", QueueEntry("gone"))
    aws.scheduler.cancel_now("gone")

    aws.clock.advance(DAY)

    assert await received(aws) == ["kept"]
    assert aws.scheduler.calls == {"schedule": 2, "cancel": 1}
