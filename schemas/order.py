"""What the order service takes and says."""

from __future__ import annotations

from typing import Any

from headrace import Command, Event, upcaster
from schemas.values import Currency, Customer, Money, OrderId, OrderLine, OrderLines

__all__ = [
    "CancelOrder",
    "ConfirmOrder",
    "Customer",
    "OrderCancelled",
    "OrderConfirmed",
    "OrderLine",
    "OrderPlaced",
    "PlaceOrder",
]


class PlaceOrder(Command, owner="order"):
    """Take this order, under an id that the sender has chosen.

    The same content again is harmless; other content under the same id is refused.
    """

    order_id: OrderId
    customer: Customer
    lines: OrderLines
    currency: Currency = "EUR"


class OrderPlaced(Event, source="shop.order", version=2):
    """An order was taken, and its checkout begins. Version 2 says in which currency."""

    order_id: OrderId
    customer: Customer
    lines: OrderLines
    total: Money
    currency: Currency


@upcaster(OrderPlaced, from_version=1)
def add_currency(payload: dict[str, Any]) -> dict[str, Any]:
    """The shop sold in euros only when version 1 was written."""
    return {**payload, "currency": "EUR"}


class ConfirmOrder(Command, owner="order"):
    """Everything is reserved and paid: let the order end well."""

    order_id: OrderId


class CancelOrder(Command, owner="order"):
    """Let the order end, as it cannot be delivered; `reason` is a sentence for the customer."""

    order_id: OrderId
    reason: str


class OrderConfirmed(Event, source="shop.order"):
    """Everything that was ordered is reserved and paid. An order ends once: so, or cancelled."""

    order_id: OrderId
    customer: Customer
    lines: OrderLines
    total: Money
    currency: Currency


class OrderCancelled(Event, source="shop.order"):
    """The order will not be delivered; `reason` is a sentence for the customer."""

    order_id: OrderId
    customer: Customer
    total: Money
    currency: Currency
    reason: str
