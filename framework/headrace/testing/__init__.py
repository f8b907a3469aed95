"""What tests of services are written with: AWS in memory, with time and chance that a test
decides."""

from __future__ import annotations

from headrace.testing.deliveries import delivery_of
from headrace.testing.harness import Harness, Unsettled, harness
from headrace.testing.letters import Letter
from headrace.testing.memory import (
    ManualClock,
    MemoryBus,
    MemoryCloud,
    MemoryQueues,
    MemoryScheduler,
    MemoryStore,
    SeededRandomness,
    memory_ports,
)
from headrace.testing.simulation import (
    Faults,
    Report,
    Rollout,
    Violation,
    World,
    simulate,
    simulation,
)

__all__ = [
    "Faults",
    "Harness",
    "Letter",
    "ManualClock",
    "MemoryBus",
    "MemoryCloud",
    "MemoryQueues",
    "MemoryScheduler",
    "MemoryStore",
    "Report",
    "Rollout",
    "SeededRandomness",
    "Unsettled",
    "Violation",
    "World",
    "delivery_of",
    "harness",
    "memory_ports",
    "simulate",
    "simulation",
]
