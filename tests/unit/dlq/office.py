"""A service whose handlers can be broken and mended, and the dead letters this makes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from headrace import Backoff, Entity, Event, Metadata, PoisonMessage, Policy, Service, Transaction
from headrace.dlq.edits import Edits
from headrace.dlq.groups import Selection, grouped
from headrace.dlq.holding import holding
from headrace.dlq.letters import Letter
from headrace.dlq.reading import Reader
from headrace.dlq.reasons import Logged
from headrace.dlq.redrive import Plan, Report, Watcher, redriving
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import Worker
from headrace.pipeline import running
from headrace.ports import Ports, QueueEntry
from headrace.service import QueueSettings
from headrace.testing import delivery_of
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from headrace.topology.model import dead_letter_queue
from tests.crash.skipping import LoopClock

Fault: TypeAlias = Literal["none", "franking", "scale", "address"]

CAUSES = 4


class ParcelPosted(Event, source="office.counter", version=2):
    number: int
    fault: Fault = "none"
    weight: int = 1


class ParcelFranked(Event, source="office"):
    number: int


class Parcel(Entity, pk="parcel#{event_id}"):
    event_id: str
    times: int = 0


@dataclass
class Office:
    """Parcels with a fault fail as long as the fault is not mended."""

    fifo: bool = False
    idempotent: bool = False
    publishes: bool = False
    park: bool = False
    mended: set[str] = field(default_factory=lambda: {"none"})
    runs: Counter[str] = field(default_factory=Counter)
    order: list[int] = field(default_factory=list)
    posted: int = 0

    def __post_init__(self) -> None:
        policy = Policy(attempts=2, backoff=Backoff(base=timedelta(milliseconds=1)))
        self.service = Service("office", policy=policy, queues=QueueSettings(max_receive_count=3))
        options: dict[str, Any] = {"queue": "parcels.fifo", "park": self.park} if self.fifo else {}

        @self.service.on(ParcelPosted, idempotent=self.idempotent, emits=[ParcelFranked], **options)
        async def frank(event: ParcelPosted, metadata: Metadata, tx: Transaction) -> None:
            self.runs[metadata.id] += 1
            self._fail(event)
            self.order.append(event.number)
            if not self.idempotent:
                before = await tx.get(Parcel, metadata.id) or Parcel(event_id=metadata.id)
                tx.put(Parcel(event_id=metadata.id, times=before.times + 1))
            if self.publishes:
                tx.publish(ParcelFranked(number=event.number))

        self.cloud: MemoryCloud[Any] = memory_ports(clock=LoopClock())
        self.cloud.provision(topology(self.service))

    def _fail(self, event: ParcelPosted) -> None:
        if event.fault in self.mended:
            return
        if event.fault == "franking":
            raise RuntimeError(f"The franking machine jams at {event.number}.")
        if event.fault == "scale":
            raise PoisonMessage(f"Parcel {event.number} is lighter than air.")
        _find_street(event.number)

    @property
    def queue(self) -> str:
        (queue,) = self.service.queues
        return queue

    @property
    def dead_letters(self) -> str:
        return dead_letter_queue(self.queue)

    # --- sending and handling ---

    async def post(self, *faults: Fault, times: int = 1, group: str | None = None) -> None:
        """So many parcels for each fault; their ids are `parcel-0` and so on, in all of time."""
        for fault in (fault for fault in faults for _ in range(times)):
            event = ParcelPosted(number=self.posted, fault=fault)
            body = delivery_of(event, self.queue, id=f"parcel-{self.posted}").body
            self.posted += 1
            await self.send(body, group)

    async def send(self, body: str, group: str | None = None) -> None:
        await self.cloud.queues.send(self.queue, [QueueEntry(body, group_id=group)])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """A worker is at work within this block."""
        stop = asyncio.Event()
        async with running(self.service, self.cloud.ports) as pipeline:
            settings = WorkerSettings(wait=timedelta(seconds=1))
            worker = asyncio.create_task(Worker([pipeline], settings=settings).run(stop))
            try:
                yield
            finally:
                stop.set()
                await worker

    async def handled(self) -> None:
        """Until the queue is empty."""
        async with self.open(), asyncio.timeout(3600):
            await self.emptied()

    async def emptied(self) -> None:
        changed = asyncio.Event()
        unwatch = self.cloud.queues.watch(self.queue, changed.set)
        while not self.cloud.queues.is_empty(self.queue):
            await changed.wait()
            changed.clear()
        unwatch()

    async def four_causes(self, each: int) -> None:
        """So many dead letters of each cause."""
        await self.post("franking", "scale", "address", times=each)
        for _ in range(each):
            await self.send('{"detail-type": "ParcelPosted", "detail": {"num')
        await self.handled()

    # --- looking ---

    async def letters(self, logs: dict[str, Logged] | None = None) -> list[Letter]:
        async with holding(self.cloud.ports.queues, self.dead_letters) as held:
            reader = Reader(self.service, self.queue, self.cloud.ports, logs)
            return await reader.read(await held.fill())

    async def group_of(self, fault: Fault) -> str:
        """The fingerprint of the letters with this fault."""
        letters = [each for each in await self.letters() if f'"{fault}"' in each.delivery.body]
        (group,) = grouped(letters)
        return group.fingerprint

    def there(self) -> Counter[str]:
        """The bodies in the dead-letter queue, hidden or not."""
        return Counter(entry.body for entry in self.cloud.queues.peek(self.dead_letters))

    def times(self) -> Counter[str]:
        """How often each event took effect."""
        return Counter(
            {
                item["event_id"]["S"]: int(item["times"]["N"])
                for item in self.cloud.store.items("office")
                if "times" in item
            }
        )

    # --- sending back ---

    async def redrive(
        self,
        selection: Selection | None = None,
        *,
        edits: Edits | None = None,
        ports: Ports | None = None,
        watcher: Watcher | None = None,
        run: str = "run-1",
        **options: Any,
    ) -> Report:
        plan = Plan(self.queue, run, selection or Selection(), edits or Edits(), **options)
        async with redriving(
            self.service, ports or self.cloud.ports, plan, watcher=watcher
        ) as redrive:
            return await redrive.run()


def _find_street(number: int) -> None:
    raise LookupError(f"There is no street for {number}.")


class Steps(Watcher):
    """How many letters each step sent back."""

    def __init__(self, before: Callable[[int], None] = lambda step: None) -> None:
        self.sizes: list[int] = []
        self.said_: list[str] = []
        self._before = before

    def step(self, group: object, letters: Sequence[Letter], *, canary: bool) -> None:
        self._before(len(self.sizes))
        self.sizes.append(len(letters))

    def said(self, text: str) -> None:
        self.said_.append(text)


def ids(numbers: Iterable[int]) -> Counter[str]:
    return Counter(f"parcel-{number}" for number in numbers)
