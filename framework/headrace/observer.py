"""Who watches what becomes of deliveries: the live table today, metrics and traces alike."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from headrace.envelope import Outgoing
from headrace.outcome import Outcome
from headrace.ports import Delivery

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Told of every delivery and every message sent. Must return at once and never raise."""

    def received(self, service: str, delivery: Delivery) -> None:
        """A delivery is about to be handled."""

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        """Its fate was carried out."""

    def sent(self, service: str, outgoing: Outgoing) -> None:
        """An event is on the bus, or a command in its owner's queue."""


class Guarded:
    """An observer whose failures stay its own: what is observed goes on."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def received(self, service: str, delivery: Delivery) -> None:
        with _logged():
            self._observer.received(service, delivery)

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        with _logged():
            self._observer.settled(service, delivery, outcome)

    def sent(self, service: str, outgoing: Outgoing) -> None:
        with _logged():
            self._observer.sent(service, outgoing)


@contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.exception("An observer failed.")


class Unobserved:
    """An observer that looks away."""

    def received(self, service: str, delivery: Delivery) -> None: ...

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None: ...

    def sent(self, service: str, outgoing: Outgoing) -> None: ...
