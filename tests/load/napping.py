"""A service whose handlers take as long as their event says, and write down what they do."""

from __future__ import annotations

import asyncio

from headrace import Entity, Event, Metadata, Service, Transaction
from tests.load.journal import Journal


class NapTaken(Event, source="load.stops"):
    seconds: float


class Nap(Entity, pk="nap#{event_id}"):
    """How often an event took effect."""

    event_id: str
    times: int = 0


def napping(name: str, journal: Journal, *, hurried: bool = False) -> Service:
    """The service under this name. If `hurried`, its handlers take no time."""
    service = Service(name)

    @service.on(NapTaken)
    async def nap(event: NapTaken, metadata: Metadata, tx: Transaction) -> None:
        journal.note("started", metadata.id)
        await asyncio.sleep(0 if hurried else event.seconds)
        before = await tx.get(Nap, metadata.id) or Nap(event_id=metadata.id)
        tx.put(Nap(event_id=metadata.id, times=before.times + 1))
        journal.note("finished", metadata.id)

    return service
