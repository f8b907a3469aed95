"""What waits in the table behind messages that were given up, as an operator sees it, and its way
back to the queue. How it comes there stands in `headrace.parking`.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar

import orjson

from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.entries import answers
from headrace.errors import CloudError, ConditionFailed, HeadraceError, TransactionCanceled
from headrace.limits import BATCH_GET_KEYS
from headrace.parking import (
    FORGET_TURN,
    HEAD_NAMES,
    SET_HEAD,
    SHARDS,
    Block,
    block_key,
    block_of,
    parked_pk,
    replay_note,
    shard_pk,
)
from headrace.ports import (
    Action,
    Attribute,
    Condition,
    Delete,
    Item,
    ItemKey,
    QueueEntry,
    Queues,
    Randomness,
    Store,
    Update,
)
from headrace.record import KEY_PREFIX, Status
from headrace.retrying import after, retried

T = TypeVar("T")

_ATTEMPTS: Final = 6
_PAUSE: Final = 0.1
"""Seconds after which what AWS has refused for now is tried again; they double each time."""

_PASSING: Final = frozenset(
    {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
)
"""Why a transaction may be cancelled that goes through later: the worker parks something in this
group at the moment, for instance."""

_FIRST_LOOK: Final = 0.05
_LAST_LOOK: Final = 2.0
"""Seconds between two looks whether a message was handled, at first and in the end."""


class Replayed(Enum):
    """How a replay ended: the group is free; it is blocked by another message, or by the same one
    again; or what was replayed is not handled yet, and another replay has to go on."""

    FREE = "free"
    BLOCKED = "blocked"
    GOING_ON = "going on"


@dataclass(frozen=True, slots=True)
class Parked:
    """One message that waits, as it came, and the keys of the items that hold it.

    It may be a dead letter itself, for this `reason`: then only its place is kept here, and `entry`
    is empty. `earlier` is what was known of it before it was parked.
    """

    position: str
    message_id: str
    event_id: str
    entry: QueueEntry
    keys: tuple[ItemKey, ...]
    reason: str | None = None
    since: str = ""
    earlier: Mapping[str, Any] = field(default_factory=dict)


class Yard:
    """The blocked groups of one consumer, as an operator sees them."""

    def __init__(self, store: Store, queues: Queues, randomness: Randomness, table: str) -> None:
        self._store = store
        self._queues = queues
        self._randomness = randomness
        self._table = table

    async def blocks(self, consumer: str) -> list[Block]:
        """Every group of it that waits, by its name. Raises `CloudError`."""
        found = [
            block_of(consumer, item)
            for shard in range(SHARDS)
            async for item in self._items(shard_pk(consumer, shard))
        ]
        return sorted(found, key=lambda block: block.group)

    async def block(self, consumer: str, group: str) -> Block | None:
        key = block_key(self._table, consumer, group)
        (item,) = await self._lasting(partial(self._store.get, [key]))
        return None if item is None else block_of(consumer, item)

    async def parked(self, block: Block) -> list[Parked]:
        """What waits in a group, in its order. Raises `CloudError`."""
        return [parked async for parked in self._in_order(block)]

    async def replay(
        self,
        block: Block,
        queue: str,
        *,
        patience: timedelta = timedelta(minutes=1),
        waits: bool = True,
    ) -> Replayed:
        """Send what waits behind the head to the queue, in order, and free the group once the last
        of it was handled: until then, what was ahead of it in the queue has to be parked as well.
        To be called when the head is done, or is not wanted any more. Without `waits` it is free as
        soon as nothing waits, as is right where nothing is parked for this consumer any more.

        Waits for as long as `patience` for one message to be handled. Killed anywhere, it can be
        called again: what was sent and not yet taken out of the table is sent twice, under one
        deduplication id, and is a duplicate to its handler. What AWS refuses for now is tried some
        times. Raises `CloudError`, and `HeadraceError` for a message that SQS does not take.
        """
        if not await self._release(block):
            return await self._how_it_stands(block)
        idle = 0
        while idle < _ATTEMPTS:
            sent = await self._send_all(block, queue, patience)
            now = await self.block(block.consumer, block.group)
            if sent is None or now is None or now.turn != block.turn:
                return _as_it_stands(block, now)
            if waits and now.last is not None and not await self._handled(now, now.last, patience):
                break
            if await self._free(now):
                return Replayed.FREE
            # Something is being parked, or taken out by another replay, at this moment.
            idle = 0 if sent else idle + 1
            await asyncio.sleep(_FIRST_LOOK * idle)
        return await self._how_it_stands(block)

    async def _send_all(self, block: Block, queue: str, patience: timedelta) -> int | None:
        """Send what waits; how much that was, or `None` if it does not go on in this turn."""
        sent = 0
        async for parked in self._in_order(block):
            if not await self._go_on(block, parked, queue, patience):
                return None
            sent += 1
        return sent

    async def _go_on(self, block: Block, parked: Parked, queue: str, patience: timedelta) -> bool:
        """Whether this one was taken out in this turn: it is in the queue, or was dealt with."""
        if _is_head(block, parked):
            return await self._take_out(block, parked)
        if parked.reason is None:
            # One by one: of a batch, SQS may refuse an entry and take those behind it.
            await self._send(queue, parked, block)
            return await self._take_out(block, parked)
        if await self.was_handled(block, parked.event_id):
            return await self._take_out(block, parked)
        await self._hand_over(block, parked, patience)
        return False

    async def _hand_over(self, block: Block, parked: Parked, patience: timedelta) -> None:
        """Have the group wait for this message, which is a dead letter by now. What was sent before
        it has to be handled first: it may be given up and is ahead of this one then."""
        now = await self.block(block.consumer, block.group)
        if now is None or now.turn != block.turn:
            return
        if now.last is not None and not await self._handled(now, now.last, patience):
            return
        update = Update(
            block_key(self._table, block.consumer, block.group),
            f"{SET_HEAD}, waiting = waiting - :one {FORGET_TURN}",
            HEAD_NAMES,
            {
                ":head": {"S": parked.position},
                ":turn": {"S": str(self._randomness.uuid())},
                ":event": {"S": parked.event_id},
                ":message": {"S": parked.message_id},
                ":since": {"S": parked.since},
                ":reason": {"S": parked.reason or ""},
                ":one": {"N": "1"},
            },
            self._in_turn(block),
        )
        await self._transacted(update, parked)

    async def _release(self, block: Block) -> bool:
        """Note that the head was dealt with; `False` if the block is another one by now."""
        release = Update(
            block_key(self._table, block.consumer, block.group),
            "SET released = :yes",
            {},
            {":yes": {"BOOL": True}},
            self._in_turn(block),
        )
        try:
            await self._lasting(partial(self._store.change, release))
        except ConditionFailed:
            return False
        return True

    async def settled(self, blocks: Sequence[Block]) -> list[bool]:
        """Of each block, whether its head was handled, or let go of: what waits can go on. Raises
        `CloudError`."""
        keys = [self._record(block, block.event_id) for block in blocks]
        distinct = list(dict.fromkeys(keys))
        done: dict[ItemKey, bool] = {}
        for start in range(0, len(distinct), BATCH_GET_KEYS):
            some = distinct[start : start + BATCH_GET_KEYS]
            found = await self._lasting(partial(self._store.get, some))
            done |= {key: _is_done(item) for key, item in zip(some, found, strict=True)}
        return [block.released or done[key] for block, key in zip(blocks, keys, strict=True)]

    async def was_handled(self, block: Block, event_id: str) -> bool:
        """Whether the consumer of a block has handled this event. Raises `CloudError`."""
        (found,) = await self._lasting(partial(self._store.get, [self._record(block, event_id)]))
        return _is_done(found)

    async def _handled(self, block: Block, event_id: str, patience: timedelta) -> bool:
        """Whether this event was handled within that time, and the block is the same."""
        key = block_key(self._table, block.consumer, block.group)
        keys = [self._record(block, event_id), key]
        pause, left = _FIRST_LOOK, patience.total_seconds()
        while True:
            found, now = await self._lasting(partial(self._store.get, keys))
            if now is None or now["turn"]["S"] != block.turn:
                return False
            if _is_done(found):
                return True
            if left <= 0:
                return False
            await asyncio.sleep(pause)
            left -= pause
            pause = min(2 * pause, _LAST_LOOK)

    def _record(self, block: Block, event_id: str) -> ItemKey:
        return ItemKey(self._table, f"{KEY_PREFIX}{block.consumer}#{event_id}", "-")

    async def _how_it_stands(self, block: Block) -> Replayed:
        return _as_it_stands(block, await self.block(block.consumer, block.group))

    async def _send(self, queue: str, parked: Parked, block: Block) -> None:
        note = replay_note(
            block.consumer, parked.message_id, parked.position, block.turn, parked.earlier
        )
        entry = replace(
            parked.entry,
            attributes={**parked.entry.attributes, NOTE_ATTRIBUTE: note},
            deduplication_id=f"{parked.message_id}-{block.turn}",
        )

        async def send() -> None:
            (error,) = await answers([entry], partial(self._queues.send, queue))
            if error is not None:
                raise error

        try:
            await self._lasting(send)
        except CloudError as error:
            raise HeadraceError(
                f"Message {parked.message_id} was not sent to {queue} ({error}). It and those "
                "behind it are parked still: begin again."
            ) from error

    async def _take_out(self, block: Block, parked: Parked) -> bool:
        """Whether it was taken out in this turn."""
        # Of what was not sent there is nothing to wait for.
        was_sent = parked.reason is None and not _is_head(block, parked)
        last = {":last": {"S": parked.event_id}} if was_sent else {}
        one_less = Update(
            block_key(self._table, block.consumer, block.group),
            "SET waiting = waiting - :one" + (", #last = :last" if was_sent else ""),
            {"#last": "last"} if was_sent else {},
            {":one": {"N": "1"}, **last},
            self._in_turn(block),
        )
        return await self._transacted(one_less, parked)

    async def _transacted(self, update: Update, parked: Parked) -> bool:
        """Change the block and take a message out; whether the turn is the same. Another replay of
        the same group may have been faster."""
        there = Condition("attribute_exists(pk)")
        actions: list[Action] = [update, *(Delete(key, there) for key in parked.keys)]

        async def transact() -> None:
            await self._store.transact(actions, token=str(self._randomness.uuid()))

        try:
            await self._lasting(transact)
        except TransactionCanceled as error:
            codes = [None if reason is None else reason.code for reason in error.reasons]
            if "ConditionalCheckFailed" not in codes:
                raise
            return codes[0] != "ConditionalCheckFailed"
        return True

    async def _free(self, block: Block) -> bool:
        """Whether nothing waits in the group, and another replay has sent nothing either, so that
        it is free."""
        key = block_key(self._table, block.consumer, block.group)
        in_turn = self._in_turn(block)
        last = "attribute_not_exists(#last)" if block.last is None else "#last = :last"
        nothing = Condition(
            f"{in_turn.expression} AND waiting = :none AND {last}",
            {**in_turn.names, "#last": "last"},
            {
                **in_turn.values,
                ":none": {"N": "0"},
                **({":last": {"S": block.last}} if block.last is not None else {}),
            },
        )
        try:
            await self._lasting(partial(self._store.change, Delete(key, nothing)))
        except ConditionFailed:
            return False
        return True

    def _in_turn(self, block: Block) -> Condition:
        return Condition("#turn = :in_turn", {"#turn": "turn"}, {":in_turn": {"S": block.turn}})

    async def _in_order(self, block: Block) -> AsyncIterator[Parked]:
        """What waits in a group, of which one page is in memory at a time. It ends before a message
        of which only a part is there: it is being parked, or taken out, at this moment."""
        parts: list[Item] = []
        async for item in self._items(parked_pk(block.consumer, block.group)):
            if "parts" in item:
                if parts:
                    return
                parts = [item]
            elif parts:
                parts.append(item)
            if parts and len(parts) == int(parts[0]["parts"]["N"]):
                yield _parked(self._table, parts)
                parts = []

    async def _items(self, pk: str) -> AsyncIterator[Item]:
        start: Item | None = None
        while True:
            query = partial(self._store.query, self._table, pk, start=start, consistent=True)
            page = await self._lasting(query)
            for item in page.items:
                yield item
            if page.next is None:
                return
            start = page.next

    async def _lasting(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that may be made again, until AWS no longer refuses it for now."""
        return await retried(call, again=_is_passing, stop=after(_ATTEMPTS), wait=self._pause)

    def _pause(self, attempt: int, error: BaseException | None) -> float:
        longest = min(_PAUSE * 2**attempt, _LAST_LOOK)
        return self._randomness.uniform(longest / 2, longest)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, TransactionCanceled):
        codes = {reason.code for reason in error.reasons if reason is not None} - {"None"}
        return codes <= _PASSING
    return isinstance(error, CloudError) and error.retryable


