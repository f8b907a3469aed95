"""The inbox: one record per consumer and event, committed with the effects it stands for.

The record is inbox and outbox in one. It says that a consumer has handled an event, and it
holds the messages that this caused until they are out.

    t0  Put the record if none stands there        ┐ one TransactWriteItems:
        the handler's writes, each conditional     ┘ all of it or nothing
    t1  the messages go out (see outbox)
    t2  the record is overwritten as done
    t3  the message is deleted (see settle)

    crash before t0   nothing happened; the message comes again and is handled
    crash after t0    the message comes again, and the record stands in its way. DynamoDB
                      returns it (ALL_OLD), and its commit_id tells what to do:
                        mine              the commit stood, its answer was lost: go on at t1
                        another, pending  go on at t1, with the messages that stand in it
                        another, done     nothing is left to do
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from headrace.attributes import size_of
from headrace.coalesce import Coalescer
from headrace.envelope import Outgoing
from headrace.errors import (
    CancellationReason,
    CloudError,
    Conflict,
    Throttled,
    TooLarge,
    TransactionCanceled,
)
from headrace.limits import (
    BATCH_WRITE_ITEMS,
    DYNAMODB_ITEM_BYTES,
    TRANSACTION_ACTIONS,
    TRANSACTION_BYTES,
)
from headrace.ports import (
    Action,
    AttributeValue,
    Clock,
    Condition,
    Item,
    ItemKey,
    Put,
    Randomness,
    Store,
)
from headrace.transaction import MUST_NOT_EXIST

logger = logging.getLogger(__name__)

_THROTTLES = frozenset({"ThrottlingError", "ProvisionedThroughputExceeded"})


@dataclass(frozen=True, slots=True)
class Record:
    """What stands in the table for one consumer and one event.

    `commit_id` is new at every attempt to commit. `outgoing` is empty once `done`.
    `expires_at` is in epoch seconds.
    """

    key: ItemKey
    commit_id: str
    outgoing: tuple[Outgoing, ...]
    expires_at: int
    done: bool

    def as_item(self) -> Item:
        item: Item = {
            **self.key.attributes(),
            "commit_id": {"S": self.commit_id},
            "status": {"S": "done" if self.done else "pending"},
            "expires_at": {"N": str(self.expires_at)},
        }
        if self.outgoing:
            item["outgoing"] = {"L": [_dump(outgoing) for outgoing in self.outgoing]}
        return item

    @classmethod
    def from_item(cls, table: str, item: Item) -> Record:
        return cls(
            key=ItemKey(table, item["pk"]["S"], item["sk"]["S"]),
            commit_id=item["commit_id"]["S"],
            outgoing=tuple(_load(value) for value in item.get("outgoing", {"L": []})["L"]),
            expires_at=int(item["expires_at"]["N"]),
            done=item["status"]["S"] == "done",
        )


@dataclass(frozen=True, slots=True)
class Committed:
    """The record that stands after a commit, and whether another delivery had made it.

    What is to be sent is the record's `outgoing`, whoever wrote it.
    """

    record: Record
    duplicate: bool = False


class Inbox:
    """The records of one service in its table."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        randomness: Randomness,
        *,
        table: str,
        keep: timedelta,
    ) -> None:
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._table = table
        self._keep = keep
        self._done_marks: Coalescer[Put, bool] = Coalescer(
            self._write_marks, max_entries=BATCH_WRITE_ITEMS
        )

    async def commit(
        self,
        consumer: str,
        event_id: str,
        actions: Sequence[Action],
        outgoing: Sequence[Outgoing],
    ) -> Committed:
        """Commit the effects of one delivery, unless they stand already.

        Raises `Conflict` if an item changed since it was read, `TooLarge` before any call, and
        `CloudError`.
        """
        record = self._new_record(consumer, event_id, outgoing)
        everything = [self._claim(record), *actions]
        _refuse_too_large(everything)
        try:
            await self._store.transact(everything, token=record.commit_id)
        except TransactionCanceled as canceled:
            standing = self._standing(canceled)
            if standing is None:
                raise _cause_of(canceled, everything) from canceled
            return Committed(standing, duplicate=standing.commit_id != record.commit_id)
        return Committed(record)

    async def find(self, consumer: str, event_id: str) -> Record | None:
        """The record that stands for this delivery, if its effects are committed already."""
        (item,) = await self._store.get([self._key(consumer, event_id)])
        record = Record.from_item(self._table, item) if item is not None else None
        expired = record is not None and record.expires_at < self._clock.now().timestamp()
        return None if expired else record

    async def mark_done(self, record: Record) -> None:
        """Note that everything the record holds is out.

        Losing this note is harmless: a later duplicate sends the same ids once more. So a
        failure here is logged and does not hold up the message.
        """
        if record.done:
            return
        try:
            marked = await self._done_marks.add(
                Put(self._table, replace(record, outgoing=(), done=True).as_item())
            )
        except CloudError as error:
            logger.warning("%s could not be marked as done: %s", record.key.pk, error)
        else:
            if not marked:
                logger.warning("%s was not marked as done: DynamoDB was busy.", record.key.pk)

    async def flush(self) -> None:
        await self._done_marks.flush()

    def _new_record(self, consumer: str, event_id: str, outgoing: Sequence[Outgoing]) -> Record:
        return Record(
            key=self._key(consumer, event_id),
            commit_id=str(self._randomness.uuid()),
            outgoing=tuple(outgoing),
            expires_at=int((self._clock.now() + self._keep).timestamp()),
            done=not outgoing,
        )

    def _key(self, consumer: str, event_id: str) -> ItemKey:
        return ItemKey(self._table, f"inbox#{consumer}#{event_id}", "-")

    def _claim(self, record: Record) -> Put:
        # TTL deletes within days of the expiry, so the expiry itself is tested too.
        now = {":now": {"N": str(int(self._clock.now().timestamp()))}}
        free = Condition("attribute_not_exists(pk) OR expires_at < :now", values=now)
        return Put(self._table, record.as_item(), free, return_old=True)

    def _standing(self, canceled: TransactionCanceled) -> Record | None:
        """The record that stood in the way, which settles the matter whatever else failed."""
        claim = canceled.reasons[0] if canceled.reasons else None
        if claim is None or claim.code != "ConditionalCheckFailed" or claim.item is None:
            return None
        return Record.from_item(self._table, claim.item)

    async def _write_marks(self, marks: Sequence[Put]) -> list[bool | Exception]:
        # A redelivery may finish the same record in the same batch, and DynamoDB takes a key once.
        distinct = {mark.key: mark for mark in marks}
        keys = list(distinct)
        unprocessed = {keys[index] for index in await self._store.write(list(distinct.values()))}
        return [mark.key not in unprocessed for mark in marks]


