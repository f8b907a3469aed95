"""PutItem, UpdateItem and DeleteItem: one item, and a condition on it."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import pytest

from headrace.errors import ConditionFailed, NotProvisioned, Refused
from headrace.limits import DYNAMODB_ITEM_BYTES
from headrace.ports import Condition, Delete, Item, ItemKey, Put, Update
from tests.contract.deviations import deviates
from tests.contract.topologies import TWO_TABLES
from tests.contract.world import World

Change: TypeAlias = Put | Update | Delete

ABSENT = Condition("attribute_not_exists(pk)")
PRESENT = Condition("attribute_exists(pk)")


def key(sk: str) -> ItemKey:
    return ItemKey("accounts", "ada", sk)


def item(sk: str, balance: str = "1") -> Item:
    return {**key(sk).attributes(), "balance": {"N": balance}}


def put(sk: str, condition: Condition | None = None, *, return_old: bool = False) -> Put:
    return Put("accounts", item(sk), condition, return_old)


def increase(sk: str, condition: Condition | None = None, *, return_old: bool = False) -> Update:
    return Update(
        key(sk), "ADD balance :one", {}, {":one": {"N": "1"}}, condition, return_old=return_old
    )


async def change(world: World, *actions: Change) -> None:
    for action in actions:
        await world.ports.store.change(action)


async def failed(world: World, action: Change) -> ConditionFailed:
    with pytest.raises(ConditionFailed) as caught:
        await world.ports.store.change(action)
    return caught.value


async def stored(world: World, *sort_keys: str) -> list[Item | None]:
    return await world.ports.store.get([key(sk) for sk in sort_keys])


async def test_each_kind_of_change_has_its_effect(world: World) -> None:
    await world.provision(TWO_TABLES)
    await change(world, put("changed"), put("removed"), put("replaced"))

    replacement: Item = {**key("replaced").attributes(), "other": {"S": "x"}}
    await change(world, Put("accounts", replacement), increase("changed"), Delete(key("removed")))

    found = await stored(world, "replaced", "changed", "removed")
    assert found == [replacement, item("changed", "2"), None]


async def test_a_change_whose_condition_holds_is_made(world: World) -> None:
    await world.provision(TWO_TABLES)
    await change(world, put("new", ABSENT), put("gone", ABSENT))

    await change(world, increase("new", PRESENT), Delete(key("gone"), PRESENT))

    assert await stored(world, "new", "gone") == [item("new", "2"), None]


async def test_a_change_whose_condition_fails_writes_nothing_and_gives_no_item(
    world: World,
) -> None:
    await world.provision(TWO_TABLES)
    await change(world, put("old"))
    other = Put("accounts", item("old", "99"), ABSENT)

    errors = [
        await failed(world, action)
        for action in (other, increase("old", ABSENT), Delete(key("old"), ABSENT))
    ]

    assert [error.item for error in errors] == [None, None, None]
    assert await stored(world, "old") == [item("old")]


async def test_the_item_in_the_way_of_a_change_comes_back_to_who_asked_for_it(
    world: World,
) -> None:
    await world.provision(TWO_TABLES)
    await change(world, put("old"))

    errors = [
        await failed(world, action)
        for action in (
            put("old", ABSENT, return_old=True),
            increase("old", ABSENT, return_old=True),
            Delete(key("old"), ABSENT, return_old=True),
        )
    ]

    assert [error.item for error in errors] == [item("old")] * 3


async def test_every_type_of_attribute_comes_back_with_the_item_in_the_way(world: World) -> None:
    await world.provision(TWO_TABLES)
    there: Item = {
        **key("old").attributes(),
        "bytes": {"B": b"\x00\xff"},
        "map": {"M": {"list": {"L": [{"BOOL": False}, {"NULL": True}, {"S": "ä"}]}}},
        "set": {"SS": ["only"]},
    }
    await change(world, Put("accounts", there))

    error = await failed(world, put("old", ABSENT, return_old=True))

    assert error.item == there


async def test_no_item_comes_back_when_none_is_in_the_way(world: World) -> None:
    await world.provision(TWO_TABLES)

    errors = [
        await failed(world, action)
        for action in (
            put("gone", PRESENT, return_old=True),
            increase("gone", PRESENT, return_old=True),
            Delete(key("gone"), PRESENT, return_old=True),
        )
    ]

    assert [error.item for error in errors] == [None, None, None]
    assert await stored(world, "gone") == [None]


async def test_a_failed_condition_names_its_call_and_is_not_for_trying_again(world: World) -> None:
    await world.provision(TWO_TABLES)
    actions = (put("a", PRESENT), increase("a", PRESENT), Delete(key("a"), PRESENT))

    errors = [await failed(world, action) for action in actions]

    assert [e.operation for e in errors] == ["PutItem", "UpdateItem", "DeleteItem"]
    assert {(e.code, e.retryable) for e in errors} == {("ConditionalCheckFailedException", False)}


async def test_a_condition_and_an_update_share_names_and_values(world: World) -> None:
    await world.provision(TWO_TABLES)
    await change(world, put("a"))
    below = Condition("#n < :most", {"#n": "balance"}, {":most": {"N": "3"}})
    step = Update(key("a"), "SET #n = #n + :one", {"#n": "balance"}, {":one": {"N": "1"}}, below)

    await change(world, step, step)
    await failed(world, step)

    assert await stored(world, "a") == [item("a", "3")]


async def test_a_change_of_what_is_not_there_makes_it_or_finds_it_deleted(world: World) -> None:
    await world.provision(TWO_TABLES)

    await change(world, increase("made"), Delete(key("nothing")))

    assert await stored(world, "made", "nothing") == [item("made"), None]


@deviates("removals-make-an-item")
async def test_a_removal_from_what_is_not_there_makes_nothing(world: World) -> None:
    await world.provision(TWO_TABLES)

    await change(world, Update(key("nothing"), "REMOVE balance"))

    assert await stored(world, "nothing") == [None]


async def test_an_update_that_does_not_fit_the_item_is_refused(world: World) -> None:
    await world.provision(TWO_TABLES)
    text: Item = {**key("text").attributes(), "balance": {"S": "one"}}
    await change(world, Put("accounts", text))
    bad = (increase("text"), Update(key("text"), "SAT balance = :one", {}, {":one": {"N": "1"}}))

    for action in bad:
        with pytest.raises(Refused) as caught:
            await change(world, action)
        assert (caught.value.operation, caught.value.code) == ("UpdateItem", "ValidationException")

    assert await stored(world, "text") == [text]


async def test_a_symbol_with_two_meanings_is_refused_in_a_change(world: World) -> None:
    await world.provision(TWO_TABLES)
    clash = increase("a", Condition("balance = :one", values={":one": {"N": "2"}}))

    with pytest.raises(Refused, match=":one") as caught:
        await change(world, clash)

    assert caught.value.operation == "UpdateItem"


async def test_a_change_to_an_item_over_400_kilobytes_is_refused(world: World) -> None:
    await world.provision(TWO_TABLES)
    half = {"S": "x" * (DYNAMODB_ITEM_BYTES // 2)}
    await change(world, Put("accounts", {**key("big").attributes(), "a": half}))
    whole: Item = {**key("put").attributes(), "a": half, "b": half}

    for action in (
        Put("accounts", whole),
        Update(key("big"), "SET b = :b", {}, {":b": half}),
    ):
        with pytest.raises(Refused):
            await change(world, action)

    assert await stored(world, "put") == [None]


async def test_a_change_in_a_table_that_is_not_there_is_not_provisioned(world: World) -> None:
    await world.provision(TWO_TABLES)
    nowhere = ItemKey("nowhere", "ada", "x")
    actions: tuple[Change, ...] = (
        Put("nowhere", nowhere.attributes()),
        Update(nowhere, "REMOVE x"),
        Delete(nowhere),
    )

    for action in actions:
        with pytest.raises(NotProvisioned, match="nowhere"):
            await change(world, action)


async def test_of_many_concurrent_changes_for_one_place_exactly_one_is_made(world: World) -> None:
    await world.provision(TWO_TABLES)

    async def claim(number: int) -> int | None:
        try:
            await change(world, Put("accounts", item("claim", str(number)), ABSENT))
        except ConditionFailed:
            return None
        return number

    claims = await asyncio.gather(*(claim(number) for number in range(20)))

    (winner,) = (number for number in claims if number is not None)
    assert await stored(world, "claim") == [item("claim", str(winner))]


async def test_no_concurrent_change_is_lost(world: World) -> None:
    await world.provision(TWO_TABLES)

    await asyncio.gather(*(change(world, increase("counter")) for _ in range(20)))

    assert await stored(world, "counter") == [item("counter", "20")]
