"""A delivery and its steps, as they are noted for X-Ray, and the documents made of them.

They are notes and not the SDK's segments, which cost many times as much. What the user's code
records with the SDK hangs on an entity of the SDK that stands for a note, and is made only then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from dataclasses import dataclass
from os import urandom
from pathlib import PurePath
from time import time
from traceback import walk_tb
from types import TracebackType
from typing import Any, Final, Protocol, TypeAlias

import orjson

from headrace.errors import Conflict, RetryLater
from headrace.outcome import Ack, DeadLetter, Outcome, Retry

Document: TypeAlias = dict[str, Any]
"""A segment or subsegment as JSON; see X-Ray's segment documents."""

_CHARACTERS: Final = 1_000
"""Of a text that is not written by us. X-Ray indexes so many of an annotation."""
_FRAMES: Final = 10


class Entity(Protocol):
    """A segment or subsegment of the SDK."""

    id: str
    name: str
    trace_id: str
    sampled: bool
    in_progress: bool
    subsegments: list[Any]

    def to_dict(self) -> Document: ...


@dataclass(frozen=True, slots=True)
class Inner:
    """A place within what the user's code records itself. `top` is the delivery that it belongs
    to, if any; `attached` says whether the entity hangs on the one outside of it."""

    entity: Any
    outer: Place | None
    top: Segment | Unsampled | None
    attached: bool


class Segment:
    """One delivery that is traced, and the block in which it is handled."""

    flag: str | None = None
    cause: Document | str | None = None
    entity: Any = None
    finished = False

    def __init__(
        self, name: str, trace_id: str, parent_id: str | None, put: Callable[[Segment], None]
    ) -> None:
        """`put` is called at the end of its block."""
        # Its own, and those of its first steps: a call to the system costs more than all else here.
        self.ids = urandom(32).hex()
        self.id = self.ids[:16]
        self.name = name
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.traceparent = f"00-{trace_id}-{self.id}-01"
        self.put = put
        self.common: Document = {}
        self.annotations: Document = {}
        self.metadata: Document = {}
        self.steps: list[Step] = []
        self.noted: list[tuple[BaseException, str]] = []

    def __enter__(self) -> Segment:
        self.start = time()
        self._token = here.set(self)
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end = time()
        _leave(self._token)
        if error is not None:
            self.annotations["outcome"] = "cut_short"
            self.flag, self.cause = flag_of(error), self.cause_of(error)
        self.put(self)

    def step(self, name: str, consumer: str) -> Step:
        return Step(self, name, consumer)

    def ended(self, outcome: Outcome) -> None:
        if isinstance(outcome, Ack):
            self.annotations["outcome"] = "duplicate" if outcome.duplicate else "done"
            return
        self.flag = "fault"
        if isinstance(outcome, DeadLetter):
            self.annotations["outcome"] = "dead_letter"
            self.annotations["reason"] = outcome.reason[:_CHARACTERS]
        else:
            self.annotations["outcome"] = "retry"
            if outcome.error is None:
                self.flag = "error"
            else:
                self.flag = flag_of(outcome.error)
        self.cause = self._cause_of_outcome(outcome)

    def cause_of(self, error: BaseException) -> Document | str:
        """What is said of an exception; of one that was noted here before, where that is said."""
        for known, id in self.noted:
            if known is error:
                return id
        id = new_id()
        self.noted.append((error, id))
        return {"exceptions": [_exception(error, id)]}

    def _cause_of_outcome(self, outcome: Retry | DeadLetter) -> Document | str:
        if outcome.error is not None:
            return self.cause_of(outcome.error)
        told = {
            "id": new_id(),
            "type": type(outcome).__name__,
            "message": outcome.reason[:_CHARACTERS],
        }
        return {"exceptions": [told]}

    def document(self, *, merge: bool) -> Document:
        """As X-Ray takes it; with what was recorded on its entities, if they are to be merged."""
        document: Document = {
            "name": self.name,
            "id": self.id,
            "trace_id": xray_id(self.trace_id),
            "start_time": self.start,
            "end_time": self.end,
            "annotations": self.annotations,
            "metadata": {"headrace": self.metadata},
            "subsegments": [step.document(self.end, merge=merge) for step in self.steps],
            **self.common,
        }
        if self.parent_id is not None:
            document["parent_id"] = self.parent_id
        _flag(document, self.flag, self.cause)
        return merged(document, self.entity) if merge and self.entity is not None else document


class Step:
    """One part of it, for one handler, and the block of that."""

    end: float | None = None
    flag: str | None = None
    cause: Document | str | None = None
    entity: Any = None

    def __init__(self, segment: Segment, name: str, consumer: str) -> None:
        self.segment = segment
        self.name = name
        self.consumer = consumer

    def __enter__(self) -> Step:
        steps = self.segment.steps
        steps.append(self)
        place = 16 * len(steps)
        self.id = self.segment.ids[place : place + 16] or new_id()
        self.start = time()
        self._token = here.set(self)
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end = time()
        _leave(self._token)
        if error is not None:
            self.flag, self.cause = flag_of(error), self.segment.cause_of(error)

    def document(self, end: float, *, merge: bool) -> Document:
        document: Document = {
            "name": self.name,
            "id": self.id,
            "start_time": self.start,
            "end_time": end if self.end is None else self.end,
            "metadata": {"headrace": {"handler": self.consumer}},
        }
        _flag(document, self.flag, self.cause)
        return merged(document, self.entity) if merge and self.entity is not None else document


