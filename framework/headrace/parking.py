"""Message groups that wait: when a message of a FIFO queue is given up, those behind it in its
group are kept in the table, in order, until somebody has dealt with it.

    m2 is given up      blocked#…  g: head m2          the group waits; then m2 is a dead letter
    m3 comes            parked#…   g: m3               and is deleted from the queue
    m4 comes            parked#…   g: m3, m4
    m2 is redriven      m2 is done; m3, m4 are sent again, in order
    m4 is handled       whatever was ahead of it in the queue has come, and nothing waits: the group
                        is free

A replayed message carries the `turn` of the block that it was replayed in. When m3 fails, the group
is blocked by m3 in a new turn; so m4, which is in the queue by then, is parked once more. Positions
are those that SQS gave when the messages were first sent.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zlib import crc32

import orjson

from headrace.dead_letter import NOTE_ATTRIBUTE, noted, original_id
from headrace.errors import (
    CommitError,
    ConditionFailed,
    Conflict,
    TransactionCanceled,
)
from headrace.outcome import Ack, DeadLetter
from headrace.ports import (
    Action,
    Clock,
    Condition,
    Delivery,
    Item,
    ItemKey,
    Put,
    Randomness,
    Store,
    Update,
)
from headrace.reads import SharedReads
from headrace.text import shown

logger = logging.getLogger(__name__)

SHARDS: Final = 8
"""Partitions for the blocks of one consumer, as every delivery looks whether its group has one."""

_PART_BYTES: Final = 300_000
"""Of a body, in one item: an item may have 400 KB, a message 1 MiB."""

_DIGITS: Final = 40
"""SQS's sequence numbers have 128 bits; padded, they sort as text."""

_ATTEMPTS: Final = 3


class Unplaced(CommitError):
    """SQS did not say where in its group a message stands."""


@dataclass(frozen=True, slots=True)
class Block:
    """A message group that waits for the message at its head, which was given up for a `reason`.

    `head` is its position, `event_id` and `message_id` name it; `turn` is new whenever a head is
    given up; `waiting` counts what is parked. Once the head was dealt with the block is `released`:
    what waits is replayed, the `last` of it being this event.
    """

    consumer: str
    group: str
    head: str
    turn: str
    event_id: str
    message_id: str
    waiting: int
    since: datetime
    reason: str = ""
    last: str | None = None
    released: bool = False

    def keeps(self, delivery: Delivery, event_id: str) -> bool:
        """Whether a delivery has to wait: it stands behind the head, and is not being replayed.
        The head itself may come back without its place, when SQS moved it."""
        behind = event_id != self.event_id and position(delivery) > self.head
        return behind and noted(delivery, "turn") != self.turn

    def gives_up(self, delivery: Delivery, event_id: str) -> bool:
        """Whether a delivery is the head, and was not sent back by an operator: it was given up,
        and its letter was not written, or it was not deleted then."""
        sent_back = noted(delivery, "redrive") or noted(delivery, "reason")
        return event_id == self.event_id and not self.released and not sent_back


def position(delivery: Delivery) -> str:
    """Where a message stands in its group: text that sorts. Raises `Unplaced` if SQS did not say,
    as it does for every message of a FIFO queue."""
    sequence = noted(delivery, "sequence") or delivery.sequence
    if not sequence:
        raise Unplaced(
            f"Message {delivery.message_id} of {delivery.queue} came without a SequenceNumber, so "
            "its place in its group is not known: a handler with park=True needs a FIFO queue."
        )
    return sequence.zfill(_DIGITS)


