"""Counting what happens, per service, for whoever sits in front of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from headrace.envelope import Outgoing
from headrace.observer import Observer, SagaChange
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Delivery


@dataclass(slots=True)
class Counts:
    """What one service did. `done` leaves duplicates out; `in_flight` is now, not a total."""

    received: int = 0
    in_flight: int = 0
    done: int = 0
    duplicates: int = 0
    retried: int = 0
    dead_letters: int = 0
    published: int = 0


@dataclass(slots=True)
class Tally(Observer):
    """An observer that counts, and remembers the last few things that happened."""

    services: dict[str, Counts] = field(default_factory=dict)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=12))

    def received(self, service: str, delivery: Delivery) -> None:
        counts = self._of(service)
        counts.received += 1
        counts.in_flight += 1

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        counts = self._of(service)
        counts.in_flight -= 1
        match outcome:
            case Ack(parked=True):
                self.recent.append(f"{service} parks a message behind another of its group")
            case Ack(duplicate=True):
                counts.duplicates += 1
            case Ack():
                counts.done += 1
            case Retry(reason=reason):
                counts.retried += 1
                self.recent.append(f"{service} retries: {reason}")
            case DeadLetter(reason=reason):
                counts.dead_letters += 1
                self.recent.append(f"{service} gives up: {reason}")

    def sent(self, service: str, outgoing: Outgoing) -> None:
        self._of(service).published += 1
        self.recent.append(f"{service} → {outgoing.detail_type} {outgoing.id}")

    def saga(self, service: str, change: SagaChange) -> None:
        because = f": {change.reason}" if change.reason else ""
        self.recent.append(f"{service}: {change.saga} {change.key} is {change.status}{because}")

    def _of(self, service: str) -> Counts:
        return self.services.setdefault(service, Counts())
