"""What waits in the table behind messages that were given up, as an operator sees it, and its way
back to the queue. How it comes there stands in `headrace.parking`.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Final

import orjson

from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.errors import ConditionFailed, HeadraceError, TransactionCanceled
from headrace.parking import SHARDS, Block, block_key, block_of, parked_pk, shard_pk
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

_ATTEMPTS: Final = 5
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
    """One message that waits, as it came, and the keys of the items that hold it."""

    position: str
    message_id: str
    event_id: str
    entry: QueueEntry
    keys: tuple[ItemKey, ...]


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
        (item,) = await self._store.get([block_key(self._table, consumer, group)])
        return None if item is None else block_of(consumer, item)

    async def parked(self, block: Block) -> list[Parked]:
        """What waits in a group, in its order. Raises `CloudError`."""
        parts: dict[str, list[Item]] = {}
        async for item in self._items(parked_pk(block.consumer, block.group)):
            parts.setdefault(item["sk"]["S"].partition("#")[0], []).append(item)
        return [_parked(self._table, where, items) for where, items in parts.items()]

    async def replay(
        self, block: Block, queue: str, *, patience: timedelta = timedelta(minutes=1)
    ) -> Replayed:
        """Send what waits behind the head to the queue, in order, and free the group once the last
        of it was handled: until then, what was ahead of it in the queue has to be parked as well.
        To be called when the head is done, or is not wanted any more.

        Waits for as long as `patience` for one message to be handled. Killed anywhere, it can be
        called again: what was sent and not yet taken out of the table is sent twice, under one
        deduplication id, and is a duplicate to its handler. Raises `CloudError`, and
        `HeadraceError` for a message that SQS does not take.
        """
        if not await self._release(block):
            return await self._how_it_stands(block)
        while True:
            for parked in await self.parked(block):
                # One by one: of a batch, SQS may refuse an entry and take those behind it.
                if parked.position > block.head:
                    await self._send(queue, parked, block)
                if not await self._take_out(block, parked):
                    return await self._how_it_stands(block)
            now = await self.block(block.consumer, block.group)
            if now is None or now.turn != block.turn:
                return Replayed.FREE if now is None else Replayed.BLOCKED
            if now.last is not None and not await self._handled(now, now.last, patience):
                return await self._how_it_stands(block)
            if await self._free(now):
                return Replayed.FREE

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
            await self._store.change(release)
        except ConditionFailed:
            return False
        return True

    async def _handled(self, block: Block, event_id: str, patience: timedelta) -> bool:
        """Whether this event was handled within that time, and the block is the same."""
        record = ItemKey(self._table, f"{KEY_PREFIX}{block.consumer}#{event_id}", "-")
        key = block_key(self._table, block.consumer, block.group)
        pause, left = _FIRST_LOOK, patience.total_seconds()
        while True:
            found, now = await self._store.get([record, key])
            if now is None or now["turn"]["S"] != block.turn:
                return False
            if found is not None and found["status"]["S"] != Status.LEASED:
                return True
            if left <= 0:
                return False
            await asyncio.sleep(pause)
            left -= pause
            pause = min(2 * pause, _LAST_LOOK)

    async def _how_it_stands(self, block: Block) -> Replayed:
        now = await self.block(block.consumer, block.group)
        if now is None:
            return Replayed.FREE
        return Replayed.GOING_ON if now.turn == block.turn else Replayed.BLOCKED

    async def _send(self, queue: str, parked: Parked, block: Block) -> None:
        entry = replace(
            parked.entry,
            attributes=_with_turn(parked, block),
            deduplication_id=f"{parked.message_id}-{block.turn}",
        )
        failures = await self._queues.send(queue, [entry])
        if failures:
            raise HeadraceError(
                f"Message {parked.message_id} was not sent to {queue} ({failures[0].code}: "
                f"{failures[0].message}). It and those behind it are parked still: begin again."
            )

    async def _take_out(self, block: Block, parked: Parked) -> bool:
        """Whether it was taken out in this turn."""
        # The head itself was not sent, so there is nothing of it to wait for.
        last = parked.event_id if parked.position > block.head else None
        one_less = Update(
            block_key(self._table, block.consumer, block.group),
            "SET waiting = waiting - :one" + (", #last = :last" if last else ""),
            {"#last": "last"} if last else {},
            {":one": {"N": "1"}, **({":last": {"S": last}} if last else {})},
            self._in_turn(block),
        )
        there = Condition("attribute_exists(pk)")
        actions: list[Action] = [one_less, *(Delete(key, there) for key in parked.keys)]
        for attempt in range(_ATTEMPTS):
            try:
                await self._store.transact(actions, token=str(self._randomness.uuid()))
            except TransactionCanceled as error:
                codes = [None if reason is None else reason.code for reason in error.reasons]
                if codes[0] == "ConditionalCheckFailed":
                    return False
                if "ConditionalCheckFailed" in codes:
                    # Another replay of the same group was faster.
                    return True
                if attempt == _ATTEMPTS - 1:
                    raise
                # The worker parks something in this group at the moment.
                await asyncio.sleep(self._randomness.uniform(0, _FIRST_LOOK * 2**attempt))
            else:
                return True
        raise AssertionError("unreachable")

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
            await self._store.change(Delete(key, nothing))
        except ConditionFailed:
            return False
        return True

    def _in_turn(self, block: Block) -> Condition:
        return Condition("#turn = :turn", {"#turn": "turn"}, {":turn": {"S": block.turn}})

    async def _items(self, pk: str) -> AsyncIterator[Item]:
        start: Item | None = None
        while True:
            page = await self._store.query(self._table, pk, start=start, consistent=True)
            for item in page.items:
                yield item
            if page.next is None:
                return
            start = page.next


def _with_turn(parked: Parked, block: Block) -> dict[str, Attribute]:
    note = {
        "message_id": parked.message_id,
        "sequence": parked.position,
        "turn": block.turn,
        "consumer": block.consumer,
    }
    return {
        **parked.entry.attributes,
        NOTE_ATTRIBUTE: Attribute(orjson.dumps(note).decode(), "String.json"),
    }


def _parked(table: str, where: str, parts: Sequence[Item]) -> Parked:
    head = parts[0]
    beside = orjson.loads(head["message"]["S"])
    return Parked(
        position=where,
        message_id=head["message_id"]["S"],
        event_id=head["event_id"]["S"],
        entry=QueueEntry(
            body=b"".join(bytes(part["body"]["B"]) for part in parts).decode(),
            group_id=beside["group_id"],
            trace_header=beside["trace_header"],
            attributes={
                name: Attribute(_value(given), given["type"])
                for name, given in beside["attributes"].items()
            },
        ),
        keys=tuple(ItemKey(table, part["pk"]["S"], part["sk"]["S"]) for part in parts),
    )


def _value(given: Mapping[str, str]) -> str | bytes:
    return given["text"] if "text" in given else b64decode(given["base64"])
