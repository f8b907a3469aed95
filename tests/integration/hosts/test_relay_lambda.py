"""The relay as a Lambda function, in the runtime that Lambda has, on an emulator of AWS."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.connection import connect
from headrace.ports import BusEntry, EntryFailure, Item, ItemKey, Ports
from headrace.testing.runtime_api import LambdaFunction, lambda_runtime
from headrace.topology.derive import topology
from schemas.order import Customer, OrderLine, PlaceOrder
from services.order.app import order
from services.order.handlers import place_order
from tests.integration.hosts.emulated_hosts import collected, environment_of

pytestmark = pytest.mark.emulator

LINE = OrderLine.model_validate({"sku": "UNICORN", "quantity": 1, "unit_price": "9.99"})
CHIARA = Customer(name="Chiara", email="chiara@example.com")


class LongAgo:
    """A clock for what was left a minute ago."""

    def now(self) -> datetime:
        return datetime.now(UTC) - timedelta(minutes=1)


class Closed:
    """A bus that is there and takes nothing."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        return [EntryFailure(i, "Closed", "no", retryable=False) for i in range(len(entries))]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


@dataclass
class World:
    ports: Ports
    function: LambdaFunction

    async def leave(self, order_id: str) -> Item:
        """An order whose process ended before it was published; its record."""
        closed: Any = Closed(self.ports.bus)
        async with (
            connect(order, replace(self.ports, bus=closed, clock=LongAgo())) as service,
            service.transaction(key=order_id) as tx,
        ):
            placed = await place_order(
                PlaceOrder(order_id=order_id, customer=CHIARA, lines=(LINE,)), tx
            )
            assert placed is not None
            tx.publish(placed)
        return await self.record(order_id)

    async def record(self, order_id: str) -> Item:
        key = ItemKey("order", f"inbox#order#{order_id}", "-")
        (item,) = await self.ports.store.get([key])
        assert item is not None
        return item

    async def published(self) -> list[str]:
        """The orders whose checkout hears of them."""
        depth = await self.ports.queues.depth("order")
        found = await collected(self.ports, "order", depth.visible)
        return [json.loads(each.body)["detail"]["data"]["order_id"] for each in found]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[World]:
    endpoints = {"sqs": url, "events": url, "dynamodb": url}
    config = AwsConfig(namespace=f"test{uuid4().hex[:10]}", endpoints=endpoints)
    await provision(topology(order), config)
    handler = "services.order.relay_lambda_handler.handler"
    environment = environment_of(url, config)
    async with (
        open_ports(config) as ports,
        lambda_runtime(handler, environment=environment, name="order-relay") as function,
    ):
        yield World(ports, function)


async def test_a_schedule_and_a_stream_send_what_was_left_and_nothing_twice(
    ministack_url: str,
) -> None:
    async with opened(ministack_url) as world:
        await world.leave("W1")
        assert await world.function.invoke({"source": "aws.scheduler"}) == {"sent": 1}
        assert await world.published() == ["W1"]
        assert (await world.record("W1"))["status"] == {"S": "done"}

        image = await world.leave("W2")
        batch = {
            "Records": [
                {
                    "eventSource": "aws:dynamodb",
                    "eventName": "INSERT",
                    "dynamodb": {
                        "Keys": {"pk": image["pk"], "sk": image["sk"]},
                        "NewImage": image,
                        "SequenceNumber": "4421584500000000017450439091",
                        "StreamViewType": "NEW_IMAGE",
                    },
                }
            ]
        }
        assert await world.function.invoke(batch) == {"batchItemFailures": []}
        assert await world.published() == ["W2"]
        assert await world.function.invoke(batch) == {"batchItemFailures": []}
        assert await world.function.invoke({}) == {"sent": 0}
        assert await world.published() == []
