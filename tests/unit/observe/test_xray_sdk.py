"""What handlers record with the X-Ray SDK is part of the step that runs them."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest
from aws_xray_sdk.core import xray_recorder  # type: ignore[import-untyped]  # ships no types

from headrace.envelope import Metadata
from headrace.observe.xray import XRayTracer
from headrace.observe.xray_daemon import LARGEST
from headrace.observe.xray_sdk import TOGETHER
from headrace.outcome import Ack
from headrace.ports import Delivery
from tests.unit.observe.xray_collector import (
    HEADER,
    Collector,
    Document,
    named,
    recorder_restored,
    subsegments,
    walk,
)

SAMPLED = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", collector.address)
    with recorder_restored():
        yield collector
    collector.close()


@pytest.fixture
def tracer(collector: Collector) -> XRayTracer:
    return XRayTracer()


@contextmanager
def handling(tracer: XRayTracer, *, cause: str = "c-1") -> Iterator[None]:
    """As a handler runs."""
    metadata = Metadata(
        id="e-1",
        type="KettleBoiled",
        time=datetime(2026, 3, 1, tzinfo=UTC),
        correlation_id=cause,
        traceparent=SAMPLED,
    )
    with tracer.delivery("tea", metadata, Delivery("m-1", "r-1", "{}", "tea")) as trace:
        with trace.step("handler", "tea.pour"):
            yield
        trace.ended(Ack())


def hangs_on(document: Document) -> dict[str, str]:
    """The name of what each subsegment hangs on, by its own."""
    found = {child["name"]: document["name"] for child in subsegments(document)}
    for child in subsegments(document):
        found |= hangs_on(child)
    return found


def test_subsegments_of_a_handler_hang_on_its_step_one_below_the_other(
    tracer: XRayTracer, collector: Collector
) -> None:
    with (
        handling(tracer),
        xray_recorder.in_subsegment("outer"),
        xray_recorder.in_subsegment("inner"),
    ):
        pass
    segment = collector.only()
    assert hangs_on(segment) == {"handler": "tea", "outer": "handler", "inner": "outer"}
    outer = named(segment, "outer")
    assert outer["parent_id"] == named(segment, "handler")["id"]
    assert outer["start_time"] <= outer["end_time"]


@xray_recorder.capture("captured")  # type: ignore[untyped-decorator]  # ships no types
def poured() -> str:
    return "tea"


@xray_recorder.capture_async("captured")  # type: ignore[untyped-decorator]  # ships no types
async def poured_slowly() -> str:
    await asyncio.sleep(0)
    return "tea"


async def test_the_decorators_of_the_sdk_work_in_a_handler(
    tracer: XRayTracer, collector: Collector
) -> None:
    with handling(tracer):
        assert poured() == "tea"
        assert await poured_slowly() == "tea"
    handler = named(collector.only(), "handler")
    assert [child["name"] for child in subsegments(handler)] == ["captured", "captured"]


PATCHED = """
import sqlite3
from datetime import UTC, datetime

from aws_xray_sdk.core import patch

from headrace.envelope import Metadata
from headrace.observe.xray import XRayTracer
from headrace.ports import Delivery

patch(["sqlite3"])
time = datetime(2026, 3, 1, tzinfo=UTC)
trace = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
metadata = Metadata(id="e", type="KettleBoiled", time=time, correlation_id="c", traceparent=trace)
with XRayTracer().delivery("tea", metadata, Delivery("m", "r", "{}", "tea")) as delivery:
    with delivery.step("handler", "tea.pour"):
        connection = sqlite3.connect(":memory:")
        connection.execute("SELECT 1")
        connection.close()
