"""What headrace needs from the outside world, as small protocols.

One method is one AWS call: whoever counts calls on a port counts calls on the bill. Names
of queues, buses and tables are logical; an adapter maps them to physical ones. Adapters
translate every failure into `headrace.errors.CloudError` and its kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias
from uuid import UUID

# --- queues ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attribute:
    """A user's message attribute. `type` is SQS's: `String`, `Number`, `Binary`, or one with
    a custom label (`String.json`); `value` is bytes for `Binary` and text otherwise."""

    value: str | bytes
    type: str = "String"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One receive attempt of one message, whichever host carried it here.

    `queue` is the logical queue name. `receive_count` starts at 1. `group_id` is set on FIFO
    queues, where it orders, and on fair queues, where it names the tenant; `fifo` tells them
    apart. `sequence` is a FIFO queue's number for it, greater than those before it in its group.
    No handler may still be running at `deadline`.
    """

    message_id: str
    receipt_handle: str
    body: str
    queue: str
    receive_count: int = 1
    group_id: str | None = None
    fifo: bool = False
    sequence: str | None = None
    sent_at: datetime | None = None
    trace_header: str | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One message to send. `delay` is for standard queues, `deduplication_id` for FIFO queues.
    `group_id` is the order of a FIFO queue, and the tenant of a fair standard one."""

    body: str
    delay: timedelta = timedelta(0)
    group_id: str | None = None
    deduplication_id: str | None = None
    trace_header: str | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EntryFailure:
    """One entry of a batch call that was refused while the call as a whole answered 200."""

    index: int
    code: str
    message: str = ""
    retryable: bool = True


class Queues(Protocol):
    """SQS. Batches hold 1 to 10 entries; an empty answer means every entry was taken."""

    async def receive(
        self,
        queue: str,
        *,
        limit: int,
        wait: timedelta,
        visibility: timedelta | None = None,
    ) -> list[Delivery]:
        """Up to `limit` (1–10) messages, long-polling for `wait` (0–20 s). They stay hidden
        for `visibility`, or for the queue's own."""
        ...

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]: ...

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]: ...

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        """Hide each message, named by its receipt handle, for that long from now (0–12 h)."""
        ...

    async def depth(self, queue: str) -> QueueDepth:
        """Approximate counts; SQS lets them lag by up to a minute."""
        ...


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many messages a queue holds: ready, being handled, not yet due."""

    visible: int
    in_flight: int
    delayed: int


# --- bus -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BusEntry:
    """One event for the bus. `detail` is a JSON object as text."""

    source: str
    detail_type: str
    detail: str
    time: datetime | None = None
    trace_header: str | None = None


class Bus(Protocol):
    """EventBridge's rules bus."""

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        """One PutEvents call of 1 to 10 entries, less than 1 MB in total. The service does
        not deduplicate: an entry sent again is a second event with the same `detail`. To a bus
        that does not exist EventBridge answers with success, and the event is gone."""
        ...

    async def require(self, bus: str) -> None:
        """Raises `NotProvisioned` if there is no such bus. Ask before the first `put`; one that was
        there a minute ago may be taken to be there."""
        ...


# --- store -----------------------------------------------------------------------------

AttributeValue: TypeAlias = dict[str, Any]
"""DynamoDB's typed JSON: `{"S": "text"}`, `{"N": "1.5"}`, `{"M": {…}}`, …"""

Item: TypeAlias = dict[str, AttributeValue]


class ItemKey(NamedTuple):
    """The full primary key of an item. Every headrace table has string keys `pk` and `sk`."""

    table: str
    pk: str
    sk: str

    def attributes(self) -> Item:
        return {"pk": {"S": self.pk}, "sk": {"S": self.sk}}


@dataclass(frozen=True, slots=True)
class Condition:
    """A DynamoDB condition expression with its `#names` and `:values`."""

    expression: str
    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, AttributeValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Put:
    """Write a whole item, replacing what stands at its key."""

    table: str
    item: Item
    condition: Condition | None = None
    return_old: bool = False
    """On a failed condition, give the item that stood in the way (`ALL_OLD`)."""

    @property
    def key(self) -> ItemKey:
        return ItemKey(self.table, self.item["pk"]["S"], self.item["sk"]["S"])


