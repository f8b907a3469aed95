"""A witness on the bus: a service of the soak's own that only notes what it sees.

It runs in the process that kills and is never killed, and what it knows does not come from the
tables: every event that a service got out, under which id, because of which event.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, TypeAlias

from headrace import Event, Metadata, Service
from headrace.events import contract_of
from schemas.checkout import CheckoutCompleted
from schemas.inventory import StockRejected, StockReleased, StockReserved
from schemas.notification import CustomerNotified
from schemas.order import OrderCancelled, OrderConfirmed, OrderPlaced
from schemas.payment import PaymentAuthorised, PaymentCaptured, PaymentDeclined, PaymentVoided

Witnessed: TypeAlias = (
    OrderPlaced
    | StockReserved
    | StockRejected
    | StockReleased
    | PaymentAuthorised
    | PaymentDeclined
    | PaymentCaptured
    | PaymentVoided
    | OrderConfirmed
    | OrderCancelled
    | CustomerNotified
)

STEPS: Final[dict[type[Event], str]] = {
    OrderPlaced: "placed",
    StockReserved: "answered",
    StockRejected: "answered",
    OrderConfirmed: "ended",
    OrderCancelled: "ended",
    CustomerNotified: "notified",
}
"""What each event says of an order. Every order takes each step once, in this order."""

OTHERS: Final[tuple[type[Event], ...]] = (
    StockReleased,
    PaymentAuthorised,
    PaymentDeclined,
    PaymentCaptured,
    PaymentVoided,
)
"""What is said of some orders, and maybe again when it is wanted again."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """An event as it was first seen. `cause` is the id of what was handled when it was sent,
    `beginning` that of what was sent to the shop, `service` who sent it, `content` a digest of all
    that it says. Not every event is a `step`."""

    id: str
    type: str
    service: str
    step: str | None
    order_id: str
    cause: str | None
    beginning: str
    content: int


class Seen:
    """All events so far. An event that is sent again has the id it had, so that two ids for
    one step mean that the step was taken twice."""

    def __init__(self) -> None:
        self.events: dict[str, Sighting] = {}
        self.steps: dict[str, dict[str, set[str]]] = {
            step: defaultdict(set) for step in STEPS.values()
        }
        self.checkouts: dict[str, set[str]] = defaultdict(set)
        self.again = 0
        self.changed: set[str] = set()
        self._last: dict[str, float] = {}
        self._happened = asyncio.Event()

    def add(self, event: Witnessed, metadata: Metadata) -> None:
        sighting = _sighting(event, metadata)
        first = self.events.setdefault(sighting.id, sighting)
        if first is not sighting:
            self.again += 1
        if first != sighting:
            self.changed.add(sighting.id)
        if sighting.step is not None:
            self.steps[sighting.step][sighting.order_id].add(sighting.id)
        self._last[sighting.service] = monotonic()
        self._happened.set()

    def add_checkout(self, event: CheckoutCompleted, metadata: Metadata) -> None:
        """The storefront's own events, which begin an order."""
        self.checkouts[event.order_id].add(metadata.id)

    def count(self, step: str) -> int:
        """How many orders have taken this step."""
        return len(self.steps[step])

    def last(self, service: str) -> float:
        """When an event of this service was last seen, on the monotonic clock."""
        return self._last.get(service, 0.0)

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._happened.clear()
            await self._happened.wait()


def tap_into(bus: str, seen: Seen) -> Service:
    """A service with a rule and a queue of its own that tells `seen` of every event."""
    tap = Service("soak-tap", bus=bus, table=None)

    @tap.on(*STEPS, *OTHERS, idempotent=True)
    async def see(event: Witnessed, metadata: Metadata) -> None:
        seen.add(event, metadata)

    @tap.on(CheckoutCompleted, idempotent=True)
    async def see_checkout(event: CheckoutCompleted, metadata: Metadata) -> None:
        seen.add_checkout(event, metadata)

    return tap


def _sighting(event: Witnessed, metadata: Metadata) -> Sighting:
    contract = contract_of(event)
    return Sighting(
        id=metadata.id,
        type=contract.name,
        service=(contract.source or "").rpartition(".")[2],
        step=STEPS.get(type(event)),
        order_id=event.order_id,
        cause=metadata.causation_id,
        beginning=metadata.correlation_id,
        content=hash((event.model_dump_json(), metadata.model_dump_json())),
    )