class Unrecorded:
    """In place of an inbox, for handlers that are idempotent by nature: no record is kept, so
    every delivery takes effect."""

    def __init__(self, store: Store, clock: Clock, randomness: Randomness) -> None:
        self._store = store
        self._clock = clock
        self._randomness = randomness

    async def commit(
        self,
        consumer: str,
        event_id: str,
        actions: Sequence[Action],
        outgoing: Sequence[Outgoing],
    ) -> Committed:
        """Write the actions, if any; raises as `Inbox.commit` does."""
        token = str(self._randomness.uuid())
        if actions:
            _refuse_too_large(actions)
            try:
                await self._store.transact(actions, token=token)
            except TransactionCanceled as canceled:
                raise _cause_of(canceled, actions) from canceled
        now = int(self._clock.now().timestamp())
        key = ItemKey("", f"unrecorded#{consumer}#{event_id}", "-")
        return Committed(Record(key, token, tuple(outgoing), now, done=True))

    async def find(self, consumer: str, event_id: str) -> Record | None:
        """Nothing is known of earlier deliveries."""
        return None

    async def mark_done(self, record: Record) -> None:
        """Nothing was noted, so there is nothing to note."""


def _refuse_too_large(actions: Sequence[Action]) -> None:
    """Raises `TooLarge`, with the numbers, for what DynamoDB would refuse."""
    if len(actions) > TRANSACTION_ACTIONS:
        raise TooLarge(
            f"The handler writes {len(actions):,} items with its inbox record: one transaction "
            f"takes {TRANSACTION_ACTIONS}. Write fewer items, or "
            "split the work with commands.",
            size=len(actions),
            limit=TRANSACTION_ACTIONS,
        )
    sizes = [size_of(action.item) for action in actions if isinstance(action, Put)]
    if max(sizes, default=0) > DYNAMODB_ITEM_BYTES:
        raise TooLarge(
            f"The inbox record with its outgoing messages has {max(sizes):,} bytes: a DynamoDB "
            f"item holds {DYNAMODB_ITEM_BYTES:,}. Publish less, or put the bulk into S3 and "
            "publish where it is.",
            size=max(sizes),
            limit=DYNAMODB_ITEM_BYTES,
        )
    if sum(sizes) > TRANSACTION_BYTES:
        raise TooLarge(
            f"The handler writes {sum(sizes):,} bytes: one transaction takes "
            f"{TRANSACTION_BYTES:,}. Write less, or split the work with commands.",
            size=sum(sizes),
            limit=TRANSACTION_BYTES,
        )


def _cause_of(canceled: TransactionCanceled, actions: Sequence[Action]) -> Exception:
    """What a cancellation means when no inbox record stood in the way."""
    failed = [
        (action, reason)
        for action, reason in zip(actions, canceled.reasons, strict=False)
        if reason is not None and reason.code != "None"
    ]
    codes = {reason.code for _, reason in failed}
    if codes & _THROTTLES:
        return Throttled(str(canceled), operation=canceled.operation, code=canceled.code)
    if failed and codes <= {"ConditionalCheckFailed", "TransactionConflict"}:
        return Conflict(_conflict(*failed[0]))
    return canceled


def _conflict(action: Action, reason: CancellationReason) -> str:
    name = f"{action.key.table}/{action.key.pk}"
    condition = action.condition.expression if action.condition else ""
    if reason.code == "ConditionalCheckFailed" and condition == MUST_NOT_EXIST.expression:
        return f"{name} exists already, but was put as new: read it with tx.get before tx.put."
    return f"{name} was changed by another writer between the handler's read and its commit."


def _dump(outgoing: Outgoing) -> AttributeValue:
    fields = {
        "id": outgoing.id,
        "type": outgoing.detail_type,
        "detail": outgoing.detail,
        "time": outgoing.time.isoformat(),
        "source": outgoing.source,
        "owner": outgoing.owner,
        "trace": outgoing.trace_header,
    }
    return {"M": {name: {"S": text} for name, text in fields.items() if text is not None}}


def _load(value: AttributeValue) -> Outgoing:
    fields = {name: text["S"] for name, text in value["M"].items()}
    return Outgoing(
        id=fields["id"],
        detail_type=fields["type"],
        detail=fields["detail"],
        time=datetime.fromisoformat(fields["time"]).astimezone(UTC),
        source=fields.get("source"),
        owner=fields.get("owner"),
        trace_header=fields.get("trace"),
    )
