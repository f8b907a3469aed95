"""The inbox: one record per consumer and event, committed with the effects it stands for.

The record is inbox and outbox in one. It says that a consumer has handled an event, and it
holds the messages that this caused until they are out.

    t0  Put the record if none stands there        ┐ one TransactWriteItems:
        the handler's writes, each conditional     ┘ all of it or nothing
    t1  the messages go out (see outbox)
    t2  the message is deleted (see settle)
    t3  the record is overwritten as done, with those of other deliveries

    crash before t0   nothing happened; the message comes again and is handled
    crash after t0    the message comes again, and the record stands in its way. DynamoDB
                      returns it (ALL_OLD), and its commit_id tells what to do:
                        mine              the commit stood, its answer was lost: go on at t1
                        another, pending  go on at t1, with the messages that stand in it
                        another, done     nothing is left to do
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from headrace.coalesce import Coalescer
from headrace.commit import cause_of, size_for_commit
from headrace.envelope import Cancellation, Outgoing
from headrace.errors import (
    CancellationReason,
    CloudError,
    ConditionFailed,
    LeaseLost,
    TransactionCanceled,
)
from headrace.group import GroupCommit
from headrace.limits import BATCH_WRITE_ITEMS
from headrace.ports import Action, Clock, Condition, Item, ItemKey, Put, Randomness, Store
from headrace.record import (
    KEY_PREFIX,
    RELAY_INDEX,
    RELAY_SHARDS,
    Record,
    Status,
    Trail,
    moment,
    shard,
)

logger = logging.getLogger(__name__)

_MARKS_LINGER: Final = 0.1
"""Seconds that a done-mark waits for others. Nobody waits for it, and losing it is harmless."""

_FREE: Final = "attribute_not_exists(pk) OR expires_at < :now OR #status = :leased"
_STATUS: Final = {"#status": "status"}
_LEASED: Final = {"S": Status.LEASED.value}


@dataclass(frozen=True, slots=True)
class Committed:
    """The record that stands after a commit, and whether another delivery had made it.

    What is to be sent is the record's `outgoing`, whoever wrote it.
    """

    record: Record
    duplicate: bool = False


class Pending(NamedTuple):
    """A record that may have to be sent, and since when it stands."""

    key: ItemKey
    since: datetime


class _Mark(NamedTuple):
    """A record that is done, and the context of the delivery that it is about."""

    put: Put
    context: Context

    def warn(self, message: str, *more: object) -> None:
        self.context.run(logger.warning, message, self.put.key.pk, *more)


class Inbox:
    """The records of one service in its table."""

    def __init__(
        self,
        store: Store,
        group: GroupCommit,
        clock: Clock,
        randomness: Randomness,
        *,
        table: str,
        keep: timedelta,
    ) -> None:
        self._store = store
        self._group = group
        self._clock = clock
        self._randomness = randomness
        self._table = table
        self._keep = keep
        self._sent: set[ItemKey] = set()
        self._done_marks: Coalescer[_Mark, None] = Coalescer(
            self._write_marks, max_entries=BATCH_WRITE_ITEMS, linger=_MARKS_LINGER
        )

    def key(self, consumer: str, event_id: str) -> ItemKey:
        return ItemKey(self._table, f"{KEY_PREFIX}{consumer}#{event_id}", "-")

    def new_record(
        self,
        consumer: str,
        event_id: str,
        outgoing: Sequence[Outgoing | Cancellation] = (),
        trail: Trail | None = None,
    ) -> Record:
        """A record to commit. With nothing to send, and nothing to tell, it is done at once."""
        return Record(
            key=self.key(consumer, event_id),
            commit_id=str(self._randomness.uuid()),
            status=Status.PENDING if outgoing or (trail and trail.remarks) else Status.DONE,
            expires_at=self._expiry(trail),
            outgoing=tuple(outgoing),
            since=None if trail is None else self._clock.now(),
            trail=trail,
        )

    async def commit(
        self,
        record: Record,
        actions: Sequence[Action],
        *,
        conditional: Collection[ItemKey] = (),
        holder: str | None = None,
    ) -> Committed:
        """Commit the effects of one delivery with their record, unless they stand already.

        `holder` completes a lease, and does so only if it still holds it. Raises `Conflict` if
        an item changed since it was read, `LeaseLost`, `TooLarge` before any call, and
        `CloudError`.
        """
        claim = self._claim(record) if holder is None else _completion(record, holder)
        everything = [claim, *actions]
        size = size_for_commit(everything)
        try:
            await self._write(everything, token=record.commit_id, size=size)
        except TransactionCanceled as canceled:
            standing = self._standing(canceled)
            if standing is not None and standing.status is not Status.LEASED:
                duplicate = standing.commit_id != record.commit_id
                return Committed(self.as_known(standing), duplicate)
            if holder is not None and _has_failed(canceled):
                raise LeaseLost from canceled
            raise cause_of(canceled, everything, conditional) from canceled
        return Committed(record)

    async def find(self, consumer: str, event_id: str) -> Record | None:
        """The record that stands for this delivery, if its effects are committed already."""
        (record,) = await self.read([self.key(consumer, event_id)])
        if record is None or record.status is Status.LEASED:
            return None
        expires_at = record.expires_at
        expired = expires_at is not None and expires_at < self._clock.now().timestamp()
        return None if expired else self.as_known(record)

    async def read(self, keys: Sequence[ItemKey]) -> list[Record | None]:
        """The records at these keys, at most 100, as they are now."""
        items = await self._store.get(keys)
        return [None if item is None else Record.from_item(self._table, item) for item in items]

    async def pending(self, service: str, before: datetime) -> AsyncIterator[list[Pending]]:
        """The records that the relay of a service looks after, some at a time: those that were
        committed before this moment, as far as the index knows."""
        # From anywhere, so that sweeps that are always cut short do not leave out the same ones.
        first = int(self._randomness.uniform(0, RELAY_SHARDS))
        for number in ((first + step) % RELAY_SHARDS for step in range(RELAY_SHARDS)):
            start: Item | None = None
            while True:
                page = await self._store.query(
                    self._table,
                    shard(service, number),
                    index=RELAY_INDEX,
                    sk_before=moment(before),
                    limit=100,
                    start=start,
                )
                if page.items:
                    yield [_pending(self._table, item, before) for item in page.items]
                if page.next is None:
                    break
                start = page.next

    def mark_done(self, record: Record) -> None:
        """Note that everything the record holds is out, with the next batch of such notes.

        Losing this note is harmless: a later duplicate sends the same ids once more. So nobody
        waits for it, and a failure is logged.
        """
        if record.done:
            return
        self._sent.add(record.key)
        # What has a trail is told for longer than duplicates can come.
        expiry = max(self._expiry(), (record.expires_at or 0) if record.trail else 0)
        trail = record.trail and replace(record.trail, remarks=())
        done = replace(record, status=Status.DONE, outgoing=(), expires_at=expiry, trail=trail)
        _ = self._done_marks.post(_Mark(Put(self._table, done.as_item()), copy_context()))

    async def flush(self) -> None:
        await self._done_marks.flush()

    def _expiry(self, trail: Trail | None = None) -> int:
        keep = self._keep if trail is None else max(self._keep, trail.keep)
        return int((self._clock.now() + keep).timestamp())

    def _claim(self, record: Record) -> Put:
        # TTL deletes within days of the expiry, so the expiry itself is tested too. A lease is left
        # over where the handler was leased until its last deployment.
        now = {"N": str(int(self._clock.now().timestamp()))}
        free = Condition(_FREE, _STATUS, {":now": now, ":leased": _LEASED})
        return Put(self._table, record.as_item(), free, return_old=True)

    async def _write(self, actions: Sequence[Action], *, token: str, size: int) -> None:
        """A record alone costs half as much outside of a transaction."""
        claim = actions[0]
        if len(actions) > 1 or not isinstance(claim, Put):
            await self._group.transact(actions, token=token, size=size)
            return
        try:
            await self._store.change(claim)
        except ConditionFailed as error:
            reason = CancellationReason("ConditionalCheckFailed", str(error), error.item)
            raise TransactionCanceled([reason], operation=error.operation) from error

    def _standing(self, canceled: TransactionCanceled) -> Record | None:
        """The record that stood in the way, which settles the matter whatever else failed."""
        claim = canceled.reasons[0] if canceled.reasons else None
        if claim is None or claim.code != "ConditionalCheckFailed" or claim.item is None:
            return None
        return Record.from_item(self._table, claim.item)

    def as_known(self, record: Record) -> Record:
        """The record, done already if everything is out and only the note of it is on its way."""
        if record.done or record.key not in self._sent:
            return record
        return replace(record, status=Status.DONE, outgoing=())

    async def _write_marks(self, marks: Sequence[_Mark]) -> list[None]:
        # A redelivery may finish the same record in the same batch, and DynamoDB takes a key once.
        distinct = {mark.put.key: mark for mark in marks}
        marked = list(distinct.values())
        try:
            for index in await self._store.write([mark.put for mark in marked]):
                marked[index].warn("%s was not marked as done: DynamoDB was busy.")
        except CloudError as error:
            for mark in marked:
                mark.warn("%s could not be marked as done: %s", error)
        except Exception as defect:
            # Nobody waits for this to hear of it.
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"{len(marked)} records were not marked as done", "exception": defect}
            )
        finally:
            self._sent.difference_update(distinct)
        return [None] * len(marks)


class Unrecorded:
    """In place of an inbox, for handlers that are idempotent by nature: no record is kept, so
    every delivery takes effect."""

    def __init__(self, group: GroupCommit, clock: Clock, randomness: Randomness) -> None:
        self._group = group
        self._clock = clock
        self._randomness = randomness

    def new_record(
        self,
        consumer: str,
        event_id: str,
        outgoing: Sequence[Outgoing | Cancellation] = (),
        trail: Trail | None = None,
    ) -> Record:
        return Record(
            key=ItemKey("", f"unrecorded#{consumer}#{event_id}", "-"),
            commit_id=str(self._randomness.uuid()),
            status=Status.DONE,
            expires_at=None,
            outgoing=tuple(outgoing),
        )

    async def commit(
        self,
        record: Record,
        actions: Sequence[Action],
        *,
        conditional: Collection[ItemKey] = (),
        holder: str | None = None,
    ) -> Committed:
        """Write the actions, if any; raises as `Inbox.commit` does."""
        if actions:
            size = size_for_commit(actions)
            try:
                await self._group.transact(actions, token=record.commit_id, size=size)
            except TransactionCanceled as canceled:
                raise cause_of(canceled, actions, conditional) from canceled
        return Committed(record)

    async def find(self, consumer: str, event_id: str) -> Record | None:
        """Nothing is known of earlier deliveries."""
        return None

    def mark_done(self, record: Record) -> None:
        """Nothing was noted, so there is nothing to note."""


def _completion(record: Record, holder: str) -> Put:
    """The record in place of its lease, which fences off whoever has lost it."""
    held = Condition(
        "#status = :leased AND holder = :holder",
        _STATUS,
        {":leased": _LEASED, ":holder": {"S": holder}},
    )
    return Put(record.key.table, record.as_item(), held, return_old=True)


def _has_failed(canceled: TransactionCanceled) -> bool:
    """Whether the condition on the record itself did not hold."""
    claim = canceled.reasons[0] if canceled.reasons else None
    return claim is not None and claim.code == "ConditionalCheckFailed"


def _pending(table: str, item: Item, before: datetime) -> Pending:
    key = ItemKey(table, item["pk"]["S"], item["sk"]["S"])
    return Pending(key, _since(item[f"{RELAY_INDEX}_sk"]["S"], before))


def _since(text: str, before: datetime) -> datetime:
    """What somebody changed by hand must not hold up the others."""
    try:
        since = datetime.fromisoformat(text)
    except ValueError:
        return before
    return before if since.tzinfo is None else since
