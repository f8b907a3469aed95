"""Lambda: the same pipeline behind `handler(event, context)`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from headrace.aws.client import open_ports, preload
from headrace.aws.config import AwsConfig
from headrace.aws.deliveries import FIFO_SUFFIX
from headrace.aws.lambda_records import delivery_from_lambda
from headrace.batch import Batch, Lane, Settle, in_lanes, one_by_one
from headrace.errors import HeadraceError
from headrace.hosts.deadline import Deadline
from headrace.hosts.execution_environment import ExecutionEnvironment, LambdaContext, OpenPorts
from headrace.hosts.observing import observing
from headrace.hosts.settings import LambdaSettings, ObserveSettings
from headrace.observe.logs import configure
from headrace.observer import Observer
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.pipeline import Pipeline, running
from headrace.ports import Delivery
from headrace.service import Service
from headrace.settle import Settler
from headrace.tracing import Tracer
from headrace.turns import Turns

logger = logging.getLogger(__name__)

_ENDING: Final = 0.05
"""Seconds for what was cancelled to end."""


class NotHandled(HeadraceError):
    """A direct invocation was not handled; invoke the function again with the same event."""


class LambdaHandler:
    """What Lambda calls. Make one with `lambda_handler`."""

    def __init__(
        self,
        service: Service,
        *,
        settings: LambdaSettings | None = None,
        concurrency: int | None = None,
        observer: Observer | None = None,
        tracer: Tracer | None = None,
        ports: OpenPorts = open_ports,
    ) -> None:
        self._service = service
        settings = settings or LambdaSettings.from_environment()
        self._settings = (
            settings if concurrency is None else replace(settings, concurrency=concurrency)
        )
        telling = ObserveSettings.from_environment()
        if telling.logs == "json":
            configure(telling)
        self._told = observing(telling, observer, tracer)
        self._open_ports = ports
        self._environment = ExecutionEnvironment(self._open)
        self._config = AwsConfig()

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any] | None:
        """Handle one invocation.

        An SQS batch is answered with `batchItemFailures`, always a list. Anything else is a
        direct invocation with one event (EventBridge's envelope, for instance); if it is not
        handled, `NotHandled` is raised and the invoker retries.
        """
        return self._environment.run(lambda pipeline: self.invoke(pipeline, event, context))

    def close(self) -> None:
        """Flush and close everything; the next invocation starts afresh. For tests: Lambda
        itself never says goodbye."""
        self._environment.close()

    async def invoke(
        self, pipeline: Pipeline, event: Mapping[str, Any], context: LambdaContext
    ) -> dict[str, Any] | None:
        """The same on an event loop and a pipeline that are there already, as in a simulation."""
        left = timedelta(milliseconds=context.get_remaining_time_in_millis())
        records = _sqs_records(event)
        deadline = Deadline(
            pipeline.ports.clock,
            left,
            self._settings.margin,
            messages=1 if records is None else len(records),
        )
        try:
            if records is not None:
                return await self._handle_batch(pipeline, records, deadline)
            await self._handle_one(pipeline, event, context, deadline)
            return None
        finally:
            # The environment may be frozen from the answer on. But an answer that comes too late
            # fails the whole batch, and what is flushed here can be lost without harm.
            await _within(deadline.until_answer, pipeline.flush())
            self._told.flush()

    async def _handle_batch(
        self,
        pipeline: Pipeline,
        records: Sequence[Mapping[str, Any]],
        deadline: Deadline,
    ) -> dict[str, Any]:
        ports = pipeline.ports
        settler = Settler(ports.queues, ports.clock, ports.randomness, deletes=False, linger=0.002)
        outcomes: dict[str, Outcome] = {}
        self._told.tracer.received(self._service.name, self._service.name, _trace_headers(records))
        deliveries = self._deliveries(records, deadline.at)
        lanes = in_lanes(list(deliveries)) if _is_fifo(records) else one_by_one(deliveries)
        batch = self._batch(pipeline, settler.settle, deadline)
        await _within(deadline.until_cut, batch.run_lanes(lanes, outcomes), ending=_ENDING)
        rest = [record for record in records if record.get("messageId") not in outcomes]
        left = self._deliveries(rest, deadline.at)
        await _within(deadline.until_answer, _handed_back(settler, left))
        settler.close()
        # Lambda deletes what is not named here, so what has no outcome is named too.
        ids = dict.fromkeys(str(record.get("messageId", "")) for record in records)
        failed = [id for id in ids if not isinstance(outcomes.get(id), (Ack, DeadLetter))]
        if deadline.is_near and failed:
            logger.warning(
                "%d of %d messages were not handled by the deadline, or failed: raise the "
                "function's timeout, or take smaller batches.",
                len(failed),
                len(ids),
            )
        return {"batchItemFailures": [{"itemIdentifier": id} for id in failed]}

    def _deliveries(
        self, records: Iterable[Mapping[str, Any]], ends_at: datetime
    ) -> Iterator[Delivery]:
        for record in records:
            try:
                yield delivery_from_lambda(record, self._config, deadline=ends_at)
            except Exception as error:
                # Whoever made it is no event source mapping; it is reported as failed.
                logger.error("A record is not as SQS makes it (%r): %s", error, sorted(record))

    async def _handle_one(
        self,
        pipeline: Pipeline,
        event: Mapping[str, Any],
        context: LambdaContext,
        deadline: Deadline,
    ) -> None:
        delivery = Delivery(
            message_id=context.aws_request_id,
            receipt_handle="",
            body=orjson.dumps(event).decode(),
            queue=self._service.name,
            deadline=deadline.at,
        )
        outcomes: dict[str, Outcome] = {}
        handling = self._batch(pipeline, _leave, deadline).run_lanes([Lane([delivery])], outcomes)
        await _within(deadline.until_cut, handling, ending=_ENDING)
        outcome = outcomes.get(delivery.message_id)
        if not isinstance(outcome, Ack):
            reason = outcome.reason if outcome else "it was not done by the deadline."
            raise NotHandled(f"{self._service.name} did not handle the event: {reason}")

    def _batch(self, pipeline: Pipeline, settle: Settle, deadline: Deadline) -> Batch:
        return Batch(
            self._service.name,
            pipeline.consume,
            settle,
            turns=Turns(self._settings.concurrency, per_tenant=self._settings.per_tenant),
            stay=deadline.stay,
            observer=self._told.observer,
            closing=lambda: deadline.is_near,
        )

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Pipeline]:
        self._config = AwsConfig.from_environment()
        async with (
            self._open_ports(self._config) as ports,
            running(self._service, ports, self._told.observer, self._told.tracer) as pipeline,
        ):
            yield pipeline


def lambda_handler(
    service: Service,
    *,
    settings: LambdaSettings | None = None,
    concurrency: int | None = None,
    observer: Observer | None = None,
    tracer: Tracer | None = None,
) -> LambdaHandler:
    """The Lambda entry point of a service: `handler = lambda_handler(inventory)`.

    `concurrency`, which bounds how many deliveries of a batch are handled at a time, is short for
    the `settings` of that name; without settings, the environment gives them. The event source
    mapping must set `FunctionResponseTypes: [ReportBatchItemFailures]`; without it Lambda
    deletes failed messages with the rest. The environment also says what is told of the work,
    beside what `observer` is told; a `tracer` takes the place of its own. Raises
    `ConfigurationError`.
    """
    handler = LambdaHandler(
        service, settings=settings, concurrency=concurrency, observer=observer, tracer=tracer
    )
    preload()
    return handler


def _sqs_records(event: object) -> Sequence[Mapping[str, Any]] | None:
    """The records of an SQS batch. S3, SNS and streams send `Records` of other shapes."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or any(
        not isinstance(r, Mapping) or r.get("eventSource") != "aws:sqs" for r in records
    ):
        return None
    return records


