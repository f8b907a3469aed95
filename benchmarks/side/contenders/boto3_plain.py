"""boto3 by hand: `python -m benchmarks.side.contenders.boto3_plain` runs the job in `BENCH_JOB`.

Fairness

What a careful engineer writes without a library. An order is put on the condition that it is not
there yet, so the order itself is what makes the effect happen once, and there is no other record.
Events go out ten in a call, after the puts, and messages are deleted ten in a call, after the
events (Amazon SQS Developer Guide, "Amazon SQS batch actions"); receives ask for ten and wait for
20 seconds ("Setting-up long polling"). On Lambda it answers with `batchItemFailures` (Lambda
Developer Guide, "Handling errors for an SQS event source"). pydantic reads a message in one pass.
The clients are boto3's low-level ones, which are cheaper than its resources, made once, with
standard retries; parameters are validated, as boto3 does by default. One thread: that is the least
CPU, and on a server that answers at once hardly slower than several. On AWS, where every put takes
milliseconds, one process like this handles some 100 messages a second.

What it does less than headrace: a crash after a put sends the event when the message comes again,
as an event is sent for what stands already, too; so events come twice, and consumers must know
them. It works only where one message writes one new item. A bad message is left in the queue, to be
received until the redrive policy moves it. `plain` is the same without the condition.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import boto3  # type: ignore[import-untyped]  # has no types without stubs
from botocore.config import Config
from pydantic import BaseModel, ValidationError

from benchmarks.side import work
from benchmarks.side.contenders import (
    AT_ONCE,
    Context,
    publish_steps,
    published,
    refuse,
    run_lambda,
)
from benchmarks.side.contenders.plain_effect import event_request, item_request
from benchmarks.side.model import OrderPlaced
from benchmarks.side.protocol import Job, Measure

logger = logging.getLogger(__name__)

PACKAGES: Final = ("boto3", "botocore", "pydantic")

_TENS: Final = 10
_SETTINGS: Final = Config(retries={"mode": "standard", "total_max_attempts": 3}, read_timeout=30)


class Metadata(BaseModel):
    id: str


class Detail(BaseModel):
    metadata: Metadata
    data: OrderPlaced


class Message(BaseModel):
    """What EventBridge puts on the queue, as far as it is of interest."""

    detail: Detail


class Received(NamedTuple):
    id: str
    receipt: str
    body: str


class Shop:
    """What handles messages, wherever they come from."""

    def __init__(self, job: Job, *, once: bool = True) -> None:
        self._job = job
        self._condition = {"ConditionExpression": "attribute_not_exists(pk)"} if once else {}
        self._dynamodb = boto3.client("dynamodb", config=_SETTINGS)
        self._events = boto3.client("events", config=_SETTINGS)

    def handle(self, messages: Sequence[Received]) -> list[Received]:
        """Those that are done with. The others come again."""
        accepted: list[tuple[Received, dict[str, Any]]] = []
        for message in messages:
            try:
                accepted.append((message, self._accept(message.body)))
            except ValidationError as error:
                logger.warning("%s is no order: %s", message.id, error)
            except Exception:
                logger.exception("%s was not handled.", message.id)
        sent = self.publish([entry for _, entry in accepted])
        return [message for (message, _), out in zip(accepted, sent, strict=True) if out]

    def publish(self, entries: Sequence[dict[str, Any]]) -> list[bool]:
        """Whether each event is out."""
        sent: list[bool] = []
        for some in tens(entries):
            answer = self._events.put_events(Entries=some)
            sent += ["EventId" in entry for entry in answer["Entries"]]
        return sent

    def _accept(self, body: str) -> dict[str, Any]:
        """Write the order; returns the event to publish."""
        detail = Message.model_validate_json(body).detail
        try:
            self._dynamodb.put_item(**item_request(self._job, detail.data), **self._condition)
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            # It came before. Whether its event went out then is not known, so it goes again.
            logger.info("%s stands already.", detail.data.order_id)
        entry: dict[str, Any]
        [entry] = event_request(self._job, detail.metadata.id, detail.data)["Entries"]
        return entry


def handle(job: Job) -> None:
    shop = Shop(job)

    def handler(event: dict[str, Any], context: Context) -> dict[str, Any]:
        messages = [
            Received(record["messageId"], record["receiptHandle"], record["body"])
            for record in event["Records"]
        ]
        done = {message.id for message in shop.handle(messages)}
        failed = [message.id for message in messages if message.id not in done]
        return {"batchItemFailures": [{"itemIdentifier": id} for id in failed]}

    run_lambda(job, "boto3_plain", handler, packages=PACKAGES)


def drain(job: Job) -> None:
    measure = Measure(job, "boto3_plain")
    _drain(job, measure, Shop(job, once=job.name != "plain"))
    measure.report(packages=PACKAGES)


def _drain(job: Job, measure: Measure, shop: Shop) -> None:
    """Until all have been received; the bad ones stay in the queue, so deletes tell nothing."""
    sqs = boto3.client("sqs", config=_SETTINGS)
    queue = sqs.get_queue_url(QueueName=job.queue)["QueueUrl"]
    received, is_measured = 0, False
    while received < job.messages:
        if received >= job.warm_up and not is_measured:
            measure.started()
            is_measured = True
        messages = _receive(sqs, queue)
        received += len(messages)
        _delete(sqs, queue, shop.handle(messages))
    measure.ended()


def _receive(sqs: Any, queue: str) -> list[Received]:
    answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=_TENS, WaitTimeSeconds=20)
    return [
        Received(message["MessageId"], message["ReceiptHandle"], message["Body"])
        for message in answer.get("Messages", ())
    ]


def _delete(sqs: Any, queue: str, messages: Sequence[Received]) -> None:
    entries = [
        {"Id": str(index), "ReceiptHandle": message.receipt}
        for index, message in enumerate(messages)
    ]
    if not entries:
        return
    for failure in sqs.delete_message_batch(QueueUrl=queue, Entries=entries).get("Failed", ()):
        logger.warning("A message was not deleted, and comes again: %s", failure)


def publish(job: Job) -> None:
    measure, shop = Measure(job, "boto3_plain"), Shop(job)
    steps = [
        [work.detail(number, seed=job.seed) for number in numbers] for numbers in publish_steps(job)
    ]
    for details in measure.over(steps, each=AT_ONCE):
        if not all(shop.publish([_entry(job, detail) for detail in details])):
            raise RuntimeError("Not all events went out.")
    measure.report(packages=PACKAGES, messages=published(job))


def _entry(job: Job, detail: dict[str, Any]) -> dict[str, Any]:
    return {
        "EventBusName": job.bus,
        "Source": work.SOURCE,
        "DetailType": work.DETAIL_TYPE,
        "Detail": json.dumps(detail, separators=(",", ":")),
    }


def tens(entries: Sequence[dict[str, Any]]) -> Iterable[Sequence[dict[str, Any]]]:
    return (entries[start : start + _TENS] for start in range(0, len(entries), _TENS))


JOBS: Final = {
    "lambda": handle,
    "cold": handle,
    "drain": drain,
    "plain": drain,
    "memory": drain,
    "backlog": drain,
    "publish": publish,
}


def main() -> None:
    job = Job.from_environment()
    if job.name not in JOBS:
        refuse(job, "boto3_plain", JOBS)
    JOBS[job.name](job)


if __name__ == "__main__":
    main()
