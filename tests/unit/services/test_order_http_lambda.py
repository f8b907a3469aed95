"""The HTTP application behind a function URL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headrace.ports import Ports
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from services.order.app import order
from services.order.http import create_app
from services.order.http_lambda import HttpHandler

ORDER: dict[str, Any] = {
    "order_id": "W1",
    "customer": {"name": "Chiara Lombardi", "email": "chiara@example.com"},
    "lines": [{"sku": "MUG", "quantity": 2, "unit_price": "14.00"}],
}


def request(method: str, path: str, body: str | None = None, **headers: str) -> dict[str, Any]:
    """An event as a function URL sends it (payload format 2.0)."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {
            "host": "abcdefgh.lambda-url.eu-central-1.on.aws",
            "content-type": "application/json",
            "x-forwarded-proto": "https",
            **headers,
        },
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abcdefgh",
            "domainName": "abcdefgh.lambda-url.eu-central-1.on.aws",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "curl/8.5.0",
            },
            "requestId": "4f0b0f6e-6a43-4f5f-9a8c-2a6a6a0f3f5e",
            "routeKey": "$default",
            "stage": "$default",
            "time": "21/Nov/2026:12:00:00 +0000",
            "timeEpoch": 1795262400000,
        },
        "body": body,
        "isBase64Encoded": False,
    }


class Opener:
    """Opens ports in memory, and counts how often."""

    def __init__(self) -> None:
        self.cloud: MemoryCloud[Any] = memory_ports()
        self.cloud.provision(topology(order))
        self.opened = self.closed = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Ports]:
        self.opened += 1
        yield self.cloud.ports
        self.closed += 1


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def handler(opener: Opener) -> Iterator[HttpHandler]:
    handler = HttpHandler(create_app(opener))
    yield handler
    handler.close()


class Invocation:
    """What Mangum reads of Lambda's context: nothing."""


def answered(handler: HttpHandler, event: dict[str, Any]) -> dict[str, Any]:
    return handler(event, Invocation())  # type: ignore[arg-type]  # nothing of it is read


def test_an_order_by_function_url_is_placed(handler: HttpHandler) -> None:
    answer = answered(handler, request("POST", "/orders", json.dumps(ORDER)))
    assert (answer["statusCode"], answer["headers"]["location"]) == (201, "/orders/W1")
    found = answered(handler, request("GET", "/orders/W1"))
    assert json.loads(found["body"]) == json.loads(answer["body"])


def test_nothing_is_left_to_do_when_the_answer_is_out(handler: HttpHandler, opener: Opener) -> None:
    answered(handler, request("POST", "/orders", json.dumps(ORDER)))
    (record,) = [
        item for item in opener.cloud.store.items("order") if item["pk"]["S"].startswith("inbox#")
    ]
    assert record["status"] == {"S": "done"}


def test_a_problem_is_answered_as_text(handler: HttpHandler) -> None:
    answer = answered(handler, request("GET", "/orders/W9"))
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (404, False)
    assert "There is no order W9" in json.loads(answer["body"])["detail"]


def test_ports_are_opened_once_for_all_requests_of_an_environment(
    handler: HttpHandler, opener: Opener
) -> None:
    for _ in range(3):
        answered(handler, request("GET", "/healthz"))
    assert (opener.opened, opener.closed) == (1, 0)


def test_nothing_is_opened_before_the_first_request(opener: Opener) -> None:
    HttpHandler(create_app(opener))
    assert opener.opened == 0


def test_closing_ends_the_application_and_the_next_request_starts_it_again(
    handler: HttpHandler, opener: Opener
) -> None:
    answered(handler, request("GET", "/healthz"))
    handler.close()
    assert (opener.opened, opener.closed) == (1, 1)
    assert answered(handler, request("GET", "/healthz"))["statusCode"] == 200
    assert opener.opened == 2
