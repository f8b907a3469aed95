"""When a scheduled message comes, and when not."""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace.ports import Delivery, QueueEntry
from tests.contract.deviations import deviates
from tests.contract.topologies import FIFO_QUEUE, ONE_QUEUE
from tests.contract.world import NO_WAIT, World

SOON = timedelta(seconds=1)
WITHIN = timedelta(seconds=5)
"""Long enough for emulators that look at their schedules every second; AWS may take a minute."""


def soon(world: World) -> datetime:
    return world.ports.clock.now() + SOON


async def received(world: World, queue: str = "orders") -> Delivery:
    (delivery,) = await world.receive_within(queue, WITHIN)
    return delivery


@deviates("schedules-never-fire")
async def test_a_message_comes_when_it_is_due_and_not_before(world: World) -> None:
    await world.provision(ONE_QUEUE)
    at = soon(world)

    await world.ports.scheduler.schedule("reminder", at, "orders", QueueEntry("due"))

    assert (await received(world)).body == "due"
    assert world.ports.clock.now() >= at


@deviates("schedules-never-fire")
async def test_the_body_arrives_to_the_letter_and_alone(world: World) -> None:
    await world.provision(ONE_QUEUE)
    body = 'Grüße 🌊 "x"\n\\ {"no": json\t'

    await world.ports.scheduler.schedule("letter", soon(world), "orders", QueueEntry(body))

    delivery = await received(world)
    assert delivery.body == body
    assert (delivery.attributes, delivery.trace_header, delivery.group_id) == ({}, None, None)


@deviates("schedules-never-fire")
async def test_the_same_name_again_changes_nothing(world: World) -> None:
    await world.provision(ONE_QUEUE)
    scheduler, at = world.ports.scheduler, soon(world)
    await scheduler.schedule("reminder", at, "orders", QueueEntry("first"))

    await scheduler.schedule("reminder", at, "orders", QueueEntry("second"))

    assert (await received(world)).body == "first"
    assert await world.ports.queues.receive("orders", limit=10, wait=NO_WAIT) == []


async def test_what_stands_can_be_scheduled_again_and_is_cancelled_at_once(world: World) -> None:
    await world.provision(ONE_QUEUE)
    scheduler, at = world.ports.scheduler, world.ports.clock.now() + timedelta(days=400)

    await scheduler.schedule("reminder", at, "orders", QueueEntry("first"))
    await scheduler.schedule("reminder", at, "orders", QueueEntry("second"))
    await scheduler.cancel("reminder")
    await scheduler.cancel("reminder")


async def test_cancelling_what_was_never_made_is_success(world: World) -> None:
    await world.ports.scheduler.cancel("never-made")


@deviates("schedules-never-fire")
async def test_a_cancelled_schedule_does_not_fire(world: World) -> None:
    await world.provision(ONE_QUEUE)
    scheduler, at = world.ports.scheduler, soon(world) + SOON
    await scheduler.schedule("reminder", at, "orders", QueueEntry("cancelled"))
    await scheduler.schedule("sentinel", at, "orders", QueueEntry("sentinel"))

    await scheduler.cancel("reminder")

    assert (await received(world)).body == "sentinel"
    assert await world.ports.queues.receive("orders", limit=10, wait=NO_WAIT) == []


@deviates("schedules-never-fire")
async def test_a_message_for_a_fifo_queue_comes_in_its_group(world: World) -> None:
    await world.provision(FIFO_QUEUE)
    entry = QueueEntry("due", group_id="customer-7")

    await world.ports.scheduler.schedule("reminder", soon(world), "orders.fifo", entry)

    delivery = await received(world, "orders.fifo")
    assert (delivery.body, delivery.group_id, delivery.fifo) == ("due", "customer-7", True)


@deviates("schedules-never-fire")
async def test_a_schedule_that_fired_can_be_cancelled(world: World) -> None:
    await world.provision(ONE_QUEUE)
    await world.ports.scheduler.schedule("reminder", soon(world), "orders", QueueEntry("due"))
    await received(world)

    await world.ports.scheduler.cancel("reminder")

    assert await world.ports.queues.receive("orders", limit=1, wait=NO_WAIT) == []
