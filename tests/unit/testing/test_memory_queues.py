"""What the contract suite cannot wait for, and what only memory promises."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from headrace.errors import NotProvisioned, Refused
from headrace.limits import SQS_ATTRIBUTES
from headrace.ports import Attribute, Delivery, QueueDepth, QueueEntry
from headrace.system import SystemClock
from headrace.testing import ManualClock, MemoryCloud, memory_ports
from headrace.topology.model import Queue, Topology

NOW = timedelta(0)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def queue(name: str = "orders", **changes: object) -> Queue:
    settings = {"visibility": 30 * SECOND, "retention": 4 * DAY, "fifo": name.endswith(".fifo")}
    return Queue(name, **(settings | changes))  # type: ignore[arg-type]  # a test's own settings


def cloud(*queues: Queue) -> MemoryCloud[ManualClock]:
    found = memory_ports()
    found.provision(Topology(queues=queues or (queue(),)))
    return found


async def send(cloud: MemoryCloud[ManualClock], *entries: QueueEntry, to: str = "orders") -> None:
    assert await cloud.queues.send(to, entries) == []


async def receive(
    cloud: MemoryCloud[ManualClock], name: str = "orders", *, wait: timedelta = NOW
) -> list[Delivery]:
    return await cloud.queues.receive(name, limit=10, wait=wait)


def bodies(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.body for delivery in deliveries]


# --- time ------------------------------------------------------------------------------


async def test_a_message_is_hidden_up_to_the_end_of_its_visibility_and_not_beyond() -> None:
    aws = cloud()
    await send(aws, QueueEntry("a"))
    await receive(aws)

    aws.clock.advance(30 * SECOND - timedelta(microseconds=1))
    assert await receive(aws) == []
    aws.clock.advance(timedelta(microseconds=1))
    assert bodies(await receive(aws)) == ["a"]


async def test_a_message_is_gone_after_its_retention_though_it_was_received() -> None:
    aws = cloud(queue(retention=DAY))
    await send(aws, QueueEntry("old"))
    aws.clock.advance(DAY - SECOND)
    await send(aws, QueueEntry("new"))
    await receive(aws)

    aws.clock.advance(MINUTE)

    assert bodies(await receive(aws)) == ["new"]
    assert await aws.queues.depth("orders") == QueueDepth(0, 1, 0)


async def test_each_message_has_a_retention_of_its_own() -> None:
    aws = cloud(queue(retention=DAY))
    for body in "abc":
        await send(aws, QueueEntry(body))
        aws.clock.advance(HOUR)

    left: list[int] = []
    for step in (DAY - 3 * HOUR, HOUR, HOUR):
        aws.clock.advance(step)
        left.append((await aws.queues.depth("orders")).visible)

    assert left == [2, 1, 0]


async def test_a_standard_dead_letter_keeps_the_time_it_was_first_sent_at() -> None:
    source = queue(dead_letters="orders-dlq", max_receive_count=1, retention=4 * DAY)
    aws = cloud(queue("orders-dlq", retention=5 * DAY), source)
    sent_at = aws.clock.now()
    await send(aws, QueueEntry("poison"))
    await receive(aws)
    aws.clock.advance(3 * DAY)
    await receive(aws)

    (dead,) = await receive(aws, "orders-dlq")
    assert dead.sent_at == sent_at
    aws.clock.advance(2 * DAY)
    assert await aws.queues.depth("orders-dlq") == QueueDepth(0, 0, 0)


async def test_a_fifo_dead_letter_counts_as_sent_when_it_moved() -> None:
    source = queue("orders.fifo", dead_letters="dlq.fifo", max_receive_count=1)
    aws = cloud(queue("dlq.fifo"), source)
    await send(aws, QueueEntry("poison", group_id="a"), to="orders.fifo")
    await receive(aws, "orders.fifo")
    moved_at = aws.clock.advance(MINUTE)
    await receive(aws, "orders.fifo")

    (dead,) = await receive(aws, "dlq.fifo")
    assert dead.sent_at == moved_at


async def test_twelve_hours_of_visibility_count_from_the_receive() -> None:
    aws = cloud()
    await send(aws, QueueEntry("slow"))
    (delivery,) = await receive(aws)
    receipt = delivery.receipt_handle
    assert await aws.queues.change_visibility("orders", [(receipt, 2 * HOUR)]) == []
    aws.clock.advance(HOUR)

    assert await aws.queues.change_visibility("orders", [(receipt, 11 * HOUR)]) == []
    (failure,) = await aws.queues.change_visibility("orders", [(receipt, 11 * HOUR + SECOND)])

    assert (failure.index, failure.code) == (0, "InvalidParameterValue")
    aws.clock.advance(11 * HOUR)
    assert bodies(await receive(aws)) == ["slow"]


async def test_a_duplicate_is_one_for_five_minutes() -> None:
    aws = cloud(queue("orders.fifo"))
    entry = QueueEntry("same", group_id="a")
    await send(aws, entry, to="orders.fifo")
    aws.clock.advance(5 * MINUTE - SECOND)
    await send(aws, entry, to="orders.fifo")
    assert len(aws.queues.peek("orders.fifo")) == 1

    aws.clock.advance(SECOND)
    await send(aws, entry, to="orders.fifo")

    assert len(aws.queues.peek("orders.fifo")) == 2


async def test_a_message_whose_visibility_ended_is_no_longer_in_flight() -> None:
    aws = cloud()
    await send(aws, QueueEntry("slow"))
    (delivery,) = await receive(aws)
    aws.clock.advance(30 * SECOND)

    (failure,) = await aws.queues.change_visibility("orders", [(delivery.receipt_handle, MINUTE)])

    assert failure.code == "MessageNotInflight"


async def test_a_stale_receipt_changes_nothing_of_the_next_receive() -> None:
    aws = cloud()
    await send(aws, QueueEntry("slow"))
    (stale,) = await receive(aws)
    aws.clock.advance(30 * SECOND)
    await receive(aws)

    assert await aws.queues.delete("orders", [stale.receipt_handle]) == []
    change = (stale.receipt_handle, NOW)
    (failure,) = await aws.queues.change_visibility("orders", [change])

    assert failure.code == "InvalidParameterValue"
    assert await aws.queues.depth("orders") == QueueDepth(0, 1, 0)


async def test_an_expired_fifo_receipt_deletes_nothing() -> None:
    aws = cloud(queue("orders.fifo"))
    await send(aws, QueueEntry("slow", group_id="a"), to="orders.fifo")
    (delivery,) = await receive(aws, "orders.fifo")
    aws.clock.advance(30 * SECOND)

    (failure,) = await aws.queues.delete("orders.fifo", [delivery.receipt_handle])

    assert (failure.code, failure.retryable) == ("InvalidParameterValue", False)
    assert len(aws.queues.peek("orders.fifo")) == 1


# --- long polls ------------------------------------------------------------------------


async def test_advancing_the_clock_wakes_a_poll_for_a_message_that_comes_back() -> None:
    aws = cloud()
    await send(aws, QueueEntry("slow"))
    await receive(aws)
    poll = asyncio.create_task(receive(aws, wait=20 * SECOND))
    await until_waiting()

    aws.clock.advance(30 * SECOND)

    assert bodies(await woken(poll)) == ["slow"]


async def test_a_real_clock_brings_a_message_back_into_an_open_poll() -> None:
    aws = memory_ports(clock=SystemClock())
    aws.provision(Topology(queues=(queue(visibility=timedelta(milliseconds=5)),)))
    await aws.queues.send("orders", [QueueEntry("quick")])
    await aws.queues.receive("orders", limit=1, wait=NOW)

    async with asyncio.timeout(10):
        (again,) = await aws.queues.receive("orders", limit=1, wait=20 * SECOND)

    assert again.receive_count == 2


async def test_a_message_wakes_all_polls_and_goes_to_the_one_that_waited_longest() -> None:
    aws = cloud()
    first = asyncio.create_task(receive(aws, wait=20 * SECOND))
    second = asyncio.create_task(receive(aws, wait=20 * SECOND))
    await until_waiting()

    await send(aws, QueueEntry("a"))
    assert bodies(await woken(first)) == ["a"]
    await send(aws, QueueEntry("b"))
    assert bodies(await woken(second)) == ["b"]


async def test_deleting_a_fifo_message_wakes_a_poll_for_the_next_of_its_group() -> None:
    aws = cloud(queue("orders.fifo"))
    await send(aws, *(QueueEntry(body, group_id="a") for body in "12"), to="orders.fifo")
    (first,) = await aws.queues.receive("orders.fifo", limit=1, wait=NOW)
    poll = asyncio.create_task(receive(aws, "orders.fifo", wait=20 * SECOND))
    await until_waiting()

    await aws.queues.delete("orders.fifo", [first.receipt_handle])

    assert bodies(await woken(poll)) == ["2"]


async def test_a_message_given_back_wakes_a_poll() -> None:
    aws = cloud()
    await send(aws, QueueEntry("a"))
    (delivery,) = await receive(aws)
    poll = asyncio.create_task(receive(aws, wait=20 * SECOND))
    await until_waiting()

    await aws.queues.change_visibility("orders", [(delivery.receipt_handle, NOW)])

    assert bodies(await woken(poll)) == ["a"]


async def test_a_dead_letter_wakes_a_poll_of_its_queue() -> None:
    aws = cloud(queue("dlq"), queue(dead_letters="dlq", max_receive_count=1))
    await send(aws, QueueEntry("poison"))
    await aws.queues.receive("orders", limit=1, wait=NOW, visibility=NOW)
    poll = asyncio.create_task(receive(aws, "dlq", wait=20 * SECOND))
    await until_waiting()

    assert await receive(aws) == []

    assert bodies(await woken(poll)) == ["poison"]


async def test_a_cancelled_poll_takes_nothing() -> None:
    aws = cloud()
    poll = asyncio.create_task(receive(aws, wait=20 * SECOND))
    await until_waiting()
    poll.cancel()
    await asyncio.gather(poll, return_exceptions=True)

    await send(aws, QueueEntry("a"))

    (delivery,) = await receive(aws)
    assert delivery.receive_count == 1


async def woken(poll: asyncio.Task[list[Delivery]]) -> list[Delivery]:
    """What a poll answers that was woken, and did not come to the end of its wait."""
    await until_waiting()
    assert poll.done()
    return await poll


async def until_waiting() -> None:
    """Long enough for every call that was started to come to its wait."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- entries ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "entry", "code"),
    [
        ("orders", QueueEntry(""), "MissingParameter"),
        ("orders", QueueEntry("\x00"), "InvalidMessageContents"),
        ("orders", QueueEntry("\ud800"), "InvalidMessageContents"),
        ("orders", QueueEntry("\uffff"), "InvalidMessageContents"),
        ("orders", QueueEntry("x", attributes={"a": Attribute("\x00")}), "InvalidMessageContents"),
        ("orders", QueueEntry("x", attributes={"a": Attribute("")}), "InvalidParameterValue"),
        ("orders", QueueEntry("x", attributes={"a": Attribute(b"x")}), "InvalidParameterValue"),
        (
            "orders",
            QueueEntry("x", attributes={"a": Attribute("x", "Text")}),
            "InvalidParameterValue",
        ),
        (
            "orders",
            QueueEntry("x", attributes={str(n): Attribute("x") for n in range(SQS_ATTRIBUTES + 1)}),
            "InvalidParameterValue",
        ),
        ("orders", QueueEntry("x", delay=15 * MINUTE + SECOND), "InvalidParameterValue"),
        ("orders", QueueEntry("x", delay=-SECOND), "InvalidParameterValue"),
        ("orders", QueueEntry("x", deduplication_id="1"), "InvalidParameterValue"),
        ("orders.fifo", QueueEntry("x", group_id="a", delay=SECOND), "InvalidParameterValue"),
    ],
)
async def test_an_entry_that_sqs_does_not_take_fails_alone(
    name: str, entry: QueueEntry, code: str
) -> None:
    aws = cloud(queue(name))

    (failure,) = await aws.queues.send(name, [QueueEntry("good", group_id="g"), entry])

    assert (failure.index, failure.code, failure.retryable) == (1, code, False)
    assert [kept.body for kept in aws.queues.peek(name)] == ["good"]


