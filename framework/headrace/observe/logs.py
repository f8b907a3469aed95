"""Log lines that can be found again: as text for a person, as JSON for a query.

A line belongs to the delivery that is bound where it is formatted, and a handler of the log formats
it where it was logged: in the handler's task, thread, or a task that this started. Where a handler
of the log passes records on to another thread, put `DeliveryFields` on it. The other way would be
a record factory; there is one for the whole process, and it would cost every record of every
library, written or not.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, TypeAlias

import orjson
from pydantic import BaseModel

from headrace.context import log_fields
from headrace.envelope import Envelope
from headrace.events import Message
from headrace.observe.redaction import redacted
from headrace.observe.tracebacks import shortened
from headrace.observer import Observer
from headrace.text import shown

_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

MOST_BYTES: Final = 250_000
"""Of a line. CloudWatch Logs took events of 256 KB until 2025, and what carries lines there still
cuts longer ones into pieces, which are no JSON."""

_OWN: Final = ("timestamp", "level", "logger", "message", "exception", "stack")
_FIELDS: Final = "headrace_fields"


class LogSettings(Protocol):
    """The part of `ObserveSettings` that is about logs."""

    @property
    def logs(self) -> str: ...
    @property
    def log_level(self) -> str: ...


def configure(settings: LogSettings) -> None:
    """Have the process log as the settings say; once is enough, and again does no harm.

    On Lambda the runtime's handler writes the lines: for `json` it is given the format, and for
    `text` it stays as it is. Elsewhere lines go to stderr, as stdout is for metrics. Handlers of
    others stay. Where there are some, `text` leaves everything to them, and `json` adds its own.
    """
    root = logging.getLogger()
    runtimes = [handler for handler in root.handlers if _is_of_lambda(handler)]
    if runtimes and settings.logs == "text":
        return
    for runtime in runtimes:
        runtime.setFormatter(JsonFormatter(end="\n"))
    if not runtimes and not _writes_stderr(root, settings):
        return
    root.setLevel(settings.log_level)


def _writes_stderr(root: logging.Logger, settings: LogSettings) -> bool:
    """Whether lines go to stderr in our format from now on."""
    own = next((handler for handler in root.handlers if isinstance(handler, _Stderr)), None)
    if own is None:
        if root.handlers and settings.logs == "text":
            return False
        own = _Stderr()
        root.addHandler(own)
    own.setFormatter(JsonFormatter() if settings.logs == "json" else TextFormatter())
    return True


def _is_of_lambda(handler: logging.Handler) -> bool:
    return type(handler).__module__.partition(".")[0] == "awslambdaric"


class _Stderr(logging.Handler):
    """Writes to what is stderr at that moment, each line in one call."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        # Where it is closed, or a pipe that nobody reads, there is nobody to tell.
        with suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")


class DeliveryFields(logging.Filter):
    """Notes on a record which delivery it belongs to. For a handler that passes records on to be
    formatted elsewhere, such as a `QueueHandler`."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, _FIELDS):
            setattr(record, _FIELDS, log_fields())
        return True


def _fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    noted: Mapping[str, Any] | None = getattr(record, _FIELDS, None)
    return log_fields() if noted is None else noted


# --- text --------------------------------------------------------------------------------


class TextFormatter(logging.Formatter):
    """Time, level and message, and in brackets the correlation id if there is one. Of a traceback
    what is not headrace's own."""

    def __init__(self, format: str = "%(asctime)s %(levelname)s %(message)s") -> None:
        super().__init__(format)

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name, and its argument's
        kind, error, trace = ei
        return super().formatException(ei) if kind is None else shortened(kind, error, trace)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        line = super().formatMessage(record)
        correlation_id = _fields_of(record).get("correlation_id")
        return line if correlation_id is None else f"{line} [{_printable(correlation_id)}]"


def _printable(text: str) -> str:
    # A sender may have chosen it, and it must not look like a line of its own.
    return text if text.isprintable() else ascii(text)


