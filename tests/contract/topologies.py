"""What the contract tests have made for them."""

from __future__ import annotations

from datetime import timedelta

from headrace.topology.model import Queue, Table, Topology

DAY = timedelta(days=1)


def queue(
    name: str = "orders",
    *,
    visibility: timedelta = timedelta(seconds=30),
    dead_letters: str | None = None,
    max_receive_count: int = 0,
) -> Queue:
    """A queue that is FIFO if its name says so, and keeps messages for a day."""
    return Queue(
        name,
        visibility=visibility,
        retention=DAY,
        fifo=name.endswith(".fifo"),
        dead_letters=dead_letters,
        max_receive_count=max_receive_count,
    )


def queues(*found: Queue) -> Topology:
    return Topology(queues=found)


ONE_QUEUE = queues(queue())
FIFO_QUEUE = queues(queue("orders.fifo"))
TWO_TABLES = Topology(tables=(Table("accounts"), Table("payments")))
