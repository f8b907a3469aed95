"""Celery on SQS: `python -m benchmarks.side.contenders.celery_sqs` runs the job in `BENCH_JOB`.

Celery's messages have a format of their own: the server has to `hold` what the job `fill` sends
before `plain` or `memory` is run.

Options of a job: `pool` and `concurrency` of the worker, and `prefetch`, Celery's multiplier.

Fairness

How it is configured, and per which page of its documentation:

- "Using Amazon SQS": `predefined_queues` with the URL, so that it neither lists nor creates queues;
  `wait_time_seconds` 20, the most. `polling_interval` stays at its default of a second, as the page
  warns that less makes a busy loop; it is slept after an empty answer, and whenever the prefetch
  limit is reached.
- "Optimizing", section "Prefetch limits": for many short tasks, "values like 50 or 150", "64, or
  128": 128. The worker then hardly ever reaches its limit.
- "Concurrency": the page recommends `prefork` to begin with, and other pools for I/O, which this
  work is. `threads` with ten, and as many connections, since what is compared is one process.
  `prefork` is three processes for two at a time, and `solo` handles one at a time. `gevent` was
  not told apart from `threads` on a busy machine, and patches the standard library.
- "Tasks": `acks_late`, without which a message is deleted before the work; `ignore_result`;
  `pydantic=True`, Celery's own validation of arguments.
- "Tasks" again: in the task a boto3 client, made once per process, as its users do.

What it does less than others: no idempotency, so it can do job c only. A task that fails is
acknowledged all the same (`task_acks_on_failure_or_timeout`), so a bad message is gone. It does not
understand what EventBridge puts on a queue: somebody has to call the task.

What it does more: its envelope is Base64 in Base64 with a `repr` of the arguments, 3 KB where the
others' are 1 KB, and it is decoded. Messages are deleted one by one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]  # has no types without stubs
from botocore.config import Config
from celery import Celery  # type: ignore[import-not-found]  # in its own environment only

from benchmarks.side.contenders.peer import TASK, arguments, report, run_worker, sends
from benchmarks.side.contenders.plain_effect import event_request, item_request, must_be_taken
from benchmarks.side.model import OrderPlaced
from benchmarks.side.protocol import Job, Measure
from benchmarks.side.work import REGION

POOL: Final = "threads"
CONCURRENCY: Final = 10
PREFETCH: Final = 128
PACKAGES: Final = ("celery", "kombu", "boto3")


class Clients(NamedTuple):
    dynamodb: Any
    events: Any


@cache
def clients() -> Clients:
    config = Config(max_pool_connections=_concurrency(job()))
    return Clients(boto3.client("dynamodb", config=config), boto3.client("events", config=config))


@cache
def job() -> Job:
    return Job.from_environment()


def accept(metadata: dict[str, Any], order: OrderPlaced) -> None:
    aws = clients()
    aws.dynamodb.put_item(**item_request(job(), order))
    must_be_taken(aws.events.put_events(**event_request(job(), metadata["id"], order)))


def application(job: Job) -> Any:
    """The app and its one task."""
    app = Celery("orders", broker=_broker(job), set_as_current=False)
    app.conf.update(_settings(job))
    app.task(accept, name=TASK, pydantic=True)
    return app


def _broker(job: Job) -> str:
    """As for any server of SQS that is not AWS's: its host and port in the place of AWS's own."""
    return f"sqs://{_credentials()[0]}:{_credentials()[1]}@{urlsplit(job.endpoint).netloc}"


def _credentials() -> tuple[str, str]:
    return os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]


def _settings(job: Job) -> Mapping[str, Any]:
    key, secret = _credentials()
    queue = {"url": job.queue_url, "access_key_id": key, "secret_access_key": secret}
    return {
        "task_default_queue": job.queue,
        "task_acks_late": True,
        "task_ignore_result": True,
        "worker_prefetch_multiplier": job.options.get("prefetch", PREFETCH),
        # Its log must not take the line on standard output that is the result.
        "worker_redirect_stdouts": False,
        "broker_transport_options": {
            "region": REGION,
            "is_secure": False,
            "wait_time_seconds": 20,
            "client-config": {"max_pool_connections": _concurrency(job)},
            "predefined_queues": {job.queue: queue},
        },
    }


def drain(job: Job, measure: Measure) -> None:
    pool = job.options.get("pool", POOL)
    # Before there are threads, each of which would make its own.
    clients()
    worker = application(job).Worker(
        pool=pool, concurrency=_concurrency(job), loglevel="WARNING", quiet=True
    )
    # SIGTERM is how a worker is told to finish what it has begun, and to end.
    run_worker(measure, worker.start, stop=lambda: os.kill(os.getpid(), signal.SIGTERM))
    report(measure, packages=PACKAGES, notes=f"pool {pool}, no idempotency")


def publish(job: Job, measure: Measure) -> None:
    """A message per call: Celery has no batches."""
    task = application(job).tasks[TASK]
    every = [arguments(job, number) for number in range(job.messages)]
    for kwargs in measure.over(every, each=1):
        task.apply_async(kwargs=kwargs)
    report(measure, packages=PACKAGES, notes="SendMessage each")


def _concurrency(job: Job) -> int:
    return int(job.options.get("concurrency", CONCURRENCY))


def main() -> None:
    measure = Measure(job(), "celery_sqs")
    run = publish if sends(job(), "celery_sqs") else drain
    run(job(), measure)


if __name__ == "__main__":
    main()
