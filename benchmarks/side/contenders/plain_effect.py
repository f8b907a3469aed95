"""The effect without idempotency, as the requests of a plain AWS client: one item, one event.
Standard library only; whoever sends them uses the client of its own library's users."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from benchmarks.side import work
from benchmarks.side.protocol import Job


class Order(Protocol):
    """What of an order the effect is made of; see `model.OrderPlaced`."""

    @property
    def order_id(self) -> str: ...
    @property
    def customer(self) -> Any: ...
    @property
    def total(self) -> int: ...


def item_request(job: Job, order: Order) -> dict[str, Any]:
    """For `put_item`."""
    item = work.effect(order.order_id, order.customer.email, order.total)
    return {"TableName": job.table, "Item": work.wire_item(item)}


def event_request(job: Job, event_id: str, order: Order) -> dict[str, Any]:
    """For `put_events`."""
    detail = work.accepted(event_id, order.order_id, order.total)
    entry = {
        "Source": work.OUT_SOURCE,
        "DetailType": work.OUT_DETAIL_TYPE,
        "Detail": json.dumps(detail, separators=(",", ":")),
        "EventBusName": job.bus,
    }
    return {"Entries": [entry]}


def must_be_taken(answer: Mapping[str, Any]) -> None:
    """PutEvents answers 200 even where it takes no entry."""
    if answer["FailedEntryCount"]:
        raise RuntimeError(f"The event was not taken: {answer['Entries']}.")
