"""Sending letters back to the queue they came from."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from headrace.coalesce import Coalescer
from headrace.dead_letter import NOTE_ATTRIBUTE, redrive_note
from headrace.dlq.letters import Letter
from headrace.entries import answers
from headrace.errors import TooLarge
from headrace.limits import SQS_ATTRIBUTES, SQS_BATCH_ENTRIES, SQS_MESSAGE_BYTES
from headrace.parking import message_size
from headrace.ports import Delivery, QueueEntry, Queues

_DIGEST: Final = 32
"""Characters of a digest of the body in a deduplication id, which has room for 128."""


def copy_of(letter: Letter, run: str) -> QueueEntry:
    """The message to send back: as the letter is, with a note that names the run. Raises `TooLarge`
    if there is no room for that note, without which the message might be taken for another.

    SQS swallows what comes within five minutes under one deduplication id: the same copy again, and
    not one with another body.
    """
    delivery = letter.delivery
    entry = QueueEntry(
        body=delivery.body,
        group_id=delivery.group_id,
        deduplication_id=_deduplication_id(delivery) if delivery.fifo else None,
        trace_header=delivery.trace_header,
        attributes={**delivery.attributes, NOTE_ATTRIBUTE: redrive_note(delivery, run)},
    )
    if len(entry.attributes) > SQS_ATTRIBUTES:
        raise TooLarge(
            f"Letter {letter.original_id} has ten attributes of its own, so there is none left for "
            "the note that a redriven message carries: send it back with --all.",
            size=len(entry.attributes),
            limit=SQS_ATTRIBUTES,
        )
    if (size := _weight(entry)) > SQS_MESSAGE_BYTES:
        raise TooLarge(
            f"Letter {letter.original_id} has {size:,} bytes with the note that a redriven message "
            f"carries, and SQS takes {SQS_MESSAGE_BYTES:,}: send it back with --all.",
            size=size,
            limit=SQS_MESSAGE_BYTES,
        )
    return entry


async def send_back(
    queues: Queues, entries: Mapping[str, QueueEntry], queue: str
) -> dict[str, BaseException]:
    """Send messages to a queue, as many to a call as it takes; returns what did not go, and why, by
    the same keys. Of an entry whose answer was lost it is not known whether it stands."""

    async def call(some: Sequence[QueueEntry]) -> list[Exception | None]:
        return await answers(some, partial(queues.send, queue))

    sending: Coalescer[QueueEntry, None] = Coalescer(
        call, max_entries=SQS_BATCH_ENTRIES, max_weight=SQS_MESSAGE_BYTES, weigh=_weight
    )
    sent = await asyncio.gather(*map(sending.add, entries.values()), return_exceptions=True)
    return {
        key: error
        for key, error in zip(entries, sent, strict=True)
        if isinstance(error, BaseException)
    }


def _deduplication_id(delivery: Delivery) -> str:
    digest = hashlib.sha256(delivery.body.encode()).hexdigest()
    return f"{delivery.message_id}-{digest[:_DIGEST]}"


def _weight(entry: QueueEntry) -> int:
    return message_size(entry.body, entry.attributes)