class Unsampled:
    """A delivery that is not traced; its ids go on."""

    __slots__ = ("_token", "entity", "name", "traceparent")

    def __init__(self, name: str, traceparent: str) -> None:
        self.name = name
        self.traceparent = traceparent
        self.entity: Any = None

    def __enter__(self) -> Unsampled:
        self._token = here.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        _leave(self._token)

    def step(self, name: str, consumer: str) -> _Nothing:
        return _NOTHING

    def ended(self, outcome: Outcome) -> None: ...


class _Nothing:
    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


_NOTHING: Final = _Nothing()

Place: TypeAlias = "Segment | Step | Unsampled | Inner"
"""What runs here and now, as far as X-Ray is concerned."""

here: ContextVar[Place | None] = ContextVar("headrace_xray", default=None)


def _leave(token: Token[Place | None]) -> None:
    try:
        here.reset(token)
    except ValueError:
        # A coroutine that nobody finished is closed by whoever drops it, in a context of theirs.
        return


# --- ids -------------------------------------------------------------------------------


def new_id() -> str:
    """Not of a generator with a state: environments that are restored from one snapshot would all
    give the same ids."""
    return urandom(8).hex()


def xray_id(trace_id: str) -> str:
    """32 hexadecimal digits as X-Ray writes them."""
    return f"1-{trace_id[:8]}-{trace_id[8:]}"


# --- what went wrong -------------------------------------------------------------------


def flag_of(error: BaseException) -> str:
    """`error` for what is no failure of this service: another was faster, it asked for time, or
    it was stopped. Otherwise `fault`."""
    asked = isinstance(error, (Conflict, RetryLater)) or not isinstance(error, Exception)
    return "error" if asked else "fault"


def _exception(error: BaseException, id: str) -> Document:
    return {
        "id": id,
        "type": type(error).__name__,
        "message": _text(error),
        "stack": [
            {"path": PurePath(code.co_filename).name, "line": line, "label": code.co_name}
            for code, line in _frames(error)
        ],
    }


def _frames(error: BaseException) -> list[tuple[Any, int]]:
    """The innermost ones, the last call first. Without the lines of the sources: they would be read
    from the disk."""
    frames = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    return frames[: -_FRAMES - 1 : -1]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:_CHARACTERS]
    except Exception as broken:
        return f"It cannot be shown: {type(broken).__name__}."


def _flag(document: Document, flag: str | None, cause: Document | str | None) -> None:
    if flag is not None:
        document[flag] = True
        document["cause"] = cause


# --- documents -------------------------------------------------------------------------


def merged(document: Document, entity: Entity) -> Document:
    """A note with what the user's code has recorded on the entity that stands for it."""
    recorded = complete(entity.to_dict())
    for name in ("id", "name", "trace_id", "parent_id", "start_time", "in_progress", "type"):
        recorded.pop(name, None)
    if recorded.get("namespace") == "local":
        del recorded["namespace"]
    for name in ("annotations", "metadata", "aws"):
        recorded[name] = {**recorded.get(name, {}), **document.get(name, {})}
    own = document.get("subsegments", [])
    recorded["subsegments"] = [*own, *recorded.get("subsegments", [])]
    return {**recorded, **document, **{name: recorded[name] for name in _MERGED if recorded[name]}}


_MERGED: Final = ("annotations", "metadata", "aws", "subsegments")


def complete(document: Document) -> Document:
    """Without the subsegments that have not ended: each is sent when it does."""
    children = document.get("subsegments")
    if children:
        document["subsegments"] = [complete(c) for c in children if not c.get("in_progress")]
    return document


def alone(entity: Entity) -> Document:
    """A subsegment that is sent by itself."""
    return complete(entity.to_dict())


def encoded(document: Document, largest: int) -> Iterator[bytes]:
    """The document as JSON; if that would be too large, its parts one by one, and each without what
    makes it so."""
    whole = _json(document)
    if len(whole) <= largest:
        yield whole
        return
    own = {name: value for name, value in document.items() if name != "subsegments"}
    for child in document.get("subsegments", ()):
        part = {**child, "parent_id": document["id"], "trace_id": document["trace_id"]}
        yield from encoded({**part, "type": "subsegment"}, largest)
    yield _within(own, largest)


def _within(document: Document, largest: int) -> bytes:
    """Too much is left out rather than everything: X-Ray drops what is too large."""
    for name in ("metadata", "cause", "sql", "http", "aws", "annotations"):
        whole = _json(document)
        if len(whole) <= largest:
            return whole
        if document.pop(name, None) is not None:
            document["metadata"] = {"headrace": {"left_out": "It was too large for X-Ray."}}
    return _json({name: document[name] for name in _NEEDED if name in document})


_NEEDED: Final = (
    *("name", "id", "trace_id", "parent_id", "type"),
    *("start_time", "end_time", "fault", "error"),
)


def _json(document: Document) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        # Users record what they like: objects, numbers beyond 64 bits, halves of characters.
        return json.dumps(document, default=str).encode()
