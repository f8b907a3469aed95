"""What a host tells of its work: metrics, traces and logs, as its settings ask for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from headrace.hosts.settings import ObserveSettings
from headrace.observer import Guarded, Observer
from headrace.tracing import Tracer, Untraced, safe

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Observing:
    """Who is told: an observer, which may be several in one, and a tracer."""

    observer: Guarded
    tracer: Tracer

    @property
    def gathers(self) -> bool:
        """Whether there may be something to flush."""
        return self.observer.gathers or not isinstance(self.tracer, Untraced)

    def flush(self) -> None:
        """Write and hand over what was gathered. Raises nothing."""
        self.observer.flush()
        self.tracer.flush()


def observing(
    settings: ObserveSettings, observer: Observer | None = None, tracer: Tracer | None = None
) -> Observing:
    """An observer of one's own beside what the settings ask for; a tracer of one's own in its
    place. Raises `ConfigurationError` if what they ask for is not installed."""
    observers = [] if observer is None else [observer]
    if settings.metrics == "emf":
        from headrace.observe.emf import EmfMetrics

        observers.append(EmfMetrics(namespace=settings.metrics_namespace))
    if settings.log_payloads:
        from headrace.observe.logs import PayloadLog

        observers.append(PayloadLog())
    return Observing(Guarded(observers), safe(tracer or _tracer(settings)))


@asynccontextmanager
async def flushing(told: Observing, settings: ObserveSettings) -> AsyncIterator[None]:
    """Flush every few seconds, and at the end of the block."""
    if not told.gathers:
        yield
        return
    repeating = asyncio.create_task(_repeat(told, settings.metrics_interval.total_seconds()))
    try:
        yield
    finally:
        repeating.cancel()
        told.flush()


async def _repeat(told: Observing, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        told.flush()


def _tracer(settings: ObserveSettings) -> Tracer:
    match settings.tracing:
        case "xray":
            from headrace.observe.xray import XRayTracer

            return XRayTracer()
        case "otel":
            from headrace.observe.otel import OpenTelemetryTracer

            return OpenTelemetryTracer()
        case _:
            return Untraced()
