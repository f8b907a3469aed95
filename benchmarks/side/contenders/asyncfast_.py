"""asyncfast on SQS, by amgi-aiobotocore: `python -m benchmarks.side.contenders.asyncfast_` runs the
job in `BENCH_JOB`.

It takes any JSON, so the server need not hold anything: it makes the messages.

Fairness

How it is configured, and per which page of its documentation:

- The README of amgi-aiobotocore: its `run(app, queue)`. There is nothing to configure: it receives
  one message at a time with a wait of two seconds, handles it, deletes it by a batch of one, and
  then receives the next.
- asyncfast's documentation, "Lifespan": the clients are opened with the application. They are
  aiobotocore's, which amgi-aiobotocore itself is made of.
- "Message payload": the handler's parameter is annotated with the model of the body, which
  validates the whole of it at once, from bytes.
- It runs on asyncio's loop: `run` makes it.

What it does less than others: no idempotency, so it can do job c only. It calls itself pre-alpha.
What a handler sends goes to SQS queues: for the event to EventBridge the handler has a client. A
bad message is left to the queue's redrive policy, without a word.

Publishing outside of a handler is not in its documentation: what its server sends with is used
(`MessageSend`), with up to a hundred messages under way, which it joins by tens.
"""

# No postponed annotations here: asyncfast takes those of a handler as they stand. Where they are
# strings, every message fails before its handler, without a word.

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

from aiobotocore.session import get_session
from amgi_aiobotocore.sqs import (  # type: ignore[import-not-found]  # own environment
    MessageSend,
    run,
)
from asyncfast import AsyncFast  # type: ignore[import-not-found]  # own environment
from pydantic import BaseModel

from benchmarks.side import work
from benchmarks.side.contenders import AT_ONCE, publish_steps, published
from benchmarks.side.contenders.peer import report, run_worker, sends
from benchmarks.side.contenders.plain_effect import event_request, item_request, must_be_taken
from benchmarks.side.model import OrderPlaced
from benchmarks.side.protocol import Job, Measure

PACKAGES: Final = ("asyncfast", "amgi-aiobotocore", "aiobotocore")


class Metadata(BaseModel):
    id: str


class Detail(BaseModel):
    metadata: Metadata
    data: OrderPlaced


class Incoming(BaseModel):
    """An event as a rule of EventBridge leaves it on a queue."""

    detail: Detail


class Shop:
    """The handler, and the clients that it has while the application lives."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._dynamodb: Any = None
        self._events: Any = None

    async def accept(self, event: Incoming) -> None:
        order, id = event.detail.data, event.detail.metadata.id
        await self._dynamodb.put_item(**item_request(self._job, order))
        must_be_taken(await self._events.put_events(**event_request(self._job, id, order)))

    @asynccontextmanager
    async def opened(self, app: AsyncFast) -> AsyncIterator[None]:
        session = get_session()
        async with AsyncExitStack() as stack:
            self._dynamodb = await stack.enter_async_context(session.create_client("dynamodb"))
            self._events = await stack.enter_async_context(session.create_client("events"))
            yield


def application(job: Job) -> Any:
    shop = Shop(job)
    app = AsyncFast(lifespan=shop.opened)
    app.channel(job.queue)(shop.accept)
    return app


def drain(job: Job, measure: Measure) -> None:
    server = partial(
        run, application(job), job.queue, region_name=work.REGION, endpoint_url=job.endpoint
    )
    run_worker(measure, server, stop=lambda: os.kill(os.getpid(), signal.SIGTERM))


async def publish(job: Job, measure: Measure) -> None:
    steps = [[_sent(job, number) for number in numbers] for numbers in publish_steps(job)]
    async with MessageSend(work.REGION, job.endpoint) as send:
        for step in measure.over(steps, each=AT_ONCE):
            await asyncio.gather(*map(send, step))


def _sent(job: Job, number: int) -> dict[str, Any]:
    payload = work.body(number, seed=job.seed, poison=job.poison).encode()
    return {"type": "message.send", "address": job.queue, "headers": [], "payload": payload}


def main() -> None:
    job = Job.from_environment()
    measure = Measure(job, "asyncfast_")
    if sends(job, "asyncfast_"):
        asyncio.run(publish(job, measure))
        report(measure, packages=PACKAGES, notes="SendMessageBatch", messages=published(job))
    else:
        drain(job, measure)
        report(measure, packages=PACKAGES, notes="no idempotency, one message at a time")


if __name__ == "__main__":
    main()
