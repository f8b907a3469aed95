"""Who watches what becomes of deliveries: the live table today, metrics and traces alike."""

from __future__ import annotations

from typing import Protocol

from headrace.envelope import Outgoing
from headrace.outcome import Outcome
from headrace.ports import Delivery


class Observer(Protocol):
    """Told of every delivery and every message sent. Must return at once and never raise."""

    def received(self, service: str, delivery: Delivery) -> None:
        """A delivery is about to be handled."""

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        """Its fate was carried out."""

    def sent(self, service: str, outgoing: Outgoing) -> None:
        """An event is on the bus, or a command in its owner's queue."""


class Unobserved:
    """An observer that looks away."""

    def received(self, service: str, delivery: Delivery) -> None: ...

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None: ...

    def sent(self, service: str, outgoing: Outgoing) -> None: ...
