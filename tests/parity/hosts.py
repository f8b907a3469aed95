"""The three hosts, and one way to hand messages to them: a round.

In a round a host is given messages that are in its queues, does what it does, and says no more.
What came of it is seen in the queues, in the table and on the bus (see `play`).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.errors import Unreachable
from headrace.hosts.emulator import endpoints_environment
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import run_worker
from headrace.observer import Unobserved
from headrace.outcome import Outcome
from headrace.ports import Delivery, EntryFailure, Ports, QueueDepth, QueueEntry, Queues
from headrace.system import SystemClock
from headrace.testing import memory_ports
from headrace.testing.runtime_api import FunctionError, LambdaFunction, lambda_runtime, sqs_event
from headrace.topology.derive import topology
from tests.parity.app import auditor, books, clerk
from tests.parity.faults import Faults, FaultyQueues, Unhurried, faulty
from tests.parity.journal import JOURNAL, VARIABLE, Entry, Journal
from tests.parity.posting import Posted

TOPOLOGY: Final = topology(books, auditor, clerk)
ARN: Final = "arn:aws:sqs:us-east-1:000000000000"

PATIENCE: Final = 10.0
"""Seconds after which a round that does not end is an error."""

DRAIN: Final = timedelta(milliseconds=100)
TIMEOUT: Final = timedelta(seconds=1.5)
"""Of the function, where a case wants to see what hangs cut short: half a second before that."""


@dataclass(frozen=True, slots=True)
class Round:
    """Messages that are in the queues and are to be received. `held_back` are those of them that
    have to wait behind others; with `cut_short`, what hangs is ended by the host."""

    messages: Sequence[Posted]
    held_back: Sequence[Posted] = ()
    cut_short: bool = False

    @property
    def queues(self) -> Counter[str]:
        """How many messages are in each."""
        return Counter(posted.queue for posted in self.messages)


class Host(ABC):
    """One host and its account. `ports` have no faults: they are for the one who looks."""

    name: str
    ports: Ports

    def __init__(self) -> None:
        self.latest: dict[str, Delivery] = {}
        """The latest delivery of each message, by its body."""
        self.faults = Faults()

    async def begin(self) -> None:
        """Get ready for a case."""
        self.latest.clear()

    @abstractmethod
    async def handle(self, round: Round) -> None:
        """Receive the messages of a round, and settle those that are not held back."""

    async def received(self, queue: str, count: int) -> list[Delivery]:
        """So many messages of a queue, which has them."""
        found: list[Delivery] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                limit = min(10, count - len(found))
                found += await self.ports.queues.receive(queue, limit=limit, wait=_A_SECOND)
        for delivery in found:
            self.keep(delivery)
        return found

    def entries(self) -> list[Entry]:
        """What was noted so far; other hosts may have noted something too."""
        return JOURNAL.entries

    def keep(self, delivery: Delivery) -> None:
        self.latest[delivery.body] = delivery
        self.faults.learn(delivery)


_A_SECOND: Final = timedelta(seconds=1)


# --- Lambda --------------------------------------------------------------------------------------


class OnLambda(Host):
    """The function in a process of its own, and an event source mapping, which is played here: it
    receives, invokes, and deletes what the function does not report."""

    name = "lambda"

    def __init__(self, ports: Ports, config: AwsConfig, function: LambdaFunction, log: Path):
        super().__init__()
        self.ports = ports
        self._journal = Journal(log)
        self._config = config
        self._function = function
        self._deleting = FaultyQueues(ports.queues, self.faults)

    async def handle(self, round: Round) -> None:
        for queue, count in round.queues.items():
            batch = await self.received(queue, count)
            reported = await self._invoke(queue, batch, TIMEOUT if round.cut_short else _LONG)
            handled = [d.receipt_handle for d in batch if d.message_id not in reported]
            if handled:
                await self._delete(queue, handled)

    def entries(self) -> list[Entry]:
        # The mapping deletes here, and not in the function's process.
        return [*self._journal.entries, *super().entries()]

    async def _invoke(self, queue: str, batch: Sequence[Delivery], limit: timedelta) -> set[str]:
        event = sqs_event(f"{ARN}:{self._config.physical(queue)}", *batch)
        try:
            answer = await self._function.invoke(event, timeout=limit)
        except FunctionError:
            # Then Lambda deletes nothing.
            return {delivery.message_id for delivery in batch}
        return {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}

    async def _delete(self, queue: str, receipts: Sequence[str]) -> None:
        """Whatever comes of it: the mapping tells nobody."""
        with suppress(Unreachable):
            await self._deleting.delete(queue, receipts)


_LONG: Final = timedelta(seconds=30)


# --- the worker ----------------------------------------------------------------------------------


class OnWorker(Host):
    """The worker as it is run, on ports with faults. A round is one life of it."""

    name = "worker"

    def __init__(self, ports: Ports) -> None:
        super().__init__()
        self.ports = ports

    async def handle(self, round: Round) -> None:
        stop = asyncio.Event()
        ports = faulty(self.ports, self.faults)
        ports = replace(ports, queues=Rationed(ports.queues, self, round.queues, stop))
        watch = Watch(round, stop)
        settings = WorkerSettings(drain=DRAIN) if round.cut_short else WorkerSettings()
        with watch.looking():
            async with asyncio.timeout(PATIENCE):
                await run_worker([books], ports, settings=settings, observer=watch, stop=stop)


class InMemory(OnWorker):
    """The worker on AWS in memory; each case has an account of its own."""

    name = "memory"

    def __init__(self) -> None:
        super().__init__(memory_ports().ports)

    async def begin(self) -> None:
        await super().begin()
        cloud = memory_ports(clock=SystemClock(), randomness=Unhurried())
        cloud.provision(TOPOLOGY)
        self.ports = cloud.ports


class Watch(Unobserved):
    """Stops the worker when every message of a round that is not held back was settled, or hangs
    where that is to be cut short."""

    def __init__(self, round: Round, stop: asyncio.Event) -> None:
        self._awaited = [each for each in round.messages if each not in round.held_back]
        self._cut_short = round.cut_short
        self._began = len(JOURNAL.entries)
        self._stop = stop
        self._settled: set[str] = set()

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self._settled.add(delivery.body)
        self._look()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Looks whenever something is noted in the journal, on whatever thread."""
        loop = asyncio.get_running_loop()

        def look_soon() -> None:
            loop.call_soon_threadsafe(self._look)

        JOURNAL.listeners.add(look_soon)
        try:
            yield
        finally:
            JOURNAL.listeners.remove(look_soon)

    def _look(self) -> None:
        hanging = set(self._hanging()) if self._cut_short else set()
        if all(m.entry.body in self._settled or m.id in hanging for m in self._awaited):
            self._stop.set()

    def _hanging(self) -> Iterator[str]:
        for entry in JOURNAL.entries[self._began :]:
            if entry.what == "hangs" or entry.by.endswith("-hangs"):
                yield entry.about


