"""The two hosts, at work on a loop whose time is not real.

The worker is the worker. The Lambda function is `LambdaHandler`, and the event source mapping in
front of it does what AWS says of it: receives of ten, one invocation for a batch, deletes of what
was not reported as failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import count
from typing import Any, Final

from headrace.cost.meter import Meter
from headrace.cost.usage import FIFO_SUFFIX, Invocation
from headrace.errors import ConfigurationError
from headrace.hosts.execution_environment import LambdaContext
from headrace.hosts.lambda_ import LambdaHandler
from headrace.hosts.settings import LambdaSettings, WorkerSettings
from headrace.hosts.worker import Worker
from headrace.limits import LAMBDA_SQS_RECORDS, SQS_BATCH_ENTRIES, SQS_MAX_WAIT
from headrace.pipeline import Pipeline, running
from headrace.ports import Delivery, Ports
from headrace.service import Service
from headrace.testing.runtime_api import sqs_event

_ARN: Final = "arn:aws:sqs:us-east-1:000000000000:"
_LONGEST_WINDOW: Final = timedelta(minutes=5)
_LONGEST_TIMEOUT: Final = timedelta(minutes=15)


_MOMENT: Final = 0.001
"""Seconds that are not worth a receive. Less than a microsecond would not even pass."""


class Host(StrEnum):
    """Where services run."""

    LAMBDA = "lambda"
    FARGATE = "fargate"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSource:
    """The settings of an event source mapping. Raises `ConfigurationError` for what AWS does not
    take."""

    batch: int = 10
    """Messages in an invocation, at most: up to 10,000. A FIFO queue has no more than 10."""
    window: timedelta = timedelta(0)
    """How long messages are gathered for one, on standard queues: up to 5 minutes."""
    pollers: int = 5
    """Long polls that are open on a queue (developer guide, "Configuring scaling behavior for SQS
    event source mappings"). Each invokes an environment of its own with what it receives."""
    timeout: timedelta = timedelta(seconds=30)
    """Of the function."""

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= LAMBDA_SQS_RECORDS:
            raise ConfigurationError(
                f"A batch of {self.batch} messages is none that Lambda makes: give 1 to "
                f"{LAMBDA_SQS_RECORDS:,}."
            )
        if not timedelta(0) <= self.window <= _LONGEST_WINDOW:
            raise ConfigurationError("The window of a mapping is 0 to 300 seconds.")
        if self.batch > SQS_BATCH_ENTRIES and self.window < timedelta(seconds=1):
            raise ConfigurationError(
                f"Lambda gathers more than {SQS_BATCH_ENTRIES} messages only in a window of a "
                f"second or more: give --window 1 with --batch {self.batch}."
            )
        if self.pollers < 1:
            raise ConfigurationError("Lambda polls a queue at least once at a time.")
        if not timedelta(seconds=1) <= self.timeout <= _LONGEST_TIMEOUT:
            raise ConfigurationError("The timeout of a function is 1 to 900 seconds.")


@asynccontextmanager
async def at_work(
    host: Host,
    services: Sequence[Service],
    ports: Mapping[str, Ports],
    meters: Mapping[str, Meter],
    source: EventSource,
) -> AsyncIterator[asyncio.Task[None]]:
    """Services on a host, each with its own ports and meter, by name. Gives a task that ends only
    with what they cannot go on after."""
    async with AsyncExitStack() as stack:

        async def opened(service: Service) -> Pipeline:
            return await stack.enter_async_context(running(service, ports[service.name]))

        stop = asyncio.Event()
        if host is Host.FARGATE:
            work = _in_workers([await opened(service) for service in services], stop)
        else:
            mappings = [
                _Mapping(await opened(service), queue, meters[service.name], source)
                for service in services
                for queue in service.queues
                for _ in range(source.pollers)
            ]
            work = _in_functions(mappings, stop)
        working = asyncio.create_task(work)
        try:
            yield working
        finally:
            stop.set()
            await asyncio.wait((working,))


async def _in_workers(pipelines: Sequence[Pipeline], stop: asyncio.Event) -> None:
    """One worker for each service, with the settings that a worker has where nothing is said. What
    the relay does is the same at all times, so it is not here."""
    workers = [_Worker([pipeline], settings=WorkerSettings()) for pipeline in pipelines]
    await asyncio.gather(*(worker.run(stop) for worker in workers))


async def _in_functions(mappings: Sequence[_Mapping], stop: asyncio.Event) -> None:
    polling = [asyncio.create_task(mapping.run()) for mapping in mappings]
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((stopped, *polling), return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, *polling):
        task.cancel()
    for ended in await asyncio.gather(*polling, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


class _Mapping:
    """One of the polls of a queue for a function, and the environment that it invokes."""

    def __init__(self, pipeline: Pipeline, queue: str, meter: Meter, source: EventSource) -> None:
        self._pipeline = pipeline
        self._queues = pipeline.ports.queues
        self._queue = queue
        self._meter = meter
        self._fifo = queue.endswith(FIFO_SUFFIX)
        self._most = min(source.batch, SQS_BATCH_ENTRIES) if self._fifo else source.batch
        self._window = 0.0 if self._fifo else source.window.total_seconds()
        self._timeout = source.timeout
        self._function = _Function(pipeline.service, settings=LambdaSettings())
        self._requests = count(1)

    async def run(self) -> None:
        while True:
            await self._invoke(await self._batch())

    async def _batch(self) -> list[Delivery]:
        batch = await self._receive(self._most, SQS_MAX_WAIT.total_seconds())
        ends = _now() + self._window
        while batch and len(batch) < self._most and (left := ends - _now()) > _MOMENT:
            batch += await self._receive(self._most - len(batch), left)
        return batch

    async def _receive(self, most: int, seconds: float) -> list[Delivery]:
        wait = timedelta(seconds=min(seconds, SQS_MAX_WAIT.total_seconds()))
        return await self._queues.receive(
            self._queue, limit=min(most, SQS_BATCH_ENTRIES), wait=wait
        )

    async def _invoke(self, batch: Sequence[Delivery]) -> None:
        if not batch:
            return
        context = _Context(f"request-{next(self._requests)}", self._timeout)
        began = _now()
        failed = await self._function.invoked(
            self._pipeline, sqs_event(f"{_ARN}{self._queue}", *batch), context
        )
        self._meter.invocations.append(Invocation(len(batch), _now() - began))
        done = [each.receipt_handle for each in batch if each.message_id not in failed]
        for start in range(0, len(done), SQS_BATCH_ENTRIES):
            await self._queues.delete(self._queue, done[start : start + SQS_BATCH_ENTRIES])


class _Function(LambdaHandler):
    """The handler of a function, on a loop that is there already."""

    async def invoked(
        self, pipeline: Pipeline, event: Mapping[str, Any], context: LambdaContext
    ) -> set[str]:
        """The ids of the messages that it reports as failed."""
        answer = await self.invoke(pipeline, event, context)
        return {failure["itemIdentifier"] for failure in (answer or {})["batchItemFailures"]}


@dataclass(frozen=True, slots=True)
class _Context:
    aws_request_id: str
    timeout: timedelta

    def get_remaining_time_in_millis(self) -> int:
        return int(self.timeout.total_seconds() * 1000)


class _Worker(Worker):
    """One without a relay."""

    def __init__(self, pipelines: Sequence[Pipeline], *, settings: WorkerSettings) -> None:
        super().__init__(pipelines, settings=settings)
        self._relays = []


def _now() -> float:
    return asyncio.get_running_loop().time()
