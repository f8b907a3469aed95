"""Why a letter is there that nobody wrote a note on: SQS moved it by itself.

What is said here is put together afterwards, from the inbox records and from the logs if there are
any, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from headrace.dlq.letters import Letter
from headrace.dlq.records import Standing
from headrace.limits import SQS_ATTRIBUTES, SQS_MESSAGE_BYTES
from headrace.parking import message_size
from headrace.record import Record, Status
from headrace.text import counted, shown

_TELLING: Final = ("WARNING", "ERROR", "CRITICAL")

_NOTE_BYTES: Final = 4_000
"""About what a note has at most."""


@dataclass(frozen=True, slots=True)
class Logged:
    """The last thing that the logs say against a message."""

    message: str
    error: str | None = None


def read_logs(lines: Iterable[str]) -> dict[str, Logged]:
    """The last warning or error about each message, by its id, from headrace's JSON logs. What is
    no such line is passed over."""
    found: dict[str, Logged] = {}
    for line in lines:
        fields = _parsed(line)
        message_id, message = fields.get("message_id"), fields.get("message")
        if fields.get("level") in _TELLING and isinstance(message_id, str):
            found[message_id] = Logged(shown(str(message)), _error(fields.get("exception")))
    return found


def reconstructed(
    letter: Letter, standing: Standing, logs: Mapping[str, Logged], receives: int
) -> Letter:
    """The letter with a reason, as far as one can be found. A letter that has one is left as it
    is."""
    if letter.reason:
        return letter
    logged = logs.get(letter.id) or logs.get(letter.original_id)
    parts = [_how(letter, receives)]
    parts += [letter.unreadable] if letter.unreadable else []
    parts += [_said(name, record) for name, record in standing.records.items()]
    if not standing.records and not letter.unreadable:
        parts.append("None of its handlers keeps a record of what it has done.")
    if letter.note.before:
        parts.append(f"Before it was redriven: {letter.note.before}")
    if logged is not None:
        parts.append(f"The last in the logs: {logged.message}")
    error = logged.error if logged else None
    return replace(letter, reason=shown(" ".join(parts)), reconstructed=True, error=error)


def _how(letter: Letter, receives: int) -> str:
    delivery = letter.delivery
    size = message_size(delivery.body, delivery.attributes)
    if len(delivery.attributes) == SQS_ATTRIBUTES or size > SQS_MESSAGE_BYTES - _NOTE_BYTES:
        return (
            f"It has no room for a note: headrace gave it up, or SQS moved it after {receives} "
            "receives."
        )
    return f"SQS moved it after {receives} receives, and nobody wrote down why."


def _said(consumer: str, record: Record | None) -> str:
    if record is None:
        return (
            f"{consumer} has not committed it: it failed, was cut short, or its process ended each "
            "time."
        )
    match record.status:
        case Status.LEASED:
            times = counted(record.failures, "time")
            return f"{consumer} failed {times} under its lease, and did not commit."
        case Status.PENDING:
            return f"{consumer} committed it: its effects stand, its messages may not be out."
        case Status.DONE:
            return (
                f"{consumer} has done it: it was received too often, or its deletes did not reach "
                "SQS."
            )


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _error(exception: object) -> str | None:
    """The type of a logged exception, without its module."""
    name = exception.get("type") if isinstance(exception, dict) else None
    return name.rpartition(".")[2] if isinstance(name, str) else None
