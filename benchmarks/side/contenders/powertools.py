"""Powertools for AWS Lambda 3: `python -m benchmarks.side.contenders.powertools` runs `BENCH_JOB`.

Options of a job: `model`, `batch` or `body`: where the parser is used, see below (`batch`).

Fairness

How it is configured, and per which page of its documentation:

- "Batch Processing", "Processing messages from SQS": `BatchProcessor(event_type=EventType.SQS)`
  and `process_partial_response`, which it marks as recommended.
- The same page, "Processing messages asynchronously": `AsyncBatchProcessor` is for when "your use
  case might be able to process multiple records at the same time". It is not taken: that of
  idempotency, "Idempotent_function decorator", is for "any synchronous Python function", and boto3
  has no asynchronous client, so nothing would run at the same time.
- "Idempotency", "Common use cases", "Batch processing": `idempotent_function` around the record
  handler, with `data_keyword_argument="record"`, and `event_key_jmespath="messageId"` for the key;
  `DynamoDBPersistenceLayer` with a table of its own, as the page recommends; "Lambda timeouts":
  `register_lambda_context`. No local cache, which is off by default and would never be hit.
- "Batch Processing", "Pydantic integration": `SqsRecordModel` whose `body` is `Json[…]`, of an
  `EventBridgeModel` with the type of `detail` ("Parser", "Extending built-in models"). The other
  way, `parse` in the record handler (here `model: body`), costs as much processor time, and two
  calls more for a bad message, as idempotency has put its record by then.
- The effect is a boto3 `put_item` and `put_events` in the record handler, with clients made once,
  of boto3's defaults. Neither Logger nor Tracer, which its examples add "for completion".

What it does less than headrace: the order and its record are not written together. It is known as
handled by SQS's message id for an hour, the default, and so what EventBridge delivers twice, or is
redriven later, is handled again. A failure between the put and the event runs the handler again. A
bad message is left in the queue, to be received until the redrive policy moves it. What it does
more: a second delivery while the first runs is refused. It has no worker and publishes nothing,
so it has no jobs but those of Lambda.
"""

from __future__ import annotations

from typing import Any, Final

import boto3  # type: ignore[import-untyped]  # has no types without stubs
from aws_lambda_powertools.utilities import (  # type: ignore[import-not-found]  # not in this env
    batch,
    idempotency,
    parser,
)
from aws_lambda_powertools.utilities.data_classes import (  # type: ignore[import-not-found]  # same
    sqs_event,
)
from aws_lambda_powertools.utilities.parser import (  # type: ignore[import-not-found]  # as above
    models,
)
from pydantic import BaseModel, Json

from benchmarks.side.contenders import Context, LambdaHandler, refuse, run_lambda
from benchmarks.side.contenders.plain_effect import event_request, item_request, must_be_taken
from benchmarks.side.model import OrderPlaced
from benchmarks.side.protocol import Job

PACKAGES: Final = ("aws-lambda-powertools", "boto3", "botocore", "pydantic")
JOBS: Final = ("lambda", "cold")


class Metadata(BaseModel):
    id: str


class Detail(BaseModel):
    metadata: Metadata
    data: OrderPlaced


class OrderEvent(models.EventBridgeModel):  # type: ignore[misc]  # its types are not in this environment
    detail: Detail


class OrderRecord(models.SqsRecordModel):  # type: ignore[misc]  # as above
    body: Json[OrderEvent]


def lambda_handler_of(job: Job) -> LambdaHandler:
    """What a user has at the level of a module; in a function, for the names that the job gives."""
    whole = job.options.get("model", "batch") == "batch"
    processor = batch.BatchProcessor(
        event_type=batch.EventType.SQS, model=OrderRecord if whole else None
    )
    store = idempotency.DynamoDBPersistenceLayer(table_name="idempotency")
    config = idempotency.IdempotencyConfig(event_key_jmespath="messageId")
    dynamodb, events = boto3.client("dynamodb"), boto3.client("events")

    def accept(detail: Detail) -> None:
        dynamodb.put_item(**item_request(job, detail.data))
        must_be_taken(events.put_events(**event_request(job, detail.metadata.id, detail.data)))

    def handle_record(record: sqs_event.SQSRecord) -> None:
        accept(parser.parse(event=record.body, model=OrderEvent).detail)

    def handle_model(record: OrderRecord) -> None:
        accept(record.body.detail)

    record_handler = idempotency.idempotent_function(
        handle_model if whole else handle_record,
        data_keyword_argument="record",
        persistence_store=store,
        config=config,
    )

    def lambda_handler(event: dict[str, Any], context: Context) -> dict[str, Any]:
        config.register_lambda_context(context)
        answer: dict[str, Any] = batch.process_partial_response(
            event=event, record_handler=record_handler, processor=processor, context=context
        )
        return answer

    return lambda_handler


def main() -> None:
    job = Job.from_environment()
    if job.name not in JOBS:
        refuse(job, "powertools", JOBS)
    run_lambda(job, "powertools", lambda_handler_of(job), packages=PACKAGES)


if __name__ == "__main__":
    main()
