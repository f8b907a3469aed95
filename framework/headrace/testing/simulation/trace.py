"""What happened in one run, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """What a line of the timeline is about."""

    SENT = "sent"
    RECEIVED = "received"
    READ = "read"
    WRITTEN = "written"
    SETTLED = "settled"
    FAULT = "fault"
    LOG = "log"
    PROCESS = "process"
    VIOLATION = "violation"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. `at` is in seconds from the beginning; `lane` is the process, or
    what of AWS it happened in; `about` are the ids of events and messages that it concerns, by
    which entries belong together."""

    at: float
    lane: str
    kind: Kind
    text: str
    about: tuple[str, ...] = ()


@dataclass(slots=True)
class Trace:
    """The entries of one run. One that is not `on` keeps none, and costs next to nothing: ask it
    before making up a text."""

    on: bool
    now: Callable[[], float]
    entries: list[Entry] = field(default_factory=list)

    def note(self, lane: str, kind: Kind, text: str, about: tuple[str, ...] = ()) -> None:
        if self.on:
            self.entries.append(Entry(self.now(), lane, kind, text, about))
