"""A service on a FIFO queue that keeps, for each group, the numbers that it has handled."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Final

from headrace import (
    Backoff,
    Entity,
    Event,
    Policy,
    QueueSettings,
    RetryLater,
    Service,
    Transaction,
)
from headrace.client import read
from headrace.ports import Ports, QueueEntry
from tests.load.common import entry

HANDLING: Final = 0.01
"""Seconds that a handler waits for something."""

AT_ONCE: Final = timedelta(0)
"""Until a failed message comes again. SQS counts in whole seconds: anything more is a second."""


class Numbered(Event, source="load.fifo"):
    group: str
    number: int


class Lane(Entity, pk="lane#{group}"):
    """What has taken effect in a group, in that order."""

    group: str
    numbers: tuple[int, ...] = ()


@dataclass(slots=True)
class Runs:
    """Runs of the handler: how often each event was tried, and the order in which runs went well
    in each group."""

    tries: Counter[Numbered] = field(default_factory=Counter)
    well: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))


def lanes(name: str, runs: Runs, fails: Callable[[Numbered, int], bool]) -> Service:
    """The service under this name, whose handler fails at the tries that `fails` says."""
    policy = Policy(backoff=Backoff(base=AT_ONCE))
    # Those behind a failed message of their group are received with it, again and again.
    service = Service(name, policy=policy, queues=QueueSettings(max_receive_count=1000))

    @service.on(Numbered, queue="lane.fifo")
    async def append(event: Numbered, tx: Transaction) -> None:
        runs.tries[event] += 1
        await asyncio.sleep(HANDLING)
        lane = await tx.get(Lane, event.group) or Lane(group=event.group)
        tx.put(Lane(group=event.group, numbers=(*lane.numbers, event.number)))
        if fails(event, runs.tries[event]):
            raise _failure(event)
        runs.well[event.group].append(event.number)

    return service


def _failure(event: Numbered) -> Exception:
    if event.number % 2:
        return RetryLater(f"{event} is not due", delay=AT_ONCE)
    return RuntimeError(f"{event} fails this time")


def chance(seed: int, share: float) -> Callable[[Numbered, int], bool]:
    """Lets this share of all tries fail, the same ones for a seed."""

    def fails(event: Numbered, attempt: int) -> bool:
        return Random(f"{seed}/{event.group}/{event.number}/{attempt}").random() < share

    return fails


def numbered(messages: int, groups: int, seed: int) -> list[QueueEntry]:
    """As many messages, in the order in which they are sent: the groups at random, and the numbers
    of each one upwards."""
    random, numbers = Random(seed), Counter[str]()
    entries = []
    for place in random.sample(range(messages), messages):
        group = f"group-{place % groups}"
        event = Numbered(group=group, number=numbers[group])
        numbers[group] += 1
        entries.append(entry(event, f"{group}/{event.number}", group=group))
    return entries


@dataclass(frozen=True, slots=True)
class Order:
    """What came of the messages of a queue. A group is `out_of_order` as often as a number follows
    one that is not less."""

    out_of_order: int
    twice: int
    missing: int

    @property
    def is_kept(self) -> bool:
        return not (self.out_of_order or self.twice or self.missing)


async def order_of(service: Service, ports: Ports, runs: Runs, messages: int, groups: int) -> Order:
    """What the table says, and what the handler itself has seen."""
    names = [f"group-{number}" for number in range(groups)]
    found = await read(ports, Lane, names, table=service.name)
    in_table = [lane.numbers if lane else () for lane in found]
    seen = [*in_table, *(runs.well[name] for name in names)]
    return Order(
        out_of_order=sum(map(_backwards, seen)),
        twice=sum(len(numbers) - len(set(numbers)) for numbers in seen),
        missing=messages - sum(len(set(numbers)) for numbers in in_table),
    )


def _backwards(numbers: Sequence[int]) -> int:
    return sum(after <= before for before, after in pairwise(numbers))
