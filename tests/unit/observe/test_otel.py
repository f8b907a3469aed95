"""Deliveries are spans of OpenTelemetry, below the span that sent their message."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, StatusCode, Tracer, format_span_id, format_trace_id

from headrace.envelope import Metadata
from headrace.hosts.observing import observing
from headrace.hosts.settings import ObserveSettings
from headrace.observe.otel import OpenTelemetryTracer
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Delivery

TRACE = "5759e988bd862e3fe1be46a994272793"
PARENT = "53995c3f42cd8ad8"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"
HEADER = f"Root=1-5759e988-bd862e3fe1be46a994272793;Parent={PARENT};Sampled=1"


@dataclass(frozen=True)
class World:
    """A provider that keeps what is exported, the tracer on it, and one of a user's own."""

    tracer: OpenTelemetryTracer
    exporter: InMemorySpanExporter
    own: Tracer

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """In the order in which they ended."""
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.spans if span.name == name]
        return span


def on(provider: TracerProvider) -> World:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return World(OpenTelemetryTracer(provider), exporter, provider.get_tracer("own"))


@pytest.fixture
def world() -> World:
    return on(TracerProvider())


def metadata(**changes: Any) -> Metadata:
    told = {
        "id": "e-1",
        "type": "LampLit",
        "time": datetime(2026, 3, 1, tzinfo=UTC),
        "correlation_id": "c-1",
        "traceparent": SAMPLED,
    }
    return Metadata.model_validate(told | changes)


def message(**changes: Any) -> Delivery:
    told = {"message_id": "m-1", "receipt_handle": "r-1", "body": "{}", "queue": "lamps"}
    return Delivery(**(told | changes))


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent(span: ReadableSpan) -> str | None:
    return None if span.parent is None else format_span_id(span.parent.span_id)


def own_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return format_span_id(span.context.span_id)


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return format_trace_id(span.context.trace_id)


# --- one delivery ------------------------------------------------------------------------


def test_a_delivery_is_a_consumer_span_below_its_sender_and_linked_to_it(world: World) -> None:
    with world.tracer.delivery("lamps", metadata(), message(receive_count=2)) as trace:
        trace.ended(Ack())
    [span] = world.spans
    assert (span.name, span.kind) == ("process lamps", SpanKind.CONSUMER)
    assert (trace_id(span), parent(span)) == (TRACE, PARENT)
    assert [format_span_id(link.context.span_id) for link in span.links] == [PARENT]
    assert attributes(span) == {
        "messaging.system": "aws_sqs",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "lamps",
        "messaging.consumer.group.name": "lamps",
        "messaging.message.id": "m-1",
        "messaging.message.conversation_id": "c-1",
        "headrace.event": "LampLit",
        "headrace.event_id": "e-1",
        "headrace.attempt": 2,
        "headrace.outcome": "done",
    }


def test_what_a_delivery_sends_is_below_its_span(world: World) -> None:
    with world.tracer.delivery("lamps", metadata(), message()) as trace:
        sent = trace.traceparent
    assert sent == f"00-{TRACE}-{own_id(world.spans[0])}-01"


def test_the_header_tells_the_sender_where_the_metadata_do_not(world: World) -> None:
    told = metadata(traceparent=None)
    with world.tracer.delivery("lamps", told, message(trace_header=HEADER)):
        pass
    assert (trace_id(world.spans[0]), parent(world.spans[0])) == (TRACE, PARENT)


@pytest.mark.parametrize("traceparent", [None, "nonsense", f"00-{'0' * 32}-{'0' * 16}-01"])
def test_a_message_without_a_trace_begins_one(world: World, traceparent: str | None) -> None:
    with (
        world.own.start_as_current_span("the invocation") as invocation,
        world.tracer.delivery("lamps", metadata(traceparent=traceparent), message()),
    ):
        pass
    span = world.named("process lamps")
    assert parent(span) is None
    # What runs it is no part of the trace, and can be found all the same.
    assert [link.context for link in span.links] == [invocation.get_span_context()]


def test_the_steps_of_a_delivery_are_its_children(world: World) -> None:
    with world.tracer.delivery("lamps", metadata(), message()) as trace:
        for step in ("handler", "commit", "dispatch"):
            with trace.step(step, "lamps.light"):
                pass
    *steps, span = world.spans
    assert [step.name for step in steps] == ["handler", "commit", "dispatch"]
    assert {parent(step) for step in steps} == {own_id(span)}
    assert [attributes(step) for step in steps] == [{"headrace.handler": "lamps.light"}] * 3


