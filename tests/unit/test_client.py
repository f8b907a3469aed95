"""Sending and reading from outside of a handler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace import Command, Entity, Event
from headrace.client import NotSent, read, send
from headrace.errors import HeadraceError, NotProvisioned, TooLarge
from headrace.ports import EntryFailure, Item, Ports, Put, QueueEntry
from headrace.testing.memory import ManualClock, MemoryCloud, MemoryQueues, memory_ports
from headrace.topology.model import Bus, Queue, Rule, Table, Topology

HOUR = timedelta(hours=1)


class Ring(Command, owner="bell"):
    times: int = 1
    tone: str = ""


class Rang(Event, source="tower.bell"):
    times: int


class BellSeen(Event, source="street.camera", native=True):
    colour: str


class Bell(Entity, pk="bell#{name}"):
    name: str


@pytest.fixture
def cloud() -> MemoryCloud[ManualClock]:
    cloud = memory_ports()
    queues = tuple(Queue(name, HOUR, 24 * HOUR) for name in ("bell", "heard"))
    everything = Rule("everything", "tower", {"source": [{"exists": True}]}, "heard")
    cloud.provision(Topology((Bus("tower"),), (everything,), queues, (Table("bell"),)))
    return cloud


def bodies(cloud: MemoryCloud[Any], queue: str) -> list[dict[str, Any]]:
    return [json.loads(entry.body) for entry in cloud.queues.peek(queue)]


async def test_a_command_goes_to_the_queue_of_its_owner(cloud: MemoryCloud[Any]) -> None:
    (sent,) = await send(cloud.ports, [Ring(times=3)], bus="tower", ids=["c1"])
    (body,) = bodies(cloud, "bell")
    assert body["detail-type"] == "Ring"
    assert body["detail"]["data"]["times"] == 3
    assert body["detail"]["metadata"]["id"] == body["detail"]["metadata"]["correlation_id"] == "c1"
    assert (sent.id, sent.owner) == ("c1", "bell")


async def test_an_event_goes_to_the_bus(cloud: MemoryCloud[Any]) -> None:
    await send(cloud.ports, [Rang(times=3)], bus="tower", ids=["e1"])
    (body,) = bodies(cloud, "heard")
    assert (body["source"], body["detail-type"]) == ("tower.bell", "Rang")
    assert body["detail"]["metadata"]["id"] == "e1"


async def test_a_native_event_goes_as_its_producer_would_send_it(cloud: MemoryCloud[Any]) -> None:
    await send(cloud.ports, [BellSeen(colour="green")], bus="tower")
    (body,) = bodies(cloud, "heard")
    assert body["detail"] == {"colour": "green"}


async def test_every_message_without_an_id_gets_one_of_its_own(cloud: MemoryCloud[Any]) -> None:
    sent = await send(cloud.ports, [Ring(), Ring()], bus="tower")
    assert len({message.id for message in sent}) == 2


async def test_many_messages_are_sent_in_full_batches(cloud: MemoryCloud[Any]) -> None:
    await send(cloud.ports, [Ring()] * 25, bus="tower")
    assert len(bodies(cloud, "bell")) == 25
    assert cloud.queues.calls["send"] == 3


async def test_a_number_of_ids_that_does_not_fit_is_refused(cloud: MemoryCloud[Any]) -> None:
    with pytest.raises(HeadraceError, match="2 messages and 1 ids"):
        await send(cloud.ports, [Ring(), Ring()], bus="tower", ids=["c1"])


async def test_one_message_that_is_too_large_keeps_all_of_them_back(
    cloud: MemoryCloud[Any],
) -> None:
    with pytest.raises(TooLarge):
        await send(cloud.ports, [Ring(), Ring(tone="x" * 2_000_000)], bus="tower")
    assert bodies(cloud, "bell") == []


class PickyQueues(MemoryQueues):
    """Refuses for good what rings seven times."""

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        return [
            EntryFailure(index, "InvalidMessageContents", "Not seven times.", retryable=False)
            for index, entry in enumerate(entries)
            if '"times":7' in entry.body
        ]


def picky(cloud: MemoryCloud[Any]) -> Ports:
    return replace(cloud.ports, queues=PickyQueues(cloud.clock, cloud.randomness))


async def test_what_was_not_sent_is_named_and_can_be_sent_again(cloud: MemoryCloud[Any]) -> None:
    messages = [Ring(times=times) for times in (1, 7, 2)]
    with pytest.raises(NotSent, match=r"1 of 3 messages .* Ring b: .*Not seven times") as caught:
        await send(picky(cloud), messages, bus="tower", ids=["a", "b", "c"])
    assert [message.id for message in caught.value.messages] == ["b"]


async def test_a_queue_that_does_not_exist_is_named(cloud: MemoryCloud[Any]) -> None:
    with pytest.raises(NotSent, match="bell") as caught:
        await send(memory_ports().ports, [Ring()], bus="tower")
    assert caught.value.__cause__ is not None
    assert isinstance(caught.value.__cause__.__cause__, NotProvisioned)


async def test_entities_are_read_in_the_order_asked(cloud: MemoryCloud[Any]) -> None:
    def item(name: str) -> Item:
        return {"pk": {"S": f"bell#{name}"}, "sk": {"S": "-"}, "name": {"S": name}}

    names = [f"b{number}" for number in range(150)]
    for name in names[1:]:
        await cloud.store.write([Put("bell", item(name))])
    found = await read(cloud.ports, Bell, names, table="bell")
    assert found == [None, *(Bell(name=name) for name in names[1:])]


async def test_reading_nothing_calls_nobody(cloud: MemoryCloud[Any]) -> None:
    assert await read(cloud.ports, Bell, [], table="bell") == []
    assert cloud.store.calls["get"] == 0
