"""What the bus does not take."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.errors import Refused
from headrace.limits import PUT_EVENTS_BYTES, TRACE_HEADER_CHARACTERS
from headrace.ports import BusEntry
from headrace.topology.model import Bus, Rule, Topology
from tests.contract.deviations import deviates
from tests.contract.topologies import queue
from tests.contract.world import World

GOOD = BusEntry("shop.order", "OrderPlaced", '{"good": true}')
TOPOLOGY = Topology(
    buses=(Bus("shop"),),
    queues=(queue(),),
    rules=(Rule("orders", "shop", {"source": ["shop.order"]}, "orders"),),
)


async def assert_fails_alone(world: World, bad: BusEntry, code: str) -> None:
    await world.provision(TOPOLOGY)

    (failure,) = await world.ports.bus.put("shop", [bad, GOOD])

    assert (failure.index, failure.code, failure.retryable) == (0, code, False)
    (delivery,) = await world.ports.queues.receive("orders", limit=10, wait=timedelta(seconds=2))
    assert '"good"' in delivery.body


@deviates("accepts-malformed-detail")
async def test_a_detail_that_is_not_json_fails_its_entry_alone(world: World) -> None:
    await assert_fails_alone(world, BusEntry("shop.order", "T", '{"a": '), "MalformedDetail")


@deviates("accepts-malformed-detail")
async def test_a_detail_that_is_not_an_object_fails_its_entry_alone(world: World) -> None:
    await assert_fails_alone(world, BusEntry("shop.order", "T", "[1]"), "MalformedDetail")


@deviates("accepts-a-missing-detail-type")
async def test_an_entry_without_a_type_fails_alone(world: World) -> None:
    await assert_fails_alone(world, BusEntry("shop.order", "", "{}"), "InvalidArgument")


@deviates("accepts-a-missing-source")
async def test_an_entry_without_a_source_fails_alone(world: World) -> None:
    await assert_fails_alone(world, BusEntry("", "T", "{}"), "InvalidArgument")


async def test_more_than_ten_entries_are_refused(world: World) -> None:
    await world.provision(TOPOLOGY)

    with pytest.raises(Refused):
        await world.ports.bus.put("shop", [GOOD] * 11)


@deviates("accepts-a-missing-source", "incomplete-calls-fail-by-entry")
async def test_a_call_without_a_single_complete_entry_is_refused_as_a_whole(world: World) -> None:
    await world.provision(TOPOLOGY)

    with pytest.raises(Refused):
        await world.ports.bus.put("shop", [BusEntry("", "T", "{}"), BusEntry("s", "", "{}")])


@deviates("accepts-an-empty-put")
async def test_an_empty_call_is_refused(world: World) -> None:
    await world.provision(TOPOLOGY)

    with pytest.raises(Refused):
        await world.ports.bus.put("shop", [])


@deviates("accepts-events-over-one-megabyte", "events-end-at-256-kib")
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_entries_of_a_megabyte_together_are_refused(world: World) -> None:
    await world.provision(TOPOLOGY)
    half = BusEntry("shop.order", "T", f'{{"x": "{"x" * (PUT_EVENTS_BYTES // 2)}"}}')

    assert await world.ports.bus.put("shop", [half]) == []
    with pytest.raises(Refused):
        await world.ports.bus.put("shop", [half, half])


@deviates("accepts-long-trace-headers")
async def test_a_trace_header_that_is_too_long_is_refused(world: World) -> None:
    await world.provision(TOPOLOGY)
    entry = BusEntry("shop.order", "T", "{}", trace_header="x" * (TRACE_HEADER_CHARACTERS + 1))

    with pytest.raises(Refused):
        await world.ports.bus.put("shop", [entry])
