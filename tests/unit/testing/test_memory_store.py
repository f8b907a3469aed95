"""What the contract suite cannot wait for, and what only memory promises."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.errors import ConditionFailed, Refused, TransactionCanceled
from headrace.limits import DYNAMODB_ITEM_BYTES, MIB
from headrace.ports import AttributeValue, Check, Condition, Delete, Item, ItemKey, Put, Update
from headrace.testing import ManualClock, MemoryCloud, memory_ports
from headrace.topology.model import Table, Topology

KEY = ItemKey("orders", "order#1", "-")


def cloud() -> MemoryCloud[ManualClock]:
    found = memory_ports()
    found.provision(Topology(tables=(Table("orders"),)))
    return found


def put(sk: str = "-", **attributes: AttributeValue) -> Put:
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
        "PutItem": store.change(put(n={"N": "many"})),
        "UpdateItem": store.change(Update(KEY, "")),
        "DeleteItem": store.change(Delete(KEY, Condition("nonsense"))),
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
    await aws.store.change(increase())
    with pytest.raises(Refused):
        await aws.store.transact([], token="u")
    with pytest.raises(ConditionFailed):
        await aws.store.change(Delete(KEY, Condition("attribute_not_exists(pk)")))

    assert aws.store.calls == {"write": 1, "get": 1, "query": 1, "transact": 2, "change": 2}


async def test_the_item_in_the_way_is_a_copy() -> None:
    aws = cloud()
    await aws.store.change(put(tags={"SS": ["one"]}))
    claim = Put("orders", KEY.attributes(), Condition("attribute_not_exists(pk)"), return_old=True)

    with pytest.raises(ConditionFailed) as caught:
        await aws.store.change(claim)
    assert caught.value.item is not None
    caught.value.item["tags"]["SS"].append("two")

    assert aws.store.items("orders") == [put(tags={"SS": ["one"]}).item]


# --- indexes ---------------------------------------------------------------------------


def indexed() -> MemoryCloud[ManualClock]:
    found = memory_ports()
    found.provision(Topology(tables=(Table("orders", indexes=("due",)),)))
    return found


def due(pk: str, sk: str, at: str = "1") -> Put:
    keys = {"due_pk": {"S": "open"}, "due_sk": {"S": at}}
    return Put("orders", {**ItemKey("orders", pk, sk).attributes(), **keys})


async def test_an_index_orders_equal_sort_keys_by_the_key_of_the_table() -> None:
    aws = indexed()
    places = [("b", "1"), ("a", "2"), ("a", "10"), ("c", "0")]
    await aws.store.write([due(pk, sk, "1" if pk != "c" else "0") for pk, sk in places])

    page = await aws.store.query("orders", "open", index="due")

    found = [(item["pk"]["S"], item["sk"]["S"]) for item in page.items]
    assert found == [("c", "0"), ("a", "10"), ("a", "2"), ("b", "1")]


async def test_the_next_page_of_an_index_begins_at_all_four_keys() -> None:
    aws = indexed()
    await aws.store.write([due("a", "1"), due("a", "2")])

    page = await aws.store.query("orders", "open", index="due", limit=1)

    assert page.next == due("a", "1").item


async def test_what_a_query_of_an_index_gives_can_change_without_changing_the_index() -> None:
    aws = indexed()
    await aws.store.write([due("a", "1")])

    page = await aws.store.query("orders", "open", index="due", limit=1)
    assert page.next is not None
    for given in (page.items[0], page.next):
        given["due_sk"]["S"] = "changed"

    again = await aws.store.query("orders", "open", index="due")
    assert (list(again.items), aws.store.items("orders")) == ([due("a", "1").item],) * 2


async def test_an_item_that_cannot_be_in_an_index_is_left_out_when_the_index_is_added() -> None:
    aws = cloud()
    await aws.store.write([due("a", "1"), due("b", "1", at="")])
    number: Item = {**due("c", "1").item, "due_sk": {"N": "1"}}
    await aws.store.write([Put("orders", number)])

    aws.provision(Topology(tables=(Table("orders", indexes=("due",)),)))

    page = await aws.store.query("orders", "open", index="due")
    assert [item["pk"]["S"] for item in page.items] == ["a"]
    await aws.store.write([Delete(put.key) for put in (due("b", "1"), due("c", "1"))])


@pytest.mark.parametrize("name", ["", "ab", "over due", "x" * 253])
async def test_the_name_of_an_index_is_one_that_dynamodb_takes(name: str) -> None:
    with pytest.raises(Refused, match="index name") as caught:
        memory_ports().provision(Topology(tables=(Table("orders", indexes=(name,)),)))

    assert caught.value.operation == "CreateTable"


async def test_a_table_that_is_provisioned_without_its_index_keeps_it() -> None:
    aws = indexed()
    await aws.store.write([due("a", "1")])

    aws.provision(Topology(tables=(Table("orders"),)))

    assert (await aws.store.query("orders", "open", index="due")).items
