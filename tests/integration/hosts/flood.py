"""A service that gets more messages than it has time for, some of which do not end at first."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError
from contextlib import suppress

from headrace import Delivery, Entity, Event, Metadata, Service, Transaction
from headrace.hosts.lambda_ import lambda_handler
from headrace.hosts.settings import LambdaSettings

CONCURRENCY = 60


class WaterRose(Event, source="flood.river"):
    """The messages have no metadata, so that 10,000 records fit into an invocation."""

    gauge: int
    seconds: float = 0


class WaterStood(Event, source="flood.river"):
    """Its handler never ends, the first time."""

    gauge: int


class WaterRaged(Event, source="flood.river"):
    """Its handler swallows its cancellation, the first time, and then goes on to its end."""

    gauge: int


class WaterBlocked(Event, source="flood.river"):
    """Its handler blocks a thread."""

    gauge: int


class GaugeRead(Event, source="flood.office"):
    gauge: int
    cause: str


class Gauge(Entity, pk="gauge#{number}"):
    number: int
    readings: int = 0


flood = Service("flood", bus="river")
handler = lambda_handler(flood, settings=LambdaSettings(concurrency=CONCURRENCY))


async def read(number: int, tx: Transaction) -> None:
    gauge = await tx.get(Gauge, number) or Gauge(number=number)
    tx.put(gauge.model_copy(update={"readings": gauge.readings + 1}))


@flood.on(WaterRose)
async def rise(event: WaterRose, tx: Transaction, metadata: Metadata) -> GaugeRead:
    await asyncio.sleep(event.seconds)
    await read(event.gauge, tx)
    return GaugeRead(gauge=event.gauge, cause=metadata.id)


@flood.on(WaterStood)
async def stand(
    event: WaterStood, tx: Transaction, metadata: Metadata, delivery: Delivery
) -> GaugeRead:
    await read(event.gauge, tx)
    if delivery.receive_count == 1:
        await asyncio.Event().wait()
    return GaugeRead(gauge=event.gauge, cause=metadata.id)


@flood.on(WaterRaged)
async def rage(
    event: WaterRaged, tx: Transaction, metadata: Metadata, delivery: Delivery
) -> GaugeRead:
    if delivery.receive_count == 1:
        with suppress(CancelledError):
            await asyncio.Event().wait()
    await read(event.gauge, tx)
    return GaugeRead(gauge=event.gauge, cause=metadata.id)


@flood.on(WaterBlocked)
def block(event: WaterBlocked, tx: Transaction, metadata: Metadata) -> GaugeRead:
    threading.Event().wait(0.2)
    tx.put(Gauge(number=event.gauge, readings=1))
    return GaugeRead(gauge=event.gauge, cause=metadata.id)


office = Service("office", bus="river", table=None)


@office.on(GaugeRead, idempotent=True)
async def note(event: GaugeRead) -> None:
    pass