# --- what users trace themselves ---------------------------------------------------------


async def test_spans_of_a_handler_are_children_of_its_step_in_tasks_and_in_threads(
    world: World,
) -> None:
    async def in_a_task(all_in: asyncio.Barrier, number: int) -> None:
        with world.own.start_as_current_span(f"task {number}"):
            await all_in.wait()
            world.own.start_span(f"below task {number}").end()

    def in_a_thread() -> None:
        world.own.start_span("thread").end()

    barrier = asyncio.Barrier(3)
    with (
        ThreadPoolExecutor(1) as threads,
        world.tracer.delivery("lamps", metadata(), message()) as trace,
        trace.step("handler", "lamps.light"),
    ):
        await asyncio.gather(*(in_a_task(barrier, number) for number in range(3)))
        threads.submit(copy_context().run, in_a_thread).result()
    handler = own_id(world.named("handler"))
    assert parent(world.named("thread")) == handler
    for number in range(3):
        assert parent(world.named(f"task {number}")) == handler
        assert parent(world.named(f"below task {number}")) == own_id(world.named(f"task {number}"))


async def test_deliveries_that_are_handled_at_once_keep_apart(world: World) -> None:
    async def handle(number: int, all_in: asyncio.Barrier) -> None:
        told = metadata(traceparent=f"00-{number:032x}-{PARENT}-01")
        with world.tracer.delivery("lamps", told, message()) as trace:
            await all_in.wait()
            with trace.step("handler", "lamps.light"):
                world.own.start_span(f"own {number}").end()

    barrier = asyncio.Barrier(8)
    await asyncio.gather(*(handle(number, barrier) for number in range(1, 9)))
    for number in range(1, 9):
        assert trace_id(world.named(f"own {number}")) == f"{number:032x}"


def test_the_span_that_is_current_is_what_a_message_from_outside_follows_from(
    world: World,
) -> None:
    assert world.tracer.current() is None
    with world.own.start_as_current_span("POST /orders") as request:
        context = request.get_span_context()
        expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        assert world.tracer.current() == expected
    assert world.tracer.current() is None


# --- receives ----------------------------------------------------------------------------


def test_a_receive_is_a_client_span_that_is_linked_to_every_sender(world: World) -> None:
    world.tracer.received("lamps", "lamps", iter([HEADER, None, "nonsense", HEADER]))
    [span] = world.spans
    assert (span.name, span.kind) == ("receive lamps", SpanKind.CLIENT)
    assert [format_span_id(link.context.span_id) for link in span.links] == [PARENT] * 2
    assert attributes(span) == {
        "messaging.system": "aws_sqs",
        "messaging.operation.type": "receive",
        "messaging.operation.name": "receive",
        "messaging.destination.name": "lamps",
        "messaging.consumer.group.name": "lamps",
        "messaging.batch.message_count": 4,
    }


def test_a_large_batch_is_linked_to_as_many_as_a_span_may_be(world: World) -> None:
    world.tracer.received("lamps", "lamps", [HEADER] * 1_000)
    [span] = world.spans
    assert len(span.links) == 128
    assert attributes(span)["messaging.batch.message_count"] == 1_000


# --- what becomes of it ------------------------------------------------------------------


def test_what_a_step_raises_is_recorded_once_and_raised(world: World) -> None:
    with world.tracer.delivery("lamps", metadata(), message()) as trace:
        with pytest.raises(ValueError, match="no wick"), trace.step("handler", "lamps.light"):
            raise (failure := ValueError("no wick"))
        trace.ended(Retry("ValueError: no wick", error=failure))
    handler, span = world.spans
    assert [event.name for event in handler.events] == ["exception"]
    assert handler.status.description == "ValueError: no wick"
    assert attributes(handler)["error.type"] == "ValueError"
    assert (span.status.status_code, len(span.events)) == (StatusCode.ERROR, 0)
    assert attributes(span)["error.type"] == "ValueError"
    assert attributes(span)["headrace.outcome"] == "retry"