@pytest.mark.parametrize("body", ["\t\n\r", "\ud7ff\ue000\ufffd", "\U00010000\U0010ffff", " "])
async def test_the_outermost_characters_of_xml_are_taken(body: str) -> None:
    aws = cloud()

    await send(aws, QueueEntry(body))

    assert bodies(await receive(aws)) == [body]


@pytest.mark.parametrize(
    "limits",
    [
        {"limit": 0},
        {"limit": 11},
        {"wait": 21 * SECOND},
        {"wait": -SECOND},
        {"visibility": 12 * HOUR + SECOND},
        {"visibility": -SECOND},
    ],
)
async def test_a_receive_outside_of_its_limits_is_refused(limits: dict[str, object]) -> None:
    aws = cloud()

    with pytest.raises(Refused):
        await aws.queues.receive("orders", **({"limit": 1, "wait": NOW} | limits))  # type: ignore[arg-type]  # out of range, not of type


# --- what exists -----------------------------------------------------------------------


def test_a_dead_letter_queue_that_is_not_there_is_named() -> None:
    with pytest.raises(NotProvisioned, match="nowhere"):
        cloud(queue(dead_letters="nowhere", max_receive_count=3))


def test_a_dead_letter_queue_has_the_type_of_its_source() -> None:
    with pytest.raises(Refused, match="both be FIFO"):
        cloud(queue("dlq"), queue("orders.fifo", dead_letters="dlq", max_receive_count=3))


def test_the_name_of_a_fifo_queue_says_so() -> None:
    for refused in (queue("orders", fifo=True), queue("orders.fifo", fifo=False)):
        with pytest.raises(Refused, match=r"\.fifo"):
            cloud(refused)


async def test_calls_are_counted_by_method() -> None:
    aws = cloud()
    await send(aws, QueueEntry("a"), QueueEntry("b"))
    deliveries = await receive(aws)
    await receive(aws)
    await aws.queues.change_visibility("orders", [(deliveries[0].receipt_handle, MINUTE)])
    await aws.queues.delete("orders", [delivery.receipt_handle for delivery in deliveries])
    await aws.queues.depth("orders")

    assert aws.queues.calls == {
        "send": 1,
        "receive": 2,
        "change_visibility": 1,
        "delete": 1,
        "depth": 1,
    }
