"""What stands on a bill, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from typing import Final, NamedTuple

from headrace.limits import KIB
from headrace.ports import Attribute, BusEntry, Delivery, QueueEntry

CHUNK_BYTES: Final = 64 * KIB
"""What one request of SQS and one event of EventBridge may carry; more counts as several."""

WRITE_UNIT_BYTES: Final = KIB
READ_UNIT_BYTES: Final = 4 * KIB

FIFO_SUFFIX: Final = ".fifo"
_TIME_BYTES: Final = 14
"""What the time of an event counts for (user guide, "Calculating PutEvents event entry size")."""


class QueueKind(StrEnum):
    """Kinds of queues by their price."""

    STANDARD = "standard"
    FAIR = "fair"
    """A standard queue whose messages have a group."""
    FIFO = "fifo"


class Action(StrEnum):
    """What is asked of SQS, and by whom."""

    SEND = "sends"
    ARRIVE = "sends by rules and schedules"
    """Not asked for by a service, and paid for by who owns the queue."""
    RECEIVE = "receives"
    DELETE = "deletes"
    CHANGE = "changes of visibility"


class Request(NamedTuple):
    """One line of the SQS bill."""

    action: Action
    kind: QueueKind


class Invocation(NamedTuple):
    """One run of a Lambda function: its messages, and the seconds it waited for AWS and whatever
    else its handlers await."""

    messages: int
    waited: float


@dataclass
class Usage:
    """What one service used.

    `calls` are counted by the name of the AWS operation, without receives that found nothing:
    those are the price of waiting, not of a message. `requests` are what SQS bills for them, and
    `events` what EventBridge does, both in chunks of 64 KB; an event of AWS itself is free.

    A write unit is 1 KB of an item, and two in a transaction; failed conditions are billed too. A
    read unit is 4 KB read consistently. An index unit is an entry that is made, or that goes, by a
    write that succeeds. `index_read_units` are of queries of an index: sweeps of the relay, at all
    times alike.

    `schedules` are those that fired. `relayed` are writes that leave a record to the relay, each
    of which a stream may show it. `received` counts messages, and `receives` calls that had some.
    `payload_bytes` are those of all that was sent, arrived or was received.
    """

    calls: Counter[str] = field(default_factory=Counter)
    requests: Counter[Request] = field(default_factory=Counter)
    events: int = 0
    schedules: int = 0
    write_units: int = 0
    index_units: int = 0
    read_units: float = 0
    index_read_units: float = 0
    relayed: int = 0
    received: int = 0
    receives: int = 0
    payload_bytes: int = 0
    invocations: list[Invocation] = field(default_factory=list)


def chunks(size: int) -> int:
    """What a payload of so many bytes is billed as; an empty one as 1."""
    return max(1, ceil(size / CHUNK_BYTES))


def units(size: int, of: int) -> int:
    """Capacity units of an item of so many bytes; one that is not there counts as 1."""
    return max(1, ceil(size / of))


def kind_of(queue: str, messages: Sequence[QueueEntry | Delivery]) -> QueueKind:
    """The kind of a queue, as far as messages tell: one group makes a standard queue a fair one."""
    if queue.endswith(FIFO_SUFFIX):
        return QueueKind.FIFO
    grouped = any(message.group_id is not None for message in messages)
    return QueueKind.FAIR if grouped else QueueKind.STANDARD


def message_bytes(message: QueueEntry | Delivery) -> int:
    """Bytes as SQS counts them: the body, and each attribute with its name and type."""
    attributes = sum(_attribute_bytes(name, a) for name, a in message.attributes.items())
    return len(message.body.encode(errors="surrogatepass")) + attributes


def event_bytes(entry: BusEntry) -> int:
    """Bytes as EventBridge counts an entry."""
    texts = (entry.source, entry.detail_type, entry.detail)
    named = sum(len(text.encode(errors="surrogatepass")) for text in texts)
    return named + (_TIME_BYTES if entry.time else 0)


def _attribute_bytes(name: str, attribute: Attribute) -> int:
    value = attribute.value
    content = value.encode() if isinstance(value, str) else value
    return len(name.encode()) + len(attribute.type.encode()) + len(content)
