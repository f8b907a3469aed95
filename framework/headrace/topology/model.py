"""What has to exist in AWS for services to run, as plain data.

Names are logical: an adapter adds the namespace. Everything is JSON-like, sorted,
and the same for the same code, so that two topologies can be compared item by item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any


def dead_letter_queue(queue: str) -> str:
    """The name of a queue's dead-letter queue: of the same type, so FIFO for FIFO."""
    if queue.endswith(".fifo"):
        return f"{queue.removesuffix('.fifo')}-dlq.fifo"
    return f"{queue}-dlq"


def undelivered_queue(queue: str) -> str:
    """The name of the queue for what EventBridge could not put into a queue. It takes standard
    queues only, so beside a FIFO queue stands one for that alone."""
    if queue.endswith(".fifo"):
        return f"{queue.removesuffix('.fifo')}-undelivered"
    return dead_letter_queue(queue)


@dataclass(frozen=True, slots=True)
class Bus:
    """An event bus. The account's `default` bus exists without being made."""

    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule on a bus that puts what matches `pattern` into `queue`, and what it could not put
    there into the queue `undelivered`, if there is one."""

    name: str
    bus: str
    pattern: Mapping[str, Any]
    queue: str
    undelivered: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """An SQS queue. `dead_letters` names the queue that takes a message once its receive
    count exceeds `max_receive_count`; a dead-letter queue itself has none."""

    name: str
    visibility: timedelta
    retention: timedelta
    fifo: bool = False
    dead_letters: str | None = None
    max_receive_count: int = 0
    service: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A DynamoDB table on demand, with string keys `pk` and `sk` and a TTL attribute.

    `indexes` are global secondary indexes by name, each with the string keys `<name>_pk` and
    `<name>_sk` and nothing but keys in it. They are sparse: an item without these attributes is
    not in them, and costs nothing there.
    """

    name: str
    ttl_attribute: str = "expires_at"
    indexes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """Buses, rules, queues and tables, each sorted by name."""

    buses: tuple[Bus, ...] = ()
    rules: tuple[Rule, ...] = ()
    queues: tuple[Queue, ...] = ()
    tables: tuple[Table, ...] = ()

    def queue(self, name: str) -> Queue:
        return next(queue for queue in self.queues if queue.name == name)

    def rules_into(self, queue: str) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if rule.queue == queue)

    def rules_to(self, queue: str) -> tuple[Rule, ...]:
        """The rules that may send to a queue: what matches, or what they could not deliver."""
        return tuple(rule for rule in self.rules if queue in (rule.queue, rule.undelivered))

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready form; durations in whole seconds."""
        return {
            "buses": [{"name": bus.name} for bus in self.buses],
            "rules": [
                {
                    "name": r.name,
                    "bus": r.bus,
                    "pattern": dict(r.pattern),
                    "queue": r.queue,
                    "undelivered": r.undelivered,
                }
                for r in self.rules
            ],
            "queues": [
                {
                    "name": q.name,
                    "service": q.service,
                    "fifo": q.fifo,
                    "visibility_seconds": int(q.visibility.total_seconds()),
                    "retention_seconds": int(q.retention.total_seconds()),
                    "dead_letters": q.dead_letters,
                    "max_receive_count": q.max_receive_count or None,
                }
                for q in self.queues
            ],
            "tables": [
                {"name": t.name, "ttl_attribute": t.ttl_attribute, "indexes": list(t.indexes)}
                for t in self.tables
            ],
        }
