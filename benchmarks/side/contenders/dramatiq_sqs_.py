"""dramatiq on SQS, by dramatiq_sqs: `python -m benchmarks.side.contenders.dramatiq_sqs_` runs the
job in `BENCH_JOB`.

Its messages have a format of their own: the server has to `hold` what the job `fill` sends before
`plain` or `memory` is run.

Option of a job: `concurrency` of the worker.

Fairness

How it is configured, and per which page of its documentation:

- The README of dramatiq_sqs: its list of middleware, without `Prometheus`, which needs one more
  package.
- dramatiq's user guide, "Workers": 8 threads, the default of the command `dramatiq`. It receives
  ten messages at a time, with a wait of `dramatiq_worker_timeout`, which is a second unless it is
  set in the environment; the same second is how often idle threads wake up. With ten messages
  under way it does not receive more, but sleeps for 5 ms and longer; neither is to be configured.
- The worker runs in this process, not as a child of the command `dramatiq`, which saves it the
  supervisor. The hooks that the command calls are called.
- In the actor a boto3 client, which dramatiq_sqs itself is made of; it has no validation of its
  own, so the actor validates.

What it does less than others: no idempotency, so it can do job c only. It does not understand what
EventBridge puts on a queue: somebody has to call the actor. A bad message is sent again with a
delay, 96 times by the README's settings.

What it does more: Base64 around its messages, and messages are deleted one by one.
"""

from __future__ import annotations

from typing import Any, Final

import boto3  # type: ignore[import-untyped]  # has no types without stubs
import dramatiq  # type: ignore[import-not-found]  # in its own environment only
from dramatiq.middleware import (  # type: ignore[import-not-found]  # own environment
    AgeLimit,
    Callbacks,
    Pipelines,
    Retries,
    TimeLimit,
)
from dramatiq_sqs import SQSBroker  # type: ignore[import-not-found]  # own environment

from benchmarks.side import work
from benchmarks.side.contenders.peer import TASK, arguments, report, run_worker, sends
from benchmarks.side.contenders.plain_effect import event_request, item_request, must_be_taken
from benchmarks.side.model import OrderPlaced
from benchmarks.side.protocol import Job, Measure

THREADS: Final = 8
PACKAGES: Final = ("dramatiq", "dramatiq-sqs", "boto3")


class Shop:
    """The actor, and the clients that it has."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._dynamodb = boto3.client("dynamodb")
        self._events = boto3.client("events")

    def accept(self, metadata: dict[str, Any], order: dict[str, Any]) -> None:
        placed = OrderPlaced.model_validate(order)
        self._dynamodb.put_item(**item_request(self._job, placed))
        must_be_taken(self._events.put_events(**event_request(self._job, metadata["id"], placed)))


def application(job: Job) -> Any:
    """The actor, with its broker."""
    middleware = [
        AgeLimit(),
        TimeLimit(),
        Callbacks(),
        Pipelines(),
        Retries(min_backoff=1000, max_backoff=900_000, max_retries=96),
    ]
    broker = SQSBroker(middleware=middleware, endpoint_url=job.endpoint, region_name=work.REGION)
    return dramatiq.actor(Shop(job).accept, actor_name=TASK, queue_name=job.queue, broker=broker)


def drain(job: Job, measure: Measure) -> None:
    broker = application(job).broker
    broker.emit_after("process_boot")
    worker = dramatiq.Worker(broker, worker_threads=job.options.get("concurrency", THREADS))
    # Its threads are daemons: what waits for the end is the thread that then stops them.
    run_worker(measure, worker.start, stop=worker.stop)


def publish(job: Job, measure: Measure) -> None:
    """A message per call: dramatiq has no batches."""
    actor = application(job)
    every = [arguments(job, number) for number in range(job.messages)]
    for kwargs in measure.over(every, each=1):
        actor.send(**kwargs)


def main() -> None:
    job = Job.from_environment()
    measure = Measure(job, "dramatiq_sqs_")
    if sends(job, "dramatiq_sqs_"):
        publish(job, measure)
        notes = "SendMessage each"
    else:
        drain(job, measure)
        notes = "no idempotency"
    report(measure, packages=PACKAGES, notes=notes)


if __name__ == "__main__":
    main()
