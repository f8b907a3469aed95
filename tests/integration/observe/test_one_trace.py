"""One order is one trace across the services of the shop, and no segment of it is lost.

`ORDERS=1000` asks for more of them than a run of all tests has time for.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import pytest
from aws_xray_sdk.core import xray_recorder  # type: ignore[import-untyped]  # ships no types
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from headrace import Delivery, Metadata, Outcome, Service
from headrace.client import send
from headrace.hosts.worker import run_worker
from headrace.observe.otel import OpenTelemetryTracer
from headrace.observe.xray import XRayTracer
from headrace.observer import Observer
from headrace.outcome import Ack
from headrace.testing import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from headrace.tracing import Tracer
from schemas.inventory import RestockItem
from schemas.order import Customer, OrderConfirmed, OrderLine, OrderPlaced, PlaceOrder
from services.inventory.app import inventory
from services.notification.app import notification
from services.order.app import order
from tests.unit.observe.xray_collector import Collector, Document, recorder_restored, walk

ORDERS: Final = int(os.environ.get("ORDERS", "100"))
DELIVERIES: Final = {"order": 9, "inventory": 2, "notification": 1, "parcels": 2}
"""Of one order: it is placed, and its checkout begins; that hears of four steps, of which three are
its own service's; it is reserved and taken, notified of, and a parcel is weighed and labelled."""
SKUS: Final = tuple(f"MUG-{number}" for number in range(20))
CUSTOMER: Final = Customer(name="Chiara Lombardi", email="chiara@example.com")
HEAVY: Final = bytes(50_000)
"""Python lets other threads run while it hashes so much."""
PATIENCE: Final = 120.0


# --- a service that traces what it does, in threads and in tasks ---------------------------


class Own:
    """How handlers record what they do; not at all, until a test says with what."""

    def block(self, name: str, cause: str) -> Any:
        return nullcontext()


@dataclass
class Recording:
    own: Own


recording = Recording(Own())
parcels = Service("parcels", bus="shop")


@parcels.on(OrderPlaced)
def weigh(event: OrderPlaced, metadata: Metadata) -> None:
    """In a thread, which lets others run in the middle of it."""
    cause = metadata.correlation_id
    with recording.own.block("weigh", cause):
        sha256(HEAVY)
        with recording.own.block("scales", cause):
            sha256(HEAVY)


@parcels.on(OrderConfirmed)
async def label(event: OrderConfirmed, metadata: Metadata) -> None:
    """In tasks that go on side by side."""
    cause = metadata.correlation_id

    async def print_one(copy: int) -> None:
        with recording.own.block(f"print {copy}", cause):
            await asyncio.sleep(0)
            with recording.own.block(f"ink {copy}", cause):
                await asyncio.sleep(0)

    await asyncio.gather(*(print_one(copy) for copy in range(3)))


RECORDED: Final = {
    "weigh": "handler",
    "scales": "weigh",
    **{f"print {copy}": "handler" for copy in range(3)},
    **{f"ink {copy}": f"print {copy}" for copy in range(3)},
}
"""What the two handlers record, and what each hangs on."""


# --- the shop ------------------------------------------------------------------------------


class Watch(Observer):
    """Stops the worker once so many deliveries are done, and keeps what they were."""

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.settlements: list[tuple[str, Delivery, Outcome]] = []
        self.done = asyncio.Event()

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self.settlements.append((service, delivery, outcome))
        if len(self.settlements) == self.enough:
            self.done.set()


async def handle(cloud: MemoryCloud[Any], count: int, tracer: Tracer | None) -> Watch:
    watch = Watch(count)
    async with asyncio.timeout(PATIENCE):
        await run_worker(
            [order, inventory, notification, parcels],
            cloud.ports,
            concurrency=20,
            observer=watch,
            tracer=tracer,
            stop=watch.done,
        )
    assert {type(outcome) for _, _, outcome in watch.settlements} == {Ack}
    return watch


async def sell(orders: int, tracer: Tracer) -> Watch:
    """Place orders, and handle them and all that follows from them."""
    cloud = memory_ports()
    cloud.provision(topology(order, inventory, notification, parcels))
    stock = [RestockItem(sku=sku, quantity=orders) for sku in SKUS]
    await send(cloud.ports, stock, bus="shop")
    await handle(cloud, len(SKUS), None)
    placed = [
        PlaceOrder(
            order_id=f"W{number}",
            customer=CUSTOMER,
            lines=(OrderLine.model_validate(_line(number)),),
            currency="EUR",
        )
        for number in range(orders)
    ]
    ids = [f"cause-{number}" for number in range(orders)]
    await send(cloud.ports, placed, bus="shop", ids=ids)
    watch = await handle(cloud, orders * sum(DELIVERIES.values()), tracer)
    tracer.flush()
    return watch


def _line(number: int) -> dict[str, Any]:
    return {"sku": SKUS[number % len(SKUS)], "quantity": 1, "unit_price": "14.00"}


