"""The port to a tracing system: what a delivery tells of itself, and what it is linked to.

A trace follows a message from service to service. Each delivery is one segment of it, whose parent
is the delivery that sent the message.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, TypeAlias

from headrace.envelope import Metadata
from headrace.outcome import Outcome
from headrace.ports import Delivery

Step: TypeAlias = Literal["handler", "commit", "dispatch"]


class Trace(Protocol):
    """One delivery, as it is traced."""

    @property
    def traceparent(self) -> str | None:
        """W3C trace context for the messages that are sent because of it; `None` if there is no
        trace."""
        ...

    def step(self, name: Step, consumer: str) -> AbstractContextManager[object]:
        """Time one part of it, for one of its handlers. What is raised in the block is noted, and
        raised. Steps of several handlers go on side by side, in tasks of their own."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """What has become of it. Called before its block ends, unless it was cancelled."""
        ...


class Tracer(Protocol):
    """A tracing system. No method may raise, or wait for anything."""

    def delivery(
        self, service: str, metadata: Metadata, delivery: Delivery
    ) -> AbstractContextManager[Trace]:
        """Trace the handling of one delivery, in a block that is its own task's, or part of it.
        Tasks and threads that it starts belong to it."""
        ...

    def received(self, service: str, queue: str, headers: Iterable[str | None]) -> None:
        """One receive, or one invocation of Lambda, brought messages with these X-Ray headers."""
        ...

    def current(self) -> str | None:
        """W3C trace context of whatever is traced here at the moment, such as the HTTP request
        that a transaction is a part of; `None` if nothing is."""
        ...

    def flush(self) -> None:
        """Hand over what was gathered, where that costs no waiting."""
        ...


class _Passed:
    """Nothing is traced here; a trace of others goes on to the next."""

    __slots__ = ("traceparent",)

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def step(self, name: Step, consumer: str) -> AbstractContextManager[object]:
        return _NOTHING

    def ended(self, outcome: Outcome) -> None: ...


class Untraced:
    """A tracer that passes on what came, and sends nothing anywhere."""

    def delivery(
        self, service: str, metadata: Metadata, delivery: Delivery
    ) -> AbstractContextManager[Trace]:
        return nullcontext(_Passed(metadata.traceparent))

    def received(self, service: str, queue: str, headers: Iterable[str | None]) -> None: ...

    def current(self) -> str | None:
        return None

    def flush(self) -> None: ...


_NOTHING: AbstractContextManager[object] = nullcontext()
