"""Deliveries are segments of X-Ray, of the traces that their messages belong to."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aws_xray_sdk import (  # type: ignore[import-untyped]  # ships no types
    global_sdk_config,
)
from aws_xray_sdk.core import xray_recorder  # type: ignore[import-untyped]  # as above
from aws_xray_sdk.core.lambda_launcher import (  # type: ignore[import-untyped]  # as above
    LambdaContext,
)
from aws_xray_sdk.core.sampling.local.sampler import (  # type: ignore[import-untyped]  # as above
    LocalSampler,
)

from headrace.envelope import Metadata
from headrace.errors import Conflict, RetryLater
from headrace.hosts.observing import observing
from headrace.hosts.settings import ObserveSettings
from headrace.observe.xray import XRayTracer
from headrace.observe.xray_daemon import WAITING, Daemon
from headrace.outcome import Ack, DeadLetter, Retry
from headrace.ports import Delivery
from headrace.trace import xray_from_traceparent
from headrace.tracing import Trace
from tests.unit.observe.xray_collector import Collector, named, recorder_restored, subsegments

TRACE = "5759e988bd862e3fe1be46a994272793"
XRAY_TRACE = "1-5759e988-bd862e3fe1be46a994272793"
PARENT = "53995c3f42cd8ad8"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"
NEVER = {"version": 2, "default": {"fixed_target": 0, "rate": 0}}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", collector.address)
    with recorder_restored():
        xray_recorder.sampling = False  # what nobody has decided is traced
        yield collector
    collector.close()


@pytest.fixture
def tracer(collector: Collector) -> XRayTracer:
    return XRayTracer()


def metadata(**changes: Any) -> Metadata:
    told = {
        "id": "e-1",
        "type": "LampLit",
        "time": datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
        "correlation_id": "c-1",
        "traceparent": SAMPLED,
    }
    return Metadata.model_validate(told | changes)


def message(**changes: Any) -> Delivery:
    told = {"message_id": "m-1", "receipt_handle": "r-1", "body": "{}", "queue": "lamps"}
    return Delivery(**(told | changes))


def handled(tracer: XRayTracer, *, service: str = "lamps", queued: str | None = None) -> None:
    """One delivery without a trace of its own, but for a header."""
    context = tracer.delivery(service, metadata(traceparent=None), message(trace_header=queued))
    with context as trace:
        trace.ended(Ack())


# --- one delivery ----------------------------------------------------------------------


def test_a_delivery_is_a_segment_of_the_trace_of_its_message(
    tracer: XRayTracer, collector: Collector
) -> None:
    with tracer.delivery("lamps", metadata(), message(receive_count=2)) as trace:
        trace.ended(Ack())
    segment = collector.only()
    assert (segment["name"], segment["trace_id"]) == ("lamps", XRAY_TRACE)
    assert segment["parent_id"] == PARENT
    assert segment["start_time"] <= segment["end_time"]
    assert segment["annotations"] == {
        "correlation_id": "c-1",
        "event": "LampLit",
        "queue": "lamps",
        "attempt": 2,
        "outcome": "done",
    }
    assert segment["metadata"]["headrace"] == {"event_id": "e-1", "message_id": "m-1"}
    assert segment["aws"]["xray"]["sdk"] == "X-Ray for Python"


def test_what_a_delivery_sends_is_below_its_segment(
    tracer: XRayTracer, collector: Collector
) -> None:
    with tracer.delivery("lamps", metadata(), message()) as trace:
        sent = trace.traceparent
    assert sent == f"00-{TRACE}-{collector.only()['id']}-01"


def test_the_steps_of_a_delivery_are_its_subsegments(
    tracer: XRayTracer, collector: Collector
) -> None:
    with tracer.delivery("lamps", metadata(), message()) as trace:
        for step in ("handler", "commit", "handler", "commit", "dispatch"):
            with trace.step(step, "lamps.light"):
                pass
    segment = collector.only()
    found = subsegments(segment)
    assert [step["name"] for step in found] == [
        *("handler", "commit", "handler", "commit", "dispatch")
    ]
    assert {step["metadata"]["headrace"]["handler"] for step in found} == {"lamps.light"}
    assert len({segment["id"], *(step["id"] for step in found)}) == 6
    assert all(step["start_time"] <= step["end_time"] for step in found)


async def test_the_steps_of_several_handlers_go_on_side_by_side(
    tracer: XRayTracer, collector: Collector
) -> None:
    async def run(trace: Trace, consumer: str, inside: asyncio.Barrier) -> None:
        with trace.step("handler", consumer), xray_recorder.in_subsegment(f"own of {consumer}"):
            await inside.wait()

    barrier = asyncio.Barrier(2)
    with tracer.delivery("lamps", metadata(), message()) as trace:
        await asyncio.gather(run(trace, "lamps.a", barrier), run(trace, "lamps.b", barrier))
    for step in subsegments(collector.only()):
        consumer = step["metadata"]["headrace"]["handler"]
        assert [own["name"] for own in subsegments(step)] == [f"own of {consumer}"]


def test_a_name_that_xray_would_not_take_is_sent_without_what_it_does_not_take(
    tracer: XRayTracer, collector: Collector
) -> None:
    handled(tracer, service="lamps (old)?")
    assert collector.only()["name"] == "lamps old"


# --- which trace -------------------------------------------------------------------------


def test_the_trace_of_the_metadata_comes_before_that_of_the_header(
    tracer: XRayTracer, collector: Collector
) -> None:
    header = f"Root=1-{'a' * 8}-{'b' * 24};Parent={'c' * 16};Sampled=1"
    with tracer.delivery("lamps", metadata(), message(trace_header=header)):
        pass
    assert collector.only()["trace_id"] == XRAY_TRACE


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        (f"Root={XRAY_TRACE};Parent={PARENT};Sampled=1", PARENT),
        (f"Sampled=1;Parent={PARENT.upper()};Root={XRAY_TRACE}", PARENT),
        (f"Root={XRAY_TRACE};Parent={PARENT}", PARENT),
        (f"Root={XRAY_TRACE};Parent={PARENT};Sampled=?;Lineage=1:a87bd80c:0", PARENT),
        (f"Root={XRAY_TRACE}", None),
        (f"Self=1-{'0' * 8}-{'0' * 24};Root={XRAY_TRACE};Sampled=1", None),
    ],
)
def test_without_one_the_header_tells_the_trace(
    tracer: XRayTracer, collector: Collector, header: str, parent: str | None
) -> None:
    handled(tracer, queued=header)
    segment = collector.only()
    assert (segment["trace_id"], segment.get("parent_id")) == (XRAY_TRACE, parent)


def test_what_a_delivery_sends_is_the_header_that_its_consumer_continues(
    tracer: XRayTracer, collector: Collector
) -> None:
    with tracer.delivery("lamps", metadata(), message()) as trace:
        sent = xray_from_traceparent(trace.traceparent)
    handled(tracer, service="bulbs", queued=sent)
    first, second = collector.documents()
    assert (second["trace_id"], second["parent_id"]) == (first["trace_id"], first["id"])


@pytest.mark.parametrize("header", [None, "", "nonsense", "Root=1-5759e988;Parent=1", "Root=;;="])
def test_a_message_without_a_trace_begins_one_at_its_time(
    tracer: XRayTracer, collector: Collector, header: str | None
) -> None:
    handled(tracer, queued=header)
    segment = collector.only()
    _, seconds, rest = segment["trace_id"].split("-")
    assert datetime.fromtimestamp(int(seconds, 16), UTC) == metadata().time
    assert len(rest) == 24
    assert "parent_id" not in segment


def test_a_redelivery_and_every_other_consumer_are_in_the_same_trace(
    tracer: XRayTracer, collector: Collector
) -> None:
    for service in ("lamps", "lamps", "bulbs"):
        handled(tracer, service=service)
    traces = {segment["trace_id"] for segment in collector.documents()}
    ids = {segment["id"] for segment in collector.documents()}
    assert (len(traces), len(ids)) == (1, 3)


def test_the_trace_of_another_cause_is_another(tracer: XRayTracer, collector: Collector) -> None:
    for cause in ("c-1", "c-2"):
        told = metadata(traceparent=None, correlation_id=cause)
        with tracer.delivery("lamps", told, message()):
            pass
    first, second = collector.documents()
    assert first["trace_id"] != second["trace_id"]


# --- sampling ----------------------------------------------------------------------------


def test_what_the_sender_did_not_sample_is_not_sent_and_its_ids_go_on(
    tracer: XRayTracer, collector: Collector
) -> None:
    with tracer.delivery("lamps", metadata(traceparent=UNSAMPLED), message()) as trace:
        with trace.step("handler", "lamps.light"), xray_recorder.in_subsegment("own"):
            xray_recorder.put_annotation("colour", "red")
        trace.ended(Retry("not now"))
        assert trace.traceparent == UNSAMPLED
    assert collector.documents() == []


def test_the_sampler_decides_about_a_trace_that_begins(
    tracer: XRayTracer, collector: Collector
) -> None:
    xray_recorder.sampling, xray_recorder.sampler = True, LocalSampler(NEVER)
    with tracer.delivery("lamps", metadata(traceparent=None), message()) as trace:
        assert trace.traceparent is not None
        assert trace.traceparent.endswith("-00")
    assert collector.documents() == []


def test_the_sampler_decides_where_the_header_leaves_it_open(
    tracer: XRayTracer, collector: Collector
) -> None:
    xray_recorder.sampling, xray_recorder.sampler = True, LocalSampler(NEVER)
    handled(tracer, queued=f"Root={XRAY_TRACE};Parent={PARENT}")
    assert collector.documents() == []
    xray_recorder.sampling = False
    # This is how it comes out of the codec, which knows no "open".
    header = f"Root={XRAY_TRACE};Parent={PARENT}"
    told = metadata(traceparent=UNSAMPLED)
    with tracer.delivery("lamps", told, message(trace_header=header)):
        pass
    assert collector.only()["parent_id"] == PARENT


def test_the_sender_decides_whatever_the_sampler_says(
    tracer: XRayTracer, collector: Collector
) -> None:
    xray_recorder.sampling, xray_recorder.sampler = True, LocalSampler(NEVER)
    with tracer.delivery("lamps", metadata(), message()):
        pass
    assert collector.only()["trace_id"] == XRAY_TRACE


class Ruled:
    """A sampler with one rule."""

    def should_trace(self, sampling_req: dict[str, Any]) -> str:
        return f"rule of {sampling_req['service']}"


def test_the_rule_that_a_segment_is_sampled_by_is_told(
    tracer: XRayTracer, collector: Collector
) -> None:
    xray_recorder.sampling, xray_recorder.sampler = True, Ruled()
    handled(tracer)
    assert collector.only()["aws"]["xray"]["sampling_rule_name"] == "rule of lamps"


@pytest.fixture
def disabled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_XRAY_SDK_ENABLED", "false")
    global_sdk_config.set_sdk_enabled(False)
    yield
    monkeypatch.delenv("AWS_XRAY_SDK_ENABLED")
    global_sdk_config.set_sdk_enabled(True)


@pytest.mark.usefixtures("disabled")
def test_a_disabled_sdk_traces_nothing_and_what_came_goes_on(collector: Collector) -> None:
    tracer = XRayTracer()
    with tracer.delivery("lamps", metadata(), message()) as trace:
        with trace.step("handler", "lamps.light"), xray_recorder.in_subsegment("own"):
            pass
        trace.ended(Ack())
        assert trace.traceparent == SAMPLED
    assert tracer.current() is None
    assert collector.documents() == []


# --- what becomes of it ------------------------------------------------------------------


def test_what_a_step_raises_is_noted_with_its_cause_and_raised(
    tracer: XRayTracer, collector: Collector
) -> None:
    with tracer.delivery("lamps", metadata(), message()) as trace:
        with pytest.raises(ValueError, match="no wick"), trace.step("handler", "lamps.light"):
            raise (failure := ValueError("no wick"))
        trace.ended(Retry("ValueError: no wick", error=failure))
    segment = collector.only()
    [noted] = named(segment, "handler")["cause"]["exceptions"]
    assert (noted["type"], noted["message"]) == ("ValueError", "no wick")
    assert noted["stack"][0]["path"] == "test_xray.py"
    assert named(segment, "handler")["fault"] is True
    # It is told once, and named where it did harm.
    assert (segment["fault"], segment["cause"]) == (True, noted["id"])
    assert segment["annotations"]["outcome"] == "retry"


@pytest.mark.parametrize("failure", [Conflict(), RetryLater("too early")])
def test_what_is_no_failure_of_the_service_is_an_error_and_no_fault(
    tracer: XRayTracer, collector: Collector, failure: Exception
) -> None:
    with tracer.delivery("lamps", metadata(), message()) as trace:
        with pytest.raises(type(failure)), trace.step("commit", "lamps.light"):
            raise failure
        trace.ended(Retry(str(failure), error=failure))
    segment = collector.only()
    for one in (segment, named(segment, "commit")):
        assert one["error"] is True
        assert "fault" not in one


def test_a_dead_letter_is_a_fault_with_its_reason(tracer: XRayTracer, collector: Collector) -> None:
    with tracer.delivery("lamps", metadata(), message()) as trace:
        trace.ended(DeadLetter("PoisonMessage: it is broken"))
    segment = collector.only()
    assert segment["fault"] is True
    assert segment["annotations"]["outcome"] == "dead_letter"
    assert segment["annotations"]["reason"] == "PoisonMessage: it is broken"
    [cause] = segment["cause"]["exceptions"]
    assert cause["message"] == "PoisonMessage: it is broken"


def test_a_duplicate_is_told_from_what_is_done(tracer: XRayTracer, collector: Collector) -> None:
    with tracer.delivery("lamps", metadata(), message()) as trace:
        trace.ended(Ack(duplicate=True))
    assert collector.only()["annotations"]["outcome"] == "duplicate"


async def test_a_delivery_that_is_cancelled_is_sent_as_cut_short(
    tracer: XRayTracer, collector: Collector
) -> None:
    inside = asyncio.Event()

    async def run() -> None:
        with (
            tracer.delivery("lamps", metadata(), message()) as trace,
            trace.step("handler", "lamps.light"),
        ):
            inside.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await inside.wait()
    running.cancel()
    await asyncio.wait((running,))
    segment = collector.only()
    assert segment["annotations"]["outcome"] == "cut_short"
    assert segment["error"] is True
    assert named(segment, "handler")["error"] is True


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_that_cannot_be_shown_is_noted_all_the_same(
    tracer: XRayTracer, collector: Collector
) -> None:
    with tracer.delivery("lamps", metadata(), message()) as trace:
        with pytest.raises(Unspeakable), trace.step("handler", "lamps.light"):
            raise Unspeakable
        trace.ended(Ack())
    [noted] = named(collector.only(), "handler")["cause"]["exceptions"]
    assert noted["type"] == "Unspeakable"


# --- Lambda, and requests ----------------------------------------------------------------

INVOCATION = f"1-{'6' * 8}-{'7' * 24}"


@pytest.fixture
def in_lambda(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> XRayTracer:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "lamps")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={INVOCATION};Parent={'8' * 16};Sampled=1")
    xray_recorder.context = LambdaContext()
    return XRayTracer()


def test_in_lambda_the_trace_is_the_message_s_and_names_the_invocation_s(
    in_lambda: XRayTracer, collector: Collector
) -> None:
    with in_lambda.delivery("lamps", metadata(), message()):
        pass
    segment = collector.only()
    assert (segment["trace_id"], segment["parent_id"]) == (XRAY_TRACE, PARENT)
    assert segment["annotations"]["lambda_trace_id"] == INVOCATION


def test_in_lambda_the_invocation_decides_for_a_message_that_does_not_say(
    in_lambda: XRayTracer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root={INVOCATION};Parent={'8' * 16};Sampled=0")
    handled(in_lambda)
    assert collector.documents() == []


def test_in_lambda_what_is_recorded_outside_of_deliveries_is_the_invocation_s(
    in_lambda: XRayTracer, collector: Collector
) -> None:
    assert in_lambda.current() == f"00-{'6' * 8}{'7' * 24}-{'8' * 16}-01"
    xray_recorder.streaming_threshold, before = 0, xray_recorder.streaming_threshold
    try:
        with xray_recorder.in_subsegment("own"):
            pass
    finally:
        xray_recorder.streaming_threshold = before
    own = collector.only()
    assert (own["trace_id"], own["parent_id"]) == (INVOCATION, "8" * 16)


def test_a_request_that_the_sdk_traces_is_current(tracer: XRayTracer, collector: Collector) -> None:
    assert tracer.current() is None
    with xray_recorder.in_segment("http", traceid=XRAY_TRACE, sampling=1) as segment:
        assert tracer.current() == f"00-{TRACE}-{segment.id}-01"
        with xray_recorder.in_subsegment("placing") as placing:
            assert tracer.current() == f"00-{TRACE}-{placing.id}-01"
    assert tracer.current() is None
    assert collector.only()["id"] == segment.id


def test_what_follows_from_a_request_that_is_not_sampled_is_not_either(
    tracer: XRayTracer, collector: Collector
) -> None:
    with xray_recorder.in_segment("http", sampling=0):
        current = tracer.current()
    assert current is not None
    assert current.endswith("-00")
    with tracer.delivery("lamps", metadata(traceparent=current), message()):
        pass
    assert collector.documents() == []


def test_a_delivery_is_current_in_itself_and_a_step_within_it(
    tracer: XRayTracer, collector: Collector
) -> None:
    with tracer.delivery("lamps", metadata(), message()) as trace:
        assert tracer.current() == trace.traceparent
        with trace.step("handler", "lamps.light"):
            inside = tracer.current()
            with xray_recorder.in_subsegment("own") as own:
                assert tracer.current() == f"00-{TRACE}-{own.id}-01"
        assert tracer.current() == trace.traceparent
    assert tracer.current() is None
    assert inside == f"00-{TRACE}-{named(collector.only(), 'handler')['id']}-01"


# --- what goes wrong ---------------------------------------------------------------------


def silent_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_where_nobody_listens_nothing_fails_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", f"127.0.0.1:{silent_port()}")
    tracer = XRayTracer()
    for _ in range(20):
        handled(tracer)
        tracer.flush()
    assert tracer.lost > 10
    assert len([record for record in caplog.records if "lost" in record.getMessage()]) == 1


def test_a_host_that_is_not_found_costs_no_delivery(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", "no-such-host.invalid:2000")
    tracer = XRayTracer()
    handled(tracer)
    assert "AWS_XRAY_DAEMON_ADDRESS" in caplog.text


def test_that_the_daemon_has_no_sampling_rules_is_said_once(
    tracer: XRayTracer, caplog: pytest.LogCaptureFixture
) -> None:
    poller = logging.getLogger("aws_xray_sdk.core.sampling.rule_poller")
    for _ in range(3):
        try:
            raise ConnectionError("nobody there")
        except ConnectionError:
            poller.error("The rules of this test cannot be had.", exc_info=True)
    [said] = caplog.records
    assert said.getMessage() == "The rules of this test cannot be had. nobody there"
    assert said.exc_info is None


class Reluctant(socket.socket):
    """A socket whose buffer is full as long as a test says so."""

    full = True

    def send(self, data: Any, flags: int = 0) -> int:
        if self.full:
            raise BlockingIOError
        return super().send(data, flags)


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> Daemon:
    host, port = collector.address.split(":")
    monkeypatch.setattr(Reluctant, "full", True)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Reluctant)
        return Daemon(host, int(port))


def test_what_does_not_fit_into_the_socket_is_sent_when_there_is_room(
    crowded: Daemon, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        crowded.send(b'{"number":%d}' % number)
    assert collector.documents() == []
    monkeypatch.setattr(Reluctant, "full", False)
    crowded.send(b'{"number":50}')
    assert [document["number"] for document in collector.documents()] == [*range(51)]
    assert crowded.lost == 0


def test_what_waits_is_bounded_and_the_rest_is_counted_as_lost(
    crowded: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(WAITING + 3):
        crowded.send(b"{}")
    assert crowded.lost == 3
    assert len(caplog.records) == 1


async def test_what_waits_is_sent_by_the_event_loop_if_nothing_else_comes(
    crowded: Daemon, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowded.send(b'{"number":1}')
    monkeypatch.setattr(Reluctant, "full", False)
    assert await asyncio.to_thread(collector.wait)
    assert collector.only() == {"number": 1}


class Broken:
    def should_trace(self, sampling_req: dict[str, Any]) -> bool:
        raise RuntimeError("no rules")


def test_a_tracer_that_breaks_costs_no_delivery_and_says_so_once(
    tracer: XRayTracer, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    xray_recorder.sampling, xray_recorder.sampler = True, Broken()
    for _ in range(3):
        with tracer.delivery("lamps", metadata(traceparent=None), message()) as trace:
            with trace.step("handler", "lamps.light"):
                pass
            trace.ended(Ack())
    assert collector.documents() == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_coroutine_that_is_dropped_half_way_costs_no_delivery(
    tracer: XRayTracer, collector: Collector
) -> None:
    async def run() -> None:
        with tracer.delivery("lamps", metadata(), message()):
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    running = run()
    task = loop.create_task(running)
    loop.call_soon(loop.stop)
    loop.run_forever()
    running.close()  # in a context that is not the task's
    task.cancel()
    loop.close()
    assert collector.only()["annotations"]["outcome"] == "cut_short"


def test_the_settings_ask_for_it_by_name(collector: Collector) -> None:
    assert isinstance(observing(ObserveSettings(tracing="xray")).tracer, XRayTracer)


@pytest.mark.parametrize(
    "statement",
    [
        "import headrace.hosts.worker, headrace.hosts.lambda_, headrace.observe.xray",
        "from headrace.hosts.observing import observing\n"
        "from headrace.hosts.settings import ObserveSettings\n"
        "observing(ObserveSettings())",
    ],
)
def test_the_sdk_is_imported_only_where_traces_are_on(statement: str) -> None:
    check = "import sys\nassert not {'aws_xray_sdk', 'opentelemetry'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{statement}\n{check}"], check=True)


def test_without_the_package_the_error_says_what_to_install() -> None:
    program = (
        "import sys\n"
        "sys.modules['aws_xray_sdk'] = None\n"
        "from headrace.observe.xray import XRayTracer\n"
        "XRayTracer()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ConfigurationError" in done.stderr
    assert "pip install 'headrace[xray]'" in done.stderr
