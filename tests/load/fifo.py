"""Order on a FIFO queue, and how much faster a worker is than one message at a time.

    python -m tests.load.fifo [--messages 1000] [--groups 50] [--rounds 2] [--seed 1]

Handlers take some milliseconds, and some of them fail. In each round the same service handles all
messages in a worker with its default settings, all of them in a worker with more room, and some of
them in a plain loop, through the same pipeline. The last line sums up, with the worker of more room
against the loop; the status is 1 if a message was handled out of the order of its group, or not
once. How much faster is only reported.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Final, TypeAlias

from headrace import Delivery, Outcome, Retry, Service
from headrace.hosts.settings import WorkerSettings
from headrace.pipeline import running
from headrace.ports import Ports
from tests.load.common import Watch, emulated, fill, worked_off
from tests.load.lanes import Order, Runs, chance, lanes, numbered, order_of

FAILING: Final = 0.05
PATIENCE: Final = 300.0
ALONE: Final = 200
"""Messages for the loop, which would take long for all."""

Handle: TypeAlias = Callable[[Service, Ports, int], Awaitable[float]]
"""Handles so many messages of a service, and returns the seconds that this took."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, and which tries fail: the same for the same numbers."""

    messages: int
    groups: int
    seed: int

    def limited(self, messages: int) -> Load:
        return Load(min(messages, self.messages), self.groups, self.seed)


@dataclass(frozen=True, slots=True)
class Result:
    """Messages a second, and what came of them."""

    rate: float
    order: Order


class Run:
    """One way to handle a load, on a queue of its own."""

    def __init__(self, name: str, load: Load, handle: Handle) -> None:
        self._load = load
        self._handle = handle
        self._runs = Runs()
        self.service = lanes(name, self._runs, chance(load.seed, FAILING))

    async def result(self, ports: Ports) -> Result:
        load = self._load
        entries = numbered(load.messages, load.groups, load.seed)
        await fill(ports.queues, _queue(self.service), entries)
        took = await self._handle(self.service, ports, load.messages)
        order = await order_of(self.service, ports, self._runs, load.messages, load.groups)
        return Result(load.messages / took, order)


def by_worker(settings: WorkerSettings) -> Handle:
    async def handle(service: Service, ports: Ports, messages: int) -> float:
        return await worked_off(service, ports, Watch(messages), settings, limit=PATIENCE)

    return handle


async def one_at_a_time(service: Service, ports: Ports, messages: int) -> float:
    """Receive one message, handle it, settle it, and so on."""
    loop, queue = asyncio.get_running_loop(), _queue(service)
    async with running(service, ports) as pipeline, asyncio.timeout(PATIENCE):
        began = loop.time()
        while messages:
            for delivery in await ports.queues.receive(queue, limit=1, wait=_LONG):
                outcome = await pipeline.consume(delivery)
                await _settle(ports, delivery, outcome)
                messages -= not isinstance(outcome, Retry)
        return loop.time() - began


_LONG: Final = timedelta(seconds=20)


async def _settle(ports: Ports, delivery: Delivery, outcome: Outcome) -> None:
    if isinstance(outcome, Retry):
        change = (delivery.receipt_handle, outcome.delay or timedelta(0))
        await ports.queues.change_visibility(delivery.queue, [change])
    else:
        await ports.queues.delete(delivery.queue, [delivery.receipt_handle])


def _queue(service: Service) -> str:
    (queue,) = service.queues
    return queue


DEFAULTS: Final = WorkerSettings()
ROOMY: Final = WorkerSettings(concurrency=20, prefetch=20)
"""Fewer places leave most of the groups waiting, and receives half empty."""


def round_of(number: int, load: Load) -> Mapping[str, Run]:
    """The ways by their names, the loop first and the roomiest worker last."""
    ways: Mapping[str, tuple[Load, Handle]] = {
        "one at a time": (load.limited(ALONE), one_at_a_time),
        **{
            f"worker of {settings.concurrency}+{settings.prefetch}": (load, by_worker(settings))
            for settings in (DEFAULTS, ROOMY)
        },
    }
    return {
        way: Run(f"lanes-{number}-{place}", given, handle)
        for place, (way, (given, handle)) in enumerate(ways.items())
    }


async def compared(load: Load, rounds: int) -> Mapping[str, list[Result]]:
    """The results of each way, one for each round."""
    played = [round_of(number, load) for number in range(rounds)]
    results: dict[str, list[Result]] = {}
    async with emulated(*(run.service for runs in played for run in runs.values())) as on:
        for runs in played:
            for way, run in runs.items():
                result = await run.result(on.ports)
                results.setdefault(way, []).append(result)
                print(f"{way:<20} {result.rate:5.0f} messages/s", flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.load.fifo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default in {"messages": 1000, "groups": 50, "rounds": 2, "seed": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    options = parser.parse_args()
    # Handlers fail on purpose.
    logging.getLogger("headrace.settle").setLevel(logging.ERROR)
    load = Load(options.messages, options.groups, options.seed)
    return conclude(load, asyncio.run(compared(load, options.rounds)))


def conclude(load: Load, results: Mapping[str, list[Result]]) -> int:
    """Print the last lines; returns the status."""
    orders = [result.order for found in results.values() for result in found]
    missing = sum(order.missing for order in orders)
    if missing:
        print(f"wrong: {missing} messages have not taken effect")
    alone, *workers = (median(each.rate for each in found) for found in results.values())
    for way, rate in zip(list(results)[1:], workers, strict=True):
        print(f"{way} against one at a time: {rate / alone:.1f}")
    print(
        f"messages={load.messages} groups={load.groups} "
        f"out_of_order={sum(order.out_of_order for order in orders)} "
        f"twice={sum(order.twice for order in orders)} "
        f"vs_one_at_a_time={workers[-1] / alone:.1f}"
    )
    return 0 if all(order.is_kept for order in orders) else 1


if __name__ == "__main__":
    sys.exit(main())
