"""AWS in memory: every port, as strict as the real thing where that matters, and nothing
that runs in the background.

    cloud = memory_ports()
    cloud.provision(topology)
    ...                                     # run against cloud.ports
    cloud.clock.advance(timedelta(minutes=5))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from headrace.ports import Clock, Ports, Randomness
from headrace.testing.memory.bus import MemoryBus
from headrace.testing.memory.chance import ManualClock, SeededRandomness
from headrace.testing.memory.queues import MemoryQueues
from headrace.testing.memory.scheduler import MemoryScheduler
from headrace.testing.memory.store import MemoryStore
from headrace.topology.model import Topology

__all__ = [
    "ManualClock",
    "MemoryBus",
    "MemoryCloud",
    "MemoryQueues",
    "MemoryScheduler",
    "MemoryStore",
    "SeededRandomness",
    "memory_ports",
]

ClockT = TypeVar("ClockT", bound=Clock)


@dataclass(frozen=True, slots=True)
class MemoryCloud(Generic[ClockT]):
    """One account in memory. It outlives the services that run on it, so a test can end one
    and start another on what it left."""

    queues: MemoryQueues
    bus: MemoryBus
    store: MemoryStore
    scheduler: MemoryScheduler
    clock: ClockT
    randomness: Randomness

    @property
    def ports(self) -> Ports:
        return Ports(self.queues, self.bus, self.store, self.scheduler, self.clock, self.randomness)

    def provision(self, topology: Topology) -> None:
        """Make everything the topology names; what is there already keeps its content.

        Raises `NotProvisioned` when something names a queue or bus that is in neither, and
        `Refused` for what AWS would not make.
        """
        for bus in topology.buses:
            self.bus.create(bus.name)
        for queue in topology.queues:
            self.queues.create(queue)
        self.queues.require_redrive()
        for rule in topology.rules:
            self.bus.create_rule(rule)
        for table in topology.tables:
            self.store.create(table)


@overload
def memory_ports(*, randomness: Randomness | None = None) -> MemoryCloud[ManualClock]: ...


@overload
def memory_ports(*, clock: ClockT, randomness: Randomness | None = None) -> MemoryCloud[ClockT]: ...


def memory_ports(
    *, clock: Clock | None = None, randomness: Randomness | None = None
) -> MemoryCloud[Any]:
    """An empty account. Without a clock it has a `ManualClock`, without randomness that of
    seed 0."""
    clock = clock or ManualClock()
    randomness = randomness or SeededRandomness()
    queues = MemoryQueues(clock, randomness)
    bus = MemoryBus(clock, randomness, queues)
    scheduler = MemoryScheduler(clock, queues)
    return MemoryCloud(queues, bus, MemoryStore(clock), scheduler, clock, randomness)
