"""What has happened so far, as the services report it: the end is awaited here, not guessed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection

import orjson

from headrace import Ack, DeadLetter, Delivery, Outcome
from headrace.envelope import Outgoing
from headrace.events import contract_of
from headrace.observe.tally import Tally
from headrace.observer import Observer
from schemas.notification import CustomerNotified
from schemas.order import OrderCancelled, OrderConfirmed, OrderPlaced

_STEPS = {
    contract_of(OrderPlaced).name: "placed",
    contract_of(OrderConfirmed).name: "ended",
    contract_of(OrderCancelled).name: "ended",
    contract_of(CustomerNotified).name: "notified",
}


class Watch(Observer):
    """An observer of the demo's services.

    Each step of an order is known by the ids of the events that say so: an event that is sent
    again has the id it had, so two ids mean that the step was taken twice.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self.placed: dict[str, set[str]] = defaultdict(set)
        self.ended: dict[str, set[str]] = defaultdict(set)
        self.notified: dict[str, set[str]] = defaultdict(set)
        self.dead_letters: set[str] = set()
        self.duplicates: list[str] = []
        self.on_change: Callable[[], None] = _nothing
        self._changed = asyncio.Event()

    def received(self, service: str, delivery: Delivery) -> None:
        self.tally.received(service, delivery)

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self.tally.settled(service, delivery, outcome)
        if isinstance(outcome, DeadLetter):
            self.dead_letters.add(delivery.message_id)
        if isinstance(outcome, Ack) and outcome.duplicate:
            self.duplicates.append(delivery.body)
        self._changed.set()

    def sent(self, service: str, outgoing: Outgoing) -> None:
        self.tally.sent(service, outgoing)
        step = _STEPS.get(outgoing.detail_type)
        if step is not None:
            order_id = orjson.loads(outgoing.detail)["data"]["order_id"]
            getattr(self, step)[order_id].add(outgoing.id)
            self.on_change()
        self._changed.set()

    def done(self, service: str) -> int:
        """Deliveries that took effect in a service."""
        counts = self.tally.services.get(service)
        return counts.done if counts else 0

    def is_duplicate(self, command_id: str) -> bool:
        """Whether a second delivery of this command was recognised as one."""
        return any(command_id in body for body in self.duplicates)

    async def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed.clear()
            await self._changed.wait()


def _nothing() -> None:
    """Nobody looks."""


def missing(watch: Watch, orders: Collection[str], dead_letters: int, command_id: str) -> list[str]:
    """What has not happened yet, each as a short phrase; empty at the end of the demo."""
    phrases = []
    for steps, what in (
        (watch.ended, "orders have not ended"),
        (watch.notified, "customers are not notified"),
    ):
        late = [id for id in orders if id not in steps]
        if late:
            phrases.append(f"{len(late)} of {len(orders)} {what} ({_some(late)})")
    if len(watch.dead_letters) < dead_letters:
        found = len(watch.dead_letters)
        phrases.append(f"{found} of the {dead_letters} bad messages became dead letters")
    if not watch.is_duplicate(command_id):
        phrases.append("the second delivery of the command that was sent twice was not answered")
    return phrases


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
