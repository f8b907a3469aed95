"""Small topologies that several tests provision."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from headrace.topology.model import Bus, Queue, Rule, Table, Topology

VISIBILITY = timedelta(seconds=30)
RETENTION = timedelta(days=4)


def queue(name: str = "inventory", *, visibility: timedelta = VISIBILITY) -> Topology:
    return Topology(queues=(Queue(name, visibility, RETENTION, fifo=name.endswith(".fifo")),))


def table(name: str = "inventory") -> Topology:
    return Topology(tables=(Table(name),))


def shop(
    pattern: Mapping[str, Any],
    *,
    suffix: str = "",
    visibility: timedelta = VISIBILITY,
) -> Topology:
    """A bus, one rule into one queue with a dead-letter queue, and a table."""
    dead_letters = f"inventory-dlq{suffix}"
    name = f"inventory{suffix}"
    fifo = suffix == ".fifo"
    return Topology(
        buses=(Bus("shop"),),
        rules=(Rule("inventory", "shop", pattern, name),),
        queues=(
            Queue(name, visibility, RETENTION, fifo, dead_letters, 5),
            Queue(dead_letters, VISIBILITY, timedelta(days=14), fifo),
        ),
        tables=(Table("inventory"),),
    )
