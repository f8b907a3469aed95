"""What the contract suite cannot wait for, and what only memory promises."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.errors import Refused, TransactionCanceled
from headrace.limits import DYNAMODB_ITEM_BYTES, MIB
from headrace.ports import Check, Condition, Delete, Item, ItemKey, Put, Update
from headrace.testing import ManualClock, MemoryCloud, memory_ports
from headrace.topology.model import Table, Topology

KEY = ItemKey("orders", "order#1", "-")


def cloud() -> MemoryCloud[ManualClock]:
    found = memory_ports()
    found.provision(Topology(tables=(Table("orders"),)))
    return found


def put(sk: str = "-", **attributes: dict[str, str]) -> Put:
    return Put("orders", {**KEY._replace(sk=sk).attributes(), **attributes})


def increase() -> Update:
    return Update(KEY, "ADD n :one", values={":one": {"N": "1"}})


async def test_a_token_is_forgotten_after_ten_minutes() -> None:
    aws = cloud()
    await aws.store.transact([increase()], token="t")
    aws.clock.advance(timedelta(minutes=10) - timedelta(seconds=1))
    await aws.store.transact([increase()], token="t")
    assert aws.store.items("orders") == [put(n={"N": "1"}).item]

    aws.clock.advance(timedelta(seconds=1))
    await aws.store.transact([increase()], token="t")

    assert aws.store.items("orders") == [put(n={"N": "2"}).item]


async def test_the_order_of_attributes_does_not_tell_transactions_apart() -> None:
    aws = cloud()
    forth: Item = {
        "pk": {"S": "a"},
        "sk": {"S": "b"},
        "m": {"M": {"x": {"S": "1"}, "y": {"S": "2"}}},
    }
    back: Item = {
        "m": {"M": {"y": {"S": "2"}, "x": {"S": "1"}}},
        "sk": {"S": "b"},
        "pk": {"S": "a"},
    }

    await aws.store.transact([Put("orders", forth)], token="t")
    await aws.store.transact([Put("orders", back)], token="t")

    assert len(aws.store.items("orders")) == 1


@pytest.mark.parametrize("token", ["", "x" * 37])
async def test_a_token_has_1_to_36_characters(token: str) -> None:
    with pytest.raises(Refused, match="36"):
        await cloud().store.transact([put()], token=token)


async def test_a_batch_takes_no_conditions() -> None:
    aws = cloud()

    with pytest.raises(Refused, match="conditions"):
        await aws.store.write([Delete(KEY, Condition("attribute_exists(pk)"))])


@pytest.mark.parametrize(
    "key",
    [
        KEY._replace(pk=""),
        KEY._replace(sk=""),
        KEY._replace(pk="ü" * 1025),
        KEY._replace(sk="x" * 1025),
    ],
)
async def test_a_key_that_is_empty_or_too_long_is_refused(key: ItemKey) -> None:
    store = cloud().store
    calls = (
        store.get([key]),
        store.write([Delete(key)]),
        store.transact([Delete(key)], token="1"),
        store.transact([Put("orders", key.attributes())], token="2"),
    )
    for call in calls:
        with pytest.raises(Refused, match="key attribute"):
            await call


async def test_an_item_that_grows_over_400_kilobytes_cancels_its_transaction() -> None:
    aws = cloud()
    half = {"S": "x" * (DYNAMODB_ITEM_BYTES // 2)}
    await aws.store.write([put(a=half)])

    with pytest.raises(TransactionCanceled) as caught:
        await aws.store.transact([Update(KEY, "SET b = :b", values={":b": half})], token="t")

    (reason,) = caught.value.reasons
    assert reason is not None
    assert reason.code == "ValidationError"
    assert aws.store.items("orders") == [put(a=half).item]


async def test_a_page_of_a_query_ends_at_one_mebibyte() -> None:
    aws = cloud()
    text = {"S": "x" * (DYNAMODB_ITEM_BYTES - 100)}
    await aws.store.write([put(str(number), a=text) for number in range(4)])

    first = await aws.store.query("orders", "order#1")
    second = await aws.store.query("orders", "order#1", start=first.next)

    assert 3 * DYNAMODB_ITEM_BYTES > MIB
    assert [len(first.items), len(second.items)] == [3, 1]
    assert second.next is None


async def test_an_expired_item_stays_as_it_may_for_days_on_aws() -> None:
    aws = cloud()
    await aws.store.write([put(expires_at={"N": "1"})])
    aws.clock.advance(timedelta(days=400))

    assert len(aws.store.items("orders")) == 1


async def test_a_symbol_that_means_two_things_in_one_action_is_refused() -> None:
    condition = Condition("n = :one", values={":one": {"N": "2"}})
    action = Update(KEY, "ADD n :one", values={":one": {"N": "1"}}, condition=condition)

    with pytest.raises(Refused, match=":one means one thing"):
        await cloud().store.transact([action], token="t")


async def test_a_check_writes_nothing() -> None:
    aws = cloud()

    await aws.store.transact([Check(KEY, Condition("attribute_not_exists(pk)"))], token="t")

    assert aws.store.items("orders") == []


async def test_items_come_in_the_order_of_their_keys() -> None:
    aws = cloud()
    keys = [("b", "1"), ("a", "2"), ("a", "10")]
    puts = [Put("orders", ItemKey("orders", pk, sk).attributes()) for pk, sk in keys]
    await aws.store.write(puts)

    found = [(item["pk"]["S"], item["sk"]["S"]) for item in aws.store.items("orders")]
    assert found == [("a", "10"), ("a", "2"), ("b", "1")]


async def test_provisioning_again_keeps_the_items() -> None:
    aws = cloud()
    await aws.store.write([put()])

    aws.provision(Topology(tables=(Table("orders"), Table("payments"))))

    assert len(aws.store.items("orders")) == 1


async def test_a_refusal_names_the_call_that_was_refused() -> None:
    store = cloud().store
    calls = {
        "BatchGetItem": store.get([]),
        "BatchWriteItem": store.write([put(n={"N": "many"})]),
        "TransactWriteItems": store.transact([put(n={"N": "many"})], token="t"),
        "Query": store.query("orders", "order#1", limit=0),
    }
    for operation, call in calls.items():
        with pytest.raises(Refused) as caught:
            await call
        assert (caught.value.operation, caught.value.code) == (operation, "ValidationException")


async def test_calls_are_counted_by_method_and_refused_ones_too() -> None:
    aws = cloud()
    await aws.store.write([put()])
    await aws.store.get([KEY])
    await aws.store.query("orders", "order#1")
    await aws.store.transact([increase()], token="t")
    with pytest.raises(Refused):
        await aws.store.transact([], token="u")

    assert aws.store.calls == {"write": 1, "get": 1, "query": 1, "transact": 2}
