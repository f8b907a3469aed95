"""What hosts log of a delivery besides its handlers, and tell of one that is cut short."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

import pytest

from headrace import Event, Sensitive, Service
from headrace.batch import Batch, CutShort
from headrace.client import send
from headrace.context import bind_delivery, identify
from headrace.envelope import root_metadata
from headrace.hosts.heartbeat import Heartbeat
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import run_worker
from headrace.observe.emf import EmfMetrics
from headrace.observe.logs import JsonFormatter
from headrace.outcome import Outcome
from headrace.ports import Delivery, EntryFailure
from headrace.testing import ManualClock, delivery_of, memory_ports
from headrace.topology.derive import topology
from headrace.turns import Turns
from tests.unit.observe.test_emf import values_of
from tests.unit.timeless import timeless


class GateOpened(Event, source="shop.hostlogs"):
    door: str
    key: Annotated[str, Sensitive] = "secret"


OPENED = GateOpened(door="D1")
DELIVERY = delivery_of(OPENED, "doors", id="e-1")


class Formatted(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """The lines of everybody, of every level."""
    handler, root = Formatted(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.lines
    root.setLevel(level)
    root.removeHandler(handler)


async def handled(*events: GateOpened) -> None:
    """A worker handles these and is told to stop."""
    doors, stop, left = Service("doors", bus="shop"), asyncio.Event(), len(events)

    @doors.on(GateOpened)
    async def watch(event: GateOpened) -> None:
        logging.getLogger("doors").info("%s was opened", event.door)

    @doors.on(GateOpened)
    async def count(event: GateOpened) -> None:
        nonlocal left
        left -= 1
        if not left:
            stop.set()

    cloud = memory_ports()
    cloud.provision(topology(doors))
    await send(cloud.ports, events, bus="shop", ids=[f"e-{event.door}" for event in events])
    settings = WorkerSettings(wait=timedelta(seconds=1))
    await run_worker([doors], cloud.ports, settings=settings, stop=stop)


@timeless
async def test_no_payload_is_logged_unless_it_is_asked_for(
    log: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_LOG_PAYLOADS", raising=False)
    await handled(OPENED)
    assert [line["message"] for line in log if line["logger"] == "doors"] == ["D1 was opened"]
    assert "secret" not in json.dumps(log)
    assert [line for line in log if "payload" in line] == []


@timeless
async def test_a_payload_is_logged_once_a_delivery_and_before_its_handlers(
    log: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_LOG_PAYLOADS", "on")
    await handled(OPENED, GateOpened(door="D2"))

    for number in ("D1", "D2"):
        lines = [line for line in log if line.get("correlation_id") == f"e-{number}"]
        payload, opened, *_ = [line for line in lines if line["level"] == "INFO"]
        assert payload["payload"] == {"door": number, "key": "***"}
        assert payload["message"] == "GateOpened arrived"
        assert "handler" not in payload
        assert opened["message"] == f"{number} was opened"
    assert sum("payload" in line for line in log) == 2
    assert "secret" not in json.dumps(log)


class Refusing:
    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        return [EntryFailure(n, "InvalidParameterValue", "expired", False) for n in range(2)]


async def stayed(heartbeat: Heartbeat) -> None:
    """Handle the delivery until it is lost."""
    with bind_delivery("doors", DELIVERY):
        async with heartbeat.stay(DELIVERY):
            identify(root_metadata(OPENED, id="e-1", now=ManualClock().now()), None)
            await asyncio.Event().wait()


@timeless
async def test_a_lost_message_is_logged_in_its_own_log_and_one_that_waits_by_its_id(
    log: list[dict[str, Any]],
) -> None:
    queues: Any = Refusing()
    heartbeat = Heartbeat(queues, "doors", timedelta(seconds=30))
    waiting = replace(delivery_of(OPENED, "doors", id="e-2"), receipt_handle="another")
    heartbeat.hold([DELIVERY, waiting])
    beating = asyncio.create_task(heartbeat.run())
    with pytest.raises(CutShort):
        await stayed(heartbeat)
    beating.cancel()

    lost = {line["message_id"]: line for line in log if "not held any more" in line["message"]}
    assert lost.keys() == {"message-e-1", "message-e-2"}
    assert lost["message-e-1"]["correlation_id"] == "e-1"
    assert "correlation_id" not in lost["message-e-2"]


async def test_what_is_cut_short_is_not_in_flight_any_more_and_comes_again() -> None:
    lines: list[str] = []
    metrics, began = EmfMetrics(write=lines.append), asyncio.Event()

    async def consume(delivery: Delivery) -> Outcome:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody waits for it")

    async def settle(delivery: Delivery, outcome: Outcome) -> Outcome:
        raise AssertionError("its host hands it back")

    batch = Batch("doors", consume, settle, turns=Turns(), observer=metrics)
    running = asyncio.create_task(batch.run([DELIVERY]))
    await began.wait()
    running.cancel()
    await asyncio.wait((running,))
    metrics.flush()

    values = values_of(map(json.loads, lines))
    assert values["doors",] == {"Received": [1], "Retried": [1], "InFlight": [0, 1]}
