"""Which delivery is being handled here and now, for logs, metrics and traces.

It is bound to the delivery, its handlers, their threads and the tasks they start, and to nothing
else.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace.envelope import Metadata
from headrace.ports import Delivery

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """One handler at work on one delivery. `traceparent` is that of the delivery's trace, if it
    has one."""

    service: str
    handler: str
    metadata: Metadata
    delivery: Delivery
    traceparent: str | None = None

    def log_fields(self) -> dict[str, object]:
        """What a log line needs to be found again; never the payload."""
        return {**_fields_of(self.service, self.delivery, self.metadata), "handler": self.handler}


@dataclass(slots=True)
class _Bound:
    """A delivery that is being handled, and what is known of it by now."""

    service: str
    delivery: Delivery
    metadata: Metadata | None = None
    traceparent: str | None = None


_current: ContextVar[Context | None] = ContextVar("headrace_context", default=None)
_delivery: ContextVar[_Bound | None] = ContextVar("headrace_delivery", default=None)


def current() -> Context | None:
    """The context of the handler that is running here; `None` outside of one."""
    return _current.get()


def log_fields() -> dict[str, object]:
    """What belongs on a log line that is written here: which delivery, which handler if one is
    running, and which trace; nothing outside of a delivery."""
    context, bound = _current.get(), _delivery.get()
    if context is not None:
        fields = context.log_fields()
        traceparent = context.traceparent
    elif bound is not None:
        fields = _fields_of(bound.service, bound.delivery, bound.metadata)
        traceparent = bound.traceparent
    else:
        return {}
    if traceparent is not None:
        fields["trace_id"] = traceparent[3:35]
    return fields


def bind(context: Context) -> AbstractContextManager[None]:
    """In this block a handler runs."""
    return _Binding(_current, context)


def bind_delivery(service: str, delivery: Delivery) -> AbstractContextManager[None]:
    """What is logged in this block is about this delivery."""
    return _Binding(_delivery, _Bound(service, delivery))


class _Binding(AbstractContextManager[None], Generic[T]):
    """A variable that has a value for the time of a block."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(self, *raised: object) -> None:
        self._variable.reset(self._token)


def identify(metadata: Metadata, traceparent: str | None) -> None:
    """Say what event the delivery that is bound here turned out to be."""
    bound = _delivery.get()
    if bound is not None:
        bound.metadata, bound.traceparent = metadata, traceparent


def _fields_of(service: str, delivery: Delivery, metadata: Metadata | None) -> dict[str, object]:
    fields: dict[str, object] = {
        "service": service,
        "queue": delivery.queue,
        "message_id": delivery.message_id,
        "attempt": delivery.receive_count,
    }
    if metadata is not None:
        fields["event"] = metadata.type
        fields["event_id"] = metadata.id
        fields["correlation_id"] = metadata.correlation_id
    return fields
