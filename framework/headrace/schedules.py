"""What EventBridge Scheduler can carry into a queue. Every adapter asks before it calls, so that
nothing is lost at a time when nobody is there to hear of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from headrace.errors import Refused
from headrace.limits import SQS_MESSAGE_BYTES
from headrace.ports import QueueEntry
from headrace.text import shown

NAME_CHARACTERS: Final = 64
"""How long the name of a schedule may be."""
_NAME: Final = re.compile("[0-9A-Za-z_.-]+")
"""What it may be made of: the pattern of CreateSchedule."""
_REPLACED: Final = "<aws.scheduler."
"""How keywords begin that Scheduler replaces in a body, such as `<aws.scheduler.execution-id>`."""
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FIFO_SUFFIX: Final = ".fifo"


def require_name(name: str, operation: str, taken: int = 0) -> None:
    """Raises `Refused` unless a schedule can have this name; `taken` is how many of its
    characters the namespace takes."""
    room = NAME_CHARACTERS - taken
    if len(name) > room or not _NAME.fullmatch(name):
        allowed = f"a name has 1 to {room} characters, of letters, digits, '-', '_' and '.'"
        raise _refused(name, allowed, operation)


def require_schedulable(
    name: str, at: datetime, queue: str, entry: QueueEntry, *, now: datetime, taken: int = 0
) -> None:
    """Raises `Refused`, with what to do about it, unless Scheduler carries this message."""
    require_name(name, "CreateSchedule", taken)
    for reason in (*_of_time(at, now), *_of_queue(queue, entry), *_of_entry(entry)):
        raise _refused(name, reason, "CreateSchedule")


def _of_time(at: datetime, now: datetime) -> Iterator[str]:
    if at.tzinfo is None:
        yield "its time has no time zone; give an aware datetime"
    elif at <= now:
        # CreateSchedule takes it, and nothing says whether its message then ever comes.
        yield f"its time, {at.isoformat()}, has passed; send the message to the queue instead"


def _of_queue(queue: str, entry: QueueEntry) -> Iterator[str]:
    fifo = queue.endswith(_FIFO_SUFFIX)
    if fifo and entry.group_id is None:
        yield f"a message for the FIFO queue {queue!r} needs a group_id"
    if not fifo and entry.group_id is not None:
        yield f"a group goes to a FIFO queue only, and {queue!r} is none; leave group_id out"


def _of_entry(entry: QueueEntry) -> Iterator[str]:
    if entry.delay:
        yield "a schedule has no delay of its own; add it to the time"
    if entry.attributes:
        yield "Scheduler sends no message attributes; put them into the body"
    if entry.trace_header is not None:
        yield "Scheduler sends no trace header; put the trace into the body"
    if entry.deduplication_id is not None:
        yield "Scheduler sends no deduplication id; let the queue derive it from the body"
    yield from _of_body(entry.body)


def _of_body(body: str) -> Iterator[str]:
    if not body:
        yield "its body is empty"
    if _NOT_XML.search(body):
        yield "its body has characters that SQS does not take; escape them"
    elif len(body.encode()) > SQS_MESSAGE_BYTES:
        yield f"its body has more than the {SQS_MESSAGE_BYTES} bytes that SQS takes"
    if _REPLACED in body:
        yield f"Scheduler would replace what begins with {_REPLACED!r} in its body; escape the '<'"


def _refused(name: str, reason: str, operation: str) -> Refused:
    return Refused(
        f"{operation} of {shown(name)!r} would be refused, or its message lost: {reason}.",
        operation=operation,
        code="ValidationException",
    )
