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

A message that has to wait and could not be sent again, or that cannot be parked and will not come
again, is a dead letter at once, and what is parked in its place says so. When a replay comes to
that place the group is blocked by this message, so nothing behind it overtakes it.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from zlib import crc32

import orjson

from headrace.dead_letter import NOTE_ATTRIBUTE, Note, noted, original_id
from headrace.errors import (
    CommitError,
    ConditionFailed,
    Conflict,
    TransactionCanceled,
)
from headrace.limits import SQS_ATTRIBUTES, SQS_MESSAGE_BYTES
from headrace.outcome import Ack, DeadLetter
from headrace.ports import (
    Action,
    Attribute,
    Check,
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
from headrace.text import shown, xml_legal

logger = logging.getLogger(__name__)

SHARDS: Final = 8
"""Partitions for the blocks of one consumer, as every delivery looks whether its group has one."""

_PART_BYTES: Final = 300_000
"""Of a message, in one item: an item may have 400 KB, a message 1 MiB."""

_DIGITS: Final = 40
"""SQS's sequence numbers have 128 bits; padded, they sort as text."""

_ATTEMPTS: Final = 3

_SOME_TURN: Final = "00000000-0000-0000-0000-000000000000"
"""As long as any, to see whether a note has room."""

SET_HEAD: Final = (
    "SET #head = :head, #turn = :turn, event_id = :event, message_id = :message, #since = :since, "
    "reason = :reason"
)
FORGET_TURN: Final = "REMOVE #last, released"
HEAD_NAMES: Final = {"#head": "head", "#turn": "turn", "#since": "since", "#last": "last"}
"""How a block gets another head, and what is forgotten then."""


class Unplaced(CommitError):
    """SQS did not say where in its group a message stands."""


@dataclass(frozen=True, slots=True)
class Block:
    """A message group that waits for the message at its head, which was given up for a `reason`.

    `head` is its position, `event_id` and `message_id` name it; `turn` is new whenever a head is
    given up; `waiting` counts what is parked. It came from `queue`. Once the head was dealt with
    the block is `released`: what waits is replayed, the `last` of it being this event.
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
    queue: str | None = None

    def keeps(self, delivery: Delivery, event_id: str) -> bool:
        """Whether a delivery has to wait: it stands behind the head, and is not being replayed.
        The head itself may come back without its place, when SQS moved it."""
        behind = event_id != self.event_id and position(delivery) > self.head
        return behind and noted(delivery, "turn") != self.turn

    def gives_up(self, delivery: Delivery, event_id: str) -> bool:
        """Whether a delivery is the head that was given up, and whose letter was not written, or
        which was not deleted then. Whoever sends a letter back makes a new message of it."""
        same = delivery.message_id == self.message_id and event_id == self.event_id
        return same and not self.released


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


class _Standing(NamedTuple):
    """What a transaction found in its way: whether it was what its `first` action asks for, and an
    item where it wanted to put another."""

    first: bool
    item: Item


_FREE: Final = Condition("attribute_not_exists(pk)")


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

        One that has to wait behind another message is parked, and may be deleted then; if it could
        not be sent again as it is, it is a dead letter, and its place is kept. One that was given
        up before is given up again: those behind it may be parked by now. Raises `CloudError`, and
        `Conflict` when the group is being replayed at this moment.
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
            reason = _unfit(consumer, delivery)
            items = self._items(consumer, delivery, event_id, reason)
            if await self._park(key, items, position(delivery)):
                return Ack(parked=True) if reason is None else DeadLetter(reason, consumer)
        raise _unsettled(delivery)

    async def block(self, consumer: str, delivery: Delivery, event_id: str, reason: str) -> None:
        """What stands behind this message in its group waits for it from now on, or as soon as what
        blocks the group already is done. To be called before the message can leave the queue.
        Raises `CloudError`, and `Conflict` when the group is being replayed at this moment."""
        key = block_key(self._table, consumer, delivery.group_id or "")
        for _ in range(_ATTEMPTS):
            try:
                await self._store.change(self._blocked(key, delivery, event_id, reason))
            except ConditionFailed as error:
                if error.item is None:
                    continue
                if block_of(consumer, error.item).head >= position(delivery):
                    # What waits stands behind this one as well.
                    return
                items = self._items(consumer, delivery, event_id, shown(reason))
                if await self._park(key, items, position(delivery)):
                    return
            else:
                _log_blocked(consumer, delivery)
                return
        raise _unsettled(delivery)

    def _blocked(self, key: ItemKey, delivery: Delivery, event_id: str, reason: str) -> Update:
        values: Item = {
            ":head": {"S": position(delivery)},
            ":turn": {"S": str(self._randomness.uuid())},
            ":event": {"S": event_id},
            ":message": {"S": delivery.message_id},
            ":since": {"S": self._now()},
            ":reason": {"S": shown(reason)},
            ":queue": {"S": delivery.queue},
            ":none": {"N": "0"},
        }
        return Update(
            key,
            f"{SET_HEAD}, #queue = :queue, waiting = if_not_exists(waiting, :none) {FORGET_TURN}",
            {**HEAD_NAMES, "#queue": "queue"},
            values,
            # One that is given up again ends the turn of what was replayed behind it, and so does
            # one that was replayed.
            Condition(
                "attribute_not_exists(pk) OR event_id = :event OR #turn = :replayed",
                {"#turn": "turn"},
                {
                    ":event": {"S": event_id},
                    ":replayed": {"S": noted(delivery, "turn") or _SOME_TURN},
                },
            ),
            return_old=True,
        )

    def _now(self) -> str:
        return self._clock.now().astimezone(UTC).isoformat()

    def _items(
        self, consumer: str, delivery: Delivery, event_id: str, reason: str | None
    ) -> list[Item]:
        """The message, in as many items as it needs; only its place, if it is a dead letter for
        this `reason`."""
        pk, where = parked_pk(consumer, delivery.group_id or ""), position(delivery)
        known: Item = {"event_id": {"S": event_id}}
        if reason is None:
            parts = _parts(delivery)
            known |= {"message_id": {"S": original_id(delivery)}}
        else:
            parts = [b""]
            known |= {
                "message_id": {"S": delivery.message_id},
                "reason": {"S": reason},
                "since": {"S": self._now()},
            }
        items: list[Item] = [
            {"pk": {"S": pk}, "sk": {"S": f"{where}#{number:02}"}, "content": {"B": part}}
            for number, part in enumerate(parts)
        ]
        items[0] |= {**known, "parts": {"N": str(len(parts))}}
        return items

    async def _park(self, key: ItemKey, items: list[Item], here: str) -> bool:
        """Whether it is parked now; `False` if the block is not there any more."""
        blocked = Condition(
            "attribute_exists(pk) AND #head < :here", {"#head": "head"}, {":here": {"S": here}}
        )
        one_more = Update(key, "SET waiting = waiting + :one", {}, {":one": {"N": "1"}}, blocked)
        puts = [Put(self._table, item, _FREE, return_old=True) for item in items]
        actions: list[Action] = [one_more, *puts]
        while True:
            standing = await self._unless_standing(actions)
            if standing is None:
                return True
            if standing.first or not standing.item:
                return False
            if "reason" not in standing.item or "reason" in items[0]:
                # The process died, or was not answered, before the delete.
                return True
            # Only its place was kept, as it was a dead letter; now it comes back to wait in it.
            in_place = replace(puts[0], condition=Condition("attribute_exists(reason)"))
            actions = [Check(key, blocked), in_place, *puts[1:]]

    async def _unless_standing(self, actions: Sequence[Action]) -> _Standing | None:
        """Write all of it, unless a condition does not hold: then which."""
        try:
            await self._store.transact(actions, token=str(self._randomness.uuid()))
        except TransactionCanceled as error:
            failed = [reason is not None and reason.code != "None" for reason in error.reasons]
            codes = {reason.code for reason in error.reasons if reason is not None} - {"None"}
            if codes != {"ConditionalCheckFailed"}:
                raise
            items = (reason.item for reason in error.reasons[1:] if reason and reason.item)
            return _Standing(failed[0], next(items, {}))
        return None


def _unsettled(delivery: Delivery) -> Conflict:
    return Conflict(
        f"The message group {delivery.group_id!r} was blocked and freed again while message "
        f"{delivery.message_id} was to be parked."
    )


def _log_blocked(consumer: str, delivery: Delivery) -> None:
    logger.warning(
        "The message group %r of %s waits behind message %s, which was given up.",
        delivery.group_id,
        consumer,
        delivery.message_id,
    )


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
        queue=item["queue"]["S"] if "queue" in item else None,
    )


def parked_pk(consumer: str, group: str) -> str:
    return f"parked#{consumer}#{group}"


def _parts(delivery: Delivery) -> list[bytes]:
    """The message as bytes: what stands beside the body, a line end, the body. JSON has no line end
    of its own here."""
    content = orjson.dumps(_beside(delivery)) + b"\n" + delivery.body.encode()
    return [content[start : start + _PART_BYTES] for start in range(0, len(content), _PART_BYTES)]


def _beside(delivery: Delivery) -> dict[str, Any]:
    """What stands beside the body. Of the note of an earlier replay or redrive, only what was known
    of the message before it is kept."""
    return {
        "group_id": delivery.group_id,
        "trace_header": delivery.trace_header,
        "earlier": _earlier(delivery),
        "attributes": {
            name: {"type": attribute.type, **_written(attribute.value)}
            for name, attribute in delivery.attributes.items()
            if name != NOTE_ATTRIBUTE
        },
    }


def _earlier(delivery: Delivery) -> dict[str, Any]:
    """When the message was first sent, and what was the matter with it if it was redriven."""
    known = Note.of(delivery) or Note()
    earlier: dict[str, Any] = {"first_time": known.first_time or delivery.sent_at}
    if reason := known.reason or known.before:
        earlier["before"] = {"reason": reason, "last_time": known.last_time}
    return earlier


def _written(value: str | bytes) -> dict[str, str]:
    return {"text": value} if isinstance(value, str) else {"base64": b64encode(value).decode()}


# --- as it is sent again -----------------------------------------------------------------


def replay_note(
    consumer: str, message_id: str, where: str, turn: str, earlier: Mapping[str, Any]
) -> Attribute:
    """What goes with a parked message that is sent again: for whom, in which turn, what it is known
    by and where it stands."""
    note = {
        "message_id": message_id,
        "sequence": where,
        "turn": turn,
        "consumer": consumer,
        **earlier,
    }
    return Attribute(xml_legal(orjson.dumps(note).decode()), "String.json")


def message_size(body: str, attributes: Mapping[str, Attribute]) -> int:
    """Bytes as SQS counts a message: its body, and its attributes by name, type and value."""
    return len(body.encode()) + sum(map(_attribute_size, attributes.items()))


def _attribute_size(named: tuple[str, Attribute]) -> int:
    name, attribute = named
    value = attribute.value.encode() if isinstance(attribute.value, str) else attribute.value
    return len(name.encode()) + len(attribute.type.encode()) + len(value)


def _unfit(consumer: str, delivery: Delivery) -> str | None:
    """Why a message could not be sent again with the note that a parked one needs; `None` if it
    could."""
    note = replay_note(
        consumer, original_id(delivery), position(delivery), _SOME_TURN, _earlier(delivery)
    )
    attributes = {**delivery.attributes, NOTE_ATTRIBUTE: note}
    if len(attributes) > SQS_ATTRIBUTES:
        why = "It has ten attributes of its own, so there is none left for the note"
    elif (size := message_size(delivery.body, attributes)) > SQS_MESSAGE_BYTES:
        why = f"SQS takes {SQS_MESSAGE_BYTES:,} bytes, and it would have {size:,} with the note"
    else:
        return None
    return (
        f"{why} with which a parked message is sent again. It came behind a message of its group "
        "that was given up, and those behind it wait for it."
    )
