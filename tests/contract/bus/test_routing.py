"""From the bus through rules into queues."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.errors import NotProvisioned
from headrace.ports import BusEntry, Delivery
from headrace.topology.model import Bus, Queue, Rule, Topology
from tests.contract.deviations import deviates
from tests.contract.topologies import queue
from tests.contract.world import World

SOON = timedelta(seconds=2)
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


def shop(*rules: Rule, queues: tuple[Queue, ...] = (queue(),)) -> Topology:
    """Two buses, and rules between them and the queues."""
    return Topology(buses=(Bus("clinic"), Bus("shop")), queues=queues, rules=rules)


EVERY_ORDER = shop(Rule("orders", "shop", {"source": ["shop.order"]}, "orders"))


def placed(detail: Any = None, **changes: Any) -> BusEntry:
    text = json.dumps({} if detail is None else detail)
    return BusEntry(
        **{"source": "shop.order", "detail_type": "OrderPlaced", "detail": text} | changes
    )


async def put(world: World, *entries: BusEntry, bus: str = "shop") -> None:
    assert await world.ports.bus.put(bus, entries) == []


async def received(world: World, name: str = "orders") -> Delivery:
    (delivery,) = await world.ports.queues.receive(name, limit=10, wait=SOON)
    return delivery


async def test_the_body_is_the_whole_envelope(world: World) -> None:
    await world.provision(EVERY_ORDER)
    detail = {"data": {"text": 'Grüße 🌊 "x"\n', "total": 12.5, "lines": [{"n": 1}, None, True]}}

    await put(world, placed(detail))

    envelope = json.loads((await received(world)).body)
    assert envelope.keys() == {
        *("version", "id", "detail-type", "source", "account"),
        *("time", "region", "resources", "detail"),
    }
    assert (envelope["source"], envelope["detail-type"]) == ("shop.order", "OrderPlaced")
    assert (envelope["detail"], envelope["resources"]) == (detail, [])
    assert (envelope["version"], envelope["region"]) == ("0", "us-east-1")
    assert len(envelope["account"]) == 12
    time = datetime.strptime(envelope["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(time - world.ports.clock.now()) < timedelta(minutes=1)


@deviates("time-of-put-events-ignored")
async def test_the_time_of_an_entry_is_that_of_its_event(world: World) -> None:
    await world.provision(EVERY_ORDER)

    await put(world, placed(time=datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)))

    assert json.loads((await received(world)).body)["time"] == "2026-05-06T07:08:09Z"


@deviates("trace-header-of-events-lost")
async def test_a_trace_header_goes_beside_the_event_and_not_into_it(world: World) -> None:
    await world.provision(EVERY_ORDER)

    await put(world, placed(trace_header=TRACE))

    delivery = await received(world)
    assert delivery.trace_header == TRACE
    assert TRACE not in delivery.body


async def test_an_entry_put_twice_is_two_events(world: World) -> None:
    await world.provision(EVERY_ORDER)

    await put(world, placed(), placed())

    first, second = await received_two(world)
    assert first["id"] != second["id"]
    assert first["detail"] == second["detail"]


async def received_two(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    found: list[Delivery] = []
    while len(found) < 2:
        some = await world.ports.queues.receive("orders", limit=10, wait=SOON)
        assert some, f"{len(found)} of 2 events arrived"
        found += some
    first, second = (json.loads(delivery.body) for delivery in found)
    return first, second


async def test_an_event_goes_to_every_rule_it_matches_and_to_no_other(world: World) -> None:
    rules = (
        Rule("by-source", "shop", {"source": ["shop.order"]}, "by-source"),
        Rule("by-type", "shop", {"detail-type": ["OrderPlaced"]}, "by-type"),
        Rule("other-bus", "clinic", {"source": ["shop.order", "sentinel"]}, "other-bus"),
        Rule("other-type", "shop", {"detail-type": ["OrderPaid", "Sentinel"]}, "other-type"),
    )
    await world.provision(shop(*rules, queues=tuple(queue(rule.name) for rule in rules)))
    sentinel = placed({"sentinel": True}, source="sentinel", detail_type="Sentinel")

    await put(world, placed({"order": 1}))
    await put(world, sentinel)
    await put(world, sentinel, bus="clinic")

    found = {rule.name: json.loads((await received(world, rule.name)).body) for rule in rules}
    assert {name: body["detail"] for name, body in found.items()} == {
        "by-source": {"order": 1},
        "by-type": {"order": 1},
        "other-bus": {"sentinel": True},
        "other-type": {"sentinel": True},
    }
    assert found["by-source"]["id"] == found["by-type"]["id"]


async def test_a_rule_can_lead_into_a_fifo_queue(world: World) -> None:
    rule = Rule("orders", "shop", {"source": ["shop.order"]}, "orders.fifo")
    await world.provision(shop(rule, queues=(queue("orders.fifo"),)))

    await put(world, placed())

    delivery = await received(world, "orders.fifo")
    assert delivery.fifo
    assert delivery.group_id


async def test_a_rule_provisioned_again_takes_its_new_pattern(world: World) -> None:
    await world.provision(EVERY_ORDER)
    await world.provision(shop(Rule("orders", "shop", {"source": ["shop.payment"]}, "orders")))

    await put(world, placed(), placed(source="shop.payment"))

    assert json.loads((await received(world)).body)["source"] == "shop.payment"


async def test_a_bus_that_does_not_exist_is_known_before_anything_is_put(world: World) -> None:
    await world.provision(EVERY_ORDER)

    await world.ports.bus.require("shop")
    await world.ports.bus.require("default")
    with pytest.raises(NotProvisioned, match="nowhere"):
        await world.ports.bus.require("nowhere")
