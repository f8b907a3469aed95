"""A run as it is shown: its entries with names, and what says little folded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import Final

from headrace.testing.simulation.plan import Run
from headrace.testing.simulation.timeline.naming import Names
from headrace.testing.simulation.trace import Entry, Kind

_STARTS: Final = "starts"
_CLOCK: Final = "its clock is off by "
_DELETES: Final = re.compile(r"deletes [^,]+ from (?P<queue>\S+)")
"""Of one message; with several of them, no ack is the only one."""
_DONE: Final = re.compile(r"writes (the record of [^,]*\(done\)(, )?)+")
_BESIDE: Final = 0.5
"""Seconds within which an ack and the deletion before it are one step."""

_ECHO: Final = 6.0
"""Seconds within which the worker settles what it has said it will: a call may time out."""


@dataclass(frozen=True, slots=True)
class Box:
    """One thing that is shown, in the lane it happened in. `about` are the ids that it shares with
    others, `story` is the letter of where it belongs, or `""`."""

    lane: str
    kind: Kind
    text: str
    about: tuple[str, ...] = ()
    story: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """What happened at one time: one thing, or the same in several lanes. What happened `times`
    times, with nothing of weight between, did so until `until`."""

    at: float
    boxes: tuple[Box, ...]
    times: int = 1
    until: float = 0.0
    is_bookkeeping: bool = False
    """Whether a record is only marked as done, which happens some time after each success."""

    @property
    def last(self) -> float:
        """When it happened last."""
        return max(self.at, self.until)

    @property
    def is_background(self) -> bool:
        """Whether no event is concerned, as far as one can see."""
        return all(box.kind in _BACKGROUND and not box.about for box in self.boxes)


_BACKGROUND: Final = frozenset({Kind.FAULT, Kind.LOG, Kind.PROCESS})


def names_of(run: Run) -> Names:
    """The names of the events of a run, those in what was wrong included."""
    return Names(run.entries, "" if run.wrong is None else run.wrong.sentence)


def lines_of(run: Run, names: Names) -> list[Line]:
    """The lines of a run in order, without what was wrong with it."""
    entries = [entry for entry in run.entries if entry.kind is not Kind.VIOLATION]
    return _repeats_folded(_lines(_acks_joined(_echoes_dropped(entries)), names))


def _echoes_dropped(entries: Sequence[Entry]) -> list[Entry]:
    """Without what a worker logs of a delivery and says again, reason and all, as it settles it."""
    return [entry for place, entry in enumerate(entries) if not _is_said_again(entries, place)]


def _is_said_again(entries: Sequence[Entry], place: int) -> bool:
    entry = entries[place]
    if entry.kind is not Kind.LOG:
        return False
    later = (entries[after] for after in range(place + 1, len(entries)))
    soon = takewhile(lambda other: other.at <= entry.at + _ECHO, later)
    return any(_repeats_reason(other, entry) for other in soon)


def _repeats_reason(settled: Entry, log: Entry) -> bool:
    reason = settled.text.partition("(")[2].rpartition(")")[0]
    is_of_same = settled.kind is Kind.SETTLED and settled.lane == log.lane
    return is_of_same and bool(reason) and log.text.endswith(reason)


def _acks_joined(entries: Iterable[Entry]) -> list[Entry]:
    """With one entry for a deletion and the ack that comes directly after it, in the same lane."""
    found: list[Entry | None] = []
    last: dict[str, int] = {}
    for entry in entries:
        place = last.get(entry.lane)
        before = None if place is None else found[place]
        if place is not None and before is not None and _is_ack_of(entry, before):
            found[place] = None
            queue = before.text.rpartition(" ")[2]
            entry = replace(entry, text=f"{entry.text}, deleted from {queue}")
        last[entry.lane] = len(found)
        found.append(entry)
    return [entry for entry in found if entry is not None]


def _is_ack_of(entry: Entry, before: Entry) -> bool:
    return (
        entry.kind is Kind.SETTLED
        and entry.text.startswith("ack")
        and before.kind is Kind.SETTLED
        and _DELETES.fullmatch(before.text) is not None
        and entry.at - before.at < _BESIDE
    )


def _lines(entries: Iterable[Entry], names: Names) -> Iterator[Line]:
    for (at, start), group in groupby(entries, lambda entry: (entry.at, _is_start(entry))):
        if start:
            yield Line(at, tuple(_starts([_box(entry, names) for entry in group])))
        else:
            for entry in group:
                yield Line(at, (_box(entry, names),), is_bookkeeping=_marks_done(entry))


def _box(entry: Entry, names: Names) -> Box:
    return Box(entry.lane, entry.kind, names.told(entry), entry.about, names.story(entry))


def _marks_done(entry: Entry) -> bool:
    return entry.kind is Kind.WRITTEN and _DONE.fullmatch(entry.text) is not None


def _is_start(entry: Entry) -> bool:
    if entry.kind is Kind.PROCESS:
        return entry.text == _STARTS
    return entry.kind is Kind.FAULT and entry.text.startswith(_CLOCK)


def _starts(boxes: Sequence[Box]) -> Iterator[Box]:
    """One box for each process that starts, its wrong clock included."""
    for lane in dict.fromkeys(box.lane for box in boxes):
        own = [box for box in boxes if box.lane == lane]
        kinds = [box.kind for box in own]
        texts = sorted((box.text for box in own), key=_STARTS.__ne__)
        yield Box(lane, Kind.FAULT if Kind.FAULT in kinds else Kind.PROCESS, ", ".join(texts))


def _repeats_folded(lines: Iterable[Line]) -> list[Line]:
    """With one line for what repeats itself while nothing happens that concerns an event."""
    found: list[Line] = []
    seen: dict[tuple[Box, ...], int] = {}
    for line in lines:
        if not line.is_background:
            seen.clear()
        place = seen.setdefault(line.boxes, len(found)) if line.is_background else len(found)
        if place < len(found):
            found[place] = replace(found[place], times=found[place].times + 1, until=line.at)
        else:
            found.append(line)
    return found
