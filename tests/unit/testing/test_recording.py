"""Ports that write down what a role would have to allow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from headrace.errors import CloudError, ConditionFailed, NotProvisioned
from headrace.ports import (
    BusEntry,
    Check,
    Condition,
    Delete,
    ItemKey,
    Ports,
    Put,
    QueueEntry,
    Update,
)
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.testing.recording import Call, Recorder
from headrace.topology.access import Resource
from headrace.topology.model import Bus, Queue, Table, Topology

KEY = ItemKey("shed", "tool#saw", "-")
OTHER = ItemKey("barn", "tool#axe", "-")
ANY = Condition("attribute_exists(pk)")
NONE = Condition("attribute_not_exists(pk)")
QUEUE = (Resource.QUEUE, "shed")
TABLE = (Resource.TABLE, "shed")
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def item(key: ItemKey) -> Put:
    return Put(key.table, dict(key.attributes()))


@pytest.fixture
def cloud() -> MemoryCloud[Any]:
    cloud = memory_ports()
    cloud.provision(
        Topology(
            buses=(Bus("farm"),),
            queues=(Queue("shed", MINUTE, HOUR), Queue("barn", MINUTE, HOUR)),
            tables=(Table("shed", indexes=("relay",)), Table("barn")),
        )
    )
    return cloud


@pytest.fixture
def recorder() -> Recorder:
    return Recorder("shed")


@pytest.fixture
def ports(cloud: MemoryCloud[Any], recorder: Recorder) -> Ports:
    return recorder.recorded(cloud.ports)


async def test_the_url_of_a_queue_is_asked_for_at_its_first_use(
    ports: Ports, recorder: Recorder
) -> None:
    for _ in range(2):
        await ports.queues.receive("shed", limit=1, wait=timedelta(0))
    assert recorder.calls == [
        Call("sqs:GetQueueUrl", QUEUE),
        Call("sqs:ReceiveMessage", QUEUE),
        Call("sqs:ReceiveMessage", QUEUE),
    ]


async def test_a_batch_for_a_queue_is_asked_for_as_one_message_is(
    ports: Ports, recorder: Recorder
) -> None:
    await ports.queues.send("shed", [QueueEntry("a"), QueueEntry("b")])
    first, second = await ports.queues.receive("shed", limit=2, wait=timedelta(0))
    await ports.queues.change_visibility("shed", [(first.receipt_handle, MINUTE)])
    await ports.queues.delete("shed", [second.receipt_handle])
    await ports.queues.depth("shed")
    assert [call.action for call in recorder.calls] == [
        "sqs:GetQueueUrl",
        "sqs:SendMessage",
        "sqs:ReceiveMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
    ]


async def test_a_transaction_is_asked_for_as_what_it_consists_of(
    ports: Ports, recorder: Recorder
) -> None:
    await ports.store.change(item(OTHER))
    recorder.calls.clear()
    keys = [ItemKey("shed", f"tool#{name}", "-") for name in "abc"]
    set_ = Update(keys[1], "SET sharp = :yes", values={":yes": {"BOOL": True}})
    await ports.store.transact([item(keys[0]), set_, Delete(keys[2]), Check(OTHER, ANY)], token="t")
    assert recorder.calls == [
        Call("dynamodb:PutItem", TABLE),
        Call("dynamodb:UpdateItem", TABLE),
        Call("dynamodb:DeleteItem", TABLE),
        Call("dynamodb:ConditionCheckItem", (Resource.TABLE, "barn")),
    ]


async def test_a_single_write_is_asked_for_by_its_kind(ports: Ports, recorder: Recorder) -> None:
    await ports.store.change(item(KEY))
    await ports.store.change(Update(KEY, "REMOVE handle"))
    await ports.store.change(Delete(KEY))
    assert [call.action.partition(":")[2] for call in recorder.calls] == [
        "PutItem",
        "UpdateItem",
        "DeleteItem",
    ]


async def test_batches_of_the_store_are_actions_of_their_own_on_each_table(
    ports: Ports, recorder: Recorder
) -> None:
    await ports.store.write([item(KEY), item(OTHER)])
    await ports.store.get([KEY, OTHER, KEY._replace(sk="2")])
    assert recorder.calls == [
        Call(action, (Resource.TABLE, table))
        for action in ("dynamodb:BatchWriteItem", "dynamodb:BatchGetItem")
        for table in ("shed", "barn")
    ]


async def test_a_query_of_an_index_is_asked_for_on_the_index_alone(
    ports: Ports, recorder: Recorder
) -> None:
    await ports.store.query("shed", "tool#saw", consistent=True)
    await ports.store.query("shed", "shed#1", index="relay")
    assert recorder.calls == [
        Call("dynamodb:Query", TABLE),
        Call("dynamodb:Query", (Resource.INDEX, "shed/relay")),
    ]


async def test_a_schedule_needs_the_role_that_it_is_given(ports: Ports, recorder: Recorder) -> None:
    at = ports.clock.now() + HOUR
    await ports.scheduler.schedule("mow", at, "barn", QueueEntry("{}"))
    await ports.scheduler.cancel("mow")
    assert recorder.calls == [
        Call("sqs:GetQueueUrl", (Resource.QUEUE, "barn")),
        Call("scheduler:CreateSchedule", (Resource.SCHEDULE, "mow")),
        Call("iam:PassRole", (Resource.SCHEDULER_ROLE, "shed")),
        Call("scheduler:DeleteSchedule", (Resource.SCHEDULE, "mow")),
    ]


async def test_events_are_put_on_a_bus_that_was_looked_at(ports: Ports, recorder: Recorder) -> None:
    await ports.bus.require("farm")
    await ports.bus.put("farm", [BusEntry("farm.gate", "GateOpened", "{}")])
    bus = (Resource.BUS, "farm")
    assert recorder.calls == [
        Call("events:DescribeEventBus", bus),
        Call("events:PutEvents", bus),
    ]


@pytest.mark.parametrize(
    ("fails", "error", "call"),
    [
        (
            lambda ports: ports.store.change(Put("shed", item(KEY).item, ANY)),
            ConditionFailed,
            Call("dynamodb:PutItem", TABLE),
        ),
        (
            lambda ports: ports.queues.depth("mill"),
            NotProvisioned,
            Call("sqs:GetQueueAttributes", (Resource.QUEUE, "mill")),
        ),
    ],
    ids=["a refused write", "a queue that is not there"],
)
async def test_a_call_that_fails_has_needed_its_permission_too(
    ports: Ports,
    recorder: Recorder,
    fails: Callable[[Ports], Awaitable[object]],
    error: type[CloudError],
    call: Call,
) -> None:
    with pytest.raises(error):
        await fails(ports)
    assert recorder.needed >= {call}


async def test_what_is_done_through_recorded_ports_is_done(
    ports: Ports, cloud: MemoryCloud[Any]
) -> None:
    await ports.store.change(Put("shed", item(KEY).item, NONE))
    assert cloud.store.items("shed") == [item(KEY).item]
    assert ports.clock is cloud.clock
    assert ports.randomness is cloud.randomness
