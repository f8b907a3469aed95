"""TransactWriteItems: all or nothing, with a reason for each action."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from headrace.errors import NotProvisioned, Refused, TransactionCanceled
from headrace.limits import DYNAMODB_ITEM_BYTES, TRANSACTION_ACTIONS
from headrace.ports import Action, Check, Condition, Delete, Item, ItemKey, Put, Update
from tests.contract.topologies import TWO_TABLES
from tests.contract.world import World

ABSENT = Condition("attribute_not_exists(pk)")
PRESENT = Condition("attribute_exists(pk)")


def key(sk: str, table: str = "accounts") -> ItemKey:
    return ItemKey(table, "ada", sk)


def put(sk: str, condition: Condition | None = None, *, return_old: bool = False) -> Put:
    item: Item = {**key(sk).attributes(), "balance": {"N": "1"}}
    return Put("accounts", item, condition, return_old)


def increase(sk: str) -> Update:
    return Update(key(sk), "ADD balance :one", values={":one": {"N": "1"}})


async def transact(world: World, *actions: Action, token: str | None = None) -> None:
    await world.ports.store.transact(actions, token=token or str(uuid4()))


async def cancelled(world: World, *actions: Action) -> TransactionCanceled:
    with pytest.raises(TransactionCanceled) as caught:
        await transact(world, *actions)
    return caught.value


async def balance(world: World, sk: str) -> str | None:
    (item,) = await world.ports.store.get([key(sk)])
    return item["balance"]["N"] if item is not None else None


async def test_all_four_kinds_of_action_go_together_over_two_tables(world: World) -> None:
    await world.provision(TWO_TABLES)
    await transact(world, put("changed"), put("removed"), put("checked"))
    payment: Item = {**key("first", "payments").attributes(), "amount": {"N": "5"}}

    await transact(
        world,
        Put("payments", payment, ABSENT),
        Update(key("changed"), "SET balance = :five", {}, {":five": {"N": "5"}}, PRESENT),
        Delete(key("removed"), PRESENT),
        Check(key("checked"), PRESENT),
    )

    keys = [key("first", "payments"), key("changed"), key("removed"), key("checked")]
    assert await world.ports.store.get(keys) == [
        payment,
        {**key("changed").attributes(), "balance": {"N": "5"}},
        None,
        {**key("checked").attributes(), "balance": {"N": "1"}},
    ]


async def test_one_failed_condition_undoes_everything(world: World) -> None:
    await world.provision(TWO_TABLES)
    await transact(world, put("old"))

    await cancelled(
        world, put("new"), increase("old"), Delete(key("old2")), Check(key("gone"), PRESENT)
    )

    assert (await balance(world, "new"), await balance(world, "old")) == (None, "1")


async def test_a_cancelled_transaction_has_one_reason_for_each_action_in_order(
    world: World,
) -> None:
    await world.provision(TWO_TABLES)
    await transact(world, put("old"))

    error = await cancelled(
        world,
        put("new"),
        put("old", ABSENT, return_old=True),
        Check(key("checked"), PRESENT, return_old=True),
        Delete(key("gone"), PRESENT),
        increase("other"),
    )

    failed = "ConditionalCheckFailed"
    codes = [reason.code if reason else None for reason in error.reasons]
    assert codes == [None, failed, failed, failed, None]


async def test_the_item_in_the_way_comes_back_to_who_asked_for_it(world: World) -> None:
    await world.provision(TWO_TABLES)
    await transact(world, put("a"), put("b"), put("c"), put("d"))

    error = await cancelled(
        world,
        put("a", ABSENT, return_old=True),
        put("b", ABSENT),
        Delete(key("c"), ABSENT, return_old=True),
        Check(key("d"), ABSENT, return_old=True),
        Update(key("e"), "SET x = :x", {}, {":x": {"N": "1"}}, PRESENT, return_old=True),
    )

    items = [reason.item if reason else None for reason in error.reasons]
    assert items == [put("a").item, None, put("c").item, put("d").item, None]


async def test_deleting_what_is_not_there_succeeds(world: World) -> None:
    await world.provision(TWO_TABLES)

    await transact(world, Delete(key("nothing")), put("new"))

    assert await balance(world, "new") == "1"


async def test_an_update_of_what_is_not_there_makes_it(world: World) -> None:
    await world.provision(TWO_TABLES)

    await transact(world, increase("new"))

    assert await world.ports.store.get([key("new")]) == [put("new").item]


async def test_an_update_that_does_not_fit_the_item_cancels_with_a_reason(world: World) -> None:
    await world.provision(TWO_TABLES)
    text: Item = {**key("text").attributes(), "balance": {"S": "one"}}
    await transact(world, Put("accounts", text))

    error = await cancelled(world, put("new"), increase("text"))

    codes = [reason.code if reason else None for reason in error.reasons]
    assert codes == [None, "ValidationError"]
    assert await balance(world, "new") is None


async def test_of_many_concurrent_claims_on_one_item_exactly_one_succeeds(world: World) -> None:
    await world.provision(TWO_TABLES)

    async def claim(number: int) -> int | None:
        item: Item = {**key("claim").attributes(), "owner": {"N": str(number)}}
        try:
            await transact(world, Put("accounts", item, ABSENT))
        except TransactionCanceled:
            return None
        return number

    claims = await asyncio.gather(*(claim(number) for number in range(20)))

    (winner,) = (number for number in claims if number is not None)
    (item,) = await world.ports.store.get([key("claim")])
    assert item is not None
    assert item["owner"] == {"N": str(winner)}


async def test_no_concurrent_increment_is_lost(world: World) -> None:
    await world.provision(TWO_TABLES)

    async def until_done() -> None:
        while True:
            try:
                return await transact(world, increase("counter"), increase("total"))
            except TransactionCanceled as conflict:
                codes = {reason.code for reason in conflict.reasons if reason}
                assert codes == {"TransactionConflict"}

    await asyncio.gather(*(until_done() for _ in range(20)))

    assert [await balance(world, sk) for sk in ("counter", "total")] == ["20", "20"]


# --- tokens ----------------------------------------------------------------------------


async def test_the_same_token_with_the_same_actions_has_no_second_effect(world: World) -> None:
    await world.provision(TWO_TABLES)
    token = str(uuid4())

    await transact(world, increase("counter"), token=token)
    await transact(world, increase("counter"), token=token)

    assert await balance(world, "counter") == "1"


async def test_a_repeated_token_answers_as_before_though_its_condition_no_longer_holds(
    world: World,
) -> None:
    await world.provision(TWO_TABLES)
    token = str(uuid4())

    for _ in range(2):
        await transact(world, put("once", ABSENT), token=token)

    assert await balance(world, "once") == "1"


async def test_the_same_token_with_other_actions_is_refused(world: World) -> None:
    await world.provision(TWO_TABLES)
    token = str(uuid4())
    await transact(world, put("one"), token=token)

    with pytest.raises(Refused) as caught:
        await transact(world, put("two"), token=token)

    assert caught.value.code == "IdempotentParameterMismatchException"
    assert await balance(world, "two") is None


async def test_a_cancelled_transaction_does_not_use_up_its_token(world: World) -> None:
    await world.provision(TWO_TABLES)
    token = str(uuid4())
    update = Update(key("late"), "ADD balance :one", {}, {":one": {"N": "1"}}, PRESENT)
    with pytest.raises(TransactionCanceled):
        await transact(world, update, token=token)
    await transact(world, put("late"))

    await transact(world, update, token=token)

    assert await balance(world, "late") == "2"


# --- refusals --------------------------------------------------------------------------


async def test_two_actions_on_one_item_are_refused(world: World) -> None:
    await world.provision(TWO_TABLES)

    with pytest.raises(Refused) as caught:
        await transact(world, put("twice"), Check(key("twice"), ABSENT))

    assert caught.value.code == "ValidationException"
    assert await balance(world, "twice") is None


async def test_a_hundred_actions_are_taken_and_one_more_is_refused(world: World) -> None:
    await world.provision(TWO_TABLES)
    actions = [put(f"{number:03}") for number in range(TRANSACTION_ACTIONS)]

    await transact(world, *actions)
    with pytest.raises(Refused):
        await transact(world, *actions, put("one more"))

    assert await balance(world, "099") == "1"
    assert await balance(world, "one more") is None


async def test_a_transaction_of_nothing_is_refused(world: World) -> None:
    await world.provision(TWO_TABLES)

    with pytest.raises(Refused):
        await transact(world)


async def test_an_item_over_400_kilobytes_is_not_written(world: World) -> None:
    await world.provision(TWO_TABLES)
    item: Item = {**key("big").attributes(), "text": {"S": "x" * DYNAMODB_ITEM_BYTES}}

    with pytest.raises((Refused, TransactionCanceled)):
        await transact(world, Put("accounts", item))

    assert await world.ports.store.get([key("big")]) == [None]


# aiohttp warns of a body of this size, and a warning is an error here.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_items_of_over_four_megabytes_together_are_refused(world: World) -> None:
    await world.provision(TWO_TABLES)
    text = {"S": "x" * (DYNAMODB_ITEM_BYTES - 1024)}
    puts = [Put("accounts", {**key(str(n)).attributes(), "text": text}) for n in range(11)]

    with pytest.raises((Refused, TransactionCanceled)):
        await transact(world, *puts)

    assert await world.ports.store.get([key("0")]) == [None]


async def test_a_table_that_is_not_there_is_named(world: World) -> None:
    await world.provision(TWO_TABLES)

    with pytest.raises(NotProvisioned, match="nowhere"):
        await transact(world, Delete(key("x", "nowhere")))
