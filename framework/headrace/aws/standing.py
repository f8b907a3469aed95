"""What stands in an account, as plain values: compared with each other or with a topology.

Names are logical, as in code. What is not of the namespace, or not of the same account and region,
is named by its ARN instead. What could not be read is `None`, and said in `Standing.unseen`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

RuleId: TypeAlias = tuple[str, str]
"""The bus of a rule, and its name."""

OFF = ""
"""The TTL attribute of a table whose items do not expire, and the view of one without a stream."""


@dataclass(frozen=True, slots=True)
class StandingTarget:
    """Where a rule sends. `beyond` names its settings that headrace leaves alone, such as
    `InputPath` or `RetryPolicy`."""

    queue: str
    undelivered: str | None = None
    group: str | None = None
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StandingRule:
    name: str
    bus: str
    pattern: Mapping[str, Any]
    enabled: bool
    targets: tuple[StandingTarget, ...] | None


@dataclass(frozen=True, slots=True)
class Gate:
    """What the policy of a queue says: `rules` may send, `others` may do something too, and what
    is `denied` is so beside the calls that do not come over TLS (`tls_only`)."""

    rules: frozenset[RuleId] = frozenset()
    others: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    tls_only: bool = False


@dataclass(frozen=True, slots=True)
class StandingQueue:
    name: str
    visibility: timedelta
    retention: timedelta
    delay: timedelta
    fifo: bool
    dead_letters: str | None
    max_receive_count: int
    deduplicates: bool
    """By the content, which counts for FIFO queues."""
    high_throughput: bool
    encrypted: bool | None
    gate: Gate


@dataclass(frozen=True, slots=True)
class StandingIndex:
    name: str
    keys: Mapping[str, str]
    projection: str
    status: str | None
    """`ACTIVE`, `CREATING`, …; `None` where it was not told."""


@dataclass(frozen=True, slots=True)
class StandingTable:
    name: str
    keys: Mapping[str, str]
    on_demand: bool
    protected: bool
    """From being deleted."""
    stream: str
    """The view of its stream, or `OFF`."""
    indexes: tuple[StandingIndex, ...]
    ttl_attribute: str | None
    recovery: bool | None
    """To any point in time."""


@dataclass(frozen=True, slots=True)
class StandingMapping:
    """What feeds a queue, or the stream of a table, to a Lambda function. `source` is the name of a
    queue, or an ARN. `function_timeout` is `None` where the function
    could not be read; `declared` are the properties that the template of its stack gives it, and
    `None` where no stack of the system has it."""

    id: str
    source: str
    function: str
    enabled: bool
    partial: bool
    """It reports which messages of a batch have failed."""
    batch: int
    window: timedelta
    max_concurrency: int | None
    function_timeout: timedelta | None
    declared: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, order=True)
class StackItem:
    """A bus, rule, queue, table or mapping that a stack has, by what it is called in the account.
    A mapping has no name but its UUID."""

    stack: str
    kind: str
    physical: str
    name: str
    """Logical, or empty where it is not of the namespace."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """What was not looked at: a subject, such as `table shop-order`, what of it, and why."""

    subject: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that was read, each kind sorted by name. `beside` are queues, rules and tables
    of the namespace that the topology does not have, by kind and physical name; `statuses` are
    those of the stacks."""

    namespace: str = ""
    buses: tuple[str, ...] = ()
    rules: tuple[StandingRule, ...] = ()
    queues: tuple[StandingQueue, ...] = ()
    tables: tuple[StandingTable, ...] = ()
    mappings: tuple[StandingMapping, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()
    stack: tuple[StackItem, ...] | None = None
    statuses: Mapping[str, str] | None = None
    unseen: tuple[Unseen, ...] = ()
