"""What the load commands share: services on an emulator, full queues, and what is to be seen."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import uuid4

from headrace import Delivery, Event, Outcome, Retry, Service
from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.envelope import queue_body, root_metadata, seal
from headrace.hosts.emulator import endpoints_environment, ministack
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import Worker
from headrace.limits import SQS_BATCH_ENTRIES
from headrace.observer import Unobserved
from headrace.pipeline import running
from headrace.ports import Bus, Ports, QueueEntry, Queues, Store
from headrace.topology.derive import topology

# --- services and their messages -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Emulated:
    """Services on an emulator, in a namespace of their own."""

    url: str
    config: AwsConfig
    ports: Ports

    @property
    def environment(self) -> dict[str, str]:
        """What leads a process of its own to the same place."""
        return {**endpoints_environment(self.url), "HEADRACE_NAMESPACE": self.config.namespace}


@asynccontextmanager
async def emulated(*services: Service, url: str | None = None) -> AsyncIterator[Emulated]:
    """On the emulator at `url`, or on one that is started for this alone."""
    async with AsyncExitStack() as stack:
        if url is None:
            url = await stack.enter_async_context(ministack())
        config = AwsConfig(
            namespace=f"load{uuid4().hex[:10]}",
            endpoints={"sqs": url, "events": url, "dynamodb": url},
        )
        await provision(topology(*services), config)
        ports = await stack.enter_async_context(open_ports(config))
        yield Emulated(url, config, ports)


def entry(event: Event, id: str, *, group: str | None = None) -> QueueEntry:
    """A message with this event, as it is sent straight to a queue."""
    body = queue_body(seal(event, root_metadata(event, id=id, now=datetime.now(UTC))))
    return QueueEntry(body, group_id=group, deduplication_id=None if group is None else id)


async def fill(queues: Queues, queue: str, entries: Sequence[QueueEntry]) -> None:
    """Send messages in this order, ten to a call."""
    for start in range(0, len(entries), SQS_BATCH_ENTRIES):
        failures = await queues.send(queue, entries[start : start + SQS_BATCH_ENTRIES])
        if failures:
            raise RuntimeError(f"{len(failures)} messages were not sent to {queue}: {failures[0]}")


_A_SECOND: Final = timedelta(seconds=1)


async def emptied(queues: Queues, queue: str) -> list[Delivery]:
    """All messages of a queue that nobody else receives from; it is empty afterwards."""
    found: list[Delivery] = []
    while (await queues.depth(queue)).visible:
        batch = await queues.receive(queue, limit=SQS_BATCH_ENTRIES, wait=_A_SECOND)
        if batch:
            await queues.delete(queue, [delivery.receipt_handle for delivery in batch])
        found += batch
    return found


# --- a worker, and who watches it ----------------------------------------------------------------


class Watch(Unobserved):
    """Notes how often each message was received, and how it ended, both by its body. `done` is set
    when so many messages have ended, the last of them at `latest` by the loop's clock."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self.receives: defaultdict[str, list[int]] = defaultdict(list)
        self.ended: dict[str, Outcome] = {}
        self.latest = 0.0
        self.done = asyncio.Event()

    def received(self, service: str, delivery: Delivery) -> None:
        self.receives[delivery.body].append(delivery.receive_count)

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, Retry):
            return
        self.ended[delivery.body] = outcome
        self.latest = asyncio.get_running_loop().time()
        if len(self.ended) == self._messages:
            self.done.set()


BRIEF: Final = WorkerSettings(wait=timedelta(seconds=1))
"""The emulator keeps a poll that was cancelled until its time is up, and does not end before."""


async def worked_off(
    service: Service,
    ports: Ports,
    watch: Watch,
    settings: WorkerSettings | None = None,
    *,
    limit: float,
) -> float:
    """Let a worker handle messages until all that the watch waits for have ended, or for `limit`
    seconds: what is missing then is for the caller to see. Returns the seconds until the last one
    ended."""
    loop = asyncio.get_running_loop()
    giving_up = loop.call_later(limit, watch.done.set)
    try:
        async with running(service, ports, watch) as pipeline:
            began = loop.time()
            await Worker([pipeline], settings=settings, observer=watch).run(watch.done)
    finally:
        giving_up.cancel()
    return watch.latest - began


# --- counting calls ------------------------------------------------------------------------------


def counted(ports: Ports, calls: Counter[str]) -> Ports:
    """The same ports, which count the calls of every method by its name."""
    return replace(
        ports,
        queues=cast(Queues, _Counted(ports.queues, "queues", calls)),
        bus=cast(Bus, _Counted(ports.bus, "bus", calls)),
        store=cast(Store, _Counted(ports.store, "store", calls)),
    )


class _Counted:
    """A port in front of another. One call of a method is one call of AWS."""

    def __init__(self, port: object, name: str, calls: Counter[str]) -> None:
        self._port = port
        self._name = name
        self._calls = calls

    def __getattr__(self, method: str) -> Any:
        async def call(*given: Any, **options: Any) -> Any:
            self._calls[f"{self._name}.{method}"] += 1
            return await getattr(self._port, method)(*given, **options)

        return call
