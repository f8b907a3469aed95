"""The note on a dead letter: written when a message is given up, read when it is redriven."""

from __future__ import annotations

import hashlib
import traceback
from datetime import datetime
from pathlib import Path

import orjson

from headrace.outcome import DeadLetter
from headrace.ports import Attribute, Delivery
from headrace.text import shown, xml_legal

NOTE_ATTRIBUTE = "headrace"
"""The one message attribute that says why a message is in a dead-letter queue, as JSON. One,
because a message has room for ten and its sender may have used nine."""

_FRAMEWORK = str(Path(__file__).parent)


def note(delivery: Delivery, outcome: DeadLetter, now: datetime) -> Attribute:
    """Why, by whom and after what a message was given up."""
    fields = {
        "reason": shown(outcome.reason),
        "handler": outcome.handler,
        "queue": delivery.queue,
        "attempts": delivery.receive_count,
        "message_id": original_id(delivery),
        "first_time": delivery.sent_at,
        "last_time": now,
        "correlation_id": outcome.correlation_id,
        "error": shown(type(outcome.error).__name__) if outcome.error else None,
        "digest": digest(outcome.error) if outcome.error else None,
    }
    return Attribute(xml_legal(orjson.dumps(fields).decode()), "String.json")


def original_id(delivery: Delivery) -> str:
    """The message id under which a message first came. A copy in a dead-letter queue, and so
    its redelivery after a redrive, is a new message to SQS."""
    attribute = delivery.attributes.get(NOTE_ATTRIBUTE)
    if attribute is None:
        return delivery.message_id
    try:
        fields = orjson.loads(attribute.value)
    except orjson.JSONDecodeError:
        return delivery.message_id
    found = fields.get("message_id") if isinstance(fields, dict) else None
    return found if isinstance(found, str) else delivery.message_id


def digest(error: BaseException) -> str:
    """A short name for "the same failure": the exception's type and the frames of the
    user's code, without line numbers, so that it survives an unrelated edit."""
    frames = traceback.extract_tb(error.__traceback__)
    spots = [f"{Path(f.filename).name}:{f.name}" for f in frames if _FRAMEWORK not in f.filename]
    text = "\n".join([type(error).__name__, *spots])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
