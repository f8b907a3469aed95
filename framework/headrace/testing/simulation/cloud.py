"""The account in which a simulation runs: AWS in memory, and a record of what reached it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from headrace.ports import (
    Action,
    BusEntry,
    Clock,
    Delete,
    EntryFailure,
    Ports,
    Put,
    QueueEntry,
    Randomness,
    Update,
)
from headrace.record import KEY_PREFIX
from headrace.testing.memory import MemoryBus, MemoryCloud, MemoryQueues, MemoryStore
from headrace.testing.memory.latitude import Latitude
from headrace.testing.memory.scheduler import MemoryScheduler
from headrace.testing.simulation.loop import SimulatedLoop
from headrace.testing.simulation.wire import Network
from headrace.topology.model import Topology


@dataclass(frozen=True, slots=True)
class OnBus:
    """An event that a bus took."""

    at: float
    bus: str
    entry: BusEntry


@dataclass(frozen=True, slots=True)
class InQueue:
    """A message that a queue took from a sender: not by a rule, and not by redrive."""

    at: float
    queue: str
    entry: QueueEntry


class _Bus(MemoryBus):
    def __init__(
        self,
        loop: SimulatedLoop,
        clock: Clock,
        randomness: Randomness,
        queues: MemoryQueues,
        latitude: Latitude,
    ) -> None:
        super().__init__(clock, randomness, queues, latitude)
        self.taken: list[OnBus] = []
        self._loop = loop

    def put_now(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        failures = super().put_now(bus, entries)
        failed = {failure.index for failure in failures}
        now = self._loop.time()
        self.taken += [
            OnBus(now, bus, entry) for index, entry in enumerate(entries) if index not in failed
        ]
        return failures


class _Queues(MemoryQueues):
    def __init__(
        self, loop: SimulatedLoop, clock: Clock, randomness: Randomness, latitude: Latitude
    ) -> None:
        super().__init__(clock, randomness, latitude)
        self.taken: list[InQueue] = []
        self.on_missing: Callable[[str], None] | None = None
        self._loop = loop

    def send_now(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        if not self.exists(queue) and self.on_missing is not None:
            self.on_missing(queue)
        failures = super().send_now(queue, entries)
        failed = {failure.index for failure in failures}
        now = self._loop.time()
        self.taken += [
            InQueue(now, queue, entry) for index, entry in enumerate(entries) if index not in failed
        ]
        return failures


class _Store(MemoryStore):
    """Tells whoever watches of every change, and keeps in mind which commits made a record."""

    def __init__(self, clock: Clock, latitude: Latitude) -> None:
        super().__init__(clock, latitude)
        self.on_change: Callable[[], None] | None = None
        self.commits: dict[str, set[str]] = {}

    def transact_now(self, actions: Sequence[Action], *, token: str) -> None:
        super().transact_now(actions, token=token)
        self._changed(actions)

    def change_now(self, action: Put | Update | Delete) -> None:
        super().change_now(action)
        self._changed([action])

    def write_now(self, actions: Sequence[Put | Delete]) -> None:
        super().write_now(actions)
        self._changed(actions)

    def _changed(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Put) and action.key.pk.startswith(KEY_PREFIX):
                commit = action.item["commit_id"]["S"]
                self.commits.setdefault(action.key.pk, set()).add(commit)
        if self.on_change is not None:
            self.on_change()


class Cloud:
    """One account for one run."""

    def __init__(
        self, loop: SimulatedLoop, clock: Clock, randomness: Randomness, latitude: Latitude
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.network = Network()
        self.queues = _Queues(loop, clock, randomness, latitude)
        self.bus = _Bus(loop, clock, randomness, self.queues, latitude)
        self.store = _Store(clock, latitude)
        self.scheduler = MemoryScheduler(clock, self.queues)
        self._memory = MemoryCloud(
            queues=self.queues,
            bus=self.bus,
            store=self.store,
            scheduler=self.scheduler,
            clock=clock,
            randomness=randomness,
        )
        self._numbers = 0
        self._fire_schedules()

    @property
    def ports(self) -> Ports:
        """AWS without a wire in between: every call arrives at once."""
        return self._memory.ports

    def provision(self, topology: Topology) -> None:
        """Make everything the topology names; what is there already keeps its content."""
        self._memory.provision(topology)

    def put_poison(self, queue: str, body: str) -> None:
        """Put a message into a queue as it is."""
        group = "poison" if self.queues.is_fifo(queue) else None
        self.queues.deliver(queue, QueueEntry(body, group_id=group))

    def expire(self) -> list[str]:
        """Delete what is expired, or will be within the hour, and say what."""
        soon = self.clock.now() + timedelta(hours=1)
        return [
            f"{item['pk']['S']} from {table}"
            for table in self.store.tables()
            for item in self.store.expire(table, soon)
        ]

    def next_number(self) -> int:
        """Numbers the lives of processes."""
        self._numbers += 1
        return self._numbers

    def _fire_schedules(self) -> None:
        self.scheduler.due(self.clock.now())
        # Scheduler itself is no more precise than this.
        self.loop.call_as(self.loop.world, _SCHEDULES.total_seconds(), self._fire_schedules)


_SCHEDULES: Final = timedelta(seconds=60)
