"""What else of the order service runs on Lambda, as functions: its HTTP edge and its relay."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from headrace.aws.config import AwsConfig
from headrace.hosts.relay_lambda import RelayHandler
from headrace.ports import Bus, BusEntry, EntryFailure, Item, Ports
from headrace.relay import GRACE, is_relayed
from headrace.testing.memory import memory_ports
from headrace.testing.recording import Call, Recorder
from headrace.topology.derive import topology
from services.order.app import order
from services.order.http import create_app
from services.order.http_lambda import HttpHandler

ORDER: Final[dict[str, Any]] = {
    "order_id": "W1",
    "customer": {"name": "Chiara Lombardi", "email": "chiara@example.com"},
    "lines": [{"sku": "MUG", "quantity": 2, "unit_price": "14.00"}],
}


class Closed:
    """A bus that takes nothing, so that all is left to the relay."""

    def __init__(self, bus: Bus) -> None:
        self.require = bus.require

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        return [EntryFailure(index, "Closed", retryable=False) for index in range(len(entries))]


def edges_of_order() -> frozenset[Call]:
    """What is asked of AWS when orders are taken over HTTP while the bus is closed, and are sent
    later: one as the stream shows it, and one that a sweep finds."""
    recorder, cloud = Recorder(order.name), memory_ports()
    cloud.provision(topology(order))
    closed = replace(cloud.ports, bus=Closed(cloud.bus))

    @asynccontextmanager
    async def opened(config: AwsConfig) -> AsyncIterator[Ports]:
        yield recorder.recorded(cloud.ports)

    @asynccontextmanager
    async def opened_closed() -> AsyncIterator[Ports]:
        yield recorder.recorded(closed)

    http, relay = HttpHandler(create_app(opened_closed)), RelayHandler(order, ports=opened)
    try:
        for order_id in ("W1", "W2"):
            body = json.dumps({**ORDER, "order_id": order_id})
            assert _asked(http, "POST", "/orders", body) == 201
        assert _asked(http, "GET", "/orders/W1") == 200
        cloud.clock.advance(2 * GRACE)
        first, _ = _waiting(cloud.store.items("order"))
        assert relay(_stream_event(first), _Context()) == {"batchItemFailures": []}
        assert relay({}, _Context()) == {"sent": 1}
    finally:
        http.close()
        relay.close()
    assert _waiting(cloud.store.items("order")) == []
    return recorder.needed


def _waiting(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if is_relayed(item, order.name)]


def _asked(http: HttpHandler, method: str, path: str, body: str | None = None) -> int:
    """The status of an answer to a request, as a function URL sends it (payload format 2.0)."""
    called = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7"}
    event: Any = {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "orders.example.com", "content-type": "application/json"},
        "requestContext": {"http": called, "stage": "$default"},
        "body": body,
        "isBase64Encoded": False,
    }
    context: Any = _Context()
    return int(http(event, context)["statusCode"])


def _stream_event(item: Item) -> dict[str, Any]:
    keys = {name: item[name] for name in ("pk", "sk")}
    change = {"SequenceNumber": "1", "Keys": keys, "NewImage": item}
    record = {"eventSource": "aws:dynamodb", "eventName": "INSERT", "dynamodb": change}
    return {"Records": [record]}


class _Context:
    aws_request_id = "request"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000
