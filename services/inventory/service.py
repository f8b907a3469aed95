"""The inventory service, before anything is registered on it."""

from __future__ import annotations

from headrace import Service

inventory = Service("inventory", bus="shop")
