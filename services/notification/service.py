"""The notification service, before anything is registered on it."""

from __future__ import annotations

from headrace import Service
from services.notification.bootstrap import open_mailer

notification = Service("notification", bus="shop", resources=open_mailer)
