"""Ten consumers in a process of their own, who all get the same deliveries at once.

Run as `python -m tests.integration.commit.contender` with CONTENDER set to an `Assignment` in
JSON. It says `ready` once its consumers are open, waits for a line, and ends when every consumer
has every delivery acknowledged. What it put on the bus and into queues stands in `said`, a body
in each line; how often which outcome came about, and how often an item was `lost` to another
writer, in the one line that it prints at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final, TextIO

from headrace import Ack, DeadLetter, Outcome
from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.batch import Batch
from headrace.errors import TransactionCanceled
from headrace.observer import Unobserved
from headrace.pipeline import Pipeline, running
from headrace.ports import (
    Action,
    BusEntry,
    Delivery,
    EntryFailure,
    QueueDepth,
    QueueEntry,
    Store,
)
from headrace.turns import Turns
from tests.integration.commit.mill import SackSeen, SackWeighed, Told, a_mill, body_of

KINDS: Final[dict[str, type[SackWeighed] | type[SackSeen]]] = {
    "weighed": SackWeighed,
    "seen": SackSeen,
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a contender has to do; `kind` is one of KINDS, and `said` the path of a file."""

    url: str
    namespace: str
    kind: str
    said: str
    seed: int
    consumers: int = 10
    deliveries: int = 200
    counters: int = 4
    in_flight: int = 5

    def told(self) -> dict[str, Told]:
        """The events that are delivered to every consumer, by their ids."""
        kind = KINDS[self.kind]
        return {
            f"s-{number}": kind(hopper=f"hopper {number % self.counters}")
            for number in range(self.deliveries)
        }


@dataclass(frozen=True, slots=True)
class Recorder:
    """A bus, and queues, that take everything and write it down."""

    file: TextIO

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        self._note(f'{{"detail":{entry.detail}}}' for entry in entries)
        return []

    async def require(self, bus: str) -> None:
        pass

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        self._note(entry.body for entry in entries)
        return []

    async def receive(
        self, queue: str, *, limit: int, wait: timedelta, visibility: timedelta | None = None
    ) -> list[Delivery]:
        return []

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        return []

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        return []

    async def depth(self, queue: str) -> QueueDepth:
        return QueueDepth(0, 0, 0)

    def _note(self, bodies: Iterable[str]) -> None:
        self.file.writelines(f"{body}\n" for body in bodies)


class Contested:
    """A store that counts the items, other than inbox records, of which another writer was
    faster."""

    def __init__(self, store: Store) -> None:
        self.lost = 0
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        try:
            await self._store.transact(actions, token=token)
        except TransactionCanceled as canceled:
            pairs = zip(actions, canceled.reasons, strict=True)
            failed = [action.key.pk for action, reason in pairs if reason is not None]
            self.lost += sum(not pk.startswith("inbox#") for pk in failed)
            raise


async def settled(delivery: Delivery, outcome: Outcome) -> Outcome:
    return outcome


async def consume_all(
    pipeline: Pipeline, deliveries: Sequence[Delivery], in_flight: int
) -> Counter[str]:
    """Hand a consumer its deliveries, and those again that it wants to retry."""
    batch = Batch(
        "mill",
        pipeline.consume,
        settled,
        turns=Turns(in_flight),
        observer=Unobserved(),
    )
    left = list(deliveries)
    counted: Counter[str] = Counter()
    while left:
        outcomes = await batch.run(left)
        counted.update(map(name_of, outcomes.values()))
        left = [
            replace(delivery, receive_count=delivery.receive_count + 1)
            for delivery in left
            if not isinstance(outcomes[delivery.message_id], Ack | DeadLetter)
        ]
    return counted


def name_of(outcome: Outcome) -> str:
    return "duplicate" if outcome == Ack(duplicate=True) else type(outcome).__name__


async def contend(assignment: Assignment, file: TextIO) -> Counter[str]:
    recorder = Recorder(file)
    deliveries = [
        Delivery(id, f"receipt-{id}", body_of(message, id), "mill")
        for id, message in assignment.told().items()
    ]
    endpoints = dict.fromkeys(("sqs", "events", "dynamodb"), assignment.url)
    config = AwsConfig(namespace=assignment.namespace, endpoints=endpoints)
    async with open_ports(config) as ports, AsyncExitStack() as stack:
        store = Contested(ports.store)
        ports = replace(ports, bus=recorder, queues=recorder, store=store)
        pipelines = [
            await stack.enter_async_context(running(a_mill(), ports))
            for _ in range(assignment.consumers)
        ]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        counts = await asyncio.gather(
            *(
                consume_all(pipeline, shuffled(deliveries, assignment, n), assignment.in_flight)
                for n, pipeline in enumerate(pipelines)
            )
        )
    return sum(counts, Counter[str](lost=store.lost))


def shuffled(deliveries: Sequence[Delivery], assignment: Assignment, n: int) -> list[Delivery]:
    """Every other consumer has the deliveries in an order of its own: those in one order meet at
    an inbox record, those in different orders at the counters."""
    order = list(deliveries)
    if n % 2:
        Random(assignment.seed + n).shuffle(order)
    return order


def assigned(assignment: Assignment) -> dict[str, str]:
    """What has to stand in the environment of a contender."""
    return {"CONTENDER": json.dumps(asdict(assignment))}


def main() -> None:
    assignment = Assignment(**json.loads(os.environ["CONTENDER"]))
    with Path(assignment.said).open("w") as file:
        counted = asyncio.run(contend(assignment, file))
    print(json.dumps(counted))


if __name__ == "__main__":
    main()
