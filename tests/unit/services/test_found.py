"""What is found after a run is what is there, and the timers of checkouts are nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from headrace.entity import key_of, to_item
from headrace.envelope import queue_body, root_metadata, seal
from headrace.events import Message
from headrace.ports import Put, QueueDepth, QueueEntry
from headrace.saga.item import SagaItem
from headrace.saga.progress import Status
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.topology.derive import topology
from services.demo.found import CHECKOUT, held, look, until_over
from services.demo.run import SERVICES
from services.demo.sample import load
from services.inventory.service import inventory
from services.order.model import Order
from services.order.service import order
from tests.unit.services.aftermath import checkout_of
from tests.unit.timeless import timeless

SAMPLE = load(1)
ORDER = Order.of(SAMPLE.orders[0].as_command())
TIMER = CHECKOUT.signals.timer(saga="checkout", key=ORDER.order_id, turn=1, at=ManualClock().now())
SOON, LATER = timedelta(0), timedelta(minutes=5)


@pytest.fixture
def cloud() -> MemoryCloud[ManualClock]:
    cloud = memory_ports()
    cloud.provision(topology(*SERVICES))
    return cloud


async def put(cloud: MemoryCloud[ManualClock], message: Message, *, delay: timedelta) -> None:
    metadata = root_metadata(message, id="m1", now=cloud.clock.now())
    entry = QueueEntry(queue_body(seal(message, metadata)), delay=delay)
    assert await cloud.queues.send(order.name, [entry]) == []


async def keep(cloud: MemoryCloud[ManualClock], checkout: SagaItem, *, version: int) -> None:
    item = to_item(checkout, key_of(checkout, order.name), version)
    await cloud.store.write([Put(order.name, item)])


async def test_what_is_delayed_counts_where_no_timer_is(cloud: MemoryCloud[ManualClock]) -> None:
    await put(cloud, TIMER, delay=LATER)
    await cloud.queues.send(inventory.name, [QueueEntry("x", delay=LATER)])
    assert await held(cloud.ports, [order.name, inventory.name]) == [0, 1]


@timeless
async def test_nothing_is_left_of_a_run_that_was_over_but_timers(
    cloud: MemoryCloud[ManualClock], tmp_path: Path
) -> None:
    await put(cloud, TIMER, delay=SOON)
    unfinished = await look(cloud.ports, SAMPLE, SERVICES, tmp_path, over=False)
    over = await look(cloud.ports, SAMPLE, SERVICES, tmp_path, over=True)
    assert unfinished.left[order.name] == QueueDepth(1, 0, 0)
    assert over.left == {}


@timeless
async def test_a_run_is_not_over_while_a_queue_holds_something(
    cloud: MemoryCloud[ManualClock],
) -> None:
    await keep(cloud, checkout_of(ORDER), version=1)
    await cloud.queues.send(order.name, [QueueEntry("x")])
    waiting = asyncio.create_task(until_over(cloud.ports, SAMPLE, [order.name]))
    await asyncio.sleep(10)
    assert not waiting.done()
    [delivery] = await cloud.queues.receive(order.name, limit=1, wait=SOON)
    await cloud.queues.delete(order.name, [delivery.receipt_handle])
    await waiting


@timeless
async def test_a_run_is_not_over_while_a_checkout_is_under_way(
    cloud: MemoryCloud[ManualClock],
) -> None:
    waiting = asyncio.create_task(until_over(cloud.ports, SAMPLE, [order.name]))
    ended = checkout_of(ORDER)
    for version, status in enumerate((Status.RUNNING, Status.COMPENSATING, ended.status), start=1):
        await asyncio.sleep(10)
        assert not waiting.done()
        await keep(cloud, ended.model_copy(update={"status": status}), version=version)
    await waiting
