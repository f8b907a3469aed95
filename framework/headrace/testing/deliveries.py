"""Deliveries for unit tests, as a host would make them."""

from __future__ import annotations

from datetime import UTC, datetime

from headrace.envelope import queue_body, root_metadata, seal
from headrace.events import Message
from headrace.ports import Delivery

_A_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def delivery_of(
    message: Message, queue: str, *, id: str = "event-1", receive_count: int = 1
) -> Delivery:
    """One receive of an event or command on `queue`; the same `id` is the same event."""
    body = queue_body(seal(message, root_metadata(message, id=id, now=_A_DAY)))
    return Delivery(f"message-{id}", f"receipt-{receive_count}", body, queue, receive_count)
