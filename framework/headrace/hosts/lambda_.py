"""Lambda: the same pipeline behind `handler(event, context)`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from headrace.aws.client import open_ports, preload
from headrace.aws.config import AwsConfig
from headrace.aws.lambda_records import delivery_from_lambda
from headrace.batch import Batch
from headrace.errors import HeadraceError
from headrace.hosts.execution_environment import ExecutionEnvironment, LambdaContext, OpenPorts
from headrace.observer import Observer, Unobserved
from headrace.outcome import Ack, DeadLetter, Outcome
from headrace.pipeline import Pipeline, running
from headrace.ports import Delivery
from headrace.service import Service
from headrace.settle import Settler

_ANSWERING: Final = timedelta(milliseconds=200)
"""Time kept free for the answer itself."""


class NotHandled(HeadraceError):
    """A direct invocation was not handled; invoke the function again with the same event."""


class LambdaHandler:
    """What Lambda calls. Make one with `lambda_handler`."""

    def __init__(
        self,
        service: Service,
        *,
        concurrency: int = 10,
        observer: Observer | None = None,
        ports: OpenPorts = open_ports,
    ) -> None:
        self._service = service
        self._concurrency = concurrency
        self._observer = observer or Unobserved()
        self._open_ports = ports
        self._environment = ExecutionEnvironment(self._open)
        self._config = AwsConfig()

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any] | None:
        """Handle one invocation.

        An SQS batch is answered with `batchItemFailures`, always a list. Anything else is a
        direct invocation with one event (EventBridge's envelope, for instance); if it is not
        handled, `NotHandled` is raised and the invoker retries.
        """
        return self._environment.run(lambda pipeline: self._invoke(pipeline, event, context))

    def close(self) -> None:
        """Flush and close everything; the next invocation starts afresh. For tests: Lambda
        itself never says goodbye."""
        self._environment.close()

    async def _invoke(
        self, pipeline: Pipeline, event: Mapping[str, Any], context: LambdaContext
    ) -> dict[str, Any] | None:
        left = timedelta(milliseconds=context.get_remaining_time_in_millis())
        deadline = pipeline.ports.clock.now() + left
        records = _sqs_records(event)
        try:
            if records is not None:
                return await self._handle_batch(pipeline, records, deadline)
            await self._handle_one(pipeline, event, context, deadline)
            return None
        finally:
            await _flush(pipeline, deadline)

    async def _handle_batch(
        self, pipeline: Pipeline, records: Sequence[Mapping[str, Any]], deadline: datetime
    ) -> dict[str, Any]:
        deliveries = [delivery_from_lambda(r, self._config, deadline=deadline) for r in records]
        settler = Settler(pipeline.ports.queues, pipeline.ports.clock, deletes=False)
        outcomes = await self._batch(pipeline, settler.settle).run(deliveries)
        # Lambda deletes what is not named here, so what has no outcome is named too.
        failed = [
            delivery.message_id
            for delivery in deliveries
            if not isinstance(outcomes.get(delivery.message_id), (Ack, DeadLetter))
        ]
        return {"batchItemFailures": [{"itemIdentifier": id} for id in failed]}

    async def _handle_one(
        self,
        pipeline: Pipeline,
        event: Mapping[str, Any],
        context: LambdaContext,
        deadline: datetime,
    ) -> None:
        delivery = Delivery(
            message_id=context.aws_request_id,
            receipt_handle="",
            body=orjson.dumps(event).decode(),
            queue=self._service.name,
            deadline=deadline,
        )
        outcomes = await self._batch(pipeline, _leave).run([delivery])
        outcome = outcomes.get(delivery.message_id)
        if not isinstance(outcome, Ack):
            reason = outcome.reason if outcome else "it was cancelled."
            raise NotHandled(f"{self._service.name} did not handle the event: {reason}")

    def _batch(self, pipeline: Pipeline, settle: Callable[[Delivery, Outcome], Any]) -> Batch:
        return Batch(
            self._service.name,
            pipeline.consume,
            settle,
            limiter=asyncio.Semaphore(self._concurrency),
            clock=pipeline.ports.clock,
            observer=self._observer,
        )

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Pipeline]:
        self._config = AwsConfig.from_environment()
        async with (
            self._open_ports(self._config) as ports,
            running(self._service, ports, self._observer) as pipeline,
        ):
            yield pipeline


def lambda_handler(
    service: Service, *, concurrency: int = 10, observer: Observer | None = None
) -> LambdaHandler:
    """The Lambda entry point of a service: `handler = lambda_handler(inventory)`.

    `concurrency` bounds how many deliveries of a batch are handled at a time. The event source
    mapping must set `FunctionResponseTypes: [ReportBatchItemFailures]`; without it Lambda
    deletes failed messages with the rest.
    """
    preload()
    return LambdaHandler(service, concurrency=concurrency, observer=observer)


def _sqs_records(event: object) -> Sequence[Mapping[str, Any]] | None:
    """The records of an SQS batch. S3, SNS and streams send `Records` of other shapes."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or any(
        not isinstance(r, Mapping) or r.get("eventSource") != "aws:sqs" for r in records
    ):
        return None
    return records


async def _flush(pipeline: Pipeline, deadline: datetime) -> None:
    """The environment may be frozen from the answer on. But an answer that comes too late fails the
    whole batch, and what is flushed here can be lost without harm."""
    flushing = asyncio.create_task(pipeline.flush())
    left = (deadline - pipeline.ports.clock.now() - _ANSWERING).total_seconds()
    await asyncio.wait([flushing], timeout=max(left, 0))


async def _leave(delivery: Delivery, outcome: Outcome) -> Outcome:
    return outcome
