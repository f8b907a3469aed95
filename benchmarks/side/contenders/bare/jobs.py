"""The jobs of both floors, whichever way they call AWS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime
from typing import Final, TypeAlias
from uuid import uuid4

import orjson

from benchmarks.side.contenders import AT_ONCE, publish_steps, published, refuse, run_lambda
from benchmarks.side.contenders.bare.loop import Calls, drained, opened, tens
from benchmarks.side.contenders.bare.orders import Request
from benchmarks.side.protocol import Job, Measure
from benchmarks.side.work import DETAIL_TYPE, SOURCE, order

Opening: TypeAlias = Callable[[Job], AbstractAsyncContextManager[Calls]]
Packages: TypeAlias = Sequence[str]


def run(contender: str, opening: Opening, *, packages: Packages) -> None:
    """Run one of the floors on the job of the environment."""
    job = Job.from_environment()
    if job.name not in _JOBS:
        refuse(job, contender, _JOBS)
    _JOBS[job.name](job, contender, opening, packages)


def _lambda(job: Job, contender: str, opening: Opening, packages: Packages) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        calls = runner.run(stack.enter_async_context(opening(job)))
        loop = runner.run(opened(job, calls))
        handler = lambda event, context: runner.run(loop.invoke(event))  # noqa: E731
        run_lambda(job, contender, handler, packages=packages, buries=True)
        runner.run(stack.aclose())


def _drain(job: Job, contender: str, opening: Opening, packages: Packages) -> None:
    async def draining() -> None:
        async with opening(job) as calls:
            await drained(job, calls, measure)

    measure = Measure(job, contender)
    asyncio.run(draining())
    measure.report(packages=packages)


def _publish(job: Job, contender: str, opening: Opening, packages: Packages) -> None:
    async def publishing() -> None:
        async with opening(job) as calls:
            await opened(job, calls)
            steps = [[order(number) for number in numbers] for numbers in publish_steps(job)]
            for orders in measure.over(steps, each=AT_ONCE):
                entries = [_entry(job, each) for each in orders]
                await asyncio.gather(
                    *(calls.call("PutEvents", {"Entries": some}) for some in tens(entries))
                )

    measure = Measure(job, contender)
    asyncio.run(publishing())
    measure.report(packages=packages, messages=published(job))


def _entry(job: Job, payload: Request) -> Request:
    id, now = str(uuid4()), datetime.now(UTC)
    metadata = {"id": id, "type": DETAIL_TYPE, "version": 1, "time": now, "correlation_id": id}
    detail = orjson.dumps({"metadata": metadata, "data": payload}, option=orjson.OPT_UTC_Z)
    return {
        "EventBusName": job.bus,
        "Source": SOURCE,
        "DetailType": DETAIL_TYPE,
        "Detail": detail.decode(),
        "Time": now,
    }


_JOBS: Final = {
    "lambda": _lambda,
    "cold": _lambda,
    "drain": _drain,
    "memory": _drain,
    "backlog": _drain,
    "publish": _publish,
}
