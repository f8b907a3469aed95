"""An outcome is carried out in the order that loses nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from headrace.dead_letter import digest
from headrace.errors import Unreachable
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Attribute, Delivery, EntryFailure, QueueEntry
from headrace.settle import Settler
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.topology.model import Queue, Topology

DAY = timedelta(days=1)


def cloud_with(queue: str, dead_letters: str, *, fifo: bool = False) -> MemoryCloud[ManualClock]:
    cloud = memory_ports()
    dlq = Queue(dead_letters, timedelta(seconds=30), 14 * DAY, fifo=fifo)
    source = Queue(queue, timedelta(seconds=30), 4 * DAY, fifo, dead_letters, 10)
    cloud.provision(Topology(queues=(source, dlq)))
    return cloud


async def receive(cloud: MemoryCloud[Any], queue: str) -> list[Delivery]:
    return await cloud.queues.receive(queue, limit=10, wait=timedelta(0))


async def settled(
    cloud: MemoryCloud[Any], outcome: Outcome, entry: QueueEntry, *, deletes: bool = True
) -> tuple[Delivery, Outcome]:
    """Send one message to `mail`, receive it and settle it."""
    await cloud.queues.send("mail", [entry])
    (delivery,) = await receive(cloud, "mail")
    settler = Settler(cloud.queues, cloud.clock, deletes=deletes)
    return delivery, await settler.settle(delivery, outcome)


async def left(cloud: MemoryCloud[Any], queue: str) -> int:
    depth = await cloud.queues.depth(queue)
    return depth.visible + depth.in_flight + depth.delayed


@pytest.fixture
def cloud() -> MemoryCloud[ManualClock]:
    return cloud_with("mail", "mail-dlq")


async def test_what_is_acked_is_deleted(cloud: MemoryCloud[Any]) -> None:
    await settled(cloud, Ack(), QueueEntry("{}"))
    assert await left(cloud, "mail") == 0


async def test_on_lambda_nothing_is_deleted_because_lambda_does_it(
    cloud: MemoryCloud[Any],
) -> None:
    await settled(cloud, Ack(), QueueEntry("{}"), deletes=False)
    assert await left(cloud, "mail") == 1


async def test_a_retry_comes_again_after_its_delay(cloud: MemoryCloud[ManualClock]) -> None:
    await settled(cloud, Retry("later", timedelta(seconds=7)), QueueEntry("{}"))
    cloud.clock.advance(timedelta(seconds=6))
    assert await receive(cloud, "mail") == []
    cloud.clock.advance(timedelta(seconds=2))
    (again,) = await receive(cloud, "mail")
    assert again.receive_count == 2


async def test_a_retry_without_a_delay_comes_again_when_its_visibility_ends(
    cloud: MemoryCloud[ManualClock],
) -> None:
    await settled(cloud, Retry("later"), QueueEntry("{}"))
    cloud.clock.advance(timedelta(seconds=29))
    assert await receive(cloud, "mail") == []
    cloud.clock.advance(timedelta(seconds=2))
    assert len(await receive(cloud, "mail")) == 1


async def test_a_dead_letter_is_the_message_as_it_came_with_a_note(
    cloud: MemoryCloud[ManualClock],
) -> None:
    entry = QueueEntry('{"a": 1}', attributes={"tenant": Attribute("t-1")})
    outcome = DeadLetter("no such order", "mail.send", ValueError("x"), "c-1")
    delivery, final = await settled(cloud, outcome, entry)
    assert final == outcome
    (letter,) = await receive(cloud, "mail-dlq")
    assert letter.body == '{"a": 1}'
    assert letter.attributes["tenant"] == Attribute("t-1")
    note = json.loads(letter.attributes["headrace"].value)
    assert note["reason"] == "no such order"
    assert (note["handler"], note["attempts"], note["queue"]) == ("mail.send", 1, "mail")
    assert (note["correlation_id"], note["error"]) == ("c-1", "ValueError")
    assert note["message_id"] == delivery.message_id
    assert note["first_time"] <= note["last_time"]
    assert await left(cloud, "mail") == 0


async def test_the_log_shows_where_a_handler_failed(
    cloud: MemoryCloud[Any], caplog: pytest.LogCaptureFixture
) -> None:
    await settled(cloud, Retry("ValueError: id 4711", error=failing(1)), QueueEntry("{}"))
    assert "in _raise" in caplog.text
    assert "comes again" in caplog.text


async def test_a_dead_letter_whose_copy_is_refused_stays_where_it_is(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(queue: str, entries: Any) -> list[EntryFailure]:
        return [EntryFailure(0, "InternalError", "try again")]

    await cloud.queues.send("mail", [QueueEntry("{}")])
    (delivery,) = await receive(cloud, "mail")
    monkeypatch.setattr(cloud.queues, "send", refuse)
    settler = Settler(cloud.queues, cloud.clock, deletes=True)
    final = await settler.settle(delivery, DeadLetter("never"))
    assert isinstance(final, Retry)
    assert "its copy was not written: try again" in final.reason
    assert await left(cloud, "mail") == 1


async def test_a_dead_letter_without_a_dead_letter_queue_stays_where_it_is() -> None:
    cloud = memory_ports()
    cloud.provision(Topology(queues=(Queue("mail", timedelta(seconds=30), DAY),)))
    _, final = await settled(cloud, DeadLetter("never"), QueueEntry("{}"))
    assert isinstance(final, Retry)
    assert await left(cloud, "mail") == 1


async def test_a_message_that_fills_a_dead_letter_keeps_every_byte_and_leaves_its_reason_in_the_log(
    cloud: MemoryCloud[Any], caplog: pytest.LogCaptureFixture
) -> None:
    body = "x" * 1_048_576
    await settled(cloud, DeadLetter("not JSON"), QueueEntry(body))
    (letter,) = await receive(cloud, "mail-dlq")
    assert letter.body == body
    assert "not JSON" in caplog.text


async def test_a_message_with_ten_attributes_keeps_all_of_them(cloud: MemoryCloud[Any]) -> None:
    attributes = {f"a{n}": Attribute(str(n)) for n in range(10)}
    await settled(cloud, DeadLetter("never"), QueueEntry("{}", attributes=attributes))
    (letter,) = await receive(cloud, "mail-dlq")
    assert letter.attributes == attributes


async def test_a_dead_letter_of_a_fifo_queue_keeps_its_group() -> None:
    cloud = cloud_with("mail.fifo", "mail-dlq.fifo", fifo=True)
    entry = QueueEntry("{}", group_id="g-1", deduplication_id="d-1")
    await cloud.queues.send("mail.fifo", [entry])
    (delivery,) = await receive(cloud, "mail.fifo")
    await Settler(cloud.queues, cloud.clock, deletes=True).settle(delivery, DeadLetter("never"))
    (letter,) = await receive(cloud, "mail-dlq.fifo")
    assert letter.group_id == "g-1"
    assert await left(cloud, "mail.fifo") == 0


async def test_a_delete_that_fails_leaves_the_ack_as_it_is(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(queue: str, receipts: Any) -> list[EntryFailure]:
        raise Unreachable("down")

    monkeypatch.setattr(cloud.queues, "delete", fail)
    _, final = await settled(cloud, Ack(), QueueEntry("{}"))
    assert final == Ack()
    assert "was not deleted: down" in caplog.text


def failing(depth: int) -> Exception:
    try:
        return failing(depth - 1) if depth else _raise()
    except ValueError as error:
        return error


def _raise() -> Exception:
    raise ValueError("id 4711")


def test_one_failure_has_one_digest_whatever_its_message_says() -> None:
    assert digest(failing(0)) == digest(failing(0))
    assert digest(failing(0)) != digest(KeyError("x"))