@pytest.mark.parametrize(
    ("outcome", "word", "kind"),
    [
        (DeadLetter("it is broken"), "dead_letter", "DeadLetter"),
        (Retry("it is too early"), "retry", "Retry"),
        (DeadLetter("it is broken", error=KeyError("wick")), "dead_letter", "KeyError"),
    ],
)
def test_an_outcome_that_is_not_done_is_an_error_with_its_reason(
    world: World, outcome: DeadLetter | Retry, word: str, kind: str
) -> None:
    with world.tracer.delivery("lamps", metadata(), message()) as trace:
        trace.ended(outcome)
    [span] = world.spans
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, outcome.reason)
    assert (attributes(span)["headrace.outcome"], attributes(span)["error.type"]) == (word, kind)
    assert len(span.events) == (0 if outcome.error is None else 1)


def test_a_duplicate_is_told_from_what_is_done(world: World) -> None:
    with world.tracer.delivery("lamps", metadata(), message()) as trace:
        trace.ended(Ack(duplicate=True))
    [span] = world.spans
    assert attributes(span)["headrace.outcome"] == "duplicate"
    assert span.status.status_code is StatusCode.UNSET


async def test_a_delivery_that_is_cancelled_ends_its_spans(world: World) -> None:
    inside = asyncio.Event()

    async def run() -> None:
        with (
            world.tracer.delivery("lamps", metadata(), message()) as trace,
            trace.step("handler", "lamps.light"),
        ):
            inside.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await inside.wait()
    running.cancel()
    await asyncio.wait((running,))
    assert [span.status.status_code for span in world.spans] == [StatusCode.ERROR] * 2


# --- what is not traced ------------------------------------------------------------------


@pytest.mark.parametrize("traceparent", [UNSAMPLED, None])
def test_what_is_not_sampled_is_not_exported_and_its_ids_go_on(traceparent: str | None) -> None:
    world = on(TracerProvider(sampler=ParentBased(ALWAYS_OFF)))
    with world.tracer.delivery("lamps", metadata(traceparent=traceparent), message()) as trace:
        with trace.step("handler", "lamps.light"):
            world.own.start_span("own").end()
        trace.ended(Ack())
        assert trace.traceparent is not None
        assert int(trace.traceparent[-2:], 16) & 1 == 0
        assert (trace.traceparent[3:35] == TRACE) == (traceparent is not None)
    assert world.spans == ()


def test_without_a_provider_what_came_goes_on() -> None:
    program = (
        "from datetime import UTC, datetime\n"
        "from headrace import Delivery, Metadata\n"
        "from headrace.observe.otel import OpenTelemetryTracer\n"
        "from headrace.outcome import Ack\n"
        "tracer = OpenTelemetryTracer()\n"
        "told = dict(id='e', type='LampLit', time=datetime.now(UTC), correlation_id='c')\n"
        f"for came in ({SAMPLED!r}, {UNSAMPLED!r}, None):\n"
        "    metadata = Metadata(**told, traceparent=came)\n"
        "    delivery = Delivery('m', 'r', '{}', 'lamps')\n"
        "    with tracer.delivery('lamps', metadata, delivery) as trace:\n"
        "        with trace.step('handler', 'lamps.light'):\n"
        "            pass\n"
        "        trace.ended(Ack())\n"
        "        assert trace.traceparent == came\n"
        "tracer.received('lamps', 'lamps', [None])\n"
        "assert tracer.current() is None\n"
        "tracer.flush()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class Broken(SpanProcessor):
    """A processor that fails at every turn."""

    def on_start(self, span: object, parent_context: object = None) -> None:
        raise RuntimeError("no room")

    def on_end(self, span: object) -> None:
        raise RuntimeError("no room")


@pytest.mark.parametrize("outcome", [Ack(), Retry("later", error=ValueError("late"))])
def test_a_tracer_that_breaks_costs_no_delivery_and_says_so_once(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    provider = TracerProvider(sampler=ALWAYS_ON)
    provider.add_span_processor(Broken())
    tracer = OpenTelemetryTracer(provider)
    for _ in range(3):
        tracer.received("lamps", "lamps", [HEADER])
        with tracer.delivery("lamps", metadata(), message()) as trace:
            with trace.step("handler", "lamps.light"):
                pass
            trace.ended(outcome)
            assert trace.traceparent == SAMPLED
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_the_settings_ask_for_it_by_name() -> None:
    assert isinstance(observing(ObserveSettings(tracing="otel")).tracer, OpenTelemetryTracer)


def test_without_the_package_the_error_says_what_to_install() -> None:
    program = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from headrace.observe.otel import OpenTelemetryTracer\n"
        "OpenTelemetryTracer()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ConfigurationError" in done.stderr
    assert "pip install 'headrace[otel]'" in done.stderr
