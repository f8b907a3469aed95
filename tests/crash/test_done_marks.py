"""The note that all is out may be lost: nothing waits for it, and nothing depends on it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace import Ack, Event, Service
from headrace.errors import Unreachable
from headrace.pipeline import running
from headrace.testing import MemoryCloud, delivery_of, memory_ports
from headrace.topology.derive import topology


class HornBlown(Event, source="crash.gate"):
    horn: str


class HornHeard(Event, source="crash.keep"):
    horn: str


gate = Service("gate", bus="crash")


@gate.on(HornBlown)
async def hear(event: HornBlown) -> HornHeard:
    return HornHeard(horn=event.horn)


keep = Service("keep", bus="crash")


@keep.on(HornHeard, idempotent=True)
async def remember(event: HornHeard) -> None: ...


async def consumed(cloud: MemoryCloud[Any]) -> object:
    async with running(gate, cloud.ports) as pipeline:
        return await pipeline.consume(delivery_of(HornBlown(horn="great"), "gate"))


async def test_a_done_mark_that_fails_holds_nothing_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(actions: object) -> list[int]:
        raise Unreachable("down")

    cloud = memory_ports()
    cloud.provision(topology(gate, keep))
    monkeypatch.setattr(cloud.store, "write", fail)
    assert await consumed(cloud) == Ack()
    assert await consumed(cloud) == Ack(duplicate=True)
    assert "could not be marked as done: down" in caplog.text
    sent = [json.loads(entry.body)["detail"]["metadata"] for entry in cloud.queues.peek("keep")]
    assert len(sent) == 2
    assert len({metadata["id"] for metadata in sent}) == 1
