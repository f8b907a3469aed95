"""What happens to an order between the moment it is placed and its end.

SHOP_ANSWER_SECONDS   how long each step waits for its answer: 60, or less to see it in a demo
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Final

from headrace.saga import Retries, Saga, TimedOut, step
from schemas.inventory import (
    ReleaseStock,
    ReserveStock,
    StockRejected,
    StockReleased,
    StockReserved,
)
from schemas.order import CancelOrder, ConfirmOrder, OrderCancelled, OrderConfirmed, OrderPlaced
from schemas.payment import (
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    PaymentVoided,
    VoidPayment,
)
from schemas.values import Currency, Money, OrderId, OrderLines
from services.order.service import order

ANSWER: Final = timedelta(seconds=float(os.environ.get("SHOP_ANSWER_SECONDS") or 60))
DEADLINE: Final = timedelta(minutes=15)


class Checkout(Saga, service=order, starts_on=OrderPlaced, key="order_id", deadline=DEADLINE):
    """Reserve, authorise, capture, confirm. Until the money is captured everything can be undone,
    the last step first; after that the order is confirmed, however long it takes."""

    order_id: OrderId
    lines: OrderLines
    total: Money
    currency: Currency
    reason: str = "It took us too long to process it."

    @classmethod
    def begin(cls, event: OrderPlaced) -> Checkout:
        return cls(
            order_id=event.order_id,
            lines=event.lines,
            total=event.total,
            currency=event.currency,
        )

    @step()
    def place(self) -> None:
        """Done already: that is what has begun this."""

    @place.undo(done=OrderCancelled)
    def cancel(self) -> CancelOrder:
        return CancelOrder(order_id=self.order_id, reason=self.reason)

    @step(done=StockReserved, failed=StockRejected, timeout=ANSWER)
    def reserve(self) -> ReserveStock:
        return ReserveStock(order_id=self.order_id, lines=self.lines)

    @reserve.on(StockRejected)
    def out_of_stock(self, event: StockRejected) -> None:
        self.reason = f"We do not have enough of {', '.join(event.skus)}."

    @reserve.on(TimedOut)
    def not_reserved_in_time(self, answer: TimedOut) -> None:
        self.reason = "We could not reserve it in time."

    @reserve.undo(done=StockReleased)
    def release(self) -> ReleaseStock:
        return ReleaseStock(order_id=self.order_id)

    @step(done=PaymentAuthorised, failed=PaymentDeclined, timeout=ANSWER)
    def authorise(self) -> AuthorisePayment | None:
        if not self.total:
            return None
        return AuthorisePayment(order_id=self.order_id, total=self.total, currency=self.currency)

    @authorise.on(PaymentDeclined)
    def declined(self, event: PaymentDeclined) -> None:
        self.reason = "Your payment was declined."

    @authorise.on(TimedOut)
    def not_authorised_in_time(self, answer: TimedOut) -> None:
        self.reason = "Your bank did not answer in time."

    @authorise.undo(done=PaymentVoided)
    def void(self) -> VoidPayment:
        return VoidPayment(order_id=self.order_id)

    @step(
        done=PaymentCaptured,
        timeout=ANSWER,
        retries=Retries(attempts=2),
        pivot=True,
        nothing_to_undo=True,
    )
    def capture(self) -> CapturePayment | None:
        """What undoes `authorise` refunds, where it is too late to void."""
        return CapturePayment(order_id=self.order_id) if self.total else None

    @capture.on(TimedOut)
    def not_captured_in_time(self, answer: TimedOut) -> None:
        self.reason = "Your payment could not be taken in time."

    @step(done=OrderConfirmed, timeout=ANSWER)
    def confirm(self) -> ConfirmOrder:
        return ConfirmOrder(order_id=self.order_id)
