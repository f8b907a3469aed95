"""Traces for OpenTelemetry: a span for each delivery, by whatever provider the API has.

Names and attributes are those of the semantic conventions for messaging
(https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import Token
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from types import TracebackType
from typing import Final

from headrace.envelope import Metadata
from headrace.errors import ConfigurationError
from headrace.outcome import Ack, DeadLetter, Outcome
from headrace.ports import Delivery
from headrace.trace import is_traceparent, traceparent_from_xray
from headrace.tracing import Trace, Untraced

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace as api
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        "HEADRACE_TRACING is otel and OpenTelemetry is not installed: run "
        "`pip install 'headrace[otel]'`."
    ) from missing

logger = logging.getLogger(__name__)

_NO_CONTEXT: Final = Context()
_LINKS: Final = 128
"""Of one span. It is the SDK's default too; a batch of Lambda may have 10,000 messages."""
_UNTRACED: Final = Untraced()
_NOTHING: Final[AbstractContextManager[object]] = nullcontext()


class OpenTelemetryTracer:
    """A span of kind consumer for each delivery, with a child for each step.

    Its parent is the span that sent the message; a message without one begins a trace. Whatever a
    handler starts, in tasks and in threads, is a child of the step that runs it. The provider, its
    sampler and its exporters are the API's, or the `provider` that is given: configure them with
    OpenTelemetry's SDK. Until then nothing is recorded, and what came is passed on.
    """

    never_raises: Final = True

    def __init__(self, provider: api.TracerProvider | None = None) -> None:
        self._spans = api.get_tracer("headrace", _version(), provider)
        self._is_broken = False

    def delivery(
        self, service: str, metadata: Metadata, delivery: Delivery
    ) -> AbstractContextManager[Trace]:
        try:
            return _Delivery(self, self._started(service, metadata, delivery), metadata)
        except Exception:
            self.broke()
            return _UNTRACED.delivery(service, metadata, delivery)

    def received(self, service: str, queue: str, headers: Iterable[str | None]) -> None:
        try:
            self._receive(service, queue, list(headers))
        except Exception:
            self.broke()

    def current(self) -> str | None:
        try:
            return _traceparent(api.get_current_span())
        except Exception:
            self.broke()
            return None

    def flush(self) -> None:
        """Nothing: spans are handed over as they end, and how they leave is the provider's business
        (its `force_flush` waits)."""

    def child(self, name: str, consumer: str) -> Span:
        """A span below the one that is current here."""
        return self._spans.start_span(name, attributes={"headrace.handler": consumer})

    def broke(self) -> None:
        """It is said once, and no delivery is the worse for it."""
        if not self._is_broken:
            self._is_broken = True
            logger.exception("Something cannot be traced. This is said once.")

    def _started(self, service: str, metadata: Metadata, delivery: Delivery) -> Span:
        sender = _sender(metadata.traceparent or traceparent_from_xray(delivery.trace_header))
        around = api.get_current_span().get_span_context()
        return self._spans.start_span(
            f"process {delivery.queue}",
            _NO_CONTEXT if sender is None else _below(sender),
            SpanKind.CONSUMER,
            {
                "messaging.system": "aws_sqs",
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.destination.name": delivery.queue,
                "messaging.consumer.group.name": service,
                "messaging.message.id": delivery.message_id,
                "messaging.message.conversation_id": metadata.correlation_id,
                "headrace.event": metadata.type,
                "headrace.event_id": metadata.id,
                "headrace.attempt": delivery.receive_count,
            },
            [Link(found) for found in (sender, around) if found is not None and found.is_valid],
        )

    def _receive(self, service: str, queue: str, headers: list[str | None]) -> None:
        senders = (_sender(traceparent_from_xray(header)) for header in headers if header)
        span = self._spans.start_span(
            f"receive {queue}",
            kind=SpanKind.CLIENT,
            attributes={
                "messaging.system": "aws_sqs",
                "messaging.operation.type": "receive",
                "messaging.operation.name": "receive",
                "messaging.destination.name": queue,
                "messaging.consumer.group.name": service,
                "messaging.batch.message_count": len(headers),
            },
            links=[Link(sender) for sender in islice(senders, _LINKS) if sender is not None],
        )
        span.end()


