"""A dead letter: what it is, who would take it, and why it is there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from headrace.dead_letter import Note, original_id
from headrace.errors import DecodeError
from headrace.events import Message, contract_of
from headrace.ports import Delivery
from headrace.service import Handler, Service


@dataclass(frozen=True, slots=True)
class Letter:
    """One message in a dead-letter queue.

    `delivery` is the message as it was received from there, and `source` the queue it goes back
    to. `name`, `version`, `event_id` and `correlation_id` are what its body says it is; a body that
    cannot be decoded has no `message` and no takers, and `unreadable` says why. `takers` are the
    handlers that would get it. `reason` is `reconstructed` if nobody wrote it down when the message
    was given up.
    """

    delivery: Delivery
    source: str
    note: Note
    name: str | None = None
    version: int | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    message: Message | None = None
    unreadable: str | None = None
    takers: tuple[Handler, ...] = ()
    reason: str = ""
    reconstructed: bool = False
    error: str | None = None

    @property
    def id(self) -> str:
        """What SQS calls this message."""
        return self.delivery.message_id

    @property
    def original_id(self) -> str:
        """What SQS called the message that it is a copy of, and what the logs call it."""
        return original_id(self.delivery)

    @property
    def handler(self) -> str | None:
        """Who gave it up, or if that is not known, the only one who takes it."""
        if self.note.handler or len(self.takers) != 1:
            return self.note.handler
        return self.takers[0].consumer

    @property
    def first_time(self) -> datetime | None:
        return self.note.first_time or self.delivery.sent_at

    @property
    def last_time(self) -> datetime | None:
        """When it was given up, as far as that is known."""
        return self.note.last_time or self.delivery.sent_at

    @property
    def order(self) -> tuple[str, str]:
        """What letters of one message group are sorted by: their place when first sent."""
        sequence = self.note.sequence or self.delivery.sequence or ""
        first = self.first_time
        return sequence.zfill(40), "" if first is None else first.isoformat()

    def as_json(self) -> dict[str, Any]:
        """What a list says of it, ready for JSON; nothing of its payload."""
        return {
            "id": self.original_id,
            "letter_id": self.id,
            "queue": self.source,
            "event": self.name,
            "version": self.version,
            "event_id": self.event_id,
            "correlation_id": self.correlation_id,
            "handler": self.handler,
            "error": self.error,
            "reason": self.reason,
            "reconstructed": self.reconstructed,
            "attempts": self.note.attempts,
            "frames": list(self.note.frames),
            "first_time": self.first_time,
            "last_time": self.last_time,
            "message_group": self.delivery.group_id,
            "redrive": self.note.redrive,
        }


def read_letter(service: Service, source: str, delivery: Delivery) -> Letter:
    """What a message in the dead-letter queue of `source` is. Its reason is empty if there is no
    note that has one."""
    note = Note.of(delivery) or Note()
    letter = Letter(
        delivery,
        source,
        note,
        correlation_id=note.correlation_id,
        reason=note.reason or "",
        error=note.error,
    )
    try:
        envelope = service.codec(source).decode(replace(delivery, queue=source))
    except DecodeError as error:
        name, version, event_id = _claimed(delivery.body)
        return replace(letter, name=name, version=version, event_id=event_id, unreadable=str(error))
    message, metadata = envelope.message, envelope.metadata
    _, version, _ = _claimed(delivery.body)
    return replace(
        letter,
        name=contract_of(message).name,
        version=version or metadata.version,
        event_id=metadata.id,
        correlation_id=metadata.correlation_id,
        message=message,
        takers=tuple(h for h in service.handlers_of(source) if h.accepts(message)),
    )


def _claimed(body: str) -> tuple[str | None, int | None, str | None]:
    """The name, the version and the id that a body gives itself, wherever it can be read."""
    try:
        wire = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, None, None
    if not isinstance(wire, dict):
        return None, None, None
    detail = wire.get("detail")
    metadata = (detail if isinstance(detail, dict) else wire).get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    name = wire.get("detail-type", metadata.get("type"))
    version, event_id = metadata.get("version"), metadata.get("id")
    return (
        name if isinstance(name, str) else None,
        version if isinstance(version, int) else None,
        event_id if isinstance(event_id, str) else None,
    )