# --- JSON --------------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    timestamp, level, logger and message; then which delivery it belongs to (service, queue,
    message_id, attempt, event, event_id, correlation_id, handler, trace_id, as far as they are
    known); then what was passed as `extra`; then exception (type, message, stack). A name of
    `extra` that the line has already gets an underscore at its end, unless it says the same.

    Nothing that is logged is an error here: a value that JSON has no form for is written as its
    `str`, and pydantic models without their sensitive fields. A line of more than `MOST_BYTES` is
    cut short, and says so: `"cut": true`. `end` is put behind each line.
    """

    def __init__(self, *, end: str = "") -> None:
        super().__init__()
        self._end = end

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": _timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            **_fields_of(record),
        }
        _add_extra(line, record)
        exception = self._exception(record)
        if exception is not None:
            line["exception"] = exception
        if record.stack_info:
            line["stack"] = record.stack_info
        return _bounded(line) + self._end

    def _exception(self, record: logging.LogRecord) -> dict[str, str] | None:
        info = record.exc_info
        if isinstance(info, tuple) and info[0] is not None:
            return self._described(info)
        # A handler that passes records on has made text of it.
        return {"stack": record.exc_text} if record.exc_text else None

    def _described(self, info: _ExcInfo) -> dict[str, str]:
        kind, error, _ = info
        of = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        return {
            "type": f"{of}{kind.__qualname__}",
            "message": _said(error),
            "stack": self._stack(info),
        }

    def _stack(self, info: _ExcInfo) -> str:
        try:
            return self.formatException(info)
        except Exception as error:
            return f"It cannot be shown: {type(error).__name__}."


def _timestamp(created: float) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    seconds, milliseconds = divmod(int(created * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def _message(record: logging.LogRecord) -> str:
    if isinstance(record.msg, _Payload):
        return record.msg.text
    try:
        return record.getMessage()
    except Exception:
        # What does not fit together is still worth reading.
        return f"{_said(record.msg)} {_said(record.args)}"


_STANDARD: Final = frozenset(
    [
        *logging.makeLogRecord({}).__dict__,
        *("message", "asctime", "taskName", "_frame_type", _FIELDS),
    ]
)
"""What a record has of itself, or of a formatter."""

_OF_LAMBDA: Final = frozenset(["aws_request_id", "tenant_id"])
"""What Lambda's runtime puts on every record, whether there is one or not."""


def _add_extra(line: dict[str, Any], record: logging.LogRecord) -> None:
    if isinstance(record.msg, _Payload):
        line["payload"] = record.msg.payload
    for name, value in record.__dict__.items():
        if name in _STANDARD or (name in _OF_LAMBDA and not value):
            continue
        if name not in line and name not in _OWN:
            line[name] = value
        elif line.get(name) != value:
            line[_free(name, line, record)] = value


def _free(name: str, line: Mapping[str, Any], record: logging.LogRecord) -> str:
    while name in line or name in _OWN or name in record.__dict__:
        name += "_"
    return name


# --- whatever was logged, as JSON --------------------------------------------------------


def _bounded(line: dict[str, Any]) -> str:
    text = _json(line)
    if len(text) * 4 > MOST_BYTES and len(text.encode()) > MOST_BYTES:
        text = _json({name: _cut(value) for name, value in line.items()} | {"cut": True})
    if len(text) * 4 > MOST_BYTES and len(text.encode()) > MOST_BYTES:
        kept = {name: _cut(line[name]) for name in ("exception", *_OWN) if name in line}
        text = _json(kept | {"cut": True})
    return text


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, dict) and value.keys() <= {"type", "message", "stack"}:
        return {name: shown(text) for name, text in value.items()}
    text = _json(value)
    return value if len(text) <= 1_000 else shown(text)


_BREAKS: Final = re.compile("[\x7f-\x9f\u2028\u2029]")
"""What ends a line for some readers, and what is no text; JSON escapes only the other half."""


def _json(value: Any) -> str:
    try:
        text = orjson.dumps(value, default=_plain).decode()
    except (TypeError, RecursionError):
        text = orjson.dumps(_tamed(value), default=_said).decode()
    if text.isascii():
        return text
    return _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(value: Any) -> Any:
    """What orjson has no form for."""
    if isinstance(value, BaseModel):
        try:
            return redacted(value)
        except Exception:
            return f"<{type(value).__name__}>"
    return _said(value)


_DEPTH: Final = 8


def _tamed(value: Any, depth: int = 0) -> Any:
    """The same, of nothing but what orjson takes for certain: no endless depth, no half of a
    surrogate pair, no integer of more than 64 bits, no key that is not text."""
    if value is None or type(value) in (bool, float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return int(value)
    if isinstance(value, BaseModel):
        value = _plain(value)
    if depth < _DEPTH and isinstance(value, dict):
        return {_said(name): _tamed(part, depth + 1) for name, part in value.items()}
    if depth < _DEPTH and isinstance(value, (list, tuple)):
        return [_tamed(part, depth + 1) for part in value]
    return _said(value)


def _said(value: object) -> str:
    """`str`, as text that has a UTF-8 form, whatever happens on the way."""
    try:
        return str(value).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return f"<{type(value).__name__}>"


# --- payloads ----------------------------------------------------------------------------

payloads: Final = logging.getLogger("headrace.payloads")


@dataclass(frozen=True, slots=True)
class _Payload:
    """A message of the log that is text for a person, and a field of its own in JSON."""

    text: str
    payload: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.text}: {_json(self.payload)}"


class PayloadLog(Observer):
    """Logs what each delivery says, before its handlers run, without what its class marks as
    sensitive."""

    def decoded(self, service: str, envelope: Envelope[Message]) -> None:
        if payloads.isEnabledFor(logging.INFO):
            text = f"{envelope.metadata.type} arrived"
            payloads.info(_Payload(text, redacted(envelope.message)))
