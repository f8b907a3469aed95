"""headrace: `python -m benchmarks.side.contenders.headrace_` runs the job in `BENCH_JOB`.

Options of a job: `handlers`, of the service, of which one takes what comes (1); `concurrency` and
`prefetch` of the worker, where they are to differ from their defaults.

Fairness

The public API alone, as a user writes it: a service with one handler, behind `lambda_handler` and
in `run_worker`. Settings are the defaults: ten deliveries at a time, none prefetched; no observer,
no traces, no metrics. The worker runs on asyncio's own loop, as do the floors; `headrace worker`
takes uvloop where that is installed, which would be cheaper. What it does beyond the others:
duplicates are known by event id for 23 days, the order, the record and the event are committed
together, a bad message is in the dead-letter queue with its reason, and is not received again. It
has no way to write and publish without a record, so for `plain` it does all of that, too. `publish`
hands a hundred events to `send`.
"""

from __future__ import annotations

import asyncio
from types import new_class
from typing import Final

from benchmarks.side import model, work
from benchmarks.side.contenders import AT_ONCE, publish_steps, published, refuse, run_lambda
from benchmarks.side.protocol import Job, Measure
from headrace import Entity, Event, Service, Transaction

PACKAGES: Final = ("aiobotocore", "aiohttp", "botocore", "orjson", "pydantic", "tenacity")


class OrderPlaced(model.OrderPlaced, Event, name=work.DETAIL_TYPE, source=work.SOURCE): ...


class OrderAccepted(Event, name=work.OUT_DETAIL_TYPE, source=work.OUT_SOURCE):
    order_id: str
    total: int


class Order(Entity, pk="order#{order_id}"):
    order_id: str
    email: str
    total: int
    status: str


async def accept_order(event: OrderPlaced, tx: Transaction) -> OrderAccepted:
    email, total = event.customer.email, event.total
    tx.put(Order(order_id=event.order_id, email=email, total=total, status="accepted"))
    return OrderAccepted(order_id=event.order_id, total=total)


def service(job: Job) -> Service:
    """The service, with as many handlers as the job wants."""
    orders = Service(job.queue, table=job.table, bus=job.bus)
    orders.on(OrderPlaced)(accept_order)
    for number in range(1, job.options.get("handlers", 1)):
        _add_another(orders, number)
    return orders


def _add_another(orders: Service, number: int) -> None:
    """A handler of an event that does not come."""

    async def look_away(event: Event) -> None: ...

    keywords = {"name": f"OrderLookedAt{number}", "source": work.SOURCE}
    event = new_class(f"OrderLookedAt{number}", (OrderAccepted,), keywords)
    look_away.__annotations__["event"] = event
    orders.on(event, name=f"look_away_{number}")(look_away)


def handle(job: Job) -> None:
    from headrace.hosts.lambda_ import lambda_handler

    handler = lambda_handler(service(job))
    run_lambda(job, "headrace", handler, packages=PACKAGES, buries=True)


def drain(job: Job) -> None:
    measure = Measure(job, "headrace")
    asyncio.run(_drain(job, measure))
    measure.report(packages=PACKAGES)


async def _drain(job: Job, measure: Measure) -> None:
    from headrace.hosts.settings import WorkerSettings
    from headrace.hosts.worker import run_worker

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    measure.watch(lambda: loop.call_soon_threadsafe(stop.set))
    settings = WorkerSettings.from_environment(
        concurrency=job.options.get("concurrency"), prefetch=job.options.get("prefetch")
    )
    await run_worker([service(job)], settings=settings, stop=stop)


def publish(job: Job) -> None:
    measure = Measure(job, "headrace")
    asyncio.run(_publish(job, measure))
    measure.report(packages=PACKAGES, messages=published(job))


async def _publish(job: Job, measure: Measure) -> None:
    from headrace.aws.client import open_ports
    from headrace.client import send

    orders = [OrderPlaced.model_validate(work.order(number)) for number in range(job.messages)]
    steps = [[orders[number] for number in numbers] for numbers in publish_steps(job)]
    async with open_ports() as ports:
        for events in measure.over(steps, each=AT_ONCE):
            await send(ports, events, bus=job.bus)


JOBS: Final = {
    "lambda": handle,
    "cold": handle,
    "drain": drain,
    "plain": drain,
    "memory": drain,
    "backlog": drain,
    "handlers": drain,
    "publish": publish,
}


def main() -> None:
    job = Job.from_environment()
    if job.name not in JOBS:
        refuse(job, "headrace", JOBS)
    JOBS[job.name](job)


if __name__ == "__main__":
    main()