"""


def test_a_library_that_the_sdk_patches_records_in_the_handler(collector: Collector) -> None:
    # In a process of its own, as a patch cannot be taken back.
    subprocess.run([sys.executable, "-c", PATCHED], check=True)
    [query, *_] = subsegments(named(collector.only(), "handler"))
    assert (query["namespace"], query["sql"]["database_type"]) == ("remote", "sqlite3")


def test_a_thread_that_was_given_the_context_is_in_the_handler(
    tracer: XRayTracer, collector: Collector
) -> None:
    def work() -> None:
        with xray_recorder.in_subsegment("in a thread"):
            pass

    with ThreadPoolExecutor(1) as threads, handling(tracer):
        threads.submit(copy_context().run, work).result()
    assert hangs_on(collector.only())["in a thread"] == "handler"


def test_a_thread_may_be_given_the_entity_instead_as_the_sdk_has_it(
    tracer: XRayTracer, collector: Collector
) -> None:
    def work(entity: Any) -> None:
        xray_recorder.set_trace_entity(entity)
        with xray_recorder.in_subsegment(f"below {entity.name}"):
            pass

    with ThreadPoolExecutor(1) as threads, handling(tracer):
        threads.submit(work, xray_recorder.get_trace_entity()).result()
        with xray_recorder.in_subsegment("own") as own:
            threads.submit(work, own).result()
    parents = hangs_on(collector.only())
    assert parents["below handler"] == "handler"
    assert parents["below own"] == "own"


async def test_tasks_that_run_side_by_side_do_not_hang_on_each_other(
    tracer: XRayTracer, collector: Collector
) -> None:
    async def branch(number: int, all_in: asyncio.Barrier) -> None:
        async with xray_recorder.in_subsegment_async(f"branch {number}"):
            await all_in.wait()
            async with xray_recorder.in_subsegment_async(f"leaf {number}"):
                await all_in.wait()

    barrier = asyncio.Barrier(5)
    with handling(tracer):
        async with xray_recorder.in_subsegment_async("trunk"):
            await asyncio.gather(*(branch(number, barrier) for number in range(5)))
    parents = hangs_on(collector.only())
    for number in range(5):
        assert parents[f"branch {number}"] == "trunk"
        assert parents[f"leaf {number}"] == f"branch {number}"


async def test_deliveries_that_are_handled_at_once_keep_apart(
    tracer: XRayTracer, collector: Collector
) -> None:
    async def handle(cause: str, all_in: asyncio.Barrier) -> None:
        with handling(tracer, cause=cause):
            await all_in.wait()
            async with xray_recorder.in_subsegment_async(f"of {cause}"):
                await all_in.wait()

    barrier = asyncio.Barrier(8)
    await asyncio.gather(*(handle(f"c-{number}", barrier) for number in range(8)))
    segments = collector.documents()
    assert len(segments) == 8
    for segment in segments:
        own = f"of {segment['annotations']['correlation_id']}"
        assert hangs_on(segment) == {"handler": "tea", own: "handler"}


def test_what_is_recorded_on_the_segment_and_on_the_step_is_sent_with_them(
    tracer: XRayTracer, collector: Collector
) -> None:
    with handling(tracer):
        xray_recorder.put_annotation("leaves", 12)
        xray_recorder.put_metadata("pot", {"litres": 1.5, "when": datetime(2026, 3, 1)})
        segment = xray_recorder.current_segment()
        segment.put_annotation("guest", "Ada")
        segment.put_annotation("queue", "another")  # what a delivery says of itself stands
        segment.set_user("ada")
    sent = collector.only()
    handler = named(sent, "handler")
    assert handler["annotations"] == {"leaves": 12}
    assert handler["metadata"]["default"]["pot"]["litres"] == 1.5
    assert handler["metadata"]["headrace"] == {"handler": "tea.pour"}
    assert (sent["annotations"]["guest"], sent["annotations"]["queue"]) == ("Ada", "tea")
    assert sent["annotations"]["outcome"] == "done"
    assert sent["user"] == "ada"


@pytest.mark.parametrize("value", [2**70, "\ud800", {1: "one"}, b"bytes", float("nan")])
def test_what_json_cannot_say_is_sent_as_well_as_it_can(
    tracer: XRayTracer, collector: Collector, value: object
) -> None:
    with handling(tracer):
        xray_recorder.put_metadata("odd", value)
    assert "odd" in named(collector.only(), "handler")["metadata"]["default"]


def test_an_exception_in_a_subsegment_is_noted_there(
    tracer: XRayTracer, collector: Collector
) -> None:
    with (
        pytest.raises(ValueError, match="cold"),
        handling(tracer),
        xray_recorder.in_subsegment("sip"),
    ):
        raise ValueError("cold")
    sip = named(collector.only(), "sip")
    assert sip["fault"] is True
    assert sip["cause"]["exceptions"][0]["message"] == "cold"


def test_a_handler_cannot_end_what_it_did_not_begin(
    tracer: XRayTracer, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    with handling(tracer):
        xray_recorder.end_subsegment()
        xray_recorder.end_segment()
        with xray_recorder.in_subsegment("after that"):
            pass
    assert hangs_on(collector.only())["after that"] == "handler"
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_subsegment_that_is_never_ended_does_not_swallow_the_next_delivery(
    tracer: XRayTracer, collector: Collector
) -> None:
    with handling(tracer, cause="first"):
        xray_recorder.begin_subsegment("forgotten")
    with handling(tracer, cause="second"), xray_recorder.in_subsegment("own"):
        pass
    first, second = collector.documents()
    assert hangs_on(first) == {"handler": "tea"}
    assert hangs_on(second) == {"handler": "tea", "own": "handler"}


async def test_what_ends_after_its_delivery_is_sent_by_itself(
    tracer: XRayTracer, collector: Collector
) -> None:
    go_on = asyncio.Event()

    async def linger() -> None:
        async with xray_recorder.in_subsegment_async("open at the end"):
            await go_on.wait()
            async with xray_recorder.in_subsegment_async("below it"):
                pass
        async with xray_recorder.in_subsegment_async("begun after the end"):
            pass

    with handling(tracer):
        lingering = asyncio.create_task(linger())
        await asyncio.sleep(0)
    segment = collector.only()
    handler = named(segment, "handler")
    assert subsegments(handler) == []
    go_on.set()
    await lingering
    first, second = collector.documents()[1:]
    assert hangs_on(first) == {"below it": "open at the end"}
    assert second["name"] == "begun after the end"
    for late in (first, second):
        assert (late["type"], late["trace_id"]) == ("subsegment", segment["trace_id"])
        assert late["parent_id"] == handler["id"]


def test_threads_that_record_while_a_delivery_ends_lose_nothing(
    tracer: XRayTracer, collector: Collector
) -> None:
    each = 40
    stop = Flag()

    def record(name: str) -> None:
        for number in range(each):
            with xray_recorder.in_subsegment(f"{name} {number}"):
                pass
            if number == each // 2:
                stop.set()

    with handling(tracer):
        threads = [Thread(target=copy_context().run, args=(record, name)) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        stop.wait()
    for thread in threads:
        thread.join()
    documents = collector.documents()
    names = [one["name"] for document in documents for one in (document, *walk(document))]
    wanted = {f"{name} {number}" for name in ("a", "b") for number in range(each)}
    assert sorted(name for name in names if name in wanted) == sorted(wanted)


def test_many_subsegments_are_sent_as_they_end(tracer: XRayTracer, collector: Collector) -> None:
    many = TOGETHER + 25
    with handling(tracer):
        for number in range(many):
            with xray_recorder.in_subsegment(f"sip {number}"):
                pass
        assert len(collector.documents()) == 25
    *sips, segment = collector.documents()
    handler = named(segment, "handler")
    assert len(subsegments(handler)) == TOGETHER
    assert {sip["parent_id"] for sip in sips} == {handler["id"]}


async def test_nothing_is_lost_where_many_end_before_what_hangs_on_them(
    tracer: XRayTracer, collector: Collector
) -> None:
    many = TOGETHER + 25

    async def below(number: int, go_on: asyncio.Event) -> None:
        async with xray_recorder.in_subsegment_async(f"below {number}"):
            await go_on.wait()
        async with xray_recorder.in_subsegment_async(f"after {number}"):
            pass

    go_on, tasks = asyncio.Event(), []
    with handling(tracer):
        for number in range(many):
            async with xray_recorder.in_subsegment_async(f"sip {number}"):
                tasks.append(asyncio.create_task(below(number, go_on)))
                await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*tasks)
    documents = collector.documents()
    parents: dict[str, list[str]] = {}
    ids = {one["id"]: one["name"] for document in documents for one in (document, *walk(document))}
    for document in documents:
        for one in (document, *walk(document)):
            parents.setdefault(one["name"], []).append(ids.get(one.get("parent_id", ""), ""))
    for number in range(many):
        assert parents[f"sip {number}"] == ["handler"]
        assert parents[f"below {number}"] == parents[f"after {number}"] == [f"sip {number}"]


def test_a_segment_that_is_too_large_is_sent_in_parts(
    tracer: XRayTracer, collector: Collector
) -> None:
    with handling(tracer):
        for number in range(10):
            with xray_recorder.in_subsegment(f"sip {number}"):
                xray_recorder.put_metadata("taste", "x" * 10_000)
    documents = collector.documents()
    assert max(collector.sizes()) <= LARGEST + len(HEADER)
    by_name = {document["name"]: document for document in documents}
    handler, segment = by_name.pop("handler"), by_name.pop("tea")
    assert (handler["type"], handler["parent_id"]) == ("subsegment", segment["id"])
    assert handler["trace_id"] == segment["trace_id"]
    assert sorted(by_name) == [f"sip {number}" for number in range(10)]
    assert {sip["parent_id"] for sip in by_name.values()} == {handler["id"]}
    assert all(len(sip["metadata"]["default"]["taste"]) == 10_000 for sip in by_name.values())


def test_a_subsegment_that_is_too_large_by_itself_is_sent_without_what_makes_it_so(
    tracer: XRayTracer, collector: Collector
) -> None:
    with handling(tracer), xray_recorder.in_subsegment("sip"):
        xray_recorder.put_annotation("leaves", 12)
        xray_recorder.put_metadata("taste", "x" * 2 * LARGEST)
    assert max(collector.sizes()) <= LARGEST + len(HEADER)
    [sip] = [document for document in collector.documents() if document["name"] == "sip"]
    assert sip["annotations"] == {"leaves": 12}
    assert "too large" in sip["metadata"]["headrace"]["left_out"]


def test_a_segment_of_one_s_own_is_sent_the_same_way(
    tracer: XRayTracer, collector: Collector
) -> None:
    with xray_recorder.in_segment("nightly", sampling=1), xray_recorder.in_subsegment("own"):
        pass
    assert hangs_on(collector.only()) == {"own": "nightly"}


def test_a_segment_of_one_s_own_in_a_handler_leaves_the_handler_as_it_was(
    tracer: XRayTracer, collector: Collector
) -> None:
    with handling(tracer):
        with xray_recorder.in_segment("aside", sampling=1), xray_recorder.in_subsegment("own"):
            pass
        with xray_recorder.in_subsegment("after that"):
            pass
    aside, segment = collector.documents()
    assert hangs_on(aside) == {"own": "aside"}
    assert hangs_on(segment) == {"handler": "tea", "after that": "handler"}


async def test_outside_of_deliveries_nothing_is_recorded_and_nobody_told(
    tracer: XRayTracer, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with xray_recorder.in_subsegment("own"):
        xray_recorder.put_annotation("leaves", 12)
        assert not xray_recorder.is_sampled()
    assert await poured_slowly() == "tea"
    xray_recorder.end_segment()
    assert collector.documents() == []
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_whoever_wants_to_be_told_of_a_missing_segment_is_told(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR")
    XRayTracer()
    assert xray_recorder.begin_subsegment("own") is None
    assert "cannot find the current segment" in caplog.text


async def test_a_generator_that_is_left_half_way_takes_nothing_with_it(
    tracer: XRayTracer, collector: Collector
) -> None:
    async def sips() -> AsyncGenerator[int, None]:
        for number in range(3):
            with xray_recorder.in_subsegment(f"sip {number}"):
                yield number

    with handling(tracer):
        left = sips()
        assert await anext(left) == 0
        await left.aclose()
        with xray_recorder.in_subsegment("after that"):
            pass
    assert hangs_on(collector.only())["after that"] == "handler"
