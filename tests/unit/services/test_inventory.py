"""The inventory service reserves all of an order or nothing of it."""

from __future__ import annotations

import asyncio

from headrace.client import send
from schemas.inventory import RestockItem
from services.inventory.app import inventory
from services.order.app import order
from tests.unit.services.shop import Shop, line, place


async def test_every_line_is_taken_from_the_stock(shop: Shop) -> None:
    await shop.restock(MUG=5, TEA=10)
    await shop.send(place("W1", line("MUG", 2), line("TEA", 10)))
    assert (await shop.available("MUG"), await shop.available("TEA")) == (3, 0)


async def test_one_short_line_leaves_the_whole_stock_as_it_was(shop: Shop) -> None:
    await shop.restock(MUG=5, TEA=10)
    await shop.send(place("W1", line("MUG", 2), line("TEA", 11)))
    assert (await shop.available("MUG"), await shop.available("TEA")) == (5, 10)


async def test_several_lines_of_one_sku_are_counted_together(shop: Shop) -> None:
    await shop.restock(MUG=5)
    await shop.send(place("W1", line("MUG", 3), line("MUG", 3)))
    assert await shop.available("MUG") == 5
    await shop.send(place("W2", line("MUG", 3), line("MUG", 2)))
    assert await shop.available("MUG") == 0


async def test_an_unknown_sku_is_not_stocked_by_being_ordered(shop: Shop) -> None:
    await shop.send(place("W1", line("UNICORN")))
    assert await shop.available("UNICORN") is None


async def test_a_delivery_of_goods_adds_to_the_stock(shop: Shop) -> None:
    await shop.restock(MUG=5)
    await shop.restock(MUG=7)
    assert await shop.available("MUG") == 12


async def test_the_same_delivery_of_goods_is_counted_once(shop: Shop) -> None:
    goods = RestockItem(sku="MUG", quantity=5)
    await shop.send(goods, goods, ids=["goods-1", "goods-1"])
    assert await shop.available("MUG") == 5


async def test_two_orders_at_once_never_share_the_last_piece(shop: Shop) -> None:
    await shop.restock(MUG=1)
    await send(shop.cloud.ports, [place("W1"), place("W2")], bus="shop")
    for delivery in await shop.receive("order"):
        await shop.pipeline(order).consume(delivery)
    reserving = shop.pipeline(inventory)
    await asyncio.gather(*(reserving.consume(d) for d in await shop.receive("inventory")))
    assert await shop.available("MUG") == 0
    assert sorted(shop.sent()[2:]) == ["StockRejected", "StockReserved"]
