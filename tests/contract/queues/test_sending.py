"""What is sent is what arrives."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from headrace.errors import NotProvisioned, Refused
from headrace.limits import MIB
from headrace.ports import Attribute, Delivery, QueueDepth, QueueEntry, Queues
from tests.contract.deviations import deviates
from tests.contract.topologies import ONE_QUEUE
from tests.contract.world import World

SOON = timedelta(seconds=2)


async def received(queues: Queues, count: int, queue: str = "orders") -> list[Delivery]:
    """So many deliveries; a receive may answer with fewer than there are."""
    found: list[Delivery] = []
    while len(found) < count:
        some = await queues.receive(queue, limit=10, wait=SOON)
        assert some, f"{len(found)} of {count} messages arrived"
        found += some
    return found


async def test_a_message_arrives_as_it_was_sent(world: World) -> None:
    await world.provision(ONE_QUEUE)
    attributes = {
        "headrace": Attribute('{"reason": "late"}', "String.json"),
        "weight": Attribute("1.5", "Number"),
        "digest": Attribute(b"\x00\xff", "Binary"),
    }
    entry = QueueEntry('{"text": "Grüße 🌊\\n"}', attributes=attributes)
    before = world.ports.clock.now()

    assert await world.ports.queues.send("orders", [entry]) == []

    (delivery,) = await received(world.ports.queues, 1)
    assert (delivery.body, delivery.attributes) == (entry.body, attributes)
    assert (delivery.queue, delivery.receive_count) == ("orders", 1)
    assert (delivery.group_id, delivery.fifo, delivery.trace_header) == (None, False, None)
    assert delivery.sent_at is not None
    assert abs(delivery.sent_at - before) < timedelta(minutes=1)


async def test_a_batch_of_ten_arrives_whole(world: World) -> None:
    await world.provision(ONE_QUEUE)
    bodies = {str(number) for number in range(10)}

    await world.ports.queues.send("orders", [QueueEntry(body) for body in bodies])

    deliveries = await received(world.ports.queues, 10)
    assert {delivery.body for delivery in deliveries} == bodies
    assert len({delivery.message_id for delivery in deliveries}) == 10
    assert len({delivery.receipt_handle for delivery in deliveries}) == 10


async def test_a_receive_takes_no_more_than_its_limit(world: World) -> None:
    await world.provision(ONE_QUEUE)
    await world.ports.queues.send("orders", [QueueEntry(body) for body in "abc"])

    assert len(await world.ports.queues.receive("orders", limit=1, wait=SOON)) == 1


@deviates("trace-header-lost-in-batches")
async def test_a_trace_header_travels_with_the_message(world: World) -> None:
    await world.provision(ONE_QUEUE)
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"

    await world.ports.queues.send("orders", [QueueEntry("traced", trace_header=header)])

    (delivery,) = await received(world.ports.queues, 1)
    assert delivery.trace_header == header


async def test_a_group_on_a_standard_queue_names_a_tenant_and_blocks_nobody(world: World) -> None:
    await world.provision(ONE_QUEUE)
    entries = [QueueEntry(body, group_id="tenant-7") for body in "ab"]
    await world.ports.queues.send("orders", entries)

    first = await world.ports.queues.receive("orders", limit=1, wait=SOON)
    second = await world.ports.queues.receive("orders", limit=1, wait=SOON)

    deliveries = first + second
    assert {delivery.body for delivery in deliveries} == {"a", "b"}
    assert [(d.group_id, d.fifo) for d in deliveries] == [("tenant-7", False)] * 2


async def test_a_delayed_message_is_counted_and_comes_when_it_is_due(world: World) -> None:
    await world.provision(ONE_QUEUE)
    queues = world.ports.queues
    await queues.send("orders", [QueueEntry("later", delay=timedelta(seconds=1))])

    assert await queues.depth("orders") == QueueDepth(visible=0, in_flight=0, delayed=1)
    (delivery,) = await world.receive_within("orders", timedelta(seconds=3))
    assert delivery.body == "later"


async def test_depth_tells_ready_messages_from_those_in_flight(world: World) -> None:
    await world.provision(ONE_QUEUE)
    queues = world.ports.queues
    await queues.send("orders", [QueueEntry(body) for body in "abc"])
    await queues.receive("orders", limit=1, wait=SOON)

    assert await queues.depth("orders") == QueueDepth(visible=2, in_flight=1, delayed=0)


async def test_an_open_poll_is_woken_by_an_arriving_message(world: World) -> None:
    await world.provision(ONE_QUEUE)
    queues = world.ports.queues
    poll = asyncio.create_task(queues.receive("orders", limit=10, wait=timedelta(seconds=20)))
    await queues.depth("orders")

    await queues.send("orders", [QueueEntry("awaited")])

    async with asyncio.timeout(15):
        (delivery,) = await poll
    assert delivery.body == "awaited"


async def test_a_poll_of_an_empty_queue_ends_with_nothing(world: World) -> None:
    await world.provision(ONE_QUEUE)

    found = await world.ports.queues.receive("orders", limit=10, wait=timedelta(seconds=1))

    assert found == []


# --- refusals --------------------------------------------------------------------------


@deviates("sender-faults-not-marked")
async def test_characters_outside_of_xml_fail_their_entry_alone(world: World) -> None:
    await world.provision(ONE_QUEUE)
    entries = [QueueEntry("good"), QueueEntry("bad \x0b"), QueueEntry("fine \t\n\U0001f30a")]

    (failure,) = await world.ports.queues.send("orders", entries)

    assert (failure.index, failure.code) == (1, "InvalidMessageContents")
    assert not failure.retryable
    deliveries = await received(world.ports.queues, 2)
    assert {delivery.body for delivery in deliveries} == {"good", "fine \t\n\U0001f30a"}


async def test_more_than_ten_entries_are_refused(world: World) -> None:
    await world.provision(ONE_QUEUE)

    with pytest.raises(Refused):
        await world.ports.queues.send("orders", [QueueEntry(str(n)) for n in range(11)])


async def test_an_empty_batch_is_refused(world: World) -> None:
    await world.provision(ONE_QUEUE)

    with pytest.raises(Refused):
        await world.ports.queues.send("orders", [])


# aiohttp warns of a body of this size, and a warning is an error here.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_batch_over_one_mebibyte_is_refused_and_one_of_just_that_is_not(
    world: World,
) -> None:
    await world.provision(ONE_QUEUE)
    half = QueueEntry("x" * (MIB // 2))

    assert await world.ports.queues.send("orders", [half, half]) == []
    with pytest.raises(Refused):
        await world.ports.queues.send("orders", [half, half, QueueEntry("x")])


async def test_every_call_on_a_queue_that_is_not_there_says_so(world: World) -> None:
    queues = world.ports.queues
    calls = (
        queues.receive("nowhere", limit=1, wait=timedelta(0)),
        queues.send("nowhere", [QueueEntry("lost")]),
        queues.delete("nowhere", ["receipt"]),
        queues.change_visibility("nowhere", [("receipt", timedelta(0))]),
        queues.depth("nowhere"),
    )
    for call in calls:
        with pytest.raises(NotProvisioned, match="nowhere"):
            await call
