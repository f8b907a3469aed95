"""Reading and plain writing: get, query, and batches of writes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from headrace.errors import NotProvisioned, Refused
from headrace.limits import BATCH_GET_KEYS, BATCH_WRITE_ITEMS
from headrace.ports import Delete, Item, ItemKey, Put
from tests.contract.deviations import deviates
from tests.contract.topologies import TWO_TABLES
from tests.contract.world import World

ONE: Item = {"n": {"N": "1"}}
TWO: Item = {"n": {"N": "2"}}


def key(sk: str, pk: str = "ada", table: str = "accounts") -> ItemKey:
    return ItemKey(table, pk, sk)


def put(sk: str, more: Item | None = None, *, pk: str = "ada", table: str = "accounts") -> Put:
    return Put(table, {**key(sk, pk).attributes(), **(more or {})})


async def write(world: World, *actions: Put | Delete) -> None:
    assert await world.ports.store.write(actions) == []


async def test_items_come_in_the_order_of_their_keys_and_absent_ones_as_none(
    world: World,
) -> None:
    await world.provision(TWO_TABLES)
    await write(world, put("a"), put("b"), put("c", table="payments"))

    keys = [key("b"), key("gone"), key("c", table="payments"), key("a")]
    found = await world.ports.store.get(keys)

    assert found == [put("b").item, None, put("c").item, put("a").item]


async def test_every_type_of_attribute_comes_back_as_it_was_written(world: World) -> None:
    await world.provision(TWO_TABLES)
    attributes: Item = {
        "text": {"S": "Grüße 🌊"},
        "empty": {"S": ""},
        "bytes": {"B": b"\x00\xff"},
        "yes": {"BOOL": True},
        "no": {"BOOL": False},
        "nothing": {"NULL": True},
        "list": {"L": [{"S": "a"}, {"L": []}, {"M": {"n": {"NULL": True}}}]},
        "map": {"M": {"a.b": {"S": "dotted"}, "": {"S": "nameless"}}},
    }
    await write(world, put("a", attributes))

    assert await world.ports.store.get([key("a")]) == [{**key("a").attributes(), **attributes}]


async def test_numbers_and_sets_come_back_equal(world: World) -> None:
    await world.provision(TWO_TABLES)
    number = "12345678901234567890123456789012345.678"
    numbers = put("a", {"n": {"N": number}, "s": {"SS": ["b", "a"]}, "t": {"NS": ["2", "1.50"]}})
    await write(world, numbers)

    (item,) = await world.ports.store.get([key("a")])

    assert item is not None
    assert Decimal(item["n"]["N"]) == Decimal(number)
    assert set(item["s"]["SS"]) == {"a", "b"}
    assert {Decimal(member) for member in item["t"]["NS"]} == {Decimal("1.5"), Decimal(2)}


async def test_what_was_read_can_be_changed_without_changing_what_is_stored(
    world: World,
) -> None:
    await world.provision(TWO_TABLES)
    written = put("a", {"tags": {"L": [{"S": "one"}]}})
    await write(world, written)
    written.item["tags"]["L"].append({"S": "two"})

    (item,) = await world.ports.store.get([key("a")])
    assert item is not None
    item["tags"]["L"].append({"S": "three"})

    (again,) = await world.ports.store.get([key("a")])
    assert again is not None
    assert again["tags"] == {"L": [{"S": "one"}]}


async def test_a_get_takes_a_hundred_distinct_keys(world: World) -> None:
    await world.provision(TWO_TABLES)
    keys = [key(str(number)) for number in range(BATCH_GET_KEYS)]

    assert await world.ports.store.get(keys) == [None] * BATCH_GET_KEYS
    for refused in ([*keys, key("one more")], [key("a"), key("a")]):
        with pytest.raises(Refused):
            await world.ports.store.get(refused)


async def test_every_call_on_a_table_that_is_not_there_says_so(world: World) -> None:
    store = world.ports.store
    nowhere = key("a", table="nowhere")
    calls = (
        store.get([nowhere]),
        store.write([Delete(nowhere)]),
        store.query("nowhere", "ada"),
        store.transact([Delete(nowhere)], token=str(uuid4())),
    )
    for call in calls:
        with pytest.raises(NotProvisioned, match="nowhere"):
            await call


# --- batches of writes -----------------------------------------------------------------


async def test_a_batch_puts_and_deletes_over_two_tables(world: World) -> None:
    await world.provision(TWO_TABLES)
    await write(world, put("old", ONE), put("gone"))

    await write(world, put("old", TWO), Delete(key("gone")), put("new", table="payments"))

    found = await world.ports.store.get([key("old"), key("gone"), key("new", table="payments")])
    assert found == [put("old", TWO).item, None, put("new").item]


async def test_a_batch_holds_25_writes_on_distinct_items(world: World) -> None:
    await world.provision(TWO_TABLES)
    puts = [put(f"{number:02}") for number in range(BATCH_WRITE_ITEMS)]

    await write(world, *puts)
    batches: list[list[Put | Delete]] = [
        [*puts, put("one more")],
        [put("a"), Delete(key("a"))],
        [],
    ]
    for refused in batches:
        with pytest.raises(Refused):
            await world.ports.store.write(refused)

    assert len((await world.ports.store.query("accounts", "ada")).items) == BATCH_WRITE_ITEMS


# --- queries ---------------------------------------------------------------------------


async def keys_of(world: World, pk: str = "ada", **how: Any) -> list[str]:
    page = await world.ports.store.query("accounts", pk, **how)
    assert page.next is None
    return [item["sk"]["S"] for item in page.items]


async def test_a_query_reads_one_partition_in_the_order_of_its_sort_keys(world: World) -> None:
    await world.provision(TWO_TABLES)
    sort_keys = ["b", "a#2", "a#10", "ä", "A", "🌊", "\uffee"]
    await write(world, *map(put, sort_keys), put("other", pk="adam"))

    by_bytes = sorted(sort_keys, key=str.encode)
    assert await keys_of(world) == by_bytes
    assert await keys_of(world, forward=False) == by_bytes[::-1]
    assert await keys_of(world, sk_prefix="a#", consistent=True) == ["a#10", "a#2"]
    assert await keys_of(world, sk_prefix="nothing") == []
    assert await keys_of(world, pk="nobody") == []


async def test_a_query_ends_before_a_sort_key(world: World) -> None:
    await world.provision(TWO_TABLES)
    await write(world, *map(put, ["a", "b#1", "b#2", "c", "ä"]), put("a", pk="bob"))

    assert await keys_of(world, sk_before="b#2") == ["a", "b#1"]
    assert await keys_of(world, sk_before="b#3", forward=False) == ["b#2", "b#1", "a"]
    assert await keys_of(world, sk_before="z", consistent=True) == ["a", "b#1", "b#2", "c"]
    assert await keys_of(world, sk_before="a") == []


@deviates("empty-keys-in-queries-accepted")
async def test_a_query_for_an_empty_key_is_refused(world: World) -> None:
    await world.provision(TWO_TABLES)

    for pk, before in (("", None), ("ada", "")):
        with pytest.raises(Refused):
            await world.ports.store.query("accounts", pk, sk_before=before)


@pytest.mark.parametrize("forward", [True, False])
async def test_pages_of_a_query_join_without_a_gap(world: World, forward: bool) -> None:
    await world.provision(TWO_TABLES)
    await write(world, *(put(f"a#{number}") for number in range(7)), put("b"))
    found: list[str] = []
    start: Item | None = None

    for _ in range(5):
        page = await world.ports.store.query(
            "accounts", "ada", sk_prefix="a#", limit=3, start=start, forward=forward
        )
        assert len(page.items) <= 3
        found += [item["sk"]["S"] for item in page.items]
        start = page.next
        if start is None:
            break

    assert start is None
    assert found == sorted((f"a#{number}" for number in range(7)), reverse=not forward)


async def test_a_query_gives_whole_items(world: World) -> None:
    await world.provision(TWO_TABLES)
    item = put("a", ONE).item
    await write(world, Put("accounts", item))

    page = await world.ports.store.query("accounts", "ada")

    assert (list(page.items), page.next) == ([item], None)
