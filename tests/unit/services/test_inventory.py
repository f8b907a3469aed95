"""The inventory service reserves all of an order or nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pytest

from headrace import Command, Event
from headrace.client import send
from headrace.testing.harness import Harness, harness
from schemas.inventory import (
    ReleaseStock,
    ReserveStock,
    RestockItem,
    StockRejected,
    StockReleased,
    StockReserved,
)
from schemas.order import OrderConfirmed
from services.inventory.app import inventory
from services.inventory.handlers import HOLD
from services.inventory.model import Reservation, ReservationStatus, Stock
from tests.unit.services.shop import CUSTOMER, Shop, line, place


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
    asked = [ReserveStock(order_id=order_id, lines=(line("MUG"),)) for order_id in ("W1", "W2")]
    await send(shop.cloud.ports, asked, bus="shop")
    reserving = shop.pipeline(inventory)
    await asyncio.gather(*(reserving.consume(d) for d in await shop.receive("inventory")))
    assert await shop.available("MUG") == 0
    assert {"StockRejected", "StockReserved"} <= set(shop.sent())


# --- reservations ------------------------------------------------------------------------

RESERVE = ReserveStock(order_id="W1", lines=(line("MUG", 3),))
RELEASE = ReleaseStock(order_id="W1")
RESERVED = StockReserved(order_id="W1")
REJECTED = StockRejected(order_id="W1", skus=("MUG",))
CONFIRMED = OrderConfirmed(
    order_id="W1",
    customer=CUSTOMER,
    lines=RESERVE.lines,
    total=Decimal("42.00"),
    currency="EUR",
)


@pytest.fixture
async def aws() -> AsyncIterator[Harness]:
    async with harness(inventory) as aws:
        await aws.put(Stock(sku="MUG", available=5))
        yield aws


async def handle(aws: Harness, *commands: Command) -> None:
    """Each before the next."""
    for command in commands:
        await aws.send(command)
        await aws.settled()


def mugs(aws: Harness) -> int:
    return aws.get(Stock, "MUG").available


def status(aws: Harness) -> ReservationStatus:
    return aws.get(Reservation, "W1").status


async def test_who_asks_twice_has_one_reservation_and_the_same_answer(aws: Harness) -> None:
    await handle(aws, RESERVE, RESERVE)
    assert (mugs(aws), status(aws)) == (2, ReservationStatus.HELD)
    assert aws.published(StockReserved) == [RESERVED, RESERVED]


async def test_who_was_refused_is_refused_again_though_there_is_enough_by_then(
    aws: Harness,
) -> None:
    too_many = ReserveStock(order_id="W1", lines=(line("MUG", 6),))
    await handle(aws, too_many, RestockItem(sku="MUG", quantity=5), too_many)
    assert aws.published(StockRejected) == [REJECTED, REJECTED]
    assert mugs(aws) == 10


async def test_what_is_released_twice_is_given_back_once(aws: Harness) -> None:
    await handle(aws, RESERVE, RELEASE, RELEASE)
    assert (mugs(aws), status(aws)) == (5, ReservationStatus.RELEASED)
    assert len(aws.published(StockReleased)) == 2
    assert aws.cloud.scheduler.peek() == []


async def test_what_is_released_before_it_is_reserved_is_never_held(aws: Harness) -> None:
    await handle(aws, RELEASE, RESERVE)
    assert mugs(aws) == 5
    assert aws.published(Event) == [StockReleased(order_id="W1"), REJECTED]


async def test_the_pieces_of_a_confirmed_order_are_taken_for_good(aws: Harness) -> None:
    await handle(aws, RESERVE)
    await aws.publish(CONFIRMED)
    await aws.elapsed(2 * HOLD)
    await handle(aws, RELEASE)
    assert (mugs(aws), status(aws)) == (2, ReservationStatus.TAKEN)
    assert aws.published(StockReleased) == []


async def test_pieces_of_which_nothing_is_heard_are_free_again_some_time(aws: Harness) -> None:
    await handle(aws, RESERVE)
    await aws.elapsed(HOLD - timedelta(minutes=1))
    assert mugs(aws) == 2
    await aws.elapsed(timedelta(minutes=2))
    assert (mugs(aws), status(aws)) == (5, ReservationStatus.RELEASED)


async def test_an_order_that_is_confirmed_after_its_reservation_expired_takes_what_is_there(
    aws: Harness,
) -> None:
    await handle(aws, RESERVE)
    await aws.elapsed(2 * HOLD)
    await aws.publish(CONFIRMED)
    await aws.settled()
    assert (mugs(aws), status(aws)) == (2, ReservationStatus.TAKEN)


async def test_an_order_that_is_confirmed_when_its_pieces_are_sold_is_a_dead_letter(
    aws: Harness,
) -> None:
    await handle(aws, RESERVE)
    await aws.elapsed(2 * HOLD)
    await handle(aws, ReserveStock(order_id="W2", lines=(line("MUG", 5),)))
    await aws.publish(CONFIRMED)
    await aws.settled(dead_letters=1)
    [letter] = aws.dead_letters()
    assert "too little of MUG: restock it" in letter.reason
    assert mugs(aws) == 0
