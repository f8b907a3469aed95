"""taskiq on SQS, by taskiq-aio-sqs: `python -m benchmarks.side.contenders.taskiq_sqs` runs the job
in `BENCH_JOB`.

Its messages have a format of their own: the server has to `hold` what the job `fill` sends before
`plain` or `memory` is run.

Option of a job: `concurrency` of the worker.

Fairness

How it is configured, and per which page of its documentation:

- The README of taskiq-aio-sqs: `max_number_of_messages` 10 (its default is 1) and
  `wait_time_seconds` 20 (its default is 10), which it spends a second at a time, with one receive
  for each and one more in the end. `enable_batching` when publishing.
- taskiq's guide, "CLI": 100 tasks at a time, the default of `--max-async-tasks`; acknowledged when
  the result is saved, the default, and there is no result backend.
- taskiq's guide, "State and events": the clients are opened when the worker starts. They are
  aiobotocore's, which taskiq-aio-sqs itself is made of.
- taskiq's own validation: the task's parameters are annotated with the model.
- The worker runs in this process by `taskiq.api.run_receiver_task`, not as a child of
  `taskiq worker`, which saves it the supervisor. Its line of log per message, the command's
  default, is off. It runs on asyncio's own loop, as the others do; with the extra `uv` the command
  takes uvloop.

What it does less than others: no idempotency, so it can do job c only. A task that fails is
acknowledged all the same, so a bad message is gone. It does not understand what EventBridge puts on
a queue: somebody has to call the task.

What it does more: messages are deleted one by one.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

from aiobotocore.session import get_session
from taskiq import TaskiqEvents, TaskiqState  # type: ignore[import-not-found]  # own environment
from taskiq.api import run_receiver_task  # type: ignore[import-not-found]  # own environment
from taskiq_aio_sqs import SQSBroker  # type: ignore[import-not-found]  # own environment

from benchmarks.side import work
from benchmarks.side.contenders.peer import SENDS, TASK, arguments, report, sends
from benchmarks.side.contenders.plain_effect import event_request, item_request, must_be_taken
from benchmarks.side.model import OrderPlaced
from benchmarks.side.protocol import Job, Measure

CONCURRENCY: Final = 100
PACKAGES: Final = ("taskiq", "taskiq-aio-sqs", "aiobotocore")


class Shop:
    """What the task does, and the clients that it has while a worker runs."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._open = AsyncExitStack()
        self._dynamodb: Any = None
        self._events: Any = None

    async def accept(self, event_id: str, order: OrderPlaced) -> None:
        await self._dynamodb.put_item(**item_request(self._job, order))
        must_be_taken(await self._events.put_events(**event_request(self._job, event_id, order)))

    async def start(self, state: TaskiqState) -> None:
        session = get_session()
        self._dynamodb = await self._open.enter_async_context(session.create_client("dynamodb"))
        self._events = await self._open.enter_async_context(session.create_client("events"))

    async def stop(self, state: TaskiqState) -> None:
        await self._open.aclose()


def application(job: Job) -> Any:
    """The broker, with its one task."""
    shop = Shop(job)
    broker = SQSBroker(
        job.queue,
        endpoint_url=job.endpoint,
        region_name=work.REGION,
        max_number_of_messages=10,
        wait_time_seconds=20,
        enable_batching=job.name in SENDS,
    )
    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, shop.start)
    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, shop.stop)

    # Not the method itself: taskiq gives its tasks another name.
    async def accept(metadata: dict[str, Any], order: OrderPlaced) -> None:
        await shop.accept(metadata["id"], order)

    broker.register_task(accept, task_name=TASK)
    return broker


async def drain(job: Job, measure: Measure) -> None:
    broker = application(job)
    concurrency = job.options.get("concurrency", CONCURRENCY)
    worker = asyncio.create_task(
        run_receiver_task(broker, run_startup=True, max_async_tasks=concurrency)
    )
    done, loop = asyncio.Event(), asyncio.get_running_loop()
    measure.watch(lambda: loop.call_soon_threadsafe(done.set))
    await asyncio.wait(
        [worker, asyncio.create_task(done.wait())], return_when=asyncio.FIRST_COMPLETED
    )
    if not done.is_set():
        worker.result()
    await _cancel_others()
    await broker.shutdown()


async def _cancel_others() -> None:
    """All at once: a worker that alone is cancelled goes on to wait for its queue, for up to 20
    seconds."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.wait(others)


async def publish(job: Job, measure: Measure) -> None:
    """By tens, which a background task of the broker sends."""
    broker = application(job)
    await broker.startup()
    sent = asyncio.Event()
    loop = asyncio.get_running_loop()
    measure.watch(lambda: loop.call_soon_threadsafe(sent.set), until="sent")
    task = broker.find_task(TASK)
    for number in range(job.messages):
        await task.kiq(**arguments(job, number))
    # It must not be shut down before: what is left over then is sent as one batch of any size.
    await sent.wait()
    await broker.shutdown()


def main() -> None:
    job = Job.from_environment()
    measure = Measure(job, "taskiq_sqs")
    if sends(job, "taskiq_sqs"):
        asyncio.run(publish(job, measure))
        notes = "SendMessageBatch"
    else:
        asyncio.run(drain(job, measure))
        notes = "no idempotency"
    report(measure, packages=PACKAGES, notes=notes)


if __name__ == "__main__":
    main()
