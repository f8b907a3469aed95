"""The store adapter against two emulators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from headrace.aws.client import Clients, open_clients
from headrace.aws.config import AwsConfig
from headrace.aws.dynamodb import DynamoDbStore
from headrace.aws.provision import provision
from headrace.errors import (
    CancellationReason,
    NotProvisioned,
    Refused,
    Throttled,
    TransactionCanceled,
)
from headrace.ports import Check, Condition, Delete, Item, ItemKey, Put, Update
from headrace.system import SystemRandomness
from tests.integration.aws import topologies

pytestmark = pytest.mark.emulator


@pytest.fixture(params=["ministack", pytest.param("dynoxide", marks=pytest.mark.dynoxide)])
def config(request: pytest.FixtureRequest, ministack_url: str) -> AwsConfig:
    endpoints = dict.fromkeys(("sqs", "events"), ministack_url)
    endpoints["dynamodb"] = request.getfixturevalue(f"{request.param}_url")
    return AwsConfig(namespace=f"test{uuid4().hex[:10]}", endpoints=endpoints)


@pytest_asyncio.fixture
async def clients(config: AwsConfig) -> AsyncIterator[Clients]:
    await provision(topologies.table(), config)
    async with open_clients(config) as opened:
        yield opened


@pytest.fixture
def store(clients: Clients, config: AwsConfig) -> DynamoDbStore:
    return DynamoDbStore(clients.dynamodb, config, SystemRandomness())


def key(name: str) -> ItemKey:
    return ItemKey("inventory", name, "-")


def item(name: str, count: int = 0) -> Item:
    return {**key(name).attributes(), "count": {"N": str(count)}}


def put(name: str, count: int = 0) -> Put:
    return Put("inventory", item(name, count))


def token() -> str:
    return str(uuid4())


ABSENT = Condition("attribute_not_exists(pk)")


async def test_items_come_in_the_order_asked_with_none_for_the_missing(
    store: DynamoDbStore,
) -> None:
    await store.transact([put("a", 1), put("b", 2)], token=token())

    found = await store.get([key("b"), key("nobody"), key("a")])

    assert found == [item("b", 2), None, item("a", 1)]


async def test_every_kind_of_action_takes_part_in_one_transaction(store: DynamoDbStore) -> None:
    await store.transact([put("updated", 1), put("deleted"), put("checked", 5)], token=token())
    raised = Update(
        key("updated"),
        "SET #count = #count + :step",
        {"#count": "count"},
        {":step": {"N": "2"}},
        condition=Condition("#count < :limit", {"#count": "count"}, {":limit": {"N": "9"}}),
    )
    holds = Check(key("checked"), Condition("#n = :n", {"#n": "count"}, {":n": {"N": "5"}}))

    await store.transact([put("new"), raised, Delete(key("deleted")), holds], token=token())

    found = await store.get([key("new"), key("updated"), key("deleted")])
    assert found == [item("new"), item("updated", 3), None]


async def test_a_failed_condition_gives_the_item_that_stood_in_the_way(
    store: DynamoDbStore,
) -> None:
    await store.transact([put("taken", 7)], token=token())
    claim = replace(put("taken", 8), condition=ABSENT, return_old=True)

    with pytest.raises(TransactionCanceled) as caught:
        await store.transact([put("beside"), claim, put("last")], token=token())

    first, second, third = caught.value.reasons
    assert (first, third) == (None, None)
    assert isinstance(second, CancellationReason)
    assert (second.code, second.item) == ("ConditionalCheckFailed", item("taken", 7))
    assert await store.get([key("beside"), key("last")]) == [None, None]


async def test_a_failed_condition_gives_no_item_unless_asked(store: DynamoDbStore) -> None:
    await store.transact([put("taken")], token=token())

    with pytest.raises(TransactionCanceled) as caught:
        await store.transact([replace(put("taken"), condition=ABSENT)], token=token())

    [reason] = caught.value.reasons
    assert reason is not None
    assert reason.item is None


async def test_a_transaction_sent_again_under_its_token_happens_once(store: DynamoDbStore) -> None:
    once = token()
    step = Update(key("counted"), "ADD #count :one", {"#count": "count"}, {":one": {"N": "1"}})

    await store.transact([step], token=once)
    await store.transact([step], token=once)

    assert await store.get([key("counted")]) == [item("counted", 1)]


async def test_a_token_of_other_actions_is_refused(store: DynamoDbStore) -> None:
    once = token()
    await store.transact([put("a")], token=once)

    with pytest.raises(Refused, match="take a new one") as caught:
        await store.transact([put("b")], token=once)

    assert caught.value.code == "IdempotentParameterMismatchException"


async def test_a_placeholder_with_two_meanings_is_refused_before_it_is_sent(
    store: DynamoDbStore,
) -> None:
    clash = Update(
        key("a"),
        "SET x = :v",
        values={":v": {"N": "1"}},
        condition=Condition("y = :v", values={":v": {"N": "2"}}),
    )
    with pytest.raises(Refused, match="use ':v' for two different things"):
        await store.transact([clash], token=token())


async def test_a_missing_table_says_what_to_run(store: DynamoDbStore) -> None:
    with pytest.raises(NotProvisioned, match="run `headrace provision`"):
        await store.get([ItemKey("nowhere", "a", "-")])


async def test_keys_left_unprocessed_are_read_again(
    store: DynamoDbStore, clients: Clients, config: AwsConfig
) -> None:
    await store.transact([put("a", 1), put("b", 2)], token=token())
    table = config.physical("inventory")
    calls = []

    def withhold_one(parsed: dict[str, Any], **_: Any) -> None:
        calls.append(len(parsed["Responses"][table]))
        if len(calls) == 1:
            withheld = parsed["Responses"][table].pop()
            keys = [{"pk": withheld["pk"], "sk": withheld["sk"]}]
            parsed["UnprocessedKeys"] = {table: {"Keys": keys, "ConsistentRead": True}}

    clients.dynamodb.meta.events.register("after-call.dynamodb.BatchGetItem", withhold_one)

    assert await store.get([key("a"), key("b")]) == [item("a", 1), item("b", 2)]
    assert calls == [2, 1]


async def test_keys_that_stay_unprocessed_are_throttling(
    config: AwsConfig, clients: Clients
) -> None:
    def withhold_all(parsed: dict[str, Any], **_: Any) -> None:
        keys = [key("a").attributes()]
        parsed["Responses"] = {}
        parsed["UnprocessedKeys"] = {config.physical("inventory"): {"Keys": keys}}

    clients.dynamodb.meta.events.register("after-call.dynamodb.BatchGetItem", withhold_all)
    store = DynamoDbStore(clients.dynamodb, config, SystemRandomness())

    with pytest.raises(Throttled, match="left keys unprocessed"):
        await store.get([key("a")])


async def test_plain_writes_put_and_delete(store: DynamoDbStore) -> None:
    await store.write([put("a"), put("b")])

    left = await store.write([Delete(key("a")), put("b", 2)])

    assert left == []
    assert await store.get([key("a"), key("b")]) == [None, item("b", 2)]


async def test_writes_left_unprocessed_are_named_by_their_index(
    store: DynamoDbStore, clients: Clients, config: AwsConfig
) -> None:
    def leave(parsed: dict[str, Any], **_: Any) -> None:
        parsed["UnprocessedItems"] = {
            config.physical("inventory"): [
                {"DeleteRequest": {"Key": key("c").attributes()}},
                {"PutRequest": {"Item": item("a", 1)}},
            ]
        }

    clients.dynamodb.meta.events.register("after-call.dynamodb.BatchWriteItem", leave)

    assert await store.write([put("a", 1), put("b"), Delete(key("c"))]) == [0, 2]


async def test_a_partition_is_read_page_by_page_by_the_start_of_its_sort_key(
    store: DynamoDbStore,
) -> None:
    def row(sk: str) -> Item:
        return {"pk": {"S": "saga#1"}, "sk": {"S": sk}}

    await store.write([Put("inventory", row(sk)) for sk in ("step#1", "step#2", "step#3", "x")])

    first = await store.query("inventory", "saga#1", sk_prefix="step#", limit=2)
    second = await store.query("inventory", "saga#1", sk_prefix="step#", limit=2, start=first.next)

    assert first.items == [row("step#1"), row("step#2")]
    assert second.items == [row("step#3")]
    assert second.next is None


async def test_a_partition_can_be_read_backwards(store: DynamoDbStore) -> None:
    rows: list[Item] = [{"pk": {"S": "saga#1"}, "sk": {"S": sk}} for sk in "abc"]
    await store.write([Put("inventory", row) for row in rows])

    page = await store.query("inventory", "saga#1", forward=False, consistent=True)

    assert page.items == rows[::-1]
