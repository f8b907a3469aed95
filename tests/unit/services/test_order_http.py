"""Orders over HTTP, on AWS in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

import httpx
import pytest

from headrace.errors import Unreachable
from headrace.outcome import Ack
from headrace.ports import EntryFailure, Item, ItemKey, Ports, QueueEntry
from headrace.testing.memory import MemoryQueues, MemoryStore, memory_ports
from headrace.topology.derive import topology
from services.order.app import order
from services.order.http import create_app
from tests.unit.services.shop import Shop, line, place

ORDER: dict[str, Any] = {
    "order_id": "W1",
    "customer": {"name": "Chiara Lombardi", "email": "chiara@example.com"},
    "lines": [{"sku": "MUG", "quantity": 2, "unit_price": "14.00"}],
}


@asynccontextmanager
async def client_of(ports: Ports) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(lambda: nullcontext(ports))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client,
    ):
        yield client


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shop.cloud.ports) as client:
        yield client


def problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = answer.json()
    assert content["status"] == answer.status_code
    assert content["detail"].endswith(".")
    return content


async def test_an_order_is_accepted_and_can_be_asked_for_where_the_answer_says(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    await shop.restock(MUG=5)
    accepted = await client.post("/orders", json=ORDER)
    assert (accepted.status_code, accepted.headers["location"]) == (202, "/orders/W1")
    await shop.run()
    found = await client.get(accepted.headers["location"])
    assert found.status_code == 200
    assert found.json() == {
        **ORDER,
        "status": "confirmed",
        "reason": None,
        "total": "28.00",
        "currency": "EUR",
    }


async def test_a_cancelled_order_says_why(shop: Shop, client: httpx.AsyncClient) -> None:
    await shop.send(place("W1", line("UNICORN")))
    found = (await client.get("/orders/W1")).json()
    assert (found["status"], found["reason"]) == (
        "cancelled",
        "We do not have enough of UNICORN.",
    )


async def test_a_repeat_under_one_idempotency_key_is_a_duplicate_of_the_command(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    for _ in range(2):
        await client.post("/orders", json=ORDER, headers={"Idempotency-Key": "k1"})
    await shop.run()
    assert shop.outcomes[:2] == [Ack(), Ack(duplicate=True)]
    assert shop.sent().count("OrderPlaced") == 1


async def test_one_idempotency_key_does_not_swallow_another_order(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    for id in ("W1", "W2"):
        content = {**ORDER, "order_id": id}
        await client.post("/orders", json=content, headers={"Idempotency-Key": "k1"})
    await shop.run()
    assert await shop.order("W1") is not None
    assert await shop.order("W2") is not None


@pytest.mark.parametrize("key", ["", "x" * 129, "näh"])
async def test_an_idempotency_key_that_cannot_be_an_id_is_refused(
    client: httpx.AsyncClient, key: str
) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = await client.post("/orders", json=ORDER, headers=headers)
    assert answer.status_code == 400
    assert "Idempotency-Key" in problem(answer)["detail"]


async def test_a_body_that_is_not_json_is_a_bad_request(client: httpx.AsyncClient) -> None:
    answer = await client.post("/orders", content="two cups, please")
    assert answer.status_code == 400
    assert "not JSON" in problem(answer)["detail"]


async def test_json_that_is_no_order_is_unprocessable_and_names_the_fields(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    lines = [{"sku": "MUG", "quantity": pieces, "unit_price": "14.00"} for pieces in (0, 1)]
    answer = await client.post("/orders", json={"order_id": "W1", "lines": lines})
    assert answer.status_code == 422
    errors = problem(answer)["errors"]
    assert [error["field"] for error in errors] == ["customer", "lines.0.quantity"]
    assert shop.cloud.queues.peek("order") == []


async def test_json_that_is_no_object_is_unprocessable(client: httpx.AsyncClient) -> None:
    answer = await client.post("/orders", content="[1]")
    assert answer.status_code == 422
    assert problem(answer)["detail"] == "The body is no order: Input should be an object."


@pytest.mark.parametrize("order_id", ["W9", "W%0A", "x" * 3000])
async def test_an_unknown_order_is_not_found(client: httpx.AsyncClient, order_id: str) -> None:
    answer = await client.get(f"/orders/{order_id}")
    assert answer.status_code == 404
    assert "There is no order" in problem(answer)["detail"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("DELETE", "/orders/W1")])
async def test_what_is_not_served_is_a_problem_that_says_what_is(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code in (404, 405)
    assert "GET /orders/{id}" in problem(answer)["detail"]


async def test_the_service_says_that_it_is_well(client: httpx.AsyncClient) -> None:
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


class FullQueues(MemoryQueues):
    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        return [
            EntryFailure(index, "InvalidParameterValue", "no", retryable=False)
            for index in range(len(entries))
        ]


class UnreachableStore(MemoryStore):
    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        raise Unreachable("arn:aws:dynamodb:…:table/order did not answer.")


async def test_an_order_that_could_not_be_sent_is_not_accepted() -> None:
    cloud = memory_ports()
    queues = FullQueues(cloud.clock, cloud.randomness)
    cloud.provision(topology(order))
    async with client_of(replace(cloud.ports, queues=queues)) as client:
        answer = await client.post("/orders", json=ORDER)
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert "was not taken" in problem(answer)["detail"]


async def test_a_table_that_does_not_answer_is_told_without_its_name() -> None:
    cloud = memory_ports()
    async with client_of(replace(cloud.ports, store=UnreachableStore(cloud.clock))) as client:
        answer = await client.get("/orders/W1")
    assert answer.status_code == 503
    assert problem(answer)["detail"] == ("The order could not be read. Ask again in a few seconds.")
