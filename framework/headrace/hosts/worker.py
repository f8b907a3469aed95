"""The worker: long polls SQS and runs the pipeline, on Fargate or anywhere else."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final

from headrace.aws.client import open_ports
from headrace.hosts.observing import flushing, observing
from headrace.hosts.poller import Poller
from headrace.hosts.pulse import Pulse
from headrace.hosts.settings import Address, ObserveSettings, WorkerSettings
from headrace.observer import Observer, Unobserved
from headrace.pipeline import Pipeline, running
from headrace.ports import Clock, Ports
from headrace.relay import Relay
from headrace.service import Service
from headrace.tracing import Tracer

logger = logging.getLogger(__name__)


_ON_ITS_WAY: Final = 0.25
"""SQS answers a receive at once if it has something: what is on its way at the stop would stay
hidden until its visibility ends. A poll that is still silent after these seconds is idle."""


class Worker:
    """Polls the queues of some services and handles what comes, until it is told to stop; and
    relays what their transactions outside of handlers left to send.

    `pulses` say how the polling of each queue goes, on whatever thread one asks.
    """

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        *,
        settings: WorkerSettings | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._settings = settings or WorkerSettings()
        self._relays = [
            Relay(pipeline.service, pipeline.ports, observer)
            for pipeline in pipelines
            if pipeline.service.emits
        ]
        self._pollers = [
            Poller(pipeline, queue, self._settings, observer or Unobserved())
            for pipeline in pipelines
            for queue in pipeline.service.queues
        ]

    @property
    def pulses(self) -> list[Pulse]:
        return [poller.pulse for poller in self._pollers]

    def oldest(self) -> timedelta | None:
        """For how long the delivery that began first has been handled; `None` if none is."""
        ages = [age for poller in self._pollers if (age := poller.oldest()) is not None]
        return max(ages, default=None)

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event | None = None) -> None:
        """Handle deliveries until `stop` is set; then receive nothing more, let what runs finish
        for as long as the settings say or until `hurry`, and return. What is not finished is
        handed back.

        Raises `NotProvisioned` if a queue is not there to begin with.
        """
        polls = [poll for poller in self._pollers for poll in poller.start()]
        relays = [asyncio.create_task(relay.run()) for relay in self._relays]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *polls, *relays], return_when=asyncio.FIRST_COMPLETED)
        finally:
            receiving = {poll for poller in self._pollers for poll in poller.stop()}
            if receiving:
                await asyncio.wait(receiving, timeout=_ON_ITS_WAY)
            for task in (stopped, *polls, *relays):
                task.cancel()
            ended = await asyncio.gather(stopped, *polls, *relays, return_exceptions=True)
            drained = (
                poller.drain(self._settings.drain, hurry or asyncio.Event())
                for poller in self._pollers
            )
            await asyncio.gather(*drained)
        for error in ended:
            if isinstance(error, Exception):
                raise error


async def run_worker(
    services: Sequence[Service],
    ports: Ports | None = None,
    *,
    settings: WorkerSettings | None = None,
    concurrency: int | None = None,
    observer: Observer | None = None,
    tracer: Tracer | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run services until SIGTERM, SIGINT or `stop`; then finish what runs, and return. A second
    signal cuts short what still runs.

    `concurrency`, the number of deliveries handled at a time per queue, is short for the
    `settings` of that name; without settings, the environment gives them. Without `ports`, the
    environment says which AWS to use. The environment also says what is told of the work, beside
    what `observer` is told; a `tracer` takes the place of its own.

    Raises `ConfigurationError`, and `NotProvisioned` if a queue or the bus is not there.
    """
    settings = settings or WorkerSettings.from_environment()
    if concurrency is not None:
        settings = replace(settings, concurrency=concurrency)
    telling = ObserveSettings.from_environment()
    told = observing(telling, observer, tracer)
    stop, hurry = stop or asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(flushing(told, telling))
        if ports is None:
            ports = await stack.enter_async_context(open_ports())
        pipelines = [
            await stack.enter_async_context(running(service, ports, told.observer, told.tracer))
            for service in services
        ]
        worker = Worker(pipelines, settings=settings, observer=told.observer)
        if settings.health is not None:
            await stack.enter_async_context(_health(worker, settings.health, stop, ports.clock))
        if settings.scale_in_protection:
            await stack.enter_async_context(_protected(worker, settings.drain))
        stack.enter_context(_stopping_on_signals(stop, hurry))
        await worker.run(stop, hurry)


@asynccontextmanager
async def _health(
    worker: Worker, address: Address, stop: asyncio.Event, clock: Clock
) -> AsyncIterator[None]:
    # An HTTP server is a tenth of what a worker imports, and most have none.
    from headrace.hosts.health import health_served

    async with health_served(address, worker.pulses, stopping=stop.is_set, clock=clock) as served:
        logger.info("Serving /healthz and /readyz on %s:%d.", *served)
        yield


@asynccontextmanager
async def _protected(worker: Worker, drain: timedelta) -> AsyncIterator[None]:
    """What takes longer than half the drain might not end within it. For where ECS is."""
    if "ECS_AGENT_URI" not in os.environ:
        yield
        return
    from headrace.aws.task_protection import TaskProtection
    from headrace.hosts.protection import protected_while_slow

    protection = TaskProtection.from_environment()
    if protection is None:
        yield
        return
    protecting = asyncio.create_task(
        protected_while_slow(protection, worker.oldest, after=drain / 2)
    )
    try:
        yield
    finally:
        protecting.cancel()
        await asyncio.wait((protecting,))


@contextmanager
def _stopping_on_signals(stop: asyncio.Event, hurry: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()

    def told() -> None:
        if stop.is_set():
            logger.warning("Told to stop again: what still runs is cut short, and comes again.")
            hurry.set()
        stop.set()

    if in_main_thread:
        for number in signals:
            loop.add_signal_handler(number, told)
    try:
        yield
    finally:
        if in_main_thread:
            for number in signals:
                loop.remove_signal_handler(number)
