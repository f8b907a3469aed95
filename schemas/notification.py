"""What the notification service says."""

from __future__ import annotations

from headrace import Event
from schemas.values import MailAddress, OrderId


class CustomerNotified(Event, source="shop.notification"):
    """The customer of an order that ended has been sent a mail about it."""

    order_id: OrderId
    email: MailAddress
    subject: str