class Parking:
    """The groups of one consumer, as its deliveries see them."""

    def __init__(
        self, store: Store, reads: SharedReads, clock: Clock, randomness: Randomness, table: str
    ) -> None:
        self._store = store
        self._reads = reads
        self._clock = clock
        self._randomness = randomness
        self._table = table

    async def standing(
        self, consumer: str, delivery: Delivery, event_id: str
    ) -> Ack | DeadLetter | None:
        """What becomes of a delivery without its handler; `None` if that is to run.

        One that has to wait behind another message is parked, and may be deleted then. One that
        was given up before is given up again: those behind it may be parked by now. Raises
        `CloudError`, and `Conflict` when the group is being replayed at this moment.
        """
        key = block_key(self._table, consumer, delivery.group_id or "")
        for _ in range(_ATTEMPTS):
            item = await self._reads.item(key)
            if item is None:
                return None
            block = block_of(consumer, item)
            if block.gives_up(delivery, event_id):
                return DeadLetter(block.reason, consumer)
            if not block.keeps(delivery, event_id):
                return None
            if await self._park(key, consumer, delivery, event_id):
                return Ack(parked=True)
        raise Conflict(
            f"The message group {delivery.group_id!r} was blocked and freed again while message "
            f"{delivery.message_id} was to be parked."
        )

    async def block(self, consumer: str, delivery: Delivery, event_id: str, reason: str) -> None:
        """What stands behind this message in its group waits from now on. To be called before the
        message can leave the queue. Raises `CloudError`."""
        head = position(delivery)
        values = {
            ":head": {"S": head},
            ":turn": {"S": str(self._randomness.uuid())},
            ":event": {"S": event_id},
            ":message": {"S": delivery.message_id},
            ":since": {"S": self._clock.now().astimezone(UTC).isoformat()},
            ":reason": {"S": shown(reason)},
            ":none": {"N": "0"},
        }
        names = {"#head": "head", "#turn": "turn", "#since": "since", "#last": "last"}
        update = Update(
            block_key(self._table, consumer, delivery.group_id or ""),
            "SET #head = :head, #turn = :turn, event_id = :event, message_id = :message, "
            "#since = :since, reason = :reason, waiting = if_not_exists(waiting, :none) "
            "REMOVE #last, released",
            names,
            values,
            # One that is given up again ends the turn of what was replayed behind it.
            Condition(
                "attribute_not_exists(pk) OR #head <= :head OR event_id = :event",
                {"#head": "head"},
                {":head": {"S": head}, ":event": {"S": event_id}},
            ),
        )
        try:
            await self._store.change(update)
        except ConditionFailed:
            return
        logger.warning(
            "The message group %r of %s waits behind message %s, which was given up.",
            delivery.group_id,
            consumer,
            delivery.message_id,
        )

    async def _park(self, key: ItemKey, consumer: str, delivery: Delivery, event_id: str) -> bool:
        """Whether it is parked now; `False` if the block is not there any more."""
        here = position(delivery)
        one_more = Update(
            key,
            "SET waiting = waiting + :one",
            {},
            {":one": {"N": "1"}},
            Condition(
                "attribute_exists(pk) AND #head < :here", {"#head": "head"}, {":here": {"S": here}}
            ),
        )
        parts = _items(consumer, delivery, event_id)
        free = Condition("attribute_not_exists(pk)")
        actions: list[Action] = [one_more, *(Put(self._table, item, free) for item in parts)]
        try:
            await self._store.transact(actions, token=str(self._randomness.uuid()))
        except TransactionCanceled as error:
            failed = [reason is not None and reason.code != "None" for reason in error.reasons]
            codes = {reason.code for reason in error.reasons if reason is not None} - {"None"}
            if codes != {"ConditionalCheckFailed"}:
                raise
            # It stands there already: the process died, or was not answered, before the delete.
            return not failed[0]
        return True


# --- as it stands in the table ---------------------------------------------------------


def shard_pk(consumer: str, number: int) -> str:
    return f"blocked#{consumer}#{number}"


def block_key(table: str, consumer: str, group: str) -> ItemKey:
    # Not `hash`, which differs from process to process.
    return ItemKey(table, shard_pk(consumer, crc32(group.encode()) % SHARDS), group)


def block_of(consumer: str, item: Item) -> Block:
    return Block(
        consumer=consumer,
        group=item["sk"]["S"],
        head=item["head"]["S"],
        turn=item["turn"]["S"],
        event_id=item["event_id"]["S"],
        message_id=item["message_id"]["S"],
        waiting=int(item["waiting"]["N"]),
        since=datetime.fromisoformat(item["since"]["S"]),
        reason=item["reason"]["S"],
        last=item["last"]["S"] if "last" in item else None,
        released="released" in item,
    )


def parked_pk(consumer: str, group: str) -> str:
    return f"parked#{consumer}#{group}"


def _items(consumer: str, delivery: Delivery, event_id: str) -> list[Item]:
    """The message, in as many items as its body needs."""
    body = delivery.body.encode()
    parts = [body[i : i + _PART_BYTES] for i in range(0, max(len(body), 1), _PART_BYTES)]
    pk, where = parked_pk(consumer, delivery.group_id or ""), position(delivery)
    items: list[Item] = [
        {"pk": {"S": pk}, "sk": {"S": f"{where}#{number:02}"}, "body": {"B": part}}
        for number, part in enumerate(parts)
    ]
    items[0] |= {
        "message": {"S": orjson.dumps(_envelope(delivery)).decode()},
        "message_id": {"S": original_id(delivery)},
        "event_id": {"S": event_id},
    }
    return items


def _envelope(delivery: Delivery) -> dict[str, Any]:
    """What stands beside the body, without what an earlier replay noted."""
    return {
        "group_id": delivery.group_id,
        "trace_header": delivery.trace_header,
        "attributes": {
            name: {"type": attribute.type, **_written(attribute.value)}
            for name, attribute in delivery.attributes.items()
            if name != NOTE_ATTRIBUTE
        },
    }


def _written(value: str | bytes) -> dict[str, str]:
    return {"text": value} if isinstance(value, str) else {"base64": b64encode(value).decode()}
