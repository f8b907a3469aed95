"""AWS in memory, as far as it has to be paid for: what arrives is counted, and schedules fire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeAlias

from headrace.cost.meter import Meter
from headrace.ports import Clock, EntryFailure, Ports, QueueEntry, Randomness
from headrace.testing.memory import (
    MemoryBus,
    MemoryCloud,
    MemoryQueues,
    MemoryScheduler,
    MemoryStore,
    SeededRandomness,
)
from headrace.testing.simulation.loop import LoopClock, SimulatedLoop
from headrace.topology.model import Topology

MeterOf: TypeAlias = Callable[[str], Meter]
"""The meter of who owns a queue."""


class CountedCloud:
    """An account on a loop whose time is not real, with everything in it that `topology` names.

    `elsewhere` are the owners of commands that are not in it: what is sent there is paid for, and
    gone.
    """

    def __init__(self, loop: SimulatedLoop, topology: Topology, meter_of: MeterOf) -> None:
        self.elsewhere: set[str] = set()
        clock, randomness = LoopClock(loop), SeededRandomness()
        self.queues = _Queues(clock, randomness, meter_of, self.elsewhere)
        self.scheduler = _Scheduler(clock, self.queues, meter_of, self.elsewhere)
        self.bus = MemoryBus(clock, randomness, self.queues)
        self.store = MemoryStore(clock)
        self.clock = clock
        cloud = MemoryCloud(self.queues, self.bus, self.store, self.scheduler, clock, randomness)
        cloud.provision(topology)
        self.ports: Ports = cloud.ports


class _Queues(MemoryQueues):
    def __init__(
        self, clock: Clock, randomness: Randomness, meter_of: MeterOf, elsewhere: set[str]
    ) -> None:
        super().__init__(clock, randomness)
        self._meter_of = meter_of
        self._elsewhere = elsewhere

    def deliver(self, queue: str, entry: QueueEntry) -> None:
        self._meter_of(queue).arrived(queue, entry)
        super().deliver(queue, entry)

    def send_now(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        if self.exists(queue):
            return super().send_now(queue, entries)
        self._elsewhere.add(queue)
        return []


class _Scheduler(MemoryScheduler):
    """Fires by the time of the loop."""

    def __init__(
        self, clock: Clock, queues: MemoryQueues, meter_of: MeterOf, elsewhere: set[str]
    ) -> None:
        super().__init__(clock, queues)
        self._time = clock
        self._all_queues = queues
        self._meter_of = meter_of
        self._elsewhere = elsewhere

    def schedule_now(self, name: str, at: datetime, queue: str, entry: QueueEntry) -> None:
        if not self._all_queues.exists(queue):
            self._elsewhere.add(queue)
            return
        super().schedule_now(name, at, queue, entry)
        seconds = (at - self._time.now()).total_seconds()
        asyncio.get_running_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        for fired in self.due(self._time.now()):
            self._meter_of(fired.queue).schedules += 1