@dataclass(frozen=True, slots=True)
class Update:
    """Change parts of one item by an update expression; creates it if it is not there. The
    expression's names and values are given in `names` and `values`, the condition's in it."""

    key: ItemKey
    expression: str
    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, AttributeValue] = field(default_factory=dict)
    condition: Condition | None = None
    return_old: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one item."""

    key: ItemKey
    condition: Condition | None = None
    return_old: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """Write nothing, but cancel the transaction unless the condition holds."""

    key: ItemKey
    condition: Condition
    return_old: bool = False


Action: TypeAlias = Put | Update | Delete | Check


@dataclass(frozen=True, slots=True)
class Page:
    """Some items of a query, in key order, and where to go on (`None`: that was all)."""

    items: Sequence[Item]
    next: Item | None = None


class Store(Protocol):
    """DynamoDB."""

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        """Consistent reads of 1 to 100 distinct keys, in the order asked."""
        ...

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        """One TransactWriteItems of 1 to 100 actions on distinct items: all or nothing.

        `token` is the client request token: the same token with the same actions is
        answered as before for ten minutes. Raises `TransactionCanceled` with one reason
        per action; `Throttled`, `Unreachable`, `Refused` or `NotProvisioned` otherwise.
        """
        ...

    async def change(self, action: Put | Update | Delete) -> None:
        """One PutItem, UpdateItem or DeleteItem: half the write units of a transaction.

        Raises `ConditionFailed` when the condition does not hold, with the item that stood in
        the way if the action asked for it, and otherwise as `transact` does. There is no token:
        an answer that is lost is made good only by what the condition says.
        """
        ...

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        """One BatchWriteItem of 1 to 25 unconditional writes on distinct items. Returns the
        indexes of those that DynamoDB left unprocessed."""
        ...

    async def query(
        self,
        table: str,
        pk: str,
        *,
        sk_prefix: str = "",
        sk_before: str | None = None,
        index: str | None = None,
        limit: int | None = None,
        start: Item | None = None,
        forward: bool = True,
        consistent: bool = False,
    ) -> Page:
        """Items of one partition whose sort key starts with `sk_prefix`, or is less than
        `sk_before`, one page a call; DynamoDB takes one of the two.

        With `index`, `pk` and the sort key are those of the index, and the items hold keys
        only. An index lags behind its table and cannot be read consistently.
        """
        ...


# --- far ahead -------------------------------------------------------------------------


class Scheduler(Protocol):
    """EventBridge Scheduler: one message into a queue, at a time that lies further ahead than
    the 15 minutes of a queue's delay. For what is due sooner that delay is the better choice:
    what becomes of a schedule whose time passes while it is being made, AWS does not say."""

    async def schedule(self, name: str, at: datetime, queue: str, entry: QueueEntry) -> None:
        """One message into `queue`, not before `at` and up to a minute later, at least once.

        `name` is for one message in all of time, and of 1 to 64 characters: letters, digits,
        `-`, `_` and `.`, the namespace among them. As long as a schedule of this name stands,
        which AWS lets one do for a while after it fired, the call succeeds and changes
        nothing. So a call whose answer was lost can be made again.

        Raises `Refused` for what Scheduler does not carry: a time that has passed, a delay,
        attributes, a trace header, a deduplication id, a group on a queue that is not FIFO.
        Raises `NotProvisioned` when there is no such queue.
        """
        ...

    async def cancel(self, name: str) -> None:
        """Nothing more comes of this schedule, unless it fires at this moment. One that is not
        there, because it fired, was cancelled or was never made, is cancelled already."""
        ...


# --- time and chance -------------------------------------------------------------------


class Clock(Protocol):
    """The time of day, aware and in UTC. Waiting is the event loop's business."""

    def now(self) -> datetime: ...


class Randomness(Protocol):
    """Chance, so that a test can make it repeatable."""

    def uuid(self) -> UUID: ...

    def uniform(self, low: float, high: float) -> float: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a service needs to run, in one value."""

    queues: Queues
    bus: Bus
    store: Store
    scheduler: Scheduler
    clock: Clock
    randomness: Randomness