def _trace_headers(records: Iterable[Mapping[str, Any]]) -> Iterator[str | None]:
    for record in records:
        attributes = record.get("attributes")
        yield attributes.get("AWSTraceHeader") if isinstance(attributes, Mapping) else None


def _is_fifo(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the messages are of a FIFO queue, of which a batch has ten at most."""
    return any(str(record.get("eventSourceARN", "")).endswith(FIFO_SUFFIX) for record in records)


async def _handed_back(settler: Settler, deliveries: Iterable[Delivery]) -> None:
    for delivery in deliveries:
        await settler.settle(delivery, _CUT_SHORT)
    await settler.flush()


async def _within(seconds: float, work: Coroutine[Any, Any, None], *, ending: float = 0.0) -> None:
    """Do it, and leave it where it is if it is not done by then. What catches its cancellation is
    left behind; `ending` is the time that all others have to end."""
    if seconds <= 0 and not ending:
        work.close()
        return
    doing = asyncio.create_task(work)
    _, late = await asyncio.wait((doing,), timeout=seconds)
    if late:
        doing.cancel()
        if ending:
            await asyncio.wait((doing,), timeout=ending)
    elif not doing.cancelled() and (error := doing.exception()) is not None:
        raise error


_CUT_SHORT: Final = Retry("It was not done by the deadline and was left.", timedelta(0))


async def _leave(delivery: Delivery, outcome: Outcome) -> Outcome:
    return outcome
