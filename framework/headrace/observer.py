"""Who watches what becomes of deliveries: the live table, metrics, and whatever a user counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from headrace.envelope import Envelope, Outgoing
from headrace.events import Message
from headrace.outcome import Outcome
from headrace.ports import Delivery

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handled:
    """What one handler came to with one delivery.

    `event` is the message's detail-type. `seconds` run from the handler's start until its messages
    are out, or it failed. `age` is that of the message at the start, from when it was sent to the
    queue; `None` where the host does not know. `conflicts` counts the runs that ended because
    another writer was faster.
    """

    handler: str
    event: str
    outcome: Outcome
    seconds: float
    age: timedelta | None = None
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class SagaChange:
    """A saga came to another status: `started`, `compensating`, `completed`, `compensated` or
    `stuck`."""

    saga: str
    key: str
    status: str
    reason: str | None


class Observer:
    """Told of what happens, as it happens; override what you want to know.

    Each method must return at once, and what it raises is logged and goes no further.
    """

    def received(self, service: str, delivery: Delivery) -> None:
        """A delivery is about to be handled."""

    def decoded(self, service: str, envelope: Envelope[Message]) -> None:
        """A delivery turned out to be this, and its handlers are about to run."""

    def handled(self, service: str, handled: Handled) -> None:
        """One of the handlers of a delivery is done with it."""

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        """The fate of a delivery was carried out."""

    def committed(self, service: str, transactions: int) -> None:
        """So many transactions were written by one call."""

    def sent(self, service: str, outgoing: Outgoing) -> None:
        """An event is on the bus, or a command in its owner's queue."""

    def swept(self, service: str, oldest: timedelta | None) -> None:
        """The relay has looked for what is left to send. The oldest that it could not send was
        committed so long ago; `None` if nothing is left."""

    def saga(self, service: str, change: SagaChange) -> None:
        """A saga of this service has come to another status, and that is committed. After a crash
        it may be told twice."""

    def flush(self) -> None:
        """Write what was gathered: called at the end of a Lambda invocation, every few seconds by a
        worker, and at the end."""


Unobserved = Observer
"""One that looks away."""


class Guarded(Observer):
    """Observers whose failures stay their own: what is observed goes on, and so do the others."""

    def __init__(self, observers: Observer | Iterable[Observer]) -> None:
        several = [observers] if isinstance(observers, Observer) else observers
        # Who looks away need not be called.
        self._observers = [one for one in several if type(one) is not Observer]

    @property
    def watches(self) -> bool:
        """Whether anybody is told."""
        return bool(self._observers)

    @property
    def gathers(self) -> bool:
        """Whether one of them has something to flush."""
        return any(type(observer).flush is not Observer.flush for observer in self._observers)

    def received(self, service: str, delivery: Delivery) -> None:
        for observer in self._observers:
            _guard(observer.received, service, delivery)

    def decoded(self, service: str, envelope: Envelope[Message]) -> None:
        for observer in self._observers:
            _guard(observer.decoded, service, envelope)

    def handled(self, service: str, handled: Handled) -> None:
        for observer in self._observers:
            _guard(observer.handled, service, handled)

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        for observer in self._observers:
            _guard(observer.settled, service, delivery, outcome)

    def committed(self, service: str, transactions: int) -> None:
        for observer in self._observers:
            _guard(observer.committed, service, transactions)

    def sent(self, service: str, outgoing: Outgoing) -> None:
        for observer in self._observers:
            _guard(observer.sent, service, outgoing)

    def swept(self, service: str, oldest: timedelta | None) -> None:
        for observer in self._observers:
            _guard(observer.swept, service, oldest)

    def saga(self, service: str, change: SagaChange) -> None:
        for observer in self._observers:
            _guard(observer.saga, service, change)

    def flush(self) -> None:
        for observer in self._observers:
            _guard(observer.flush)


def _guard(tell: Callable[..., None], *what: Any) -> None:
    try:
        tell(*what)
    except Exception:
        logger.exception("An observer failed.")
