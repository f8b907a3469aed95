"""The order service takes orders, and ends each of them once."""

from __future__ import annotations

from schemas.checkout import CheckoutCompleted
from services.order.app import order
from services.order.model import OrderStatus
from tests.unit.services.shop import CUSTOMER, Shop, line, place


def note_of(shop: Shop) -> str:
    (letter,) = shop.dead_letters(order)
    return str(letter.attributes["headrace"].value)


async def test_an_order_with_its_stock_is_confirmed(shop: Shop) -> None:
    await shop.restock(MUG=5)
    await shop.send(place("W1", line("MUG", 2)))
    found = await shop.order("W1")
    assert found is not None
    assert (found.status, found.reason) == (OrderStatus.CONFIRMED, None)
    assert shop.sent() == [
        "OrderPlaced",
        "ReserveStock",
        "ExpireReservation",
        "StockReserved",
        "AuthorisePayment",
        "PaymentAuthorised",
        "CapturePayment",
        "PaymentCaptured",
        "ConfirmOrder",
        "OrderConfirmed",
        "CustomerNotified",
    ]


async def test_an_order_without_its_stock_is_cancelled_and_says_what_is_short(shop: Shop) -> None:
    await shop.restock(MUG=5)
    await shop.send(place("W1", line("MUG"), line("TEAPOT"), line("KETTLE")))
    found = await shop.order("W1")
    assert found is not None
    assert found.status is OrderStatus.CANCELLED
    assert found.reason == "We do not have enough of TEAPOT, KETTLE."
    assert shop.sent() == [
        "OrderPlaced",
        "ReserveStock",
        "StockRejected",
        "CancelOrder",
        "OrderCancelled",
        "CustomerNotified",
    ]


async def test_a_checkout_of_the_storefront_is_an_order_like_any_other(shop: Shop) -> None:
    await shop.restock(MUG=5)
    await shop.send(
        CheckoutCompleted(order_id="W1", customer=CUSTOMER, lines=(line("MUG"),), currency="CHF")
    )
    found = await shop.order("W1")
    assert found is not None
    assert (found.status, found.currency) == (OrderStatus.CONFIRMED, "CHF")


async def test_the_same_order_under_another_command_is_harmless(shop: Shop) -> None:
    await shop.restock(MUG=5)
    await shop.send(place("W1", line("MUG", price="14.00")))
    await shop.send(place("W1", line("MUG", price="14.0")))
    assert await shop.available("MUG") == 4
    assert shop.sent().count("OrderPlaced") == 1
    assert shop.dead_letters(order) == []


async def test_the_same_command_twice_is_one_order(shop: Shop) -> None:
    await shop.restock(MUG=5)
    await shop.send(place("W1"), place("W1"), ids=["c1", "c1"])
    assert await shop.available("MUG") == 4
    assert shop.sent().count("OrderPlaced") == 1


async def test_an_order_id_with_other_content_is_a_dead_letter_that_says_so(shop: Shop) -> None:
    await shop.send(place("W1", line("MUG", 1)))
    await shop.send(place("W1", line("MUG", 2)))
    assert "W1 exists already with other content" in note_of(shop)
    found = await shop.order("W1")
    assert found is not None
    assert found.lines == (line("MUG", 1),)
