"""Who sees a message when: visibility, receipts, deletes and the dead-letter queue."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from headrace.ports import Attribute, Delivery, QueueEntry
from tests.contract.deviations import deviates
from tests.contract.topologies import ONE_QUEUE, queue, queues
from tests.contract.world import World

SECOND = timedelta(seconds=1)
SOON = timedelta(seconds=2)
LONG = timedelta(seconds=30)
SHORT_VISIBILITY = queues(queue(visibility=SECOND))


async def sent_and_received(world: World, *, visibility: timedelta | None = None) -> Delivery:
    await world.ports.queues.send("orders", [QueueEntry("body")])
    return await received(world, visibility=visibility)


async def received(world: World, *, visibility: timedelta | None = None) -> Delivery:
    (delivery,) = await world.ports.queues.receive(
        "orders", limit=10, wait=SOON, visibility=visibility
    )
    return delivery


# --- hidden and back -------------------------------------------------------------------


async def test_a_received_message_is_hidden_until_the_queues_visibility_ends(world: World) -> None:
    await world.provision(SHORT_VISIBILITY)
    first = await sent_and_received(world)

    assert await world.ports.queues.receive("orders", limit=10, wait=timedelta(0)) == []
    (second,) = await world.receive_within("orders", timedelta(seconds=4))

    assert (second.message_id, second.body) == (first.message_id, first.body)
    assert (first.receive_count, second.receive_count) == (1, 2)
    assert second.receipt_handle != first.receipt_handle
    assert second.sent_at == first.sent_at


async def test_a_receive_can_hide_for_longer_than_the_queue_does(world: World) -> None:
    await world.provision(SHORT_VISIBILITY)
    await sent_and_received(world, visibility=LONG)

    assert await world.receive_within("orders", SOON) == []


async def test_a_message_in_flight_can_be_given_back_at_once(world: World) -> None:
    await world.provision(ONE_QUEUE)
    first = await sent_and_received(world)

    change = (first.receipt_handle, timedelta(0))
    assert await world.ports.queues.change_visibility("orders", [change]) == []

    assert (await received(world)).receive_count == 2


async def test_a_message_in_flight_can_be_kept_hidden_for_longer(world: World) -> None:
    await world.provision(SHORT_VISIBILITY)
    first = await sent_and_received(world)

    assert (
        await world.ports.queues.change_visibility("orders", [(first.receipt_handle, LONG)]) == []
    )

    assert await world.receive_within("orders", SOON) == []


async def test_a_changed_visibility_does_not_carry_over_to_the_next_receive(world: World) -> None:
    await world.provision(SHORT_VISIBILITY)
    first = await sent_and_received(world, visibility=LONG)
    await world.ports.queues.change_visibility("orders", [(first.receipt_handle, timedelta(0))])
    await received(world)

    (third,) = await world.receive_within("orders", timedelta(seconds=4))
    assert third.receive_count == 3


@deviates("sender-faults-not-marked")
async def test_a_change_that_cannot_be_made_fails_alone(world: World) -> None:
    await world.provision(ONE_QUEUE)
    first = await sent_and_received(world)
    changes = [("no receipt handle", LONG), (first.receipt_handle, timedelta(0))]

    (failure,) = await world.ports.queues.change_visibility("orders", changes)

    assert failure.index == 0
    assert not failure.retryable
    assert (await received(world)).receive_count == 2


@deviates("accepts-visibility-over-12-hours")
async def test_no_visibility_is_longer_than_twelve_hours(world: World) -> None:
    await world.provision(ONE_QUEUE)
    first = await sent_and_received(world)
    change = (first.receipt_handle, timedelta(hours=12, seconds=1))

    (failure,) = await world.ports.queues.change_visibility("orders", [change])

    assert failure.index == 0
    assert not failure.retryable


@deviates("sender-faults-not-marked")
async def test_the_visibility_of_a_deleted_message_cannot_be_changed(world: World) -> None:
    await world.provision(ONE_QUEUE)
    first = await sent_and_received(world)
    await world.ports.queues.delete("orders", [first.receipt_handle])

    (failure,) = await world.ports.queues.change_visibility(
        "orders", [(first.receipt_handle, LONG)]
    )

    assert (failure.index, failure.retryable) == (0, False)


# --- deletes ---------------------------------------------------------------------------


async def test_a_deleted_message_does_not_come_back(world: World) -> None:
    await world.provision(SHORT_VISIBILITY)
    first = await sent_and_received(world)

    assert await world.ports.queues.delete("orders", [first.receipt_handle]) == []

    assert await world.receive_within("orders", SOON) == []


@deviates("deleting-twice-is-an-error")
async def test_deleting_twice_succeeds_twice(world: World) -> None:
    await world.provision(ONE_QUEUE)
    first = await sent_and_received(world)

    for _ in range(2):
        assert await world.ports.queues.delete("orders", [first.receipt_handle]) == []


async def test_a_message_can_be_deleted_after_its_visibility_ended(world: World) -> None:
    await world.provision(ONE_QUEUE)
    first = await sent_and_received(world, visibility=timedelta(0))

    assert await world.ports.queues.delete("orders", [first.receipt_handle]) == []

    assert (await world.ports.queues.depth("orders")).visible == 0


@deviates("stale-receipt-is-an-error")
async def test_deleting_by_a_stale_receipt_answers_success(world: World) -> None:
    await world.provision(ONE_QUEUE)
    stale = await sent_and_received(world, visibility=timedelta(0))
    await received(world)

    # AWS may delete the message or not; only the answer is promised.
    assert await world.ports.queues.delete("orders", [stale.receipt_handle]) == []


@deviates("sender-faults-not-marked")
async def test_a_delete_that_cannot_be_made_fails_alone(world: World) -> None:
    await world.provision(ONE_QUEUE)
    first = await sent_and_received(world)

    (failure,) = await world.ports.queues.delete("orders", ["no receipt", first.receipt_handle])

    assert (failure.index, failure.retryable) == (0, False)
    depth = await world.ports.queues.depth("orders")
    assert (depth.visible, depth.in_flight) == (0, 0)


# --- dead letters ----------------------------------------------------------------------


async def test_a_message_moves_to_the_dead_letter_queue_once_its_count_exceeds_the_limit(
    world: World,
) -> None:
    source = queue(dead_letters="orders-dlq", max_receive_count=2)
    await world.provision(queues(queue("orders-dlq"), source))
    attributes = {"tenant": Attribute("seven")}
    await world.ports.queues.send("orders", [QueueEntry("poison", attributes=attributes)])

    counts = [(await received(world, visibility=timedelta(0))).receive_count for _ in range(2)]
    assert counts == [1, 2]
    assert await world.receive_within("orders", SECOND) == []

    (dead,) = await world.ports.queues.receive("orders-dlq", limit=10, wait=SOON)
    assert (dead.body, dead.attributes, dead.queue) == ("poison", attributes, "orders-dlq")
    assert (await world.ports.queues.depth("orders")).visible == 0


async def test_provisioning_again_keeps_what_is_in_the_queue(world: World) -> None:
    await world.provision(ONE_QUEUE)
    await world.ports.queues.send("orders", [QueueEntry("kept")])

    await world.provision(queues(replace(queue(), visibility=SECOND)))

    assert (await received(world)).body == "kept"
    (again,) = await world.receive_within("orders", timedelta(seconds=4))
    assert again.receive_count == 2
