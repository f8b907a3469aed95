"""The whole order service, as hosts run it: importing its handlers registers them."""

from __future__ import annotations

from services.order import handlers, payment_handlers, saga
from services.order.service import order

__all__ = ["handlers", "order", "payment_handlers", "saga"]
