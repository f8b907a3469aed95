"""The note on a dead letter: written when a message is given up, read when it is redriven."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import CodeType
from typing import Any, Final

import orjson

from headrace.outcome import DeadLetter
from headrace.ports import Attribute, Delivery
from headrace.text import shown, xml_legal

NOTE_ATTRIBUTE = "headrace"
"""The one message attribute that says why a message is in a dead-letter queue, as JSON. One,
because a message has room for ten and its sender may have used nine."""

FRAMES: Final = 8
"""How many places in the user's code a note names, the innermost ones."""

_FRAMEWORK: Final = f"{Path(__file__).parent}{os.sep}"
_CALLS_HANDLERS: Final = str(Path(__file__).with_name("invoke.py"))


@dataclass(frozen=True, slots=True)
class Note:
    """What the note on a message says; `None` for what it does not say, or not in a form that can
    be read.

    `reason` is missing on a message that was redriven and not given up by headrace since; what was
    the matter with it then is in `before`. `redrive` names the run that sent it back. `frames` are
    places in the user's code as "file.py:function", the innermost one last. `first_time` is when
    the message was first sent.
    """

    reason: str | None = None
    handler: str | None = None
    queue: str | None = None
    attempts: int | None = None
    message_id: str | None = None
    sequence: str | None = None
    first_time: datetime | None = None
    last_time: datetime | None = None
    correlation_id: str | None = None
    error: str | None = None
    digest: str | None = None
    frames: tuple[str, ...] = ()
    redrive: str | None = None
    before: str | None = None

    @classmethod
    def of(cls, delivery: Delivery) -> Note | None:
        """The note on a message; `None` if it has none, or one that somebody else wrote."""
        fields = _fields(delivery)
        if fields is None:
            return None
        earlier = _object(fields.get("before"))
        return cls(
            reason=_text(fields, "reason"),
            handler=_text(fields, "handler"),
            queue=_text(fields, "queue"),
            attempts=_whole(fields, "attempts"),
            message_id=_text(fields, "message_id"),
            sequence=_text(fields, "sequence"),
            first_time=_time(fields, "first_time") or _time(earlier, "first_time"),
            last_time=_time(fields, "last_time"),
            correlation_id=_text(fields, "correlation_id"),
            error=_text(fields, "error"),
            digest=_text(fields, "digest"),
            frames=_texts(fields, "frames"),
            redrive=_text(fields, "redrive"),
            before=_text(earlier, "reason"),
        )


def note(delivery: Delivery, outcome: DeadLetter, now: datetime) -> Attribute:
    """Why, by whom and after what a message was given up."""
    error = outcome.error
    return _attribute(
        {
            "reason": shown(outcome.reason),
            "handler": outcome.handler,
            "queue": delivery.queue,
            "attempts": delivery.receive_count,
            "message_id": original_id(delivery),
            "sequence": noted(delivery, "sequence") or delivery.sequence,
            "first_time": _first_time(delivery),
            "last_time": now,
            "correlation_id": outcome.correlation_id,
            "error": shown(type(error).__name__) if error else None,
            "digest": digest(error) if error else None,
            "frames": frames(error)[-FRAMES:] if error else None,
            "redrive": noted(delivery, "redrive") if is_redriven(delivery) else None,
        }
    )


def redrive_note(letter: Delivery, run: str) -> Attribute:
    """What goes with the copy that a redrive sends back: what the message is known by, the run
    that sends it, and what was the matter with it before."""
    known = Note.of(letter) or Note()
    return _attribute(
        {
            "message_id": original_id(letter),
            "sequence": known.sequence,
            "redrive": run,
            "before": {
                "reason": known.reason or known.before,
                "attempts": known.attempts,
                "first_time": _first_time(letter),
                "last_time": known.last_time,
            },
        }
    )


def is_redriven(delivery: Delivery) -> bool:
    """Whether `headrace dlq redrive` sent this message back. Such a delivery gets one attempt: its
    run waits for it, and stops at the first that fails. A letter that SQS moved back is none: it
    carries the note of when it was given up."""
    return noted(delivery, "redrive") is not None and noted(delivery, "reason") is None


def original_id(delivery: Delivery) -> str:
    """The message id under which a message first came. A copy in a dead-letter queue, and so
    its redelivery after a redrive, is a new message to SQS."""
    return noted(delivery, "message_id") or delivery.message_id


def noted(delivery: Delivery, name: str) -> str | None:
    """What the note on a message says, if it has one, in a field that holds text."""
    return _text(_fields(delivery), name)


def digest(error: BaseException) -> str:
    """A short name for "the same failure": the exception's type and the frames of the
    user's code, without line numbers, so that it survives an unrelated edit."""
    text = "\n".join([shown(type(error).__name__), *frames(error)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def frames(error: BaseException) -> list[str]:
    """The places that an exception passed from the call of a handler on, without those of headrace
    itself; the innermost one last. None, if it was raised after the handler: by the commit, or by
    what refuses to send a message."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [
        shown(f"{Path(code.co_filename).name}:{code.co_name}")
        for code in _within_the_handler(codes)
        if not _is_headraces(code)
    ]


def _within_the_handler(codes: Sequence[CodeType]) -> Sequence[CodeType]:
    called = [number for number, code in enumerate(codes) if code.co_filename == _CALLS_HANDLERS]
    if called:
        return codes[called[-1] + 1 :]
    # What a task of the handler raised, out of a group, begins in that task.
    return () if codes and _is_headraces(codes[0]) else codes


def _is_headraces(code: CodeType) -> bool:
    return code.co_filename.startswith(_FRAMEWORK)


# --- reading and writing ---------------------------------------------------------------


def _attribute(fields: Mapping[str, Any]) -> Attribute:
    return Attribute(xml_legal(orjson.dumps(fields).decode()), "String.json")


def _fields(delivery: Delivery) -> dict[str, Any] | None:
    attribute = delivery.attributes.get(NOTE_ATTRIBUTE)
    if attribute is None:
        return None
    try:
        return _object(orjson.loads(attribute.value))
    except orjson.JSONDecodeError:
        return None


def _object(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _text(fields: Mapping[str, Any] | None, name: str) -> str | None:
    found = None if fields is None else fields.get(name)
    return found if isinstance(found, str) else None


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = fields.get(name)
    return tuple(filter(_is_text, found)) if isinstance(found, list) else ()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _whole(fields: Mapping[str, Any], name: str) -> int | None:
    found = fields.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _time(fields: Mapping[str, Any] | None, name: str) -> datetime | None:
    text = _text(fields, name)
    try:
        found = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def _first_time(delivery: Delivery) -> datetime | None:
    known = Note.of(delivery)
    return (known.first_time if known else None) or delivery.sent_at
