"""The bus adapter against an emulator."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from headrace.aws.client import Clients
from headrace.aws.config import AwsConfig
from headrace.aws.eventbridge import EventBridgeBus
from headrace.aws.provision import provision
from headrace.ports import BusEntry, Ports
from tests.integration.aws import topologies

pytestmark = pytest.mark.emulator

SOON = timedelta(seconds=2)
LARGE_ORDERS = {
    "source": ["shop.order"],
    "detail-type": ["OrderPlaced"],
    "detail": {"data": {"total": [{"numeric": [">", 100]}]}},
}


def order(total: int, detail_type: str = "OrderPlaced") -> BusEntry:
    return BusEntry("shop.order", detail_type, json.dumps({"data": {"total": total}}))


@pytest.mark.parametrize("suffix", ["", ".fifo"])
async def test_a_rule_puts_what_its_pattern_matches_into_its_queue(
    config: AwsConfig, ports: Ports, suffix: str
) -> None:
    await provision(topologies.shop(LARGE_ORDERS, suffix=suffix), config)
    entries = [order(100), order(101), order(500, "OrderPaid")]

    failures = await ports.bus.put("shop", entries)
    deliveries = await ports.queues.receive(f"inventory{suffix}", limit=10, wait=SOON)

    assert failures == []
    [event] = [json.loads(delivery.body) for delivery in deliveries]
    assert (event["source"], event["detail-type"]) == ("shop.order", "OrderPlaced")
    assert event["detail"] == {"data": {"total": 101}}


async def test_an_entry_of_another_bus_stays_on_its_bus(config: AwsConfig, ports: Ports) -> None:
    await provision(topologies.shop(LARGE_ORDERS), config)

    await ports.bus.put("default", [order(101)])
    await ports.bus.put("shop", [order(102)])
    deliveries = await ports.queues.receive("inventory", limit=10, wait=SOON)

    assert [json.loads(d.body)["detail"]["data"]["total"] for d in deliveries] == [102]


@pytest.mark.parametrize(
    ("code", "retryable"),
    [("InternalFailure", True), ("ThrottlingException", True), ("MalformedDetail", False)],
)
async def test_a_refused_entry_is_reported_at_its_place_in_the_request(
    config: AwsConfig, clients: Clients, code: str, retryable: bool
) -> None:
    def refuse_second(parsed: dict[str, Any], **_: Any) -> None:
        parsed["FailedEntryCount"] = 1
        parsed["Entries"][1] = {"ErrorCode": code, "ErrorMessage": "not now"}

    clients.events.meta.events.register("after-call.eventbridge.PutEvents", refuse_second)
    bus = EventBridgeBus(clients.events, config)

    [failure] = await bus.put("default", [order(1), order(2), order(3)])

    assert (failure.index, failure.code, failure.message) == (1, code, "not now")
    assert failure.retryable is retryable
