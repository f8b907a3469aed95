"""What the workers of a run say of themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from headrace.envelope import Outgoing
from headrace.observer import Observer
from headrace.outcome import Ack, Outcome
from headrace.ports import Delivery
from headrace.testing.letters import name_of
from headrace.testing.simulation.loop import Owner, SimulatedLoop
from headrace.testing.simulation.trace import Kind, Trace
from headrace.testing.simulation.wire import ENOUGH
from headrace.testing.simulation.wording import ids_in


class Watch(Observer):
    """Observes the workers of a run: for the trace, and for what took effect."""

    def __init__(self, loop: SimulatedLoop, trace: Trace, on_progress: Callable[[], None]) -> None:
        self._loop = loop
        self._trace = trace
        self._on_progress = on_progress
        self._in_hand: dict[Owner, list[int]] = {}
        self._acks: Counter[tuple[str, str, str]] = Counter()

    def received(self, service: str, delivery: Delivery) -> None:
        owner = self._loop.current
        self._in_hand.setdefault(owner, []).append(delivery.receive_count)
        self._judge(owner)

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        owner = self._loop.current
        self._in_hand[owner].remove(delivery.receive_count)
        self._judge(owner)
        if isinstance(outcome, Ack):
            self._on_progress()
        if isinstance(outcome, Ack) and not outcome.duplicate:
            self._acks[service, delivery.queue, delivery.body] += 1
        if self._trace.on:
            text = f"{_said(outcome)} of {name_of(delivery.body)}"
            self._trace.note(self._loop.current.name, Kind.SETTLED, text, ids_in(delivery.body)[:1])

    @property
    def is_idle(self) -> bool:
        """Whether no living worker has a delivery in hand."""
        return not any(counts for owner, counts in self._in_hand.items() if owner.alive)

    def _judge(self, owner: Owner) -> None:
        counts = self._in_hand[owner]
        owner.at_rest = not counts
        owner.spared = any(count > ENOUGH for count in counts)

    def sent(self, service: str, outgoing: Outgoing) -> None:
        """Said by the ports already."""

    def effects(self) -> Counter[tuple[str, str, str]]:
        """How often each message was handled as if for the first time, by service, queue and
        body."""
        return self._acks


def _said(outcome: Outcome) -> str:
    if isinstance(outcome, Ack):
        return "ack (a duplicate)" if outcome.duplicate else "ack"
    return f"{type(outcome).__name__} ({outcome.reason})"
