"""What there is of an order after everything went well: its checkout, its money, its pieces."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.saga.item import SagaItem
from headrace.saga.progress import Status
from headrace.testing.memory import ManualClock
from services.demo.found import CHECKOUT
from services.inventory.model import Reservation, ReservationStatus, wanted
from services.order.local_gateway import Payment, PaymentStatus
from services.order.model import Order, OrderStatus
from services.order.payments import payment_key


def checkout_of(order: Order) -> SagaItem:
    now = ManualClock().now()
    confirmed = order.status is OrderStatus.CONFIRMED
    return SagaItem(
        consumer=CHECKOUT.consumer,
        key=order.order_id,
        version=1,
        status=Status.COMPLETED if confirmed else Status.COMPENSATED,
        state="{}",
        progress="{}",
        begun=now,
        changed=now,
    )


def payments_of(orders: Iterable[Order]) -> dict[str, Payment]:
    """All captured, by key."""
    found = [
        Payment(
            key=payment_key(order.order_id),
            status=PaymentStatus.CAPTURED,
            amount=order.total,
            currency=order.currency,
        )
        for order in orders
        if order.total
    ]
    return {payment.key: payment for payment in found}


def reservation_of(order: Order) -> Reservation:
    return Reservation(
        order_id=order.order_id,
        pieces=wanted(order.lines),
        status=ReservationStatus.TAKEN,
    )