# --- X-Ray -----------------------------------------------------------------------------------


class OnXRay(Own):
    def block(self, name: str, cause: str) -> Any:
        return _Annotated(name, cause)


class _Annotated:
    """A subsegment that says which order it is of."""

    def __init__(self, name: str, cause: str) -> None:
        self._subsegment = xray_recorder.in_subsegment(name)
        self._cause = cause

    def __enter__(self) -> None:
        self._subsegment.__enter__().put_annotation("cause", self._cause)

    def __exit__(self, *error: object) -> None:
        self._subsegment.__exit__(*error)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", collector.address)
    monkeypatch.setattr(recording, "own", OnXRay())
    with recorder_restored():
        xray_recorder.sampling = False  # all of it
        yield collector
    collector.close()


async def test_on_xray_one_order_is_one_trace_and_no_segment_is_lost(collector: Collector) -> None:
    tracer = XRayTracer()
    watch = await sell(ORDERS, tracer)
    segments = collector.documents()
    assert tracer.lost == 0
    assert sent_once(
        (one["name"], one["metadata"]["headrace"]["message_id"]) for one in segments
    ) == sorted((service, delivery.message_id) for service, delivery, _ in watch.settlements)
    traces = by_trace((one["trace_id"], one) for one in segments)
    assert len(traces) == ORDERS
    for trace in traces.values():
        assert_one_order(trace)


def assert_one_order(segments: list[Document]) -> None:
    names = [segment["name"] for segment in segments]
    assert {name: names.count(name) for name in names} == DELIVERIES
    [cause] = {segment["annotations"]["correlation_id"] for segment in segments}
    ids = [one["id"] for segment in segments for one in (segment, *walk(segment))]
    assert len(set(ids)) == len(ids)
    [root] = [segment for segment in segments if "parent_id" not in segment]
    assert root["annotations"]["event"] == "PlaceOrder"
    assert {segment["parent_id"] for segment in segments if segment is not root} <= set(ids)
    hanging: dict[str, str] = {}
    for segment in segments:
        for one in walk(segment):
            assert one.get("annotations", {}).get("cause", cause) == cause
        hanging |= hangs_on(segment)
    steps = {"handler", "commit", "dispatch"}
    assert {name: on for name, on in hanging.items() if name not in steps} == RECORDED


def hangs_on(document: Document) -> dict[str, str]:
    found: dict[str, str] = {}
    for child in document.get("subsegments", []):
        found |= {child["name"]: document["name"], **hangs_on(child)}
    return found


# --- OpenTelemetry ---------------------------------------------------------------------------


class OnOpenTelemetry(Own):
    def __init__(self, provider: TracerProvider) -> None:
        self._spans = provider.get_tracer("parcels")

    def block(self, name: str, cause: str) -> Any:
        return self._spans.start_as_current_span(name, attributes={"cause": cause})


async def test_on_opentelemetry_one_order_is_one_trace_and_no_span_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(recording, "own", OnOpenTelemetry(provider))
    watch = await sell(ORDERS, OpenTelemetryTracer(provider))
    spans = [span for span in exporter.get_finished_spans() if told(span, _OPERATION) != "receive"]
    assert sent_once(
        (told(span, "messaging.consumer.group.name"), told(span, "messaging.message.id"))
        for span in spans
        if told(span, _OPERATION) == "process"
    ) == sorted((service, delivery.message_id) for service, delivery, _ in watch.settlements)
    traces = by_trace((format_trace_id(_ids(span)[0]), span) for span in spans)
    assert len(traces) == ORDERS
    for trace in traces.values():
        assert_one_order_of_spans(trace)


_OPERATION: Final = "messaging.operation.type"


def assert_one_order_of_spans(spans: list[ReadableSpan]) -> None:
    deliveries = [span for span in spans if told(span, _OPERATION) == "process"]
    names = [told(span, "messaging.consumer.group.name") for span in deliveries]
    assert {name: names.count(name) for name in names} == DELIVERIES
    [cause] = {told(span, "messaging.message.conversation_id") for span in deliveries}
    by_id = {format_span_id(_ids(span)[1]): span for span in spans}
    [root] = [span for span in spans if span.parent is None]
    assert told(root, "headrace.event") == "PlaceOrder"
    hanging = {}
    for span in spans:
        if span.parent is None:
            continue
        above = by_id[format_span_id(span.parent.span_id)]
        assert told(span, "cause") in (cause, None)
        if span.name in RECORDED:
            hanging[span.name] = above.name
    assert hanging == RECORDED


def told(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


def _ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


# --- both ------------------------------------------------------------------------------------


def sent_once(deliveries: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sorted, and each as often as it was sent: a list tells what a set would hide."""
    return sorted(deliveries)


def by_trace(members: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    found = defaultdict(list)
    for trace, member in members:
        found[trace].append(member)
    return found
