"""The instant server of the benchmarks, as a client of AWS sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from benchmarks.side import protocol, work
from benchmarks.side.model import OrderPlaced
from benchmarks.side.server.process import instant_server

# One loop for all, as the clients are: opening them takes longer than all of the tests.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with instant_server() as address:
        yield address


@dataclass(frozen=True)
class Aws:
    endpoint: str
    sqs: Any
    dynamodb: Any
    events: Any
    sts: Any

    def reset(self, **settings: Any) -> None:
        protocol.reset(self.endpoint, **settings)

    def counts(self) -> dict[str, Any]:
        return protocol.counts(self.endpoint)

    async def receive(self, queue: str = "orders", wait: int = 0) -> list[dict[str, Any]]:
        answer = await self.sqs.receive_message(
            QueueUrl=f"{self.endpoint}/{work.ACCOUNT}/{queue}",
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
            MessageAttributeNames=["All"],
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    @property
    def queue(self) -> str:
        return f"{self.endpoint}/{work.ACCOUNT}/orders"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(endpoint: str) -> AsyncIterator[Aws]:
    session = get_session()
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(
                session.create_client(
                    name,
                    region_name=work.REGION,
                    endpoint_url=endpoint,
                    aws_access_key_id="test",
                    aws_secret_access_key="test",
                )
            )
            for name in ("sqs", "dynamodb", "events", "sts")
        }
        yield Aws(endpoint, **clients)


@pytest.fixture
def aws(clients: Aws) -> Aws:
    clients.reset()
    return clients


def order_item(number: int) -> dict[str, Any]:
    return work.wire_item(work.effect(work.order_id(number), "a@example.com", 100))


ONCE = {"ConditionExpression": "attribute_not_exists(pk)"}


# --- the queue --------------------------------------------------------------------------


async def test_the_queue_gives_as_many_messages_as_it_was_told_and_then_none(aws: Aws) -> None:
    aws.reset(messages=23)

    batches = [await aws.receive() for _ in range(4)]

    assert [len(batch) for batch in batches] == [10, 10, 3, 0]
    bodies = [json.loads(message["Body"]) for batch in batches for message in batch]
    ids = [OrderPlaced.model_validate(body["detail"]["data"]).order_id for body in bodies]
    assert ids == [work.order_id(number) for number in range(23)]
    assert aws.counts()["received"] == 23


async def test_the_bad_ones_of_the_backlog_do_not_validate(aws: Aws) -> None:
    aws.reset(messages=10, poison=0.1)

    bodies = [json.loads(message["Body"]) for message in await aws.receive()]

    bad = [number for number, body in enumerate(bodies) if not _validates(body)]
    assert bad == [number for number in range(10) if work.is_bad(number, 0.1)]
    assert len(bad) == 1


async def test_a_delete_counts_for_its_message_and_a_second_one_as_doubled(aws: Aws) -> None:
    aws.reset(messages=3)
    receipts = [message["ReceiptHandle"] for message in await aws.receive()]

    await aws.sqs.delete_message(QueueUrl=aws.queue, ReceiptHandle=receipts[0])
    await aws.sqs.delete_message(QueueUrl=aws.queue, ReceiptHandle=receipts[0])

    counts = aws.counts()
    assert (counts["deleted"], counts["doubled"]["deleted"], counts["lost"]["deleted"]) == (1, 1, 2)


async def test_a_batch_of_deletes_fails_only_for_receipts_that_were_not_given(aws: Aws) -> None:
    aws.reset(messages=2)
    receipts = [message["ReceiptHandle"] for message in await aws.receive()]

    entries = [
        {"Id": str(index), "ReceiptHandle": receipt}
        for index, receipt in enumerate([receipts[0], "r-17", receipts[1]])
    ]
    answer = await aws.sqs.delete_message_batch(QueueUrl=aws.queue, Entries=entries)

    assert [done["Id"] for done in answer["Successful"]] == ["0", "2"]
    assert [(fault["Id"], fault["Code"]) for fault in answer["Failed"]] == [
        ("1", "ReceiptHandleIsInvalid")
    ]
    assert aws.counts()["deleted"] == 2


async def test_a_message_whose_visibility_is_changed_comes_again(aws: Aws) -> None:
    aws.reset(messages=1)
    (first,) = await aws.receive()

    await aws.sqs.change_message_visibility(
        QueueUrl=aws.queue, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0
    )
    (second,) = await aws.receive()

    assert second["MessageId"] == first["MessageId"]
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"


async def test_a_queue_that_holds_gives_what_was_sent_to_it(aws: Aws) -> None:
    aws.reset(messages=2, hold=True)
    attributes = {"kind": {"DataType": "String", "StringValue": "brief"}}

    entries = [{"Id": "0", "MessageBody": "one", "MessageAttributes": attributes}]
    await aws.sqs.send_message_batch(QueueUrl=aws.queue, Entries=entries)
    await aws.sqs.send_message(QueueUrl=aws.queue, MessageBody="two")
    messages = await aws.receive()

    assert [message["Body"] for message in messages] == ["one", "two"]
    assert messages[0]["MessageAttributes"]["kind"]["StringValue"] == "brief"
    assert aws.counts()["sent"] == 2


async def test_an_empty_receive_waits_for_what_is_sent_meanwhile(aws: Aws) -> None:
    aws.reset(messages=1, hold=True)

    waiting = asyncio.create_task(aws.receive(wait=20))
    await asyncio.to_thread(protocol.wait_until, aws.endpoint, "ReceiveMessage", 1)
    await aws.sqs.send_message(QueueUrl=aws.queue, MessageBody="late")

    assert [message["Body"] for message in await waiting] == ["late"]


async def test_a_reset_answers_those_who_wait_for_messages(aws: Aws) -> None:
    waiting = asyncio.create_task(aws.receive(wait=20))
    await asyncio.to_thread(protocol.wait_until, aws.endpoint, "ReceiveMessage", 1)

    await asyncio.to_thread(aws.reset, messages=1)

    assert await waiting == []


async def test_an_empty_queue_that_is_not_to_wait_answers_at_once(aws: Aws) -> None:
    aws.reset(wait=False)

    assert await aws.receive(wait=20) == []


async def test_other_queues_are_empty_and_what_is_sent_there_is_counted_apart(aws: Aws) -> None:
    aws.reset(messages=5)
    answer = await aws.sqs.get_queue_url(QueueName="orders-dlq")

    await aws.sqs.send_message(QueueUrl=answer["QueueUrl"], MessageBody="bad")

    assert await aws.receive("orders-dlq") == []
    assert (aws.counts()["sent"], aws.counts()["sent_elsewhere"]) == (0, 1)


# --- the table --------------------------------------------------------------------------


async def test_a_conditional_put_is_refused_for_a_key_that_was_seen(aws: Aws) -> None:
    await aws.dynamodb.put_item(TableName="orders", Item=order_item(0), **ONCE)

    with pytest.raises(ClientError) as refused:
        await aws.dynamodb.put_item(
            TableName="orders",
            Item=order_item(0),
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **ONCE,
        )

    assert refused.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
    assert refused.value.response.get("Item") == order_item(0)
    counts = aws.counts()
    assert (counts["effects"], counts["refused"], counts["doubled"]["effects"]) == (1, 1, 0)


async def test_one_key_in_two_tables_is_two_items(aws: Aws) -> None:
    await aws.dynamodb.put_item(TableName="orders", Item=order_item(0), **ONCE)

    await aws.dynamodb.put_item(TableName="others", Item=order_item(0), **ONCE)

    assert aws.counts()["refused"] == 0


async def test_a_transaction_writes_nothing_when_one_condition_fails(aws: Aws) -> None:
    def puts(*numbers: int) -> list[dict[str, Any]]:
        return [{"Put": {"TableName": "t", "Item": order_item(n), **ONCE}} for n in numbers]

    await aws.dynamodb.transact_write_items(TransactItems=puts(0, 1))
    with pytest.raises(ClientError) as canceled:
        await aws.dynamodb.transact_write_items(TransactItems=puts(2, 1))

    assert canceled.value.response["Error"]["Code"] == "TransactionCanceledException"
    reasons = [reason["Code"] for reason in canceled.value.response["CancellationReasons"]]
    assert reasons == ["None", "ConditionalCheckFailed"]
    assert aws.counts()["effects"] == 2
    await aws.dynamodb.transact_write_items(TransactItems=puts(2))


async def test_what_was_written_is_read_back_as_it_was_updated(aws: Aws) -> None:
    await aws.dynamodb.put_item(TableName="t", Item={"id": {"S": "1"}, "status": {"S": "BEGUN"}})
    await aws.dynamodb.update_item(
        TableName="t",
        Key={"id": {"S": "1"}},
        UpdateExpression="SET #status = :done, answer = :answer",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":done": {"S": "DONE"}, ":answer": {"N": "4"}},
    )

    answer = await aws.dynamodb.get_item(TableName="t", Key={"id": {"S": "1"}})

    assert answer["Item"] == {"id": {"S": "1"}, "status": {"S": "DONE"}, "answer": {"N": "4"}}


async def test_a_batch_read_finds_the_items_that_stand_and_leaves_out_the_rest(aws: Aws) -> None:
    puts = [{"PutRequest": {"Item": order_item(number)}} for number in range(2)]
    await aws.dynamodb.batch_write_item(RequestItems={"t": puts})
    gone = {"pk": {"S": "order#o-00000000"}, "sk": {"S": "-"}}
    await aws.dynamodb.delete_item(TableName="t", Key=gone)

    keys = [gone, {**gone, "pk": {"S": "order#o-00000001"}}]
    answer = await aws.dynamodb.batch_get_item(
        RequestItems={"t": {"Keys": keys, "ConsistentRead": True}}
    )

    assert answer["Responses"]["t"] == [order_item(1)]
    assert aws.counts()["read_units"] == 2


async def test_write_units_are_those_of_the_item_and_twice_that_in_a_transaction(aws: Aws) -> None:
    item = {"pk": {"S": "p"}, "sk": {"S": "-"}, "text": {"S": "x" * 1500}}

    await aws.dynamodb.put_item(TableName="t", Item=item)
    await aws.dynamodb.transact_write_items(
        TransactItems=[{"Put": {"TableName": "t", "Item": item}}]
    )

    assert aws.counts()["write_units"] == 2 + 4


async def test_items_that_are_not_kept_any_more_still_refuse_a_second_put(aws: Aws) -> None:
    aws.reset(keep=1)
    await aws.dynamodb.put_item(TableName="t", Item=order_item(0), **ONCE)
    await aws.dynamodb.put_item(TableName="t", Item=order_item(1), **ONCE)

    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        await aws.dynamodb.put_item(TableName="t", Item=order_item(0), **ONCE)


# --- the bus, and the rest --------------------------------------------------------------


async def test_events_count_for_the_messages_they_are_about(aws: Aws) -> None:
    aws.reset(messages=4, poison=0.25)
    entries = [
        {
            "EventBusName": "shop",
            "Source": work.OUT_SOURCE,
            "DetailType": work.OUT_DETAIL_TYPE,
            "Detail": json.dumps(work.accepted(work.event_id(n), work.order_id(n), 100)),
        }
        for n in (0, 1, 1, 2)
    ]

    answer = await aws.events.put_events(Entries=entries)

    assert (answer["FailedEntryCount"], len(answer["Entries"])) == (0, 4)
    counts = aws.counts()
    assert (counts["events"], counts["doubled"]["events"]) == (3, 1)
    # Of 0, 1 and 3, which are good, and 2, which is not.
    assert (counts["lost"]["events"], counts["wrong"]["events"]) == (1, 1)


async def test_too_many_entries_are_refused(aws: Aws) -> None:
    entry = {"Source": "s", "DetailType": "t", "Detail": "{}"}

    with pytest.raises(ClientError, match="ValidationException"):
        await aws.events.put_events(Entries=[entry] * 11)


async def test_calls_and_bytes_are_counted_by_operation(aws: Aws) -> None:
    await aws.receive()
    await aws.receive()
    await aws.events.describe_event_bus(Name="shop")
    identity = await aws.sts.get_caller_identity()

    counts = aws.counts()
    assert identity["Account"] == work.ACCOUNT
    assert counts["calls"] == {"DescribeEventBus": 1, "GetCallerIdentity": 1, "ReceiveMessage": 2}
    assert counts["all_calls"] == 4
    assert counts["bytes_in"]["DescribeEventBus"] == len('{"Name": "shop"}')


async def test_whoever_waits_for_a_count_is_answered_when_it_is_reached(aws: Aws) -> None:
    aws.reset(messages=2)
    waiting = asyncio.create_task(
        asyncio.to_thread(protocol.wait_until, aws.endpoint, "deleted", 2)
    )

    for message in await aws.receive():
        await aws.sqs.delete_message(QueueUrl=aws.queue, ReceiptHandle=message["ReceiptHandle"])

    assert (await waiting)["deleted"] == 2


async def test_a_recount_forgets_the_counts_and_keeps_the_messages(aws: Aws) -> None:
    aws.reset(messages=1, hold=True)
    await aws.sqs.send_message(QueueUrl=aws.queue, MessageBody="one")

    protocol.recount(aws.endpoint)

    assert aws.counts()["all_calls"] == 0
    assert [message["Body"] for message in await aws.receive()] == ["one"]


async def test_an_unknown_setting_is_refused_with_the_ones_there_are(aws: Aws) -> None:
    with pytest.raises(Exception, match="400"):
        aws.reset(mesages=1)


async def test_an_unknown_operation_is_refused(aws: Aws) -> None:
    with pytest.raises(ClientError, match="UnknownOperation"):
        await aws.sqs.list_dead_letter_source_queues(QueueUrl=aws.queue)


def _validates(body: dict[str, Any]) -> bool:
    try:
        OrderPlaced.model_validate(body["detail"]["data"])
    except ValueError:
        return False
    return True