@dataclass(slots=True)
class Rationed:
    """A round's messages, and then an open poll that brings nothing until the worker stops."""

    inner: Queues
    host: Host
    left: Counter[str]
    stop: asyncio.Event

    async def receive(
        self, queue: str, *, limit: int, wait: timedelta, visibility: timedelta | None = None
    ) -> list[Delivery]:
        taken = min(limit, self.left[queue])
        if taken == 0:
            await self.stop.wait()
            await asyncio.sleep(0)
            return []
        # Before the call: more than one poll may be open.
        self.left[queue] -= taken
        found: list[Delivery] = []
        try:
            found = await self.inner.receive(
                queue, limit=taken, wait=_A_SECOND, visibility=visibility
            )
        finally:
            self.left[queue] += taken - len(found)
        for delivery in found:
            self.host.keep(delivery)
        return found

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        return await self.inner.send(queue, entries)

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        return await self.inner.delete(queue, receipts)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        return await self.inner.change_visibility(queue, changes)

    async def depth(self, queue: str) -> QueueDepth:
        return await self.inner.depth(queue)


# --- all of them ---------------------------------------------------------------------------------


HOSTS: Final = ("lambda", "worker", "memory")


@asynccontextmanager
async def all_hosts(url: str, scratch: Path) -> AsyncIterator[dict[str, Host]]:
    """One of each, by name; `url` is the emulator's."""
    async with AsyncExitStack() as stack:
        hosts = (
            await stack.enter_async_context(_on_lambda(url, scratch / "journal")),
            await stack.enter_async_context(_on_worker(url)),
            InMemory(),
        )
        yield {host.name: host for host in hosts}


@asynccontextmanager
async def _on_lambda(url: str, log: Path) -> AsyncIterator[OnLambda]:
    async with _provisioned(url) as (config, ports):
        environment = {
            **endpoints_environment(url),
            "HEADRACE_NAMESPACE": config.namespace,
            VARIABLE: str(log),
        }
        handler = "tests.parity.app.handler"
        async with lambda_runtime(handler, environment=environment, name="books") as function:
            yield OnLambda(ports, config, function, log)


@asynccontextmanager
async def _on_worker(url: str) -> AsyncIterator[OnWorker]:
    async with _provisioned(url) as (_, ports):
        yield OnWorker(ports)


@asynccontextmanager
async def _provisioned(url: str) -> AsyncIterator[tuple[AwsConfig, Ports]]:
    """A namespace of its own, and the ports of production."""
    config = AwsConfig(
        namespace=f"parity{uuid4().hex[:8]}",
        endpoints={"sqs": url, "events": url, "dynamodb": url},
    )
    await provision(TOPOLOGY, config)
    async with open_ports(config) as ports:
        yield config, ports
