"""The queues adapter against an emulator."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.aws.client import Clients
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.aws.sqs import SqsQueues
from headrace.errors import NotProvisioned
from headrace.ports import Attribute, EntryFailure, Ports, QueueEntry
from headrace.system import SystemRandomness
from tests.integration.aws import topologies

pytestmark = pytest.mark.emulator

SOON = timedelta(seconds=2)


async def test_a_sent_message_is_received_as_a_delivery_with_all_it_carried(
    config: AwsConfig, ports: Ports
) -> None:
    await provision(topologies.queue(), config)
    before = datetime.now(UTC) - timedelta(seconds=1)
    attributes = {"size": Attribute("12.5", "Number"), "thumb": Attribute(b"\x00\x01", "Binary")}

    failures = await ports.queues.send("inventory", [QueueEntry("{}", attributes=attributes)])
    [delivery] = await ports.queues.receive("inventory", limit=10, wait=SOON)

    assert failures == []
    assert (delivery.body, delivery.queue, delivery.receive_count) == ("{}", "inventory", 1)
    assert (delivery.group_id, delivery.fifo) == (None, False)
    assert delivery.attributes == attributes
    assert delivery.sent_at is not None
    assert before < delivery.sent_at <= datetime.now(UTC)


async def test_a_message_whose_visibility_is_set_to_nothing_comes_again(
    config: AwsConfig, ports: Ports
) -> None:
    await provision(topologies.queue(), config)
    await ports.queues.send("inventory", [QueueEntry("{}")])
    [first] = await ports.queues.receive("inventory", limit=1, wait=SOON)

    await ports.queues.change_visibility("inventory", [(first.receipt_handle, timedelta(0))])
    [second] = await ports.queues.receive("inventory", limit=1, wait=SOON)

    assert (second.message_id, second.receive_count) == (first.message_id, 2)


async def test_a_fifo_delivery_says_its_group(config: AwsConfig, ports: Ports) -> None:
    await provision(topologies.queue("orders.fifo"), config)
    entry = QueueEntry("{}", group_id="order-7", deduplication_id="event-1")

    await ports.queues.send("orders.fifo", [entry, entry])
    deliveries = await ports.queues.receive("orders.fifo", limit=10, wait=SOON)

    assert [(d.queue, d.group_id, d.fifo) for d in deliveries] == [("orders.fifo", "order-7", True)]


async def test_the_depth_counts_ready_held_and_delayed_messages(
    config: AwsConfig, ports: Ports
) -> None:
    await provision(topologies.queue(), config)
    later = QueueEntry("{}", delay=timedelta(minutes=5))
    await ports.queues.send("inventory", [QueueEntry("{}"), QueueEntry("{}"), later])
    await ports.queues.receive("inventory", limit=1, wait=SOON)

    depth = await ports.queues.depth("inventory")

    assert (depth.visible, depth.in_flight, depth.delayed) == (1, 1, 1)


async def test_a_refused_entry_is_reported_beside_those_that_were_taken(
    config: AwsConfig, ports: Ports
) -> None:
    await provision(topologies.queue(), config)
    await ports.queues.send("inventory", [QueueEntry("{}")])
    [delivery] = await ports.queues.receive("inventory", limit=1, wait=SOON)
    minute = timedelta(minutes=1)

    failures = await ports.queues.change_visibility(
        "inventory", [(delivery.receipt_handle, minute), ("of no message", minute)]
    )

    assert [(f.index, f.code, f.retryable) for f in failures] == [
        (1, "ReceiptHandleIsInvalid", False)
    ]


async def test_an_entry_that_failed_on_the_side_of_sqs_may_be_sent_again(
    config: AwsConfig, clients: Clients
) -> None:
    await provision(topologies.queue(), config)
    queues = SqsQueues(clients.sqs, config, SystemRandomness())

    def fail_second(parsed: dict[str, Any], **_: Any) -> None:
        parsed["Successful"].pop()
        parsed["Failed"] = [{"Id": "1", "Code": "InternalError", "SenderFault": False}]

    clients.sqs.meta.events.register("after-call.sqs.SendMessageBatch", fail_second)
    failures = await queues.send("inventory", [QueueEntry("1"), QueueEntry("2")])

    assert failures == [EntryFailure(1, "InternalError", "", retryable=True)]


async def test_a_missing_queue_says_what_to_run(config: AwsConfig, ports: Ports) -> None:
    sentence = (
        rf"The queue '{config.namespace}-inventory' does not exist in us-east-1 at .+: "
        r"run `headrace provision` or deploy the stack, and check HEADRACE_NAMESPACE\."
    )
    with pytest.raises(NotProvisioned, match=sentence):
        await ports.queues.send("inventory", [QueueEntry("{}")])


class Lookups:
    """Counts the look-ups of queue URLs that a client makes."""

    def __init__(self, clients: Clients) -> None:
        self.count = 0
        clients.sqs.meta.events.register("before-call.sqs.GetQueueUrl", self._counted)

    def _counted(self, **_: Any) -> None:
        self.count += 1


async def test_concurrent_first_uses_of_a_queue_look_its_url_up_once(
    config: AwsConfig, clients: Clients
) -> None:
    await provision(topologies.queue(), config)
    lookups = Lookups(clients)
    queues = SqsQueues(clients.sqs, config, SystemRandomness())

    await asyncio.gather(*(queues.send("inventory", [QueueEntry("{}")]) for _ in range(5)))
    await queues.depth("inventory")

    assert lookups.count == 1


async def test_a_first_use_that_is_cancelled_leaves_the_look_up_to_the_next(
    config: AwsConfig, clients: Clients
) -> None:
    await provision(topologies.queue(), config)
    asked = asyncio.Event()
    clients.sqs.meta.events.register("before-call.sqs.GetQueueUrl", lambda **_: asked.set())
    queues = SqsQueues(clients.sqs, config, SystemRandomness())
    first = asyncio.create_task(queues.depth("inventory"))
    await asked.wait()
    second = asyncio.create_task(queues.depth("inventory"))

    first.cancel()
    depth = await second

    assert (depth.visible, first.cancelled()) == (0, True)


async def test_the_url_of_a_queue_that_is_gone_is_looked_up_again(
    config: AwsConfig, clients: Clients
) -> None:
    await provision(topologies.queue(), config)
    lookups = Lookups(clients)
    queues = SqsQueues(clients.sqs, config, SystemRandomness())
    await queues.depth("inventory")
    url = await clients.sqs.get_queue_url(QueueName=config.physical("inventory"))
    await clients.sqs.delete_queue(QueueUrl=url["QueueUrl"])

    lookups.count = 0
    with pytest.raises(NotProvisioned):
        await queues.depth("inventory")
    await provision(topologies.queue(), config)
    await queues.depth("inventory")

    assert lookups.count == 1
