"""How often EventBridge is asked whether a bus is there."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from headrace.aws.config import AwsConfig
from headrace.aws.eventbridge import EventBridgeBus
from headrace.errors import NotProvisioned


class Client:
    """Says which buses there are, and counts how often it was asked."""

    meta = SimpleNamespace(region_name="eu-central-1", endpoint_url="http://127.0.0.1:1")

    def __init__(self, *buses: str) -> None:
        self.buses = set(buses)
        self.asked = 0

    async def describe_event_bus(self, **asked: str) -> dict[str, Any]:
        self.asked += 1
        if asked["Name"] not in self.buses:
            refused: Any = {"Error": {"Code": "ResourceNotFoundException", "Message": "gone"}}
            raise ClientError(refused, "DescribeEventBus")
        return asked


@pytest.fixture
def client() -> Client:
    return Client("shop", "farm")


@pytest.fixture
def bus(client: Client) -> EventBridgeBus:
    return EventBridgeBus(client, AwsConfig.from_environment({}))  # type: ignore[arg-type]  # enough of one


async def test_a_bus_that_was_there_is_not_asked_for_again_at_once(
    bus: EventBridgeBus, client: Client
) -> None:
    await bus.require("shop")
    await bus.require("shop")
    assert client.asked == 1


async def test_each_bus_is_asked_for(bus: EventBridgeBus, client: Client) -> None:
    await bus.require("shop")
    await bus.require("farm")
    assert client.asked == 2


async def test_a_bus_that_is_not_there_is_asked_for_every_time(
    bus: EventBridgeBus, client: Client
) -> None:
    for _ in range(2):
        with pytest.raises(NotProvisioned):
            await bus.require("mill")
    client.buses.add("mill")
    await bus.require("mill")
    assert client.asked == 3


async def test_a_bus_that_is_gone_is_missed_after_a_minute(
    bus: EventBridgeBus, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus.require("shop")
    client.buses.clear()
    loop = asyncio.get_running_loop()
    later = loop.time() + 60
    monkeypatch.setattr(loop, "time", lambda: later)
    with pytest.raises(NotProvisioned):
        await bus.require("shop")
