"""The worker: long polls SQS and runs the pipeline, on Fargate or anywhere else."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext
from datetime import timedelta

from headrace.aws.client import open_ports
from headrace.batch import Batch, in_lanes
from headrace.errors import CloudError, ConfigurationError, NotProvisioned
from headrace.limits import SQS_BATCH_ENTRIES, SQS_MAX_WAIT
from headrace.observer import Observer, Unobserved
from headrace.pipeline import Pipeline, running
from headrace.policy import Backoff
from headrace.ports import Delivery, Ports
from headrace.relay import Relay
from headrace.service import Service
from headrace.settle import Settler

logger = logging.getLogger(__name__)

DRAIN = timedelta(seconds=25)
"""Time for running handlers after a stop: ECS sends SIGKILL 30 s after SIGTERM by default."""

_ON_ITS_WAY = timedelta(milliseconds=250)
_POLL_BACKOFF = Backoff(base=timedelta(milliseconds=500), cap=timedelta(seconds=20))


class Slots:
    """Room for deliveries: taken before a receive, so that nothing waits hidden in memory."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._room = asyncio.Event()

    async def take(self, most: int) -> int:
        """Wait for at least one free slot, then take up to `most`; returns how many."""
        while self._free == 0:
            self._room.clear()
            await self._room.wait()
        taken = min(self._free, most)
        self._free -= taken
        return taken

    def give(self, count: int) -> None:
        self._free += count
        self._room.set()


class Worker:
    """Polls the queues of some services and handles what comes, until it is told to stop; and
    relays what their transactions outside of handlers left to send."""

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        *,
        concurrency: int = 10,
        wait: timedelta = SQS_MAX_WAIT,
        observer: Observer | None = None,
    ) -> None:
        if concurrency < 1:
            raise ConfigurationError(f"The concurrency is {concurrency}: it must be at least 1.")
        self._observer = observer or Unobserved()
        self._relays = [
            Relay(pipeline.service, pipeline.ports, observer)
            for pipeline in pipelines
            if pipeline.service.emits
        ]
        self._pollers = [
            _Poller(pipeline, queue, concurrency, wait, self._observer)
            for pipeline in pipelines
            for queue in pipeline.service.queues
        ]

    async def run(self, stop: asyncio.Event, *, drain: timedelta = DRAIN) -> None:
        """Handle deliveries until `stop` is set; then receive nothing more, let what runs
        finish for up to `drain`, and return. What is cut short comes again."""
        polls = [asyncio.create_task(poller.poll()) for poller in self._pollers]
        relays = [asyncio.create_task(relay.run()) for relay in self._relays]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *polls, *relays], return_when=asyncio.FIRST_COMPLETED)
            for poller in self._pollers:
                poller.stop()
            # SQS answers a receive at once if it has something: what is on its way now would stay
            # hidden until its visibility ends. A poll that is still silent after this is idle.
            if polls:
                await asyncio.wait(polls, timeout=_ON_ITS_WAY.total_seconds())
        finally:
            for task in (stopped, *polls, *relays):
                task.cancel()
            ended = await asyncio.gather(stopped, *polls, *relays, return_exceptions=True)
            await asyncio.gather(*(poller.drain(drain) for poller in self._pollers))
        for error in ended:
            if isinstance(error, Exception):
                raise error


class _Poller:
    """One queue, polled for as many messages as there is room for."""

    def __init__(
        self,
        pipeline: Pipeline,
        queue: str,
        concurrency: int,
        wait: timedelta,
        observer: Observer,
    ) -> None:
        ports = pipeline.ports
        self._queue = queue
        self._queues = ports.queues
        self._randomness = ports.randomness
        self._wait = wait
        self._slots = Slots(concurrency)
        self._settler = Settler(ports.queues, ports.clock, deletes=True)
        self._batch = Batch(
            pipeline.service.name,
            pipeline.consume,
            self._settler.settle,
            limiter=nullcontext(),
            clock=ports.clock,
            observer=observer,
            closing=lambda: self._stopping,
        )
        # In the order of their start, as they are cancelled.
        self._lanes: dict[asyncio.Task[None], None] = {}
        self._stopping = False

    async def poll(self) -> None:
        """Receive and start, for ever. A failing receive is tried again, more and more slowly.

        Raises `NotProvisioned` if the queue is not there to begin with; if it vanishes later, it
        may come back.
        """
        failures = 0
        seen = False
        while True:
            room = await self._slots.take(SQS_BATCH_ENTRIES)
            try:
                deliveries = await self._receive(room)
            except CloudError as error:
                if isinstance(error, NotProvisioned) and not seen:
                    raise
                failures += 1
                if failures == 1:
                    logger.error("%s cannot be received from for now: %s", self._queue, error)
                delay = _POLL_BACKOFF.delay(failures, self._randomness)
                await asyncio.sleep(delay.total_seconds())
                continue
            if failures:
                logger.info("%s is received from again.", self._queue)
            failures, seen = 0, True
            # No await between the receive and the start: a stop in between would leave what was
            # received hidden until its visibility ends.
            for lane in in_lanes(deliveries):
                self._start(lane)
            if self._stopping:
                return

    def stop(self) -> None:
        """Receive nothing more; what the open receive still brings is handed back."""
        self._stopping = True

    async def drain(self, limit: timedelta) -> None:
        """Wait for what runs, for up to `limit`; cut the rest short and settle what is done."""
        if self._lanes:
            await asyncio.wait(self._lanes, timeout=limit.total_seconds())
            late = list(self._lanes)
            for lane in late:
                lane.cancel()
            if late:
                # A handler that swallows its cancellation is left behind.
                await asyncio.wait(late, timeout=_ON_ITS_WAY.total_seconds())
        await self._settler.flush()

    async def _receive(self, room: int) -> list[Delivery]:
        received = 0
        try:
            deliveries = await self._queues.receive(self._queue, limit=room, wait=self._wait)
            received = len(deliveries)
            return deliveries
        finally:
            self._slots.give(room - received)

    def _start(self, lane: Sequence[Delivery]) -> None:
        task = asyncio.create_task(self._batch.run_lane(lane, {}))
        self._lanes[task] = None
        task.add_done_callback(lambda done: self._end(done, len(lane)))

    def _end(self, lane: asyncio.Task[None], size: int) -> None:
        del self._lanes[lane]
        self._slots.give(size)
        if not lane.cancelled() and (error := lane.exception()) is not None:
            logger.error("A delivery from %s ended unexpectedly.", self._queue, exc_info=error)


async def run_worker(
    services: Sequence[Service],
    ports: Ports | None = None,
    *,
    concurrency: int = 10,
    observer: Observer | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run services until SIGTERM, SIGINT or `stop`; then finish what runs, and return.

    `concurrency` is the number of deliveries handled at a time, per queue. Without `ports`,
    the environment says which AWS to use. Raises `ConfigurationError`, and `NotProvisioned` if a
    queue or the bus is not there.
    """
    stop = stop or asyncio.Event()
    async with AsyncExitStack() as stack:
        if ports is None:
            ports = await stack.enter_async_context(open_ports())
        pipelines = [
            await stack.enter_async_context(running(service, ports, observer))
            for service in services
        ]
        with _stopping_on_signals(stop):
            await Worker(pipelines, concurrency=concurrency, observer=observer).run(stop)


@contextmanager
def _stopping_on_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        for number in signals:
            loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        if in_main_thread:
            for number in signals:
                loop.remove_signal_handler(number)
