"""The order service, before anything is registered on it."""

from __future__ import annotations

from headrace import Policy, Service
from headrace.service import QueueSettings
from schemas.order import OrderPlaced
from services.order.bootstrap import open_gateway
from services.order.model import OrderHasEnded, OrderIdReused, UnknownOrder

order = Service(
    "order",
    bus="shop",
    resources=open_gateway,
    policy=Policy(dead_letter=(OrderIdReused, UnknownOrder, OrderHasEnded)),
    # Well above the attempts at a gateway that does not answer.
    queues=QueueSettings(max_receive_count=20),
    emits=[OrderPlaced],  # over HTTP, where no handler returns it
)
