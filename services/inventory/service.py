"""The inventory service, before anything is registered on it."""

from __future__ import annotations

from headrace import Policy, Service
from services.inventory.model import Oversold

inventory = Service("inventory", bus="shop", policy=Policy(dead_letter=(Oversold,)))
