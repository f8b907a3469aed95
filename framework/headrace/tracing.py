"""The port to a tracing system: what a delivery tells of itself, and what it is linked to.

A trace follows a message from service to service. Each delivery is one segment of it, whose parent
is the delivery that sent the message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

from headrace.envelope import Metadata
from headrace.outcome import Outcome
from headrace.ports import Delivery

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
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
    """A tracing system. No method may wait for anything; what it raises is logged and goes no
    further."""

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


class SafeTracer:
    """A tracer whose failures stay its own: they are logged, and the delivery goes on untraced."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def delivery(
        self, service: str, metadata: Metadata, delivery: Delivery
    ) -> AbstractContextManager[Trace]:
        untraced = _Passed(metadata.traceparent)
        return _Safely(
            lambda: self._tracer.delivery(service, metadata, delivery),
            lambda trace: _SafeTrace(trace, untraced),
            untraced,
        )

    def received(self, service: str, queue: str, headers: Iterable[str | None]) -> None:
        _safely(lambda: self._tracer.received(service, queue, headers), None)

    def current(self) -> str | None:
        return _safely(self._tracer.current, None)

    def flush(self) -> None:
        _safely(self._tracer.flush, None)


class _SafeTrace:
    __slots__ = ("_trace", "_untraced")

    def __init__(self, trace: Trace, untraced: Trace) -> None:
        self._trace = trace
        self._untraced = untraced

    @property
    def traceparent(self) -> str | None:
        return _safely(lambda: self._trace.traceparent, self._untraced.traceparent)

    def step(self, name: Step, consumer: str) -> AbstractContextManager[object]:
        return _Safely(lambda: self._trace.step(name, consumer), lambda step: step, None)

    def ended(self, outcome: Outcome) -> None:
        _safely(lambda: self._trace.ended(outcome), None)


class _Safely(AbstractContextManager[Any]):
    """A block that is opened and closed by somebody who may fail; what is raised in it goes on."""

    __slots__ = ("_inner", "_instead", "_open", "_shown")

    def __init__(
        self,
        open: Callable[[], AbstractContextManager[Any]],
        shown: Callable[[Any], Any],
        instead: Any,
    ) -> None:
        self._open = open
        self._shown = shown
        self._instead = instead
        self._inner: AbstractContextManager[Any] | None = None

    def __enter__(self) -> Any:
        try:
            inner = self._open()
            entered = self._shown(inner.__enter__())
        except Exception:
            logger.exception(_FAILED)
            return self._instead
        self._inner = inner
        return entered

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._inner is None:
            return
        try:
            self._inner.__exit__(kind, error, where)
        except Exception as raised:
            if raised is not error:
                logger.exception(_FAILED)


def _safely(call: Callable[[], Answer], instead: Answer) -> Answer:
    try:
        return call()
    except Exception:
        logger.exception(_FAILED)
        return instead


def safe(tracer: Tracer | None) -> Tracer:
    """A tracer that raises nothing: headrace's own do not by themselves."""
    if tracer is None:
        return Untraced()
    return tracer if getattr(tracer, "never_raises", False) else SafeTracer(tracer)


_FAILED: Final = "A tracer failed."


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

    never_raises: Final = True

    def delivery(
        self, service: str, metadata: Metadata, delivery: Delivery
    ) -> AbstractContextManager[Trace]:
        return nullcontext(_Passed(metadata.traceparent))

    def received(self, service: str, queue: str, headers: Iterable[str | None]) -> None: ...

    def current(self) -> str | None:
        return None

    def flush(self) -> None: ...


_NOTHING: AbstractContextManager[object] = nullcontext()
