"""Which delivery is being handled here and now, for logs, metrics and traces.

It is bound to the running handler, its threads and the tasks it starts, and to nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from headrace.envelope import Metadata
from headrace.ports import Delivery


@dataclass(frozen=True, slots=True)
class Context:
    """One handler at work on one delivery."""

    service: str
    handler: str
    metadata: Metadata
    delivery: Delivery

    def log_fields(self) -> dict[str, object]:
        """What a log line needs to be found again; never the payload."""
        return {
            "service": self.service,
            "handler": self.handler,
            "event": self.metadata.type,
            "event_id": self.metadata.id,
            "correlation_id": self.metadata.correlation_id,
            "message_id": self.delivery.message_id,
            "attempt": self.delivery.receive_count,
        }


_current: ContextVar[Context | None] = ContextVar("headrace_context", default=None)


def current() -> Context | None:
    """The context of the handler that is running here; `None` outside of one."""
    return _current.get()


@contextmanager
def bind(context: Context) -> Iterator[None]:
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
