"""Orders over HTTP, on AWS in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from headrace.connection import connect
from headrace.envelope import Outgoing
from headrace.errors import CancellationReason, CloudError, TransactionCanceled, Unreachable
from headrace.hosts.worker import run_worker
from headrace.observe.tally import Tally
from headrace.ports import Action, BusEntry, EntryFailure, Item, ItemKey, Ports, Put
from headrace.relay import GRACE, Relay
from headrace.testing.memory import SeededRandomness
from services.order.app import order
from services.order.http import ATTEMPTS, create_app
from services.order.model import OrderStatus
from tests.unit.services.shop import CUSTOMER, Shop, line, place

ORDER: dict[str, Any] = {
    "order_id": "W1",
    "customer": {"name": "Chiara Lombardi", "email": "chiara@example.com"},
    "lines": [{"sku": "MUG", "quantity": 2, "unit_price": "14.00"}],
}
PLACED: dict[str, Any] = {
    **ORDER,
    "status": "placed",
    "reason": None,
    "total": "28.00",
    "currency": "EUR",
}
KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


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


def placed(shop: Shop) -> list[str]:
    """The ids of every `OrderPlaced` that is on its way to its checkout."""
    return on_their_way(shop, "order", "OrderPlaced")


def on_their_way(shop: Shop, queue: str, name: str) -> list[str]:
    """The ids of the messages of one name in a queue."""
    bodies = [json.loads(entry.body) for entry in shop.cloud.queues.peek(queue)]
    return [body["detail"]["metadata"]["id"] for body in bodies if body["detail-type"] == name]


def same(answer: httpx.Response, other: httpx.Response) -> bool:
    """Whether two answers say the same in everything that a client looks at."""
    return (answer.status_code, answer.headers["location"], answer.content) == (
        other.status_code,
        other.headers["location"],
        other.content,
    )


async def test_an_order_is_placed_and_found_at_once_where_the_answer_says(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    await shop.restock(MUG=5)
    taken = await client.post("/orders", json=ORDER)
    assert (taken.status_code, taken.headers["location"]) == (201, "/orders/W1")
    assert taken.json() == PLACED
    found = await client.get(taken.headers["location"])
    assert (found.status_code, found.json()) == (200, PLACED)
    await shop.run()
    assert (await client.get("/orders/W1")).json() == {**PLACED, "status": "confirmed"}


async def test_an_order_by_command_is_found_as_well(shop: Shop, client: httpx.AsyncClient) -> None:
    await shop.restock(MUG=5)
    await shop.send(place("W1", line("MUG", 2)))
    assert (await client.get("/orders/W1")).json() == {**PLACED, "status": "confirmed"}


async def test_a_cancelled_order_says_why(shop: Shop, client: httpx.AsyncClient) -> None:
    await shop.send(place("W1", line("UNICORN")))
    found = (await client.get("/orders/W1")).json()
    assert (found["status"], found["reason"]) == (
        "cancelled",
        "We do not have enough of UNICORN.",
    )


# --- the same again ----------------------------------------------------------------------


@pytest.mark.parametrize("headers", [KEY, {}], ids=["with a key", "without"])
async def test_the_same_order_again_has_the_same_answer_and_happens_once(
    shop: Shop, client: httpx.AsyncClient, headers: Mapping[str, str]
) -> None:
    await shop.restock(MUG=5)
    first = await client.post("/orders", json=ORDER, headers=headers)
    assert len(placed(shop)) == 1
    await shop.run()
    again = await client.post("/orders", json=ORDER, headers=headers)
    assert first.status_code == 201
    assert same(first, again)
    await shop.run()
    assert await shop.available("MUG") == 3


@pytest.mark.parametrize("headers", [KEY, {}], ids=["with a key", "without"])
async def test_the_same_order_many_times_at_once_happens_once(
    shop: Shop, client: httpx.AsyncClient, headers: Mapping[str, str]
) -> None:
    posts = (client.post("/orders", json=ORDER, headers=headers) for _ in range(5))
    first, *others = await asyncio.gather(*posts)
    assert first.status_code == 201
    assert all(same(first, other) for other in others)
    assert len(placed(shop)) == 1


async def test_one_key_at_two_processes_at_once_happens_once(shop: Shop) -> None:
    async with client_of(shop.cloud.ports) as one, client_of(shop.cloud.ports) as other:
        posts = (client.post("/orders", json=ORDER, headers=KEY) for client in (one, other))
        first, second = await asyncio.gather(*posts)
    assert first.status_code == 201
    assert same(first, second)
    assert len(placed(shop)) == 1


@pytest.mark.parametrize("headers", [KEY, {}], ids=["with a key", "without"])
async def test_how_an_order_is_written_does_not_matter(
    shop: Shop, client: httpx.AsyncClient, headers: Mapping[str, str]
) -> None:
    first = await client.post("/orders", json=ORDER, headers=headers)
    line = {"unit_price": 14.0, "quantity": 2, "sku": "MUG"}
    other = {"currency": "EUR", "lines": [line], **{n: ORDER[n] for n in ("customer", "order_id")}}
    again = await client.post("/orders", content=json.dumps(other, indent=4), headers=headers)
    assert same(first, again)
    assert len(placed(shop)) == 1


async def test_a_key_in_quotes_is_the_same_key(shop: Shop, client: httpx.AsyncClient) -> None:
    first = await client.post("/orders", json=ORDER, headers={"Idempotency-Key": 'a"b'})
    again = await client.post("/orders", json=ORDER, headers={"Idempotency-Key": r'"a\"b"'})
    assert same(first, again)
    other = {**ORDER, "order_id": "W2"}
    refused = await client.post("/orders", json=other, headers={"Idempotency-Key": r'"a\"b"'})
    assert refused.status_code == 422


async def test_an_answer_is_what_it_was_under_an_earlier_version(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    await client.post("/orders", json=ORDER, headers=KEY)
    record = next(i for i in shop.cloud.store.items("order") if i["pk"]["S"].startswith("inbox#"))
    earlier = {**record, "answer": {"S": '{"order_id":"W1"}'}}
    await shop.cloud.store.write([Put("order", earlier)])
    again = await client.post("/orders", json=ORDER, headers=KEY)
    assert (again.status_code, again.json()) == (201, {"order_id": "W1"})


async def test_a_key_does_not_meet_those_of_other_work_of_the_service(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    async with (
        connect(order, shop.cloud.ports) as service,
        service.transaction(key="k1", content="a nightly run") as tx,
    ):
        tx.answer = "done"
    answer = await client.post("/orders", json=ORDER, headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()) == (201, PLACED)


async def test_a_new_key_for_an_order_that_stands_has_the_answer_of_the_first(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    first = await client.post("/orders", json=ORDER, headers={"Idempotency-Key": "k1"})
    for key in ("k2", "k2"):
        again = await client.post("/orders", json=ORDER, headers={"Idempotency-Key": key})
        assert same(first, again)
    assert len(placed(shop)) == 1


@pytest.mark.parametrize("headers", [KEY, {}], ids=["with a key", "without"])
async def test_an_order_that_a_command_has_placed_is_not_placed_again(
    shop: Shop, client: httpx.AsyncClient, headers: Mapping[str, str]
) -> None:
    await shop.restock(MUG=5)
    await shop.send(place("W1", line("MUG", 2)))
    answer = await client.post("/orders", json=ORDER, headers=headers)
    assert (answer.status_code, answer.json()) == (201, PLACED)
    await shop.run()
    assert await shop.available("MUG") == 3


@pytest.mark.parametrize(
    "change", [{"order_id": "W2"}, {"currency": "CHF"}], ids=["another order", "other content"]
)
async def test_a_key_that_was_used_for_something_else_is_unprocessable(
    shop: Shop, client: httpx.AsyncClient, change: dict[str, str]
) -> None:
    await client.post("/orders", json=ORDER, headers=KEY)
    answer = await client.post("/orders", json={**ORDER, **change}, headers=KEY)
    assert answer.status_code == 422
    assert "Take a new key" in problem(answer)["detail"]
    assert await shop.order("W2") is None
    assert len(placed(shop)) == 1


@pytest.mark.parametrize("headers", [KEY, {}], ids=["with a key", "without"])
async def test_an_order_id_with_other_content_is_a_conflict(
    shop: Shop, client: httpx.AsyncClient, headers: Mapping[str, str]
) -> None:
    await client.post("/orders", json=ORDER)
    answer = await client.post("/orders", json={**ORDER, "currency": "CHF"}, headers=headers)
    assert answer.status_code == 409
    assert "W1 exists already with other content" in problem(answer)["detail"]
    assert (await client.get("/orders/W1")).json() == PLACED
    assert len(placed(shop)) == 1


async def test_a_key_is_not_spent_by_an_order_that_was_refused(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    await client.post("/orders", json=ORDER)
    refused = {**ORDER, "currency": "CHF"}
    assert (await client.post("/orders", json=refused, headers=KEY)).status_code == 409
    answer = await client.post("/orders", json={**ORDER, "order_id": "W2"}, headers=KEY)
    assert answer.status_code == 201


@pytest.mark.parametrize("key", ["", '""', "x" * 129, "näh"])
async def test_an_idempotency_key_that_cannot_be_an_id_is_refused(
    client: httpx.AsyncClient, key: str
) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = await client.post("/orders", json=ORDER, headers=headers)
    assert answer.status_code == 400
    assert "Idempotency-Key" in problem(answer)["detail"]


async def test_two_idempotency_keys_are_refused(client: httpx.AsyncClient) -> None:
    headers = [("Idempotency-Key", "k1"), ("Idempotency-Key", "k2")]
    answer = await client.post("/orders", json=ORDER, headers=headers)
    assert answer.status_code == 400


# --- what is no order --------------------------------------------------------------------


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
    assert (await shop.order("W1"), placed(shop)) == (None, [])


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


# --- when AWS fails ----------------------------------------------------------------------


class Failing:
    """The store, whose calls of one method fail a number of times: before or after their effect."""

    def __init__(self, store: Any, method: str, error: CloudError, times: int, after: bool) -> None:
        self._store = store
        self._method = method
        self._error = error
        self._times = times
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._failing(method) if name == self._method else method

    def _failing(self, method: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._times == 0:
                return await method(*args, **kwargs)
            self._times -= 1
            if self._after:
                await method(*args, **kwargs)
            raise self._error

        return call


CONFLICT = TransactionCanceled([None, CancellationReason("TransactionConflict")])
LOST = Unreachable("arn:aws:dynamodb:…:table/order did not answer.")


def failing(
    shop: Shop, error: CloudError, times: int, *, method: str = "transact", after: bool = False
) -> Ports:
    store: Any = Failing(shop.cloud.store, method, error, times, after)
    return replace(shop.cloud.ports, store=store)


async def test_an_order_that_somebody_else_writes_meanwhile_is_begun_again(shop: Shop) -> None:
    async with client_of(failing(shop, CONFLICT, ATTEMPTS - 1)) as client:
        answer = await client.post("/orders", json=ORDER, headers=KEY)
    assert answer.status_code == 201
    assert len(placed(shop)) == 1


async def test_an_order_that_others_always_write_first_is_not_taken(shop: Shop) -> None:
    async with client_of(failing(shop, CONFLICT, ATTEMPTS)) as client:
        answer = await client.post("/orders", json=ORDER, headers=KEY)
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
        assert "was not taken" in problem(answer)["detail"]
        assert (await client.post("/orders", json=ORDER, headers=KEY)).status_code == 201
    assert len(placed(shop)) == 1


@pytest.mark.parametrize("headers", [KEY, {}], ids=["with a key", "without"])
async def test_an_order_whose_commit_was_not_answered_is_taken_if_it_stands(
    shop: Shop, headers: Mapping[str, str]
) -> None:
    async with client_of(failing(shop, LOST, 1, after=True)) as client:
        answer = await client.post("/orders", json=ORDER, headers=headers)
    assert (answer.status_code, answer.json()) == (201, PLACED)
    assert len(placed(shop)) == 1


@pytest.mark.parametrize("headers", [KEY, {}], ids=["with a key", "without"])
@pytest.mark.parametrize("after", [False, True], ids=["lost", "answer lost"])
async def test_an_order_of_which_nothing_is_known_may_be_sent_again(
    shop: Shop, headers: Mapping[str, str], after: bool
) -> None:
    deaf: Any = Deaf(shop.cloud.store, after)
    async with client_of(replace(shop.cloud.ports, store=deaf)) as client:
        answer = await client.post("/orders", json=ORDER, headers=headers)
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
        assert "is not known" in problem(answer)["detail"]
        assert "under the Idempotency-Key it had" in problem(answer)["detail"]
        deaf.hears_again = True
        again = await client.post("/orders", json=ORDER, headers=headers)
    assert (again.status_code, again.json()) == (201, PLACED)
    shop.cloud.clock.advance(GRACE + timedelta(seconds=1))
    await Relay(order, shop.cloud.ports).sweep()
    assert len(placed(shop)) == 1


class Deaf:
    """The store, of which nothing is heard from the first commit on. `after` says whether that
    commit took effect."""

    def __init__(self, store: Any, after: bool) -> None:
        self._store = store
        self._after = after
        self._silent = False
        self.hears_again = False

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        if self._silent and not self.hears_again:
            raise LOST
        found: list[Item | None] = await self._store.get(keys)
        return found

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        if self.hears_again or self._after:
            await self._store.transact(actions, token=token)
        if not self.hears_again:
            self._silent = True
            raise LOST

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_a_table_that_does_not_answer_is_told_without_its_name(shop: Shop) -> None:
    async with client_of(failing(shop, LOST, 1, method="get")) as client:
        answer = await client.get("/orders/W1")
    assert answer.status_code == 503
    assert problem(answer)["detail"] == ("The order could not be read. Ask again in a few seconds.")


# --- when the process ends ---------------------------------------------------------------


class Silent:
    """The bus of a process that ends when it would send."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self.reached = asyncio.Event()

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        self.reached.set()
        await asyncio.Event().wait()
        return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


