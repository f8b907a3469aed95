"""An outcome is carried out in the order that loses nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
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
from tests.unit.timeless import timeless

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
    return delivery, await settle(cloud, delivery, outcome, deletes=deletes)


async def settle(
    cloud: MemoryCloud[Any], delivery: Delivery, outcome: Outcome, *, deletes: bool = True
) -> Outcome:
    settler = Settler(cloud.queues, cloud.clock, cloud.randomness, deletes=deletes)
    final = await settler.settle(delivery, outcome)
    await settler.flush()
    return final


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
    final = await settle(cloud, delivery, DeadLetter("never"))
    assert isinstance(final, Retry)
    assert (
        "its copy was not written: The entry was refused (InternalError: try again)."
        in final.reason
    )
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
    await settle(cloud, delivery, DeadLetter("never"))
    (letter,) = await receive(cloud, "mail-dlq.fifo")
    assert letter.group_id == "g-1"
    assert await left(cloud, "mail.fifo") == 0


@timeless
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


# --- in batches ------------------------------------------------------------------------------


class Batches:
    """SQS for many messages at once: keeps every batch in mind, and answers as it is told."""

    def __init__(self, answer: Any = lambda entries: []) -> None:
        self.answer = answer
        self.given: list[list[Any]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, queue: str, entries: Sequence[Any]) -> list[EntryFailure]:
        self.given.append(list(entries))
        await self.open.wait()
        answer: list[EntryFailure] = self.answer(entries)
        return answer

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.given]


def letters(count: int, body: str = "{}") -> list[Delivery]:
    return [Delivery(f"m-{n}", f"r-{n}", body, "mail") for n in range(count)]


def settler_with(
    monkeypatch: pytest.MonkeyPatch, cloud: MemoryCloud[Any], **methods: Batches
) -> Settler:
    for name, batches in methods.items():
        monkeypatch.setattr(cloud.queues, name, batches)
    return Settler(cloud.queues, cloud.clock, cloud.randomness, deletes=True)


async def all_settled(
    settler: Settler, deliveries: Sequence[Delivery], outcome: Outcome
) -> list[Outcome]:
    return await asyncio.gather(*(settler.settle(delivery, outcome) for delivery in deliveries))


@timeless
async def test_dead_letters_of_the_same_moment_are_written_ten_to_a_call(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sends, deletes = Batches(), Batches()
    settler = settler_with(monkeypatch, cloud, send=sends, delete=deletes)
    await all_settled(settler, letters(25), DeadLetter("never"))
    await settler.flush()
    assert (sends.sizes, deletes.sizes) == ([10, 10, 5], [10, 10, 5])


@timeless
async def test_dead_letters_of_one_call_are_no_larger_than_sqs_takes(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = Batches()
    settler = settler_with(monkeypatch, cloud, send=sends, delete=Batches())
    await all_settled(settler, letters(5, "x" * 400_000), DeadLetter("never"))
    await settler.flush()
    assert sends.sizes == [2, 2, 1]


@timeless
async def test_only_what_has_a_dead_letter_is_deleted(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sends = Batches(lambda entries: [EntryFailure(1, "InternalError", "try again")])
    deletes = Batches()
    settler = settler_with(monkeypatch, cloud, send=sends, delete=deletes)
    outcomes = await all_settled(settler, letters(3), DeadLetter("never"))
    await settler.flush()
    assert [type(outcome) for outcome in outcomes] == [DeadLetter, Retry, DeadLetter]
    assert deletes.given == [["r-0", "r-2"]]


@timeless
async def test_a_dead_letter_is_not_deleted_before_its_copy_stands(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sends, deletes = Batches(), Batches()
    sends.open.clear()
    settler = settler_with(monkeypatch, cloud, send=sends, delete=deletes)
    settling = asyncio.create_task(all_settled(settler, letters(1), DeadLetter("never")))
    await asyncio.sleep(60)
    assert deletes.given == []
    sends.open.set()
    await settling
    await settler.flush()
    assert deletes.given == [["r-0"]]


@timeless
async def test_an_entry_that_was_not_taken_is_given_again_without_the_others(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(entries: Sequence[str]) -> list[EntryFailure]:
        return [EntryFailure(entries.index("r-1"), "Busy")] if len(deletes.given) < 3 else []

    deletes = Batches(answer)
    settler = settler_with(monkeypatch, cloud, delete=deletes)
    await all_settled(settler, letters(3), Ack())
    await settler.flush()
    assert deletes.given == [["r-0", "r-1", "r-2"], ["r-1"], ["r-1"]]
    assert caplog.messages == []


@timeless
async def test_what_is_never_taken_is_given_up_after_three_times_and_said_once(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    changes = Batches(lambda entries: [EntryFailure(0, "Busy", "later")])
    settler = settler_with(monkeypatch, cloud, change_visibility=changes)
    await all_settled(settler, letters(1), Retry("later", timedelta(seconds=5)))
    await settler.flush()
    assert changes.given == [[("r-0", timedelta(seconds=5))]] * 3
    assert caplog.messages == [
        "Message m-0 keeps its visibility: The entry was refused (Busy: later)."
    ]


@timeless
async def test_what_is_refused_for_good_is_not_given_again(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deletes = Batches(lambda entries: [EntryFailure(0, "Invalid", "no", retryable=False)])
    settler = settler_with(monkeypatch, cloud, delete=deletes)
    await all_settled(settler, letters(1), Ack())
    await settler.flush()
    assert deletes.sizes == [1]
    assert caplog.messages == ["Message m-0 was not deleted: The entry was refused (Invalid: no)."]


@timeless
async def test_a_delete_waits_a_moment_for_others_and_nobody_waits_for_it(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    deletes = Batches()
    deletes.open.clear()
    settler = settler_with(monkeypatch, cloud, delete=deletes)
    for delivery in letters(3):
        await settler.settle(delivery, Ack())
        await asyncio.sleep(0.01)
    assert deletes.given == []
    await asyncio.sleep(0.1)
    assert deletes.sizes == [3]


@timeless
async def test_a_flush_sends_what_waits_and_ends_with_the_last_answer(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    deletes, changes = Batches(), Batches()
    deletes.open.clear()
    settler = settler_with(monkeypatch, cloud, delete=deletes, change_visibility=changes)
    first, second = letters(2)
    await settler.settle(first, Ack())
    await settler.settle(second, Retry("later", timedelta(seconds=5)))
    flushing = asyncio.create_task(settler.flush())
    for _ in range(5):
        await asyncio.sleep(0)
    assert (deletes.sizes, changes.sizes) == ([1], [1])
    await asyncio.sleep(60)
    assert not flushing.done()
    deletes.open.set()
    await flushing


@timeless
async def test_a_flush_waits_for_what_is_given_again(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([[EntryFailure(0, "Busy")]])
    deletes = Batches(lambda entries: next(answers, []))
    settler = settler_with(monkeypatch, cloud, delete=deletes)
    await settler.settle(letters(1)[0], Ack())
    await settler.flush()
    assert deletes.given == [["r-0"], ["r-0"]]


@timeless
async def test_more_than_a_thousand_deletes_on_their_way_are_waited_for(
    cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    deletes = Batches()
    deletes.open.clear()
    settler = settler_with(monkeypatch, cloud, delete=deletes)
    settling = [asyncio.create_task(settler.settle(each, Ack())) for each in letters(1100)]
    await asyncio.sleep(60)
    assert sum(task.done() for task in settling) == 1000
    deletes.open.set()
    await asyncio.gather(*settling)
    await settler.flush()
    assert sum(deletes.sizes) == 1100
