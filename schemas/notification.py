"""What the notification service says."""

from __future__ import annotations

from typing import Annotated

from headrace import Event, Sensitive
from schemas.values import MailAddress, OrderId


class CustomerNotified(Event, source="shop.notification"):
    """The customer of an order that ended has been sent a mail about it."""

    order_id: OrderId
    email: Annotated[MailAddress, Sensitive]
    subject: str