def _as_it_stands(block: Block, now: Block | None) -> Replayed:
    if now is None:
        return Replayed.FREE
    return Replayed.GOING_ON if now.turn == block.turn else Replayed.BLOCKED


def _is_done(record: Item | None) -> bool:
    return record is not None and record["status"]["S"] != Status.LEASED


def _is_head(block: Block, parked: Parked) -> bool:
    """One that was replayed and not taken out, and is the head since: it was given up."""
    return parked.event_id == block.event_id


def _parked(table: str, parts: Sequence[Item]) -> Parked:
    head = parts[0]
    reason = head["reason"]["S"] if "reason" in head else None
    content = b"".join(bytes(part["content"]["B"]) for part in parts)
    beside = {} if reason is not None else orjson.loads(content.partition(b"\n")[0])
    return Parked(
        position=head["sk"]["S"].partition("#")[0],
        message_id=head["message_id"]["S"],
        event_id=head["event_id"]["S"],
        entry=QueueEntry(
            body=content.partition(b"\n")[2].decode(),
            group_id=beside.get("group_id"),
            trace_header=beside.get("trace_header"),
            attributes={
                name: Attribute(_value(given), given["type"])
                for name, given in beside.get("attributes", {}).items()
            },
        ),
        keys=tuple(ItemKey(table, part["pk"]["S"], part["sk"]["S"]) for part in parts),
        reason=reason,
        since=head["since"]["S"] if "since" in head else "",
        earlier=beside.get("earlier", {}),
    )


def _value(given: Mapping[str, str]) -> str | bytes:
    return given["text"] if "text" in given else b64decode(given["base64"])