async def die_between_commit_and_dispatch(ports: Ports, headers: Mapping[str, str]) -> None:
    async def live() -> None:
        async with client_of(replace(ports, bus=silent)) as client:
            await client.post("/orders", json=ORDER, headers=headers)

    silent: Any = Silent(ports.bus)
    before = asyncio.all_tasks()
    life = asyncio.create_task(live())
    await silent.reached.wait()
    for task in asyncio.all_tasks() - before:
        task.cancel()
    await asyncio.wait([life])
    assert life.cancelled()


class Restless(SeededRandomness):
    """Chance by which the relay of a worker does not pause."""

    def uniform(self, low: float, high: float) -> float:
        return 0.0


class UntilCheckout(Tally):
    """Sets an event when the checkout of an order has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.happened = asyncio.Event()
        self.placed: list[str] = []

    def sent(self, service: str, outgoing: Outgoing) -> None:
        if outgoing.detail_type == "OrderPlaced":
            self.placed.append(outgoing.id)
        if outgoing.detail_type == "ReserveStock":
            self.happened.set()


@pytest.mark.parametrize("headers", [KEY, {}], ids=["with a key", "without"])
async def test_what_a_process_left_when_it_died_is_sent_once_by_the_worker(
    shop: Shop, headers: Mapping[str, str]
) -> None:
    await die_between_commit_and_dispatch(shop.cloud.ports, headers)
    found = await shop.order("W1")
    assert found is not None
    assert (found.status, found.customer) == (OrderStatus.PLACED, CUSTOMER)
    assert placed(shop) == []

    shop.cloud.clock.advance(GRACE + timedelta(seconds=1))
    observer = UntilCheckout()
    ports = replace(shop.cloud.ports, randomness=Restless())
    async with asyncio.timeout(20):
        await run_worker([order], ports, observer=observer, stop=observer.happened)
    assert len(set(observer.placed)) == 1
    begun = on_their_way(shop, "inventory", "ReserveStock")
    assert len(set(begun)) == 1

    async with client_of(shop.cloud.ports) as client:
        again = await client.post("/orders", json=ORDER, headers=headers)
    assert (again.status_code, again.json()) == (201, PLACED)
    await Relay(order, shop.cloud.ports).sweep()
    assert set(placed(shop)) <= set(observer.placed)
    assert on_their_way(shop, "inventory", "ReserveStock") == begun


async def test_a_process_that_died_a_moment_ago_is_not_yet_spoken_for(shop: Shop) -> None:
    await die_between_commit_and_dispatch(shop.cloud.ports, KEY)
    shop.cloud.clock.advance(GRACE / 2)
    assert await Relay(order, shop.cloud.ports).sweep() == 0
    assert placed(shop) == []
