"""What customers are told."""

from __future__ import annotations

from datetime import datetime

from schemas.order import OrderCancelled, OrderConfirmed
from services.notification.mail import Mail


def mail_about(event: OrderConfirmed | OrderCancelled, time: datetime) -> Mail:
    """The mail to the customer of an order that ended; `time` is when it did."""
    told = _confirmation(event) if isinstance(event, OrderConfirmed) else _cancellation(event)
    subject, text = told
    return Mail(
        order_id=event.order_id,
        name=event.customer.name,
        address=event.customer.email,
        subject=subject,
        text=f"Dear {event.customer.name},\n\n{text}\n\nYour shop\n",
        time=time,
    )


def _confirmation(event: OrderConfirmed) -> tuple[str, str]:
    lines = "\n".join(
        f"  {line.quantity} x {line.sku} at {line.unit_price:.2f} {event.currency}"
        for line in event.lines
    )
    return (
        f"Your order {event.order_id} is confirmed",
        f"thank you for your order. We are packing:\n\n{lines}\n\n"
        f"Total: {event.total:.2f} {event.currency}",
    )


def _cancellation(event: OrderCancelled) -> tuple[str, str]:
    return (
        f"Your order {event.order_id} is cancelled",
        f"we are sorry: we cannot deliver your order. {event.reason}\n\n"
        f"You are not charged the {event.total:.2f} {event.currency}.",
    )
