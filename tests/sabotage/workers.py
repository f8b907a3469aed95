"""Taking away what keeps a worker at work."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from headrace import inbox, relay
from headrace.batch import in_lanes
from headrace.hosts import worker
from headrace.limits import SQS_BATCH_ENTRIES
from headrace.ports import Delivery
from headrace.record import Record
from tests.sabotage.sabotage import Patch


def failed_receive_ends_the_worker(patch: Patch) -> None:
    """A receive that is throttled is not tried again."""

    async def poll(self: worker._Poller) -> None:
        while not self._stopping:
            room = await self._slots.take(SQS_BATCH_ENTRIES)
            for lane in in_lanes(await self._receive(room)):
                self._start(lane)

    patch.setattr(worker._Poller, "poll", poll)


def failed_sweep_ends_the_worker(patch: Patch) -> None:
    """The relay gives up, and the worker with it, when its index cannot be read."""

    async def run(self: relay.Relay, *, interval: timedelta = relay.INTERVAL) -> None:
        while True:
            pause = interval.total_seconds() * self._ports.randomness.uniform(0.5, 1.5)
            await asyncio.sleep(pause)
            await self.sweep()

    patch.setattr(relay.Relay, "run", run)


def failed_receive_keeps_its_slots(patch: Patch) -> None:
    """Room that was taken for a receive that fails is never given back."""

    async def receive(self: worker._Poller, room: int) -> list[Delivery]:
        deliveries = await self._queues.receive(self._queue, limit=room, wait=self._wait)
        self._slots.give(room - len(deliveries))
        return deliveries

    patch.setattr(worker._Poller, "_receive", receive)


def error_in_the_background(patch: Patch) -> None:
    """There is a mistake where nobody waits for an answer."""

    def broken(self: inbox.Inbox, record: Record, marked: asyncio.Future[bool]) -> None:
        raise AttributeError("a mistake")

    patch.setattr(inbox.Inbox, "_end_mark", broken)
