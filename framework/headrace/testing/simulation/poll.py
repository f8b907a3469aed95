"""A long poll: a receive that SQS holds open until something comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from headrace.ports import Delivery
from headrace.testing.letters import name_of
from headrace.testing.memory import MemoryQueues
from headrace.testing.simulation.trace import Kind
from headrace.testing.simulation.wire import Wire
from headrace.testing.simulation.wording import ids_in, ordinal


class Poll:
    """A receive that found nothing at first, and is held open by SQS.

    If its process dies, SQS may not know, and give its messages away to nobody.
    """

    def __init__(
        self,
        wire: Wire,
        queues: MemoryQueues,
        queue: str,
        limit: int,
        visibility: timedelta | None,
    ) -> None:
        self._wire = wire
        self._queues = queues
        self._queue = queue
        self._limit = limit
        self._visibility = visibility
        self._future: asyncio.Future[list[Delivery]] = wire.loop.create_future()
        self._unwatch = queues.watch(queue, self._look_soon)
        self._looking = False
        self._due: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None

    async def answered(self, wait: float) -> list[Delivery]:
        self._end = self._later(wait, self._close, [])
        self._await_due()
        try:
            return await self._future
        finally:
            # The connection is closed; what is on its way to it by then is lost until its
            # visibility ends.
            self._stop()

    def _later(
        self, delay: float, callback: Callable[..., None], *args: object
    ) -> asyncio.TimerHandle:
        return self._wire.loop.call_as(self._wire.loop.world, delay, callback, *args)

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._later(0.001, self._look)

    def _look(self) -> None:
        self._looking = False
        if self._end is None:
            return
        if not self._wire.owner.alive and self._wire.notices():
            self._stop()
            return
        found = received(
            self._wire,
            partial(
                self._queues.look_again,
                self._queue,
                limit=self._limit,
                visibility=self._visibility,
            ),
        )
        if found:
            self._close(found)
        else:
            self._await_due()

    def _await_due(self) -> None:
        due = self._queues.next_due(self._queue)
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if due is not None:
            left = self._wire.loop.seconds_until(due)
            self._due = self._later(max(left, 0.0), self._look)

    def _close(self, found: list[Delivery]) -> None:
        self._stop()
        self._wire.answer_poll(self._future, found)

    def _stop(self) -> None:
        self._unwatch()
        for timer in (self._due, self._end):
            if timer is not None:
                timer.cancel()
        self._due = self._end = None


def received(wire: Wire, look: Callable[[], list[Delivery]]) -> list[Delivery]:
    """What a look finds, put into the trace."""
    found = look()
    for delivery in found if wire.trace.on else ():
        nth = f" for the {ordinal(delivery.receive_count)} time"
        again = nth if delivery.receive_count > 1 else ""
        text = f"receives {name_of(delivery.body)} from {delivery.queue}{again}"
        wire.note(Kind.RECEIVED, text, ids_in(delivery.body))
    return found
