"""The whole notification service, as hosts run it: importing its handlers registers them."""

from __future__ import annotations

from services.notification import handlers
from services.notification.service import notification

__all__ = ["handlers", "notification"]
