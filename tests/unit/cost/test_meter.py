"""Ports that count."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from headrace.cost.meter import Meter
from headrace.cost.usage import Action, QueueKind, Request
from headrace.errors import ConditionFailed
from headrace.ports import (
    BusEntry,
    Check,
    Condition,
    Delete,
    Item,
    ItemKey,
    Ports,
    Put,
    QueueEntry,
    Update,
)
from headrace.testing import memory_ports
from headrace.topology.model import Queue, Table, Topology

STANDARD, FAIR, FIFO = QueueKind.STANDARD, QueueKind.FAIR, QueueKind.FIFO
HOUR = timedelta(hours=1)
TOPOLOGY = Topology(
    queues=(Queue("q", HOUR, HOUR), Queue("q.fifo", HOUR, HOUR, fifo=True)),
    tables=(Table("t", indexes=("relay",)),),
)


@pytest.fixture
def meter() -> Meter:
    return Meter(service="shop")


@pytest.fixture
def ports(meter: Meter) -> Ports:
    cloud = memory_ports()
    cloud.provision(TOPOLOGY)
    return meter.measured(cloud.ports)


def item(pk: str, size: int = 0, **more: str) -> Item:
    """One with at least this many bytes in it."""
    return {
        "pk": {"S": pk},
        "sk": {"S": "-"},
        "text": {"S": "x" * size},
        **{name: {"S": value} for name, value in more.items()},
    }


async def test_ten_messages_of_7_000_bytes_are_one_call_and_two_requests(
    meter: Meter, ports: Ports
) -> None:
    await ports.queues.send("q", [QueueEntry("x" * 7_000)] * 10)
    got = await ports.queues.receive("q", limit=10, wait=timedelta(0))
    await ports.queues.delete("q", [each.receipt_handle for each in got])

    # 70,000 bytes are more than one times 65,536 of them, there and back.
    assert meter.requests == {
        Request(Action.SEND, STANDARD): 2,
        Request(Action.RECEIVE, STANDARD): 2,
        Request(Action.DELETE, STANDARD): 1,
    }
    assert (meter.received, meter.receives, meter.payload_bytes) == (10, 1, 140_000)
    assert sum(meter.calls.values()) == 3


async def test_a_receive_that_finds_nothing_is_not_the_price_of_a_message(
    meter: Meter, ports: Ports
) -> None:
    await ports.queues.receive("q", limit=10, wait=timedelta(0))
    assert (meter.requests, meter.calls) == ({}, {})


async def test_a_queue_is_fair_from_its_first_group_on_and_fifo_by_its_name(
    meter: Meter, ports: Ports
) -> None:
    await ports.queues.send("q", [QueueEntry("{}", group_id="tenant")])
    got = await ports.queues.receive("q", limit=1, wait=timedelta(0))
    await ports.queues.delete("q", [got[0].receipt_handle])
    await ports.queues.send("q.fifo", [QueueEntry("{}", group_id="g")])

    assert meter.requests == {
        Request(Action.SEND, FAIR): 1,
        Request(Action.RECEIVE, FAIR): 1,
        Request(Action.DELETE, FAIR): 1,
        Request(Action.SEND, FIFO): 1,
    }


async def test_each_event_of_a_call_is_billed_by_its_own_64_kb(meter: Meter, ports: Ports) -> None:
    big = f'{{"text":"{"x" * 70_000}"}}'
    await ports.bus.put("default", [BusEntry("s", "T", "{}"), BusEntry("s", "T", big)])
    assert (meter.events, meter.calls["PutEvents"]) == (3, 1)


async def test_a_transaction_costs_twice_the_larger_of_what_an_item_was_and_is(
    meter: Meter, ports: Ports
) -> None:
    await ports.store.write([Put("t", item("a", 2_500)), Put("t", item("b"))])
    assert meter.write_units == 3 + 1

    meter.reset()
    await ports.store.transact([Put("t", item("a")), Put("t", item("c", 1_500))], token="1")
    assert meter.write_units == 2 * (3 + 2)


async def test_a_check_and_a_delete_cost_what_the_item_has(meter: Meter, ports: Ports) -> None:
    await ports.store.write([Put("t", item("a", 1_500)), Put("t", item("b", 2_500))])
    meter.reset()
    there = Condition("attribute_exists(pk)")
    await ports.store.transact(
        [Check(ItemKey("t", "a", "-"), there), Delete(ItemKey("t", "b", "-"))], token="1"
    )
    assert meter.write_units == 2 * (2 + 3)


async def test_an_update_costs_what_it_makes_of_the_item(meter: Meter, ports: Ports) -> None:
    await ports.store.write([Put("t", item("a"))])
    meter.reset()
    update = Update(
        ItemKey("t", "a", "-"),
        "SET #m = :m",
        names={"#m": "more"},
        values={":m": {"S": "x" * 1500}},
    )
    await ports.store.change(update)
    assert meter.write_units == 2


async def test_a_failed_condition_is_billed_and_changes_no_index(
    meter: Meter, ports: Ports
) -> None:
    entry = item("a", relay_pk="shop#0", relay_sk="1")
    with pytest.raises(ConditionFailed):
        await ports.store.change(Put("t", entry, Condition("attribute_exists(pk)")))
    assert (meter.write_units, meter.index_units, meter.relayed) == (1, 0, 0)


async def test_an_index_entry_that_moves_costs_two_and_one_that_stays_none(
    meter: Meter, ports: Ports
) -> None:
    costs = []
    for moment in ("1", "1", "2", None):
        meter.reset()
        entry = item("a") if moment is None else item("a", relay_pk="shop#0", relay_sk=moment)
        await ports.store.write([Put("t", entry)])
        costs.append(meter.index_units)
    assert costs == [1, 0, 2, 1]


async def test_what_is_left_to_the_relay_of_the_service_is_counted_and_sagas_are_not(
    meter: Meter, ports: Ports
) -> None:
    await ports.store.write([Put("t", item("a", relay_pk="shop#3", relay_sk="1"))])
    await ports.store.write([Put("t", item("b", relay_pk="shop.Checkout#3", relay_sk="1"))])
    assert meter.relayed == 1


async def test_each_item_that_is_read_is_rounded_up_to_4_kb(meter: Meter, ports: Ports) -> None:
    await ports.store.write([Put("t", item("a", 4_100)), Put("t", item("b"))])
    await ports.store.get([ItemKey("t", each, "-") for each in ("a", "b", "missing")])
    assert meter.read_units == 2 + 1 + 1


async def test_a_query_reads_its_items_together_and_half_of_that_unless_it_is_consistent(
    meter: Meter, ports: Ports
) -> None:
    entries = [{**item("a", 2_000), "sk": {"S": str(number)}} for number in range(3)]
    await ports.store.write([Put("t", entry) for entry in entries])
    await ports.store.query("t", "a", consistent=True)
    # 6,000 bytes and some are two units.
    assert meter.read_units == 2
    await ports.store.query("t", "a")
    assert meter.read_units == 3
    await ports.store.query("t", "nobody", index="relay")
    assert (meter.read_units, meter.index_read_units) == (3, 0.5)


async def test_what_was_counted_does_not_count_on(meter: Meter, ports: Ports) -> None:
    await ports.queues.send("q", [QueueEntry("{}")])
    usage = meter.usage()
    await ports.queues.send("q", [QueueEntry("{}")])
    assert usage.calls == {"SendMessageBatch": 1}
    assert usage.requests == {Request(Action.SEND, STANDARD): 1}


async def test_writes_at_the_same_time_are_all_counted(meter: Meter, ports: Ports) -> None:
    await asyncio.gather(
        *(ports.store.change(Put("t", item(f"{n}"))) for n in range(10)),
        *(ports.store.write([Put("t", item(f"{n}"))]) for n in range(10, 20)),
        *(ports.store.transact([Put("t", item(f"{n}"))], token=f"{n}") for n in range(20, 30)),
    )
    assert meter.write_units == 10 + 10 + 2 * 10
