"""What the order service does at the payment gateway.

A gateway is outside of any transaction. So all that is said to it of one order is under one key,
which makes a repeat harmless, and it decides what was first where two calls meet: what is cancelled
there is never captured.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from headrace import Backoff, Policy
from schemas.payment import (
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    PaymentVoided,
    VoidPayment,
)
from services.order.payments import Declined, Gateway, payment_key
from services.order.saga import ANSWER
from services.order.service import order

LEASE: Final = timedelta(seconds=10)
TIMEOUT: Final = min(timedelta(seconds=8), ANSWER / 6)
"""For one call, so that there are several until the step is given up."""
PATIENT: Final = Policy(attempts=9, backoff=Backoff(base=TIMEOUT / 2, cap=timedelta(minutes=1)))


@order.on(AuthorisePayment, lease=LEASE, timeout=TIMEOUT, policy=PATIENT)
async def authorise_payment(
    command: AuthorisePayment, gateway: Gateway
) -> PaymentAuthorised | PaymentDeclined:
    key = payment_key(command.order_id)
    try:
        await gateway.authorise(command.total, command.currency, idempotency_key=key)
    except Declined:
        return PaymentDeclined(order_id=command.order_id)
    return PaymentAuthorised(order_id=command.order_id)


@order.on(CapturePayment, lease=LEASE, timeout=TIMEOUT, policy=PATIENT)
async def capture_payment(command: CapturePayment, gateway: Gateway) -> PaymentCaptured | None:
    try:
        await gateway.capture(idempotency_key=payment_key(command.order_id))
    except Declined:
        # It was voided meanwhile, as the checkout is being undone: nobody waits for this any more.
        return None
    return PaymentCaptured(order_id=command.order_id)


@order.on(VoidPayment, lease=LEASE, timeout=TIMEOUT, policy=PATIENT)
async def void_payment(command: VoidPayment, gateway: Gateway) -> PaymentVoided:
    await gateway.cancel(idempotency_key=payment_key(command.order_id))
    return PaymentVoided(order_id=command.order_id)