class _Block:
    """A span that is current in its block, and notes what is raised there."""

    __slots__ = ("_token", "span", "tracer")

    def __init__(self, tracer: OpenTelemetryTracer, span: Span) -> None:
        self.tracer = tracer
        self.span = span
        self._token: Token[Context] | None = None

    def enter(self) -> None:
        try:
            self._token = contexts.attach(api.set_span_in_context(self.span))
        except Exception:
            self.tracer.broke()

    def leave(self, error: BaseException | None) -> None:
        try:
            if self._token is not None:
                contexts.detach(self._token)
            if error is not None:
                _note(self.span, error)
        except Exception:
            self.tracer.broke()
        try:
            self.span.end()
        except Exception:
            self.tracer.broke()


class _Delivery(_Block):
    """One delivery, as the pipeline knows it."""

    __slots__ = ("noted", "traceparent")

    def __init__(self, tracer: OpenTelemetryTracer, span: Span, metadata: Metadata) -> None:
        super().__init__(tracer, span)
        self.traceparent = _traceparent(span) or metadata.traceparent
        self.noted: list[BaseException] = []

    def __enter__(self) -> _Delivery:
        self.enter()
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave(error)

    def step(self, name: str, consumer: str) -> AbstractContextManager[object]:
        # What is not recorded has no parts.
        return _Step(self, name, consumer) if self.span.is_recording() else _NOTHING

    def ended(self, outcome: Outcome) -> None:
        try:
            self._ended(outcome)
        except Exception:
            self.tracer.broke()

    def _ended(self, outcome: Outcome) -> None:
        self.span.set_attribute("headrace.outcome", _word(outcome))
        if isinstance(outcome, Ack):
            return
        error = outcome.error
        # What a step has noted need not be said again, with all its traceback.
        if error is not None and not any(known is error for known in self.noted):
            self.span.record_exception(error)
        name = type(outcome).__name__ if error is None else type(error).__qualname__
        self.span.set_attribute("error.type", name)
        self.span.set_status(Status(StatusCode.ERROR, outcome.reason))


class _Step:
    """One part of a delivery. Its span is started where it is entered, below the one there."""

    __slots__ = ("_block", "_consumer", "_delivery", "_name")

    def __init__(self, delivery: _Delivery, name: str, consumer: str) -> None:
        self._delivery = delivery
        self._name = name
        self._consumer = consumer
        self._block: _Block | None = None

    def __enter__(self) -> _Step:
        tracer = self._delivery.tracer
        try:
            self._block = _Block(tracer, tracer.child(self._name, self._consumer))
        except Exception:
            tracer.broke()
        else:
            self._block.enter()
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._delivery.noted.append(error)
        if self._block is not None:
            self._block.leave(error)


def _version() -> str | None:
    try:
        return version("headrace")
    except PackageNotFoundError:  # a checkout on the path
        return None


def _word(outcome: Outcome) -> str:
    if isinstance(outcome, Ack):
        return "duplicate" if outcome.duplicate else "done"
    return "dead_letter" if isinstance(outcome, DeadLetter) else "retry"


def _note(span: Span, error: BaseException) -> None:
    span.record_exception(error)
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))


# --- W3C trace context -------------------------------------------------------------------


def _sender(traceparent: str | None) -> SpanContext | None:
    if traceparent is None or not is_traceparent(traceparent):
        return None
    found = SpanContext(
        int(traceparent[3:35], 16),
        int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=api.TraceFlags(int(traceparent[53:], 16)),
    )
    return found if found.is_valid else None


def _below(sender: SpanContext) -> Context:
    return api.set_span_in_context(api.NonRecordingSpan(sender), _NO_CONTEXT)


def _traceparent(span: Span) -> str | None:
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
