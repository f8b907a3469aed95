"""What waits in the table behind messages that were given up, as an operator sees it, and its way
back to the queue. How it comes there stands in `headrace.parking`.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Parked:
    """One message that waits, as it came, and the keys of the items that hold it."""

    position: str
    message_id: str
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

    async def replay(self, block: Block, queue: str) -> bool:
        """Send what waits behind the head to the queue, in order, and free the group. To be called
        when the head is done, or is not wanted any more.

        `False` if the group was blocked anew meanwhile: a message that was replayed was given up,
        and what stands behind it waits again. Killed anywhere, it can be called again: what was
        sent and not yet taken out of the table is sent twice, under one deduplication id, and is a
        duplicate to its handler. Raises `CloudError`.
        """
        while True:
            waiting = await self.parked(block)
            for parked in waiting:
                # One by one: of a batch, SQS may refuse an entry and take those behind it.
                await self._send(queue, parked, block)
                if not await self._take_out(block, parked):
                    return False
            if not waiting:
                freed = await self._free(block)
                if freed is not None:
                    return freed

    async def _send(self, queue: str, parked: Parked, block: Block) -> None:
        entry = replace(
            parked.entry,
            attributes=_with_turn(parked, block.turn),
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
        one_less = Update(
            block_key(self._table, block.consumer, block.group),
            "SET waiting = waiting - :one",
            {},
            {":one": {"N": "1"}},
            self._in_turn(block),
        )
        there = Condition("attribute_exists(pk)")
        actions: list[Action] = [one_less, *(Delete(key, there) for key in parked.keys)]
        try:
            await self._store.transact(actions, token=str(self._randomness.uuid()))
        except TransactionCanceled as error:
            if error.reasons[0] is not None and error.reasons[0].code == "ConditionalCheckFailed":
                return False
            if not any(r is not None and r.code == "ConditionalCheckFailed" for r in error.reasons):
                raise
            # Another replay of the same group was faster.
        return True

    async def _free(self, block: Block) -> bool | None:
        """`None` if something came in meanwhile."""
        key = block_key(self._table, block.consumer, block.group)
        in_turn = self._in_turn(block)
        nothing = replace(
            in_turn,
            expression=f"{in_turn.expression} AND waiting = :none",
            values={**in_turn.values, ":none": {"N": "0"}},
        )
        try:
            await self._store.change(Delete(key, nothing))
        except ConditionFailed:
            now = await self.block(block.consumer, block.group)
            if now is None:
                return True
            return None if now.turn == block.turn else False
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


def _with_turn(parked: Parked, turn: str) -> dict[str, Attribute]:
    note = {"message_id": parked.message_id, "sequence": parked.position, "turn": turn}
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
