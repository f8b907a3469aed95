"""What the storefront says. It knows nothing of headrace: it puts plain details on the bus."""

from __future__ import annotations

from headrace import Event
from schemas.values import Currency, Customer, OrderId, OrderLines


class CheckoutCompleted(Event, source="shop.checkout", native=True):
    """A customer has ordered a basket; the storefront has given it its order id."""

    order_id: OrderId
    customer: Customer
    lines: OrderLines
    currency: Currency = "EUR"
