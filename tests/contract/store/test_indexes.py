"""Global secondary indexes: sparse, of keys only, and behind their table."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from headrace.errors import CloudError, NotProvisioned, Refused, TransactionCanceled
from headrace.limits import PARTITION_KEY_BYTES, SORT_KEY_BYTES
from headrace.ports import AttributeValue, Delete, Item, ItemKey, Put, Update
from headrace.topology.model import Table, Topology
from tests.contract.deviations import deviates
from tests.contract.topologies import TWO_TABLES
from tests.contract.world import World

INDEXED = Topology(tables=(Table("accounts", indexes=("due", "owned")),))

_POLLS = 40
_BETWEEN = 0.05
"""An index of AWS follows its table within a second, as a rule; an emulator's at once."""


def key(sk: str, pk: str = "ada") -> ItemKey:
    return ItemKey("accounts", pk, sk)


def due(sk: str, at: str, *, group: str = "open", pk: str = "ada") -> Put:
    """An item in the index `due`, with more in it than keys."""
    return Put("accounts", {**row(sk, at, group=group, pk=pk), "note": {"S": "not a key"}})


def row(sk: str, at: str, *, group: str = "open", pk: str = "ada") -> Item:
    """What the index holds of it."""
    return {**key(sk, pk).attributes(), "due_pk": {"S": group}, "due_sk": {"S": at}}


def aside(sk: str) -> Put:
    """An item in no index."""
    return Put("accounts", key(sk).attributes())


async def change(world: World, *actions: Put | Update | Delete) -> None:
    for action in actions:
        await world.ports.store.change(action)


async def names(world: World, pk: str = "open", index: str = "due", **how: Any) -> list[str]:
    page = await world.ports.store.query("accounts", pk, index=index, **how)
    assert page.next is None
    return [item["sk"]["S"] for item in page.items]


async def shown(world: World, fits: Callable[[list[str]], bool], **how: Any) -> list[str]:
    """The names in the index, once they fit or it has been asked often enough."""
    found = await names(world, **how)
    for _ in range(_POLLS):
        if fits(found):
            return found
        await asyncio.sleep(_BETWEEN)
        found = await names(world, **how)
    return found


async def shows(world: World, *expected: str, **how: Any) -> None:
    assert await shown(world, list(expected).__eq__, **how) == list(expected)


