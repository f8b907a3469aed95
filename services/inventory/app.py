"""The whole inventory service, as hosts run it: importing its handlers registers them."""

from __future__ import annotations

from services.inventory import handlers
from services.inventory.service import inventory

__all__ = ["handlers", "inventory"]
