"""What goes out in one call goes out by itself where the call is refused as a whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from headrace import Ack, Command, Retry, Transaction
from headrace.errors import DispatchError, Refused, Throttled, Unreachable
from headrace.ports import BusEntry, EntryFailure, QueueEntry
from tests.unit.depot import Bus, CrateMoved, CrateSeen, Depot


class WeighCrate(Command, owner="scales"):
    sku: str


class Choosy(Bus):
    """A bus that refuses a whole call for the fault of one entry."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        self.calls.append(len(entries))
        if any("bad" in entry.detail for entry in entries):
            raise Refused("One of them is not right.")
        return await super().put(bus, entries)


class Scales:
    """Queues that refuse a whole call for the fault of one entry."""

    def __init__(self) -> None:
        self.weighed: list[str] = []
        self.calls: list[int] = []

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        self.calls.append(len(entries))
        skus = [json.loads(entry.body)["detail"]["data"]["sku"] for entry in entries]
        if "bad" in skus:
            raise Refused("BatchRequestTooLong")
        self.weighed += skus
        return []


def seeing(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
        return CrateSeen(note=event.sku)


async def moved(depot: Depot, *skus: str, **ports: Any) -> list[Any]:
    """The outcome of a delivery for each, all at once."""
    async with depot.pipeline(**ports) as pipeline:
        return await asyncio.gather(
            *(pipeline.consume(depot.delivery(CrateMoved(sku=sku), id=sku)) for sku in skus)
        )


async def test_events_that_are_refused_together_are_put_one_by_one(depot: Depot) -> None:
    seeing(depot)
    bus = Choosy()
    good, bad, other = await moved(depot, "good", "bad", "other", bus=bus)
    assert (good, other) == (Ack(), Ack())
    assert isinstance(bad, Retry)
    assert isinstance(bad.error, DispatchError)
    assert sorted(bus.notes) == ["good", "other"]
    assert bus.calls == [3, 1, 1, 1]


async def test_commands_that_are_refused_together_are_sent_one_by_one(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> WeighCrate:
        return WeighCrate(sku=event.sku)

    scales = Scales()
    good, bad, other = await moved(depot, "good", "bad", "other", queues=scales)
    assert (good, other) == (Ack(), Ack())
    assert isinstance(bad, Retry)
    assert sorted(scales.weighed) == ["good", "other"]
    assert scales.calls == [3, 1, 1, 1]


async def test_an_entry_that_is_refused_by_itself_is_not_put_again(depot: Depot) -> None:
    seeing(depot)
    bus = Choosy()
    (bad,) = await moved(depot, "bad", bus=bus)
    assert isinstance(bad, Retry)
    assert "One of them is not right." in bad.reason
    assert bus.calls == [1]


async def test_what_is_sent_one_by_one_may_fail_for_another_reason_and_is_tried_again(
    depot: Depot,
) -> None:
    class Shaky(Choosy):
        async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
            if len(self.calls) == 1:
                self.calls.append(len(entries))
                raise Unreachable("no answer")
            return await super().put(bus, entries)

    seeing(depot)
    bus = Shaky()
    outcomes = await moved(depot, "bad", "good", bus=bus)
    assert [type(outcome) for outcome in outcomes] == [Retry, Ack]
    assert bus.notes == ["good"]


class Throttling(Bus):
    """A bus that is too busy for the first call, however many entries it has."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        self.calls.append(len(entries))
        if len(self.calls) == 1:
            raise Throttled("Later.")
        return await super().put(bus, entries)


async def test_events_that_are_throttled_together_are_put_again_together(depot: Depot) -> None:
    seeing(depot)
    bus = Throttling()
    assert await moved(depot, "a", "b", "c", bus=bus) == [Ack()] * 3
    assert sorted(bus.notes) == ["a", "b", "c"]
    assert bus.calls[0] == 3
