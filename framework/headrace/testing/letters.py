"""Dead letters, as a test looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.errors import DecodeError
from headrace.events import Message
from headrace.outcome import DeadLetter, Retry
from headrace.ports import Delivery, QueueEntry
from headrace.service import Service


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in a dead-letter queue, and why it is there.

    `queue` is the one it came from. `handler` and `error` are the handler that gave it up and what
    it raised, if one did; `message` is what the body says, if it can be read. `attempts` counts
    receives.
    """

    queue: str
    body: str
    reason: str
    attempts: int
    handler: str | None = None
    error: BaseException | None = None
    correlation_id: str | None = None
    message: Message | None = None

    def __str__(self) -> str:
        who = f", given up by {self.handler}" if self.handler else ""
        name = name_of(self.body)
        return f"{name[0].upper()}{name[1:]} from the queue {self.queue!r}{who}: {self.reason}"


def letter_of(
    service: Service, queue: str, entry: QueueEntry, last: Retry | DeadLetter | None = None
) -> Letter:
    """The letter that a message in the dead-letter queue of `queue` is; `last` is what became of
    it when it was handled the last time, as far as that is known."""
    note = _note_on(entry)
    most = service.queue_settings.max_receive_count
    why = f": {last.reason}" if last else "."
    return Letter(
        queue=queue,
        body=entry.body,
        reason=note.get("reason")
        or f"SQS moved it after {most} receives, none of which settled it{why}",
        attempts=note.get("attempts") or most,
        handler=note.get("handler") or (last.handler if last else None),
        error=last.error if last else None,
        correlation_id=note.get("correlation_id"),
        message=_message_in(service, queue, entry),
    )


def _message_in(service: Service, queue: str, entry: QueueEntry) -> Message | None:
    delivery = Delivery("unknown", "", entry.body, queue, attributes=entry.attributes)
    try:
        return service.codec(queue).decode(delivery).message
    except DecodeError:
        return None


def name_of(body: str) -> str:
    """What a body says it is."""
    try:
        wire = from_json(body)
    except ValueError:
        return "a body that is not JSON"
    name = wire.get("detail-type") if isinstance(wire, dict) else None
    return name if isinstance(name, str) else "a body without a detail-type"


def _note_on(entry: QueueEntry) -> dict[str, Any]:
    """What headrace wrote beside a dead letter; nothing, if SQS moved it."""
    attribute = entry.attributes.get(NOTE_ATTRIBUTE)
    note = None if attribute is None else from_json(attribute.value)
    return note if isinstance(note, dict) else {}
