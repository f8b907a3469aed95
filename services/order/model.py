"""An order, and what may happen to it."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Self

from headrace import Entity
from schemas.checkout import CheckoutCompleted
from schemas.order import PlaceOrder
from schemas.values import Currency, Customer, OrderId, OrderLines, total_of


class OrderIdReused(Exception):
    """An order id came again with other content."""


class UnknownOrder(Exception):
    """Something is wanted of an order that was never placed here."""


class OrderHasEnded(Exception):
    """An order that has ended in one way is to end in the other."""


class OrderStatus(StrEnum):
    PLACED = "placed"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"


class Order(Entity, pk="order#{order_id}"):
    """One order. It is placed until it ends, and it ends once."""

    order_id: OrderId
    customer: Customer
    lines: OrderLines
    currency: Currency
    status: OrderStatus = OrderStatus.PLACED
    reason: str | None = None

    @classmethod
    def of(cls, request: PlaceOrder | CheckoutCompleted) -> Self:
        return cls(
            order_id=request.order_id,
            customer=request.customer,
            lines=request.lines,
            currency=request.currency,
        )

    @property
    def total(self) -> Decimal:
        return total_of(self.lines)

    @property
    def has_ended(self) -> bool:
        return self.status is not OrderStatus.PLACED

    def refuse_other_content(self, request: PlaceOrder | CheckoutCompleted) -> None:
        """Raises `OrderIdReused` unless the request says what this order says."""
        if (request.customer, request.lines, request.currency) != (
            self.customer,
            self.lines,
            self.currency,
        ):
            raise OrderIdReused(
                f"The order {self.order_id} exists already with other content: give every "
                "order an id of its own."
            )

    def confirm(self) -> bool:
        """Whether that is new. Raises `OrderHasEnded` if it is cancelled."""
        return self._end(OrderStatus.CONFIRMED, None)

    def cancel(self, reason: str) -> bool:
        """Whether that is new. Raises `OrderHasEnded` if it is confirmed."""
        return self._end(OrderStatus.CANCELLED, reason)

    def _end(self, status: OrderStatus, reason: str | None) -> bool:
        if self.status is status:
            return False
        if self.has_ended:
            raise OrderHasEnded(
                f"The order {self.order_id} is {self.status}, and an order ends once: it cannot "
                f"be {status}."
            )
        self.status, self.reason = status, reason
        return True
