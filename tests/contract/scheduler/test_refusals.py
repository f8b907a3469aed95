"""What cannot be scheduled is said at once, and not when it is due."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.errors import NotProvisioned, Refused
from headrace.limits import SQS_MESSAGE_BYTES
from headrace.ports import Attribute, QueueEntry
from tests.contract.topologies import FIFO_QUEUE, ONE_QUEUE
from tests.contract.world import World

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (QueueEntry("x", attributes={"kind": Attribute("a")}), "no message attributes"),
        (QueueEntry("x", delay=timedelta(seconds=1)), "add it to the time"),
        (QueueEntry("x", trace_header="Root=1-2-3"), "no trace header"),
        (QueueEntry("x", deduplication_id="d"), "no deduplication id"),
        (QueueEntry("x", group_id="tenant"), "leave group_id out"),
        (QueueEntry(""), "empty"),
        (QueueEntry("\x0b"), "escape them"),
        (QueueEntry("\ud83c"), "escape them"),
        (QueueEntry("é" * (SQS_MESSAGE_BYTES // 2) + "x"), "more than the 1048576 bytes"),
        (QueueEntry('{"a": "<aws.scheduler.execution-id>"}'), "escape the '<'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_scheduler_does_not_carry_is_refused_with_what_to_do(
    world: World, entry: QueueEntry, reason: str
) -> None:
    await world.provision(ONE_QUEUE)

    with pytest.raises(Refused, match=reason):
        await world.ports.scheduler.schedule(
            "reminder", world.ports.clock.now() + HOUR, "orders", entry
        )


async def test_a_message_for_a_fifo_queue_needs_a_group(world: World) -> None:
    await world.provision(FIFO_QUEUE)
    at = world.ports.clock.now() + HOUR

    with pytest.raises(Refused, match="needs a group_id"):
        await world.ports.scheduler.schedule("reminder", at, "orders.fifo", QueueEntry("x"))


async def test_a_time_that_has_passed_is_refused(world: World) -> None:
    await world.provision(ONE_QUEUE)

    with pytest.raises(Refused, match="send the message to the queue instead"):
        await world.ports.scheduler.schedule(
            "reminder", world.ports.clock.now(), "orders", QueueEntry("late")
        )


async def test_a_time_without_a_zone_is_refused(world: World) -> None:
    await world.provision(ONE_QUEUE)
    at = (world.ports.clock.now() + HOUR).replace(tzinfo=None)

    with pytest.raises(Refused, match="aware datetime"):
        await world.ports.scheduler.schedule("reminder", at, "orders", QueueEntry("x"))


@pytest.mark.parametrize("name", ["", "x" * 65, "saga:1", "saga/1", "größe", "a\n"])
async def test_a_name_that_no_schedule_can_have_is_refused(world: World, name: str) -> None:
    await world.provision(ONE_QUEUE)
    at = world.ports.clock.now() + HOUR

    with pytest.raises(Refused, match=r"1 to \d\d characters"):
        await world.ports.scheduler.schedule(name, at, "orders", QueueEntry("x"))
    with pytest.raises(Refused, match=r"1 to \d\d characters"):
        await world.ports.scheduler.cancel(name)


async def test_a_queue_that_is_not_there_is_known_before_the_time_comes(world: World) -> None:
    at = world.ports.clock.now() + HOUR

    with pytest.raises(NotProvisioned, match="nowhere"):
        await world.ports.scheduler.schedule("reminder", at, "nowhere", QueueEntry("lost"))
