"""What tests of services are written with: AWS in memory, with time and chance that a test
decides."""

from __future__ import annotations

from headrace.testing.deliveries import delivery_of
from headrace.testing.memory import (
    ManualClock,
    MemoryBus,
    MemoryCloud,
    MemoryQueues,
    MemoryStore,
    SeededRandomness,
    memory_ports,
)

__all__ = [
    "ManualClock",
    "MemoryBus",
    "MemoryCloud",
    "MemoryQueues",
    "MemoryStore",
    "SeededRandomness",
    "delivery_of",
    "memory_ports",
]
