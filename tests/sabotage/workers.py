"""Taking away what keeps a worker at work."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from headrace import relay, settle
from headrace.errors import NotProvisioned
from headrace.hosts.poller import Poller
from headrace.ports import Delivery
from tests.sabotage.sabotage import Patch


def failed_receive_ends_the_worker(patch: Patch) -> None:
    """A receive that is throttled is not tried again."""

    async def recover(self: Poller, error: Exception, *, unexpected: bool = False) -> None:
        raise NotProvisioned(str(error))

    patch.setattr(Poller, "_recover", recover)


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

    async def receive(self: Poller, room: int) -> None:
        deliveries = await self._ports.queues.receive(
            self._queue, limit=room, wait=self._settings.wait, visibility=self._visibility
        )
        self._room.give(room - self._begin(deliveries))
        self._say_received(len(deliveries), room)

    patch.setattr(Poller, "_receive", receive)


def error_in_the_background(patch: Patch) -> None:
    """There is a mistake where nobody waits for an answer."""

    def broken(
        self: settle._Orders[str], entry: str, delivery: Delivery, given: asyncio.Future[None]
    ) -> None:
        self._given.discard(given)
        raise AttributeError("a mistake")

    patch.setattr(settle._Orders, "_answered", broken)
