"""The order service, before anything is registered on it."""

from __future__ import annotations

from headrace import Policy, Service
from schemas.order import OrderPlaced
from services.order.model import OrderIdReused, UnknownOrder

order = Service(
    "order",
    bus="shop",
    policy=Policy(dead_letter=(OrderIdReused, UnknownOrder)),
    emits=[OrderPlaced],  # over HTTP, where no handler returns it
)
