"""Queues on SQS."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Any, Final, cast

from headrace.aws.config import AwsConfig, place
from headrace.aws.deliveries import FIFO_SUFFIX, delivery, is_binary
from headrace.aws.faults import retryable_entry, translated
from headrace.errors import NotProvisioned
from headrace.ports import (
    Attribute,
    Delivery,
    EntryFailure,
    QueueDepth,
    QueueEntry,
    Randomness,
)

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient
    from types_aiobotocore_sqs.literals import MessageSystemAttributeNameType
    from types_aiobotocore_sqs.type_defs import (
        BatchResultErrorEntryTypeDef,
        MessageAttributeValueOutputTypeDef,
        MessageAttributeValueTypeDef,
        MessageTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

_SYSTEM_ATTRIBUTES: Final[Sequence[MessageSystemAttributeNameType]] = (
    "ApproximateReceiveCount",
    "SentTimestamp",
    "MessageGroupId",
    "AWSTraceHeader",
    "SequenceNumber",
)


class SqsQueues:
    """`headrace.ports.Queues` on SQS.

    One method is one call, plus one `GetQueueUrl` at the first use of each queue.
    """

    def __init__(self, client: SQSClient, config: AwsConfig, randomness: Randomness) -> None:
        self._client = client
        self._config = config
        self._randomness = randomness
        self._place = place(client)
        self._urls: dict[str, str] = {}
        self._lookups: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def receive(
        self,
        queue: str,
        *,
        limit: int,
        wait: timedelta,
        visibility: timedelta | None = None,
    ) -> list[Delivery]:
        url = await self._url(queue)
        options: dict[str, Any] = {}
        if visibility is not None:
            options["VisibilityTimeout"] = whole_seconds(visibility)
        if queue.endswith(FIFO_SUFFIX):
            # botocore repeats a receive whose answer was lost. Under one id it gets the same
            # messages; without, their groups stay blocked until the visibility ends.
            options["ReceiveRequestAttemptId"] = str(self._randomness.uuid())
        with self._translated("ReceiveMessage", queue):
            answer = await self._client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=limit,
                WaitTimeSeconds=whole_seconds(wait),
                MessageSystemAttributeNames=_SYSTEM_ATTRIBUTES,
                MessageAttributeNames=["All"],
                **options,
            )
        return [_delivery(message, queue) for message in answer.get("Messages", ())]

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        url = await self._url(queue)
        with self._translated("SendMessageBatch", queue):
            answer = await self._client.send_message_batch(
                QueueUrl=url,
                Entries=[_request_entry(index, entry) for index, entry in enumerate(entries)],
            )
        return _failures(answer.get("Failed", ()))

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        url = await self._url(queue)
        with self._translated("DeleteMessageBatch", queue):
            answer = await self._client.delete_message_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": receipt}
                    for index, receipt in enumerate(receipts)
                ],
            )
        return _failures(answer.get("Failed", ()))

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        url = await self._url(queue)
        with self._translated("ChangeMessageVisibilityBatch", queue):
            answer = await self._client.change_message_visibility_batch(
                QueueUrl=url,
                Entries=[
                    {
                        "Id": str(index),
                        "ReceiptHandle": receipt,
                        "VisibilityTimeout": whole_seconds(hidden),
                    }
                    for index, (receipt, hidden) in enumerate(changes)
                ],
            )
        return _failures(answer.get("Failed", ()))

    async def depth(self, queue: str) -> QueueDepth:
        url = await self._url(queue)
        with self._translated("GetQueueAttributes", queue):
            answer = await self._client.get_queue_attributes(
                QueueUrl=url,
                AttributeNames=[
                    "ApproximateNumberOfMessages",
                    "ApproximateNumberOfMessagesNotVisible",
                    "ApproximateNumberOfMessagesDelayed",
                ],
            )
        counts = answer["Attributes"]
        return QueueDepth(
            visible=int(counts["ApproximateNumberOfMessages"]),
            in_flight=int(counts["ApproximateNumberOfMessagesNotVisible"]),
            delayed=int(counts["ApproximateNumberOfMessagesDelayed"]),
        )

    async def _url(self, queue: str) -> str:
        known = self._urls.get(queue)
        if known is not None:
            return known
        async with self._lookups[queue]:
            # Whoever waited here finds the answer of the one that went first.
            if queue not in self._urls:
                self._urls[queue] = await self._look_up(queue)
            return self._urls[queue]

    async def _look_up(self, queue: str) -> str:
        with self._translated("GetQueueUrl", queue):
            answer = await self._client.get_queue_url(QueueName=self._config.physical(queue))
        return answer["QueueUrl"]

    @contextmanager
    def _translated(self, operation: str, queue: str) -> Iterator[None]:
        try:
            with translated(operation, f"queue '{self._config.physical(queue)}'", self._place):
                yield
        except NotProvisioned:
            # A queue that is made anew may get another URL.
            self._urls.pop(queue, None)
            raise


def whole_seconds(duration: timedelta) -> int:
    """SQS counts in whole seconds; rounded up, so that nothing comes early."""
    return ceil(duration.total_seconds())


def _delivery(message: MessageTypeDef, queue: str) -> Delivery:
    return delivery(
        message_id=message["MessageId"],
        receipt_handle=message["ReceiptHandle"],
        body=message["Body"],
        queue=queue,
        system=cast(Mapping[str, str], message.get("Attributes", {})),
        attributes={
            name: _attribute(given) for name, given in message.get("MessageAttributes", {}).items()
        },
    )


def _attribute(given: MessageAttributeValueOutputTypeDef) -> Attribute:
    binary = is_binary(given["DataType"])
    value = given["BinaryValue"] if binary else given["StringValue"]
    return Attribute(value=value, type=given["DataType"])


def _request_entry(index: int, entry: QueueEntry) -> SendMessageBatchRequestEntryTypeDef:
    request: SendMessageBatchRequestEntryTypeDef = {"Id": str(index), "MessageBody": entry.body}
    if entry.delay:
        request["DelaySeconds"] = whole_seconds(entry.delay)
    if entry.group_id is not None:
        request["MessageGroupId"] = entry.group_id
    if entry.deduplication_id is not None:
        request["MessageDeduplicationId"] = entry.deduplication_id
    if entry.trace_header is not None:
        request["MessageSystemAttributes"] = {
            "AWSTraceHeader": {"DataType": "String", "StringValue": entry.trace_header}
        }
    if entry.attributes:
        request["MessageAttributes"] = {
            name: _request_attribute(given) for name, given in entry.attributes.items()
        }
    return request


def _request_attribute(given: Attribute) -> MessageAttributeValueTypeDef:
    if isinstance(given.value, bytes):
        return {"DataType": given.type, "BinaryValue": given.value}
    return {"DataType": given.type, "StringValue": given.value}


def _failures(failed: Sequence[BatchResultErrorEntryTypeDef]) -> list[EntryFailure]:
    return [
        EntryFailure(
            index=int(entry["Id"]),
            code=entry["Code"],
            message=entry.get("Message", ""),
            retryable=retryable_entry(entry["Code"], sender_fault=entry["SenderFault"]),
        )
        for entry in failed
    ]
