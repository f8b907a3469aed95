"""What the order service says to itself while the payment of an order is under way."""

from __future__ import annotations

from headrace import Command, Event
from schemas.values import Currency, Money, OrderId


class AuthorisePayment(Command, owner="order"):
    """Have the customer's bank set the money for an order aside."""

    order_id: OrderId
    total: Money
    currency: Currency


class PaymentAuthorised(Event, source="shop.order"):
    """The money is set aside, and can be taken."""

    order_id: OrderId


class PaymentDeclined(Event, source="shop.order"):
    """There will be no money for this order."""

    order_id: OrderId


class CapturePayment(Command, owner="order"):
    """Take the money that was set aside."""

    order_id: OrderId


class PaymentCaptured(Event, source="shop.order"):
    """The money is taken."""

    order_id: OrderId


class VoidPayment(Command, owner="order"):
    """Give up what was set aside, or give back what was taken, and take nothing from now on."""

    order_id: OrderId


class PaymentVoided(Event, source="shop.order"):
    """The customer pays nothing for this order."""

    order_id: OrderId
