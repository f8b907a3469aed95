"""FIFO queues: order within a group, and no duplicates within five minutes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from headrace.errors import Refused
from headrace.ports import Delivery, QueueEntry
from tests.contract.deviations import deviates
from tests.contract.topologies import FIFO_QUEUE, queue, queues
from tests.contract.world import World

QUEUE = "orders.fifo"
SECOND = timedelta(seconds=1)
SOON = timedelta(seconds=2)


def entry(body: str, group: str = "a", deduplication_id: str | None = None) -> QueueEntry:
    return QueueEntry(body, group_id=group, deduplication_id=deduplication_id)


async def send(world: World, *entries: QueueEntry) -> None:
    assert await world.ports.queues.send(QUEUE, entries) == []


async def receive(
    world: World, *, limit: int = 10, visibility: timedelta | None = None
) -> list[Delivery]:
    return await world.ports.queues.receive(QUEUE, limit=limit, wait=SOON, visibility=visibility)


def bodies(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.body for delivery in deliveries]


async def test_a_group_comes_in_the_order_it_was_sent_in(world: World) -> None:
    await world.provision(FIFO_QUEUE)
    await send(world, *(entry(str(number)) for number in range(5)))

    deliveries = await receive(world)

    assert bodies(deliveries) == ["0", "1", "2", "3", "4"]
    assert {(delivery.group_id, delivery.fifo) for delivery in deliveries} == {("a", True)}


async def test_a_message_in_flight_blocks_its_group_and_no_other(world: World) -> None:
    await world.provision(FIFO_QUEUE)
    await send(world, entry("a1"), entry("a2"), entry("b1", group="b"))
    (first,) = await receive(world, limit=1)
    assert first.body == "a1"

    assert bodies(await receive(world)) == ["b1"]

    await world.ports.queues.delete(QUEUE, [first.receipt_handle])
    assert bodies(await receive(world)) == ["a2"]


async def test_a_message_given_back_comes_before_the_rest_of_its_group(world: World) -> None:
    await world.provision(FIFO_QUEUE)
    await send(world, entry("a1"), entry("a2"))
    (first,) = await receive(world, limit=1)

    change = (first.receipt_handle, timedelta(0))
    assert await world.ports.queues.change_visibility(QUEUE, [change]) == []

    assert bodies(await receive(world)) == ["a1", "a2"]


async def test_a_duplicate_is_accepted_and_not_delivered(world: World) -> None:
    await world.provision(FIFO_QUEUE)
    await send(world, entry("first", deduplication_id="same"))
    await send(world, entry("second", deduplication_id="same"), entry("third"))

    assert bodies(await receive(world)) == ["first", "third"]


async def test_a_duplicate_is_one_even_after_the_first_was_handled(world: World) -> None:
    await world.provision(FIFO_QUEUE)
    await send(world, entry("first", deduplication_id="same"))
    (first,) = await receive(world)
    await world.ports.queues.delete(QUEUE, [first.receipt_handle])

    await send(world, entry("second", deduplication_id="same"), entry("third"))

    assert bodies(await receive(world)) == ["third"]


async def test_without_an_id_the_body_tells_duplicates(world: World) -> None:
    await world.provision(FIFO_QUEUE)
    await send(world, entry("same"), entry("other"), entry("same"))

    assert bodies(await receive(world)) == ["same", "other"]


async def test_each_group_has_deduplication_ids_of_its_own(world: World) -> None:
    await world.provision(FIFO_QUEUE)
    await send(world, entry("a1", "a", "same"), entry("b1", "b", "same"))

    assert sorted(bodies(await receive(world))) == ["a1", "b1"]


@deviates("entries-without-a-group-fail-alone")
async def test_a_batch_in_which_an_entry_has_no_group_is_refused(world: World) -> None:
    await world.provision(FIFO_QUEUE)

    with pytest.raises(Refused):
        await world.ports.queues.send(QUEUE, [entry("good"), QueueEntry("groupless")])


@deviates("earlier-receipts-delete-from-fifo-queues")
async def test_a_delete_after_the_visibility_ended_fails(world: World) -> None:
    await world.provision(queues(queue(QUEUE, visibility=SECOND)))
    await send(world, entry("slow"))
    (first,) = await receive(world)
    (second,) = await world.receive_within(QUEUE, timedelta(seconds=4))

    (failure,) = await world.ports.queues.delete(QUEUE, [first.receipt_handle])

    assert (failure.index, failure.retryable) == (0, False)
    assert await world.ports.queues.delete(QUEUE, [second.receipt_handle]) == []


async def test_a_dead_letter_gives_way_to_the_rest_of_its_group(world: World) -> None:
    source = queue(QUEUE, dead_letters="orders-dlq.fifo", max_receive_count=1)
    await world.provision(queues(queue("orders-dlq.fifo"), source))
    await send(world, entry("poison"), entry("next"))
    assert bodies(await receive(world, limit=1, visibility=timedelta(0))) == ["poison"]

    assert bodies(await receive(world)) == ["next"]
    (dead,) = await world.ports.queues.receive("orders-dlq.fifo", limit=10, wait=SOON)
    assert (dead.body, dead.group_id, dead.fifo) == ("poison", "a", True)