async def refused(ask: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(Refused) as caught:
        await ask()
    return caught.value.code


# --- what is in an index ---------------------------------------------------------------


async def test_only_items_with_both_keys_of_an_index_are_in_it(world: World) -> None:
    await world.provision(INDEXED)
    half: Item = {**key("half").attributes(), "due_pk": {"S": "open"}}
    other: Item = {**key("other").attributes(), "due_sk": {"S": "1"}}

    await change(world, Put("accounts", half), Put("accounts", other), aside("none"))
    await change(world, due("whole", "1"))

    await shows(world, "whole")


async def test_an_index_holds_keys_only(world: World) -> None:
    await world.provision(INDEXED)
    both: Item = {**due("a", "1").item, "owned_pk": {"S": "ada"}, "owned_sk": {"S": "x"}}
    await change(world, Put("accounts", both))
    await shows(world, "a")

    page = await world.ports.store.query("accounts", "open", index="due")

    assert (list(page.items), page.next) == ([row("a", "1")], None)


async def test_an_index_is_in_the_order_of_its_own_sort_key(world: World) -> None:
    await world.provision(INDEXED)
    await change(world, due("a", "3"), due("b", "ä"), due("c", "1"), due("d", "2", pk="bob"))
    await change(world, due("e", "0", group="closed"))

    await shows(world, "c", "d", "a", "b")
    await shows(world, "b", "a", "d", "c", forward=False)
    await shows(world, "e", pk="closed")
    await shows(world, pk="nobody")


async def test_each_index_has_its_own_partitions(world: World) -> None:
    await world.provision(INDEXED)
    owned: Item = {
        **key("b").attributes(),
        "owned_pk": {"S": "open"},
        "owned_sk": {"S": "1"},
    }
    await change(world, due("a", "1"), Put("accounts", owned))

    await shows(world, "a")
    await shows(world, "b", index="owned")
    page = await world.ports.store.query("accounts", "open")
    assert list(page.items) == []


async def test_an_index_can_be_asked_for_a_prefix_and_for_what_is_before(world: World) -> None:
    await world.provision(INDEXED)
    await change(world, *(due(f"i{at}", at) for at in ("1#a", "1#b", "2#a", "3")))

    await shows(world, "i1#a", "i1#b", sk_prefix="1#")
    await shows(world, "i1#a", "i1#b", sk_before="2")
    await shows(world, "i1#a", "i1#b", sk_before="2#a")
    await shows(world, "i2#a", "i1#b", "i1#a", sk_before="2#b", forward=False)
    await shows(world, sk_before="1")


async def test_pages_of_an_index_join_without_a_gap_also_among_equal_sort_keys(
    world: World,
) -> None:
    await world.provision(INDEXED)
    puts = [due(f"{pk}/{n}", "12"[n % 2], pk=pk) for pk in ("ada", "bob") for n in range(4)]
    wanted = sorted(put.key.sk for put in puts)
    await change(world, *puts)
    await shown(world, lambda names: sorted(names) == wanted)

    for forward in (True, False):
        found: list[Item] = []
        start: Item | None = None
        for _ in puts:
            page = await world.ports.store.query(
                "accounts", "open", index="due", limit=3, start=start, forward=forward
            )
            assert len(page.items) <= 3
            found += page.items
            start = page.next
            if start is None:
                break
            assert start == found[-1]
        assert sorted(item["sk"]["S"] for item in found) == wanted
        order = [item["due_sk"]["S"] for item in found]
        assert order == sorted(order, reverse=not forward)


async def test_a_start_goes_on_before_a_bound(world: World) -> None:
    await world.provision(INDEXED)
    await change(world, *(due(f"i{n}", str(n)) for n in range(5)))
    await shows(world, "i0", "i1", "i2", "i3", "i4")

    first = await world.ports.store.query("accounts", "open", index="due", sk_before="3", limit=2)

    assert await names(world, sk_before="3", start=first.next) == ["i2"]


# --- how items come and go -------------------------------------------------------------


async def test_an_item_leaves_an_index_when_it_is_overwritten_without_the_keys(
    world: World,
) -> None:
    await world.provision(INDEXED)
    await change(world, due("a", "1"), due("b", "2"), due("c", "3"), due("d", "4"))
    await shows(world, "a", "b", "c", "d")

    await change(world, aside("a"), Update(key("b"), "REMOVE due_pk"), Delete(key("c")))

    await shows(world, "d")
    assert await world.ports.store.get([key("a")]) == [key("a").attributes()]


async def test_an_item_moves_in_an_index_when_its_keys_change(world: World) -> None:
    await world.provision(INDEXED)
    await change(world, due("a", "1"), due("b", "2"), due("c", "3"))

    later = Update(key("a"), "SET due_sk = :at", {}, {":at": {"S": "9"}})
    elsewhere = Update(key("b"), "SET due_pk = :group", {}, {":group": {"S": "closed"}})
    await change(world, later, elsewhere)

    await shows(world, "c", "a")
    await shows(world, "b", pk="closed")


async def test_whatever_writes_an_item_writes_its_index(world: World) -> None:
    await world.provision(INDEXED)
    store = world.ports.store

    await store.write([due("batch", "1"), due("gone", "4")])
    await store.transact([due("transaction", "2"), Delete(key("gone"))], token=str(uuid4()))
    await store.change(due("alone", "3"))

    await shows(world, "batch", "transaction", "alone")


async def test_an_index_that_is_added_holds_what_was_there_before(world: World) -> None:
    await world.provision(TWO_TABLES)
    await change(world, due("old", "1"), aside("other"))

    await world.provision(INDEXED)
    await change(world, due("new", "2"))

    await shows(world, "old", "new")


# --- what is refused -------------------------------------------------------------------


async def test_an_index_the_table_does_not_have_is_refused(world: World) -> None:
    await world.provision(INDEXED)
    store = world.ports.store

    assert await refused(lambda: store.query("accounts", "a", index="nope")) == (
        "ValidationException"
    )
    with pytest.raises(NotProvisioned):
        await store.query("nowhere", "a", index="due")


async def test_an_index_cannot_be_read_consistently(world: World) -> None:
    await world.provision(INDEXED)
    store = world.ports.store

    code = await refused(lambda: store.query("accounts", "a", index="due", consistent=True))

    assert code == "ValidationException"


@pytest.mark.parametrize("index", [None, "due"])
async def test_a_query_has_one_condition_on_its_sort_key(world: World, index: str | None) -> None:
    await world.provision(INDEXED)
    store = world.ports.store

    code = await refused(
        lambda: store.query("accounts", "a", index=index, sk_prefix="1", sk_before="2")
    )

    assert code == "ValidationException"


async def test_a_start_of_the_table_is_none_of_an_index(world: World) -> None:
    await world.provision(INDEXED)
    store = world.ports.store
    await change(world, due("a", "1"))

    for index, start in (("due", key("a").attributes()), (None, row("a", "1"))):
        with pytest.raises(Refused):
            await store.query("accounts", "open", index=index, start=start)


@deviates("starts-elsewhere-accepted")
async def test_a_start_in_another_partition_is_refused(world: World) -> None:
    await world.provision(INDEXED)
    store = world.ports.store
    await change(world, due("a", "1"))

    with pytest.raises(Refused):
        await store.query("accounts", "closed", index="due", start=row("a", "1"))
    with pytest.raises(Refused):
        await store.query("accounts", "bob", start=key("a").attributes())


async def outcomes(world: World, name: str, value: AttributeValue) -> list[str]:
    """What each way to write says to an item with this in a key of the index."""
    item: Item = {**row("bad", "1"), name: value}
    update = Update(key("bad"), f"SET {name} = :v", {}, {":v": value})
    store = world.ports.store
    calls = (
        store.change(Put("accounts", item)),
        store.change(update),
        store.write([Put("accounts", item)]),
        store.transact([aside("beside"), Put("accounts", item)], token=str(uuid4())),
        store.transact([aside("beside"), update], token=str(uuid4())),
    )
    said = []
    for call in calls:
        try:
            await call
        except TransactionCanceled as cancelled:
            said.append(", ".join(reason.code if reason else "-" for reason in cancelled.reasons))
        except CloudError as error:
            said.append(type(error).__name__)
        else:
            said.append("taken")
    return said


@pytest.mark.parametrize("name", ["due_pk", "due_sk"])
@pytest.mark.parametrize("value", [{"N": "1"}, {"NULL": True}, {"L": [{"S": "a"}]}])
async def test_a_key_of_an_index_that_is_no_text_is_refused(
    world: World, name: str, value: AttributeValue
) -> None:
    await world.provision(INDEXED)

    said = await outcomes(world, name, value)

    assert said == [*["Refused"] * 3, *["-, ValidationError"] * 2]
    assert await world.ports.store.get([key("bad"), key("beside")]) == [None, None]


async def test_a_key_of_an_index_is_refused_even_where_the_other_one_is_missing(
    world: World,
) -> None:
    await world.provision(INDEXED)
    alone: Item = {**key("bad").attributes(), "due_sk": {"N": "1"}}

    with pytest.raises(Refused):
        await world.ports.store.change(Put("accounts", alone))

    assert await world.ports.store.get([key("bad")]) == [None]


async def test_a_key_of_an_index_that_is_empty_is_refused(world: World) -> None:
    await world.provision(INDEXED)

    said = await outcomes(world, "due_sk", {"S": ""})

    assert said == ["Refused"] * 5
    assert await world.ports.store.get([key("bad"), key("beside")]) == [None, None]


@deviates("long-index-keys-accepted")
@pytest.mark.parametrize(
    ("name", "most"), [("due_pk", PARTITION_KEY_BYTES), ("due_sk", SORT_KEY_BYTES)]
)
async def test_a_key_of_an_index_is_no_longer_than_one_of_a_table(
    world: World, name: str, most: int
) -> None:
    await world.provision(INDEXED)

    assert await outcomes(world, name, {"S": "x" * most}) == ["taken"] * 5
    assert "taken" not in await outcomes(world, name, {"S": "x" * (most + 1)})
