"""Polling one queue: receive, handle, settle, and hand back what is left at the stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from headrace.aws.deliveries import FIFO_SUFFIX
from headrace.batch import Batch, Lane, in_lanes
from headrace.cancelling import is_cancelled
from headrace.errors import CloudError, NotProvisioned
from headrace.hosts.brake import Brake
from headrace.hosts.heartbeat import Heartbeat
from headrace.hosts.pulse import Phase, Pulse
from headrace.hosts.room import Room
from headrace.hosts.settings import WorkerSettings
from headrace.limits import SQS_BATCH_ENTRIES
from headrace.observer import Observer
from headrace.outcome import Outcome, Retry
from headrace.pipeline import Pipeline
from headrace.policy import Backoff
from headrace.ports import Delivery
from headrace.settle import Settler
from headrace.turns import Turns

logger = logging.getLogger(__name__)

_BACKOFF: Final = Backoff(base=timedelta(milliseconds=500), cap=timedelta(seconds=20))
_MOST_POLLERS: Final = 10
_LEAST_VISIBILITY: Final = timedelta(seconds=1)

_ENDING: Final = 0.25
"""A handler that is still there so many seconds after it was cancelled swallows that."""

_AGAIN: Final = 1.0
_READING: Final = 0.05
_ON_ITS_WAY: Final = 0.25
_SHORT: Final = timedelta(milliseconds=200)
"""Between two receives of an idle queue that do not wait for a message."""
_PASSED_BY: Final = 4

_FLUSHING: Final = 1.5
"""Seconds for the last deletes, so that a stop ends in time where SQS does not answer."""


class Poller:
    """One queue of a service, polled for as many messages as there is room for."""

    def __init__(
        self, pipeline: Pipeline, queue: str, settings: WorkerSettings, observer: Observer
    ) -> None:
        ports, service = pipeline.ports, pipeline.service
        self._queue = queue
        self._pipeline = pipeline
        self._ports = ports
        self._settings = settings
        wanted = settings.visibility or service.queue_settings.visibility
        self._visibility = max(wanted, _LEAST_VISIBILITY)
        self._turns = Turns(settings.concurrency, per_tenant=settings.per_tenant)
        self._room = _room(queue, settings, self._turns)
        self._heartbeat = Heartbeat(ports.queues, queue, self._visibility)
        self._brake = Brake(queue, ports.randomness, trip=max(10, settings.concurrency))
        self._settler = Settler(ports.queues, ports.clock, ports.randomness, deletes=True)
        self._batch = Batch(
            service.name,
            pipeline.consume,
            self._settle,
            turns=self._turns,
            stay=self._heartbeat.stay,
            observer=observer,
            closing=self._is_stopping,
        )
        # In the order of their start, as they are cancelled.
        self._lanes: dict[asyncio.Task[None], Lane] = {}
        # Who receives at the moment, and when SQS will have answered.
        self._open: dict[asyncio.Task[None], float] = {}
        self._silent_at = 0.0
        self._beating: asyncio.Task[None] | None = None
        self._plenty = asyncio.Event()
        self._failures = 0
        self._stopping = self._cutting = False
        self.pulse = Pulse(queue)

    def start(self) -> list[asyncio.Task[None]]:
        """The poll loops and the heartbeat, which run until they are cancelled.

        What fails is tried again, more and more slowly. One ends with `NotProvisioned` if the queue
        is not there to begin with; if it vanishes later, it may come back.
        """
        self._beating = asyncio.create_task(self._beat())
        numbers = range(self._pollers())
        return [asyncio.create_task(self._polled(is_first=n == 0)) for n in numbers]

    def oldest(self) -> timedelta | None:
        """For how long the delivery that began first has been handled; `None` if none is."""
        return self._heartbeat.oldest()

    def stop(self) -> set[asyncio.Task[None]]:
        """Receive nothing more; what waits, and what the open receives still bring, is handed back.
        Returns the poll loops that have a receive open, and end with it."""
        self._stopping = True
        self.pulse.phase, self.pulse.cause = Phase.STOPPED, None
        self._turns.open()
        return set(self._open)

    async def drain(self, limit: timedelta, hurry: asyncio.Event) -> None:
        """Wait for what runs, for up to `limit` or until `hurry`; cut the rest short, hand it back,
        and settle what is done."""
        await self._ended(limit, hurry)
        await self._cut_short(dict(self._lanes))
        await self._flush()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait((self._beating,))

    # --- polling ---

    def _pollers(self) -> int:
        if self._settings.pollers is not None:
            return self._settings.pollers
        places = self._settings.concurrency + self._settings.prefetch
        return min(max(1, -(-places // SQS_BATCH_ENTRIES)), _MOST_POLLERS)

    async def _polled(self, *, is_first: bool) -> None:
        """One poll loop, begun again if it ends before the stop."""
        while not self._is_stopping():
            try:
                await self._poll(is_first=is_first)
            except NotProvisioned:
                raise
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled():
                    raise
                # Nothing should raise. If something does, the queue is polled all the same.
                self.pulse.restarts += 1
                await self._recover(error, unexpected=True)

    async def _poll(self, *, is_first: bool) -> None:
        while not self._is_stopping():
            if not is_first:
                # As long as there is little to receive, one poll is enough, and costs once.
                await self._plenty.wait()
            most = await self._brake.passed(SQS_BATCH_ENTRIES, probes=is_first)
            room = await self._take(most)
            if self._is_stopping():
                return
            if self._brake.is_pulled and most > 1:
                # It was pulled while there was no room.
                self._room.give(room)
                continue
            try:
                await self._receive(room)
            except (CloudError, TimeoutError) as error:
                await self._recover(error)

    def _is_stopping(self) -> bool:
        return self._stopping

    async def _take(self, most: int) -> int:
        if self._room.is_full and self.pulse.is_ready:
            self._say(Phase.FULL)
        room = await self._room.take(most)
        if self.pulse.phase is Phase.FULL:
            self._say(Phase.RECEIVING)
        return room

    async def _receive(self, room: int) -> None:
        taken = count = 0
        poll = asyncio.current_task()
        assert poll is not None
        receiving = asyncio.create_task(self._received_in(room))
        self._open[poll] = _now() + self._settings.wait.total_seconds() + _ON_ITS_WAY
        try:
            await self._answered(receiving)
        finally:
            ends = self._open.pop(poll)
            if not _has_result(receiving):
                # SQS does not notice, and goes on waiting for a message that nobody will have.
                self._silent_at = max(self._silent_at, ends)
            # Also where the poll was cancelled just now: what was received must not stay hidden.
            if _has_result(receiving):
                deliveries = receiving.result()
                count, taken = len(deliveries), self._begin(deliveries)
            self._room.give(room - taken)
        self._tell(receiving.result())
        self._say_received(count, room)
        if count == 0 and self._settings.wait < _SHORT:
            await asyncio.sleep((_SHORT - self._settings.wait).total_seconds())

    async def _received_in(self, room: int) -> list[Delivery]:
        return await self._ports.queues.receive(
            self._queue, limit=room, wait=self._settings.wait, visibility=self._visibility
        )

    async def _answered(self, receiving: asyncio.Task[list[Delivery]]) -> None:
        """Wait until a receive has ended, for as long as it may take. Raises `TimeoutError`."""
        late = self._settings.wait + self._settings.patience
        try:
            # A handler may have blocked the loop for so long, and the answer waits to be read.
            for seconds in (late.total_seconds(), _READING):
                ended, _ = await asyncio.wait((receiving,), timeout=seconds)
                if ended:
                    return
        finally:
            receiving.cancel()
        raise TimeoutError

    def _begin(self, deliveries: Sequence[Delivery]) -> int:
        """Start what was received; returns how many places it takes. Those behind the first of a
        FIFO group take none, as nobody else could handle them either."""
        self._heartbeat.hold(deliveries)
        for delivery in deliveries:
            self._brake.received(delivery)
        lanes = in_lanes(deliveries)
        for lane in lanes:
            task = asyncio.create_task(self._batch.run_lane(lane))
            self._lanes[task] = lane
            task.add_done_callback(self._end)
        return len(lanes)

    def _tell(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        service, tracer = self._pipeline.service.name, self._pipeline.tracer
        tracer.received(service, self._queue, (delivery.trace_header for delivery in deliveries))

    def _end(self, lane: asyncio.Task[None]) -> None:
        left = self._lanes.pop(lane).left
        self._room.give(1)
        if self._cutting:
            return
        error = asyncio.CancelledError() if lane.cancelled() else lane.exception()
        if error is not None:
            logger.error("A delivery from %s ended unexpectedly.", self._queue, exc_info=error)
        for delivery in left:
            # They come again when their visibility ends, and not at once: it may happen again.
            self._heartbeat.forget(delivery)
            self._brake.settled(delivery, Retry("It ended unexpectedly.", error=error))

    # --- how it goes ---

    def _say_received(self, count: int, room: int) -> None:
        if self._failures:
            logger.info("%s is received from again.", self._queue)
        self._failures = 0
        self.pulse.last_receive = self._ports.clock.now()
        self._say(Phase.RECEIVING)
        if count == room:
            self._plenty.set()
        else:
            self._plenty.clear()

    async def _recover(self, error: BaseException, *, unexpected: bool = False) -> None:
        """Say what is wrong, once, and wait a little."""
        if isinstance(error, NotProvisioned) and self.pulse.last_receive is None:
            raise error
        why = self._why(error)
        if why != self.pulse.cause:
            logger.error(
                "%s cannot be received from for now: %s",
                self._queue,
                why,
                exc_info=error if unexpected else None,
            )
        self._failures += 1
        self._plenty.clear()
        self._say(Phase.FAILING, why)
        delay = _BACKOFF.delay(self._failures, self._ports.randomness)
        await asyncio.sleep(delay.total_seconds())

    def _why(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            late = self._settings.wait + self._settings.patience
            return f"a receive was not answered within {late.total_seconds():g} s."
        return str(error) or repr(error)

    def _say(self, phase: Phase, cause: str | None = None) -> None:
        if self._stopping:
            return
        if phase is not Phase.FAILING and self._brake.is_pulled:
            phase, cause = Phase.SLOWED, self._brake.cause
        self.pulse.phase, self.pulse.cause = phase, cause

    # --- settling ---

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        try:
            if isinstance(outcome, Retry):
                lost = self._heartbeat.is_lost(delivery)
                # A beat that came after the change of visibility would undo it.
                await self._heartbeat.let_go(delivery)
                if not lost:
                    await self._settler.settle(delivery, self._after_the_polls(outcome))
            else:
                outcome = await self._settler.settle(delivery, outcome)
        except asyncio.CancelledError:
            # Handed back by who has cancelled it, and it is held until then.
            raise
        except Exception:
            self._heartbeat.forget(delivery)
            raise
        else:
            self._heartbeat.forget(delivery)
        finally:
            self._brake.settled(delivery, outcome)
        return outcome

    def _after_the_polls(self, outcome: Retry) -> Retry:
        """What is handed back at a stop must not go to a receive of our own that was given up: it
        would be hidden there until its visibility ends."""
        ends = max([self._silent_at, *self._open.values()])
        left = timedelta(seconds=ends - _now())
        if not self._stopping or outcome.delay is None or outcome.delay >= left:
            return outcome
        return replace(outcome, delay=left)

    async def _ended(self, limit: timedelta, hurry: asyncio.Event) -> None:
        """Until all lanes have ended, or nobody waits for them any longer."""
        until = asyncio.get_running_loop().time() + limit.total_seconds()
        hurried = asyncio.create_task(hurry.wait())
        try:
            while self._lanes and not hurried.done():
                left = until - asyncio.get_running_loop().time()
                if left <= 0:
                    return
                waited = {hurried, *self._lanes}
                await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()

    async def _cut_short(self, lanes: dict[asyncio.Task[None], Lane]) -> None:
        self._cutting = True
        for task in lanes:
            task.cancel()
        if lanes:
            # A handler that swallows its cancellation is left behind.
            await asyncio.wait(lanes, timeout=_ENDING)
        left = [delivery for lane in lanes.values() for delivery in lane.left]
        await asyncio.gather(*(self._settle(delivery, _CUT_SHORT) for delivery in left))
        if left:
            logger.warning(
                "There was no time to finish %d messages of %s: they are handed back.",
                len(left),
                self._queue,
            )

    async def _beat(self) -> None:
        while True:
            try:
                await self._heartbeat.run()
            except Exception:
                # Nothing should raise. If something does, messages are kept hidden all the same.
                logger.exception("The heartbeat of %s ended, and begins again.", self._queue)
            await asyncio.sleep(_AGAIN)

    async def _flush(self) -> None:
        flushing = asyncio.create_task(self._settler.flush())
        _, late = await asyncio.wait((flushing,), timeout=_FLUSHING)
        if late:
            flushing.cancel()
            logger.warning(
                "SQS does not answer: what was handled last from %s may come again, and is "
                "known as handled then.",
                self._queue,
            )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _has_result(task: asyncio.Task[list[Delivery]]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _room(queue: str, settings: WorkerSettings, turns: Turns) -> Room:
    if settings.per_tenant is None or queue.endswith(FIFO_SUFFIX):
        return Room(settings.concurrency, settings.prefetch)
    # Messages of a tenant that may not run any more of them must leave places for those of others.
    waiting = max(settings.prefetch, _PASSED_BY * settings.concurrency)
    return Room(settings.concurrency, waiting, is_idle=lambda: not turns.is_full)


_CUT_SHORT = Retry("There was no time left to finish it; another host takes it.", timedelta(0))
