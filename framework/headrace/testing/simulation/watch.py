"""What the workers of a run say of themselves."""

from __future__ import annotations

from collections import Counter

from headrace.envelope import Outgoing
from headrace.outcome import Ack, Outcome
from headrace.ports import Delivery
from headrace.testing.letters import name_of
from headrace.testing.simulation.loop import SimulatedLoop
from headrace.testing.simulation.trace import Kind, Trace
from headrace.testing.simulation.wording import ids_in


class Watch:
    """Observes the workers of a run: for the trace, and for what took effect."""

    def __init__(self, loop: SimulatedLoop, trace: Trace) -> None:
        self._loop = loop
        self._trace = trace
        self._acks: Counter[tuple[str, str, str]] = Counter()

    def received(self, service: str, delivery: Delivery) -> None:
        """Said by the ports already, of all that is received."""

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, Ack) and not outcome.duplicate:
            self._acks[service, delivery.queue, delivery.body] += 1
        if self._trace.on:
            text = f"{_said(outcome)} of {name_of(delivery.body)}"
            self._trace.note(self._loop.current.name, Kind.SETTLED, text, ids_in(delivery.body)[:1])

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
