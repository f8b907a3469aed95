"""What tests of services are written with: AWS in memory, with time and chance that a test
decides."""

from __future__ import annotations

from headrace.testing.deliveries import delivery_of
from headrace.testing.harness import Harness, Letter, Unsettled, harness
from headrace.testing.memory import (
    ManualClock,
    MemoryBus,
    MemoryCloud,
    MemoryQueues,
    MemoryStore,
    SeededRandomness,
    memory_ports,
)
from headrace.testing.simulation import (
    DeadLetter,
    Faults,
    Report,
    Rollout,
    Violation,
    World,
    simulate,
    simulation,
)

__all__ = [
    "DeadLetter",
    "Faults",
    "Harness",
    "Letter",
    "ManualClock",
    "MemoryBus",
    "MemoryCloud",
    "MemoryQueues",
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
