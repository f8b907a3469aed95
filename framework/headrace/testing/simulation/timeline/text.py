"""A run as text, for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from headrace.testing.simulation.plan import Run, Wrong
from headrace.testing.simulation.timeline.blame import blamed
from headrace.testing.simulation.timeline.folding import Box, Line, lines_of, names_of
from headrace.testing.simulation.timeline.naming import Names
from headrace.testing.simulation.trace import Kind

GAP: Final = 5.0
"""Seconds without anything to show, from which on they are shown as a gap."""

UNTRACED: Final = "No timeline was kept: run with traced=True to see what happened."
CALM: Final = "Nothing was wrong."

_WIDEST_LANE: Final = 24
_NARROWEST: Final = 24
"""Characters that a text has at least, however narrow the terminal is."""

_MOST_LINES: Final = 3
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"

_COLOURS: Final = {
    Kind.FAULT: "31",
    Kind.SENT: "36",
    Kind.RECEIVED: "34",
    Kind.READ: "2",
    Kind.WRITTEN: "32",
    Kind.SETTLED: "2",
    Kind.LOG: "2",
    Kind.PROCESS: "2",
    Kind.VIOLATION: "1;31",
}


def as_text(run: Run, *, width: int = 100, colour: bool = False) -> str:
    """What happened in a run, line by line: when, in which process, and what, with `!` where it
    was a fault; then what was wrong, and the line of code that found it.

    Rows are at most `width` characters long, except for code and its path, and unless that leaves
    no room for a text. `colour` adds ANSI colours. The same run always gives the same text.
    """
    names = names_of(run)
    lines = lines_of(run, names)
    page = _Sheet(lines, names, width, colour)
    body = page.body() if lines else [UNTRACED]
    header = [*facts(run), *_left_out(lines)]
    return "\n".join([*_wrapped(header, width), "", *body, "", *page.verdict(run), ""])


class _Sheet:
    """Rows of text, in columns."""

    def __init__(self, lines: Sequence[Line], names: Names, width: int, colour: bool) -> None:
        self._lines = [line for line in lines if not line.is_bookkeeping]
        self._names = names
        self._together = re.compile("|".join(map(re.escape, names.of_events().values())) or "(?!)")
        self._colour = colour
        self._lane = min(max((len(_lane(line)) for line in self._lines), default=0), _WIDEST_LANE)
        self._width = max(width, len(self._front(0.0, "", "")) + _NARROWEST)

    def body(self) -> list[str]:
        found: list[str] = []
        before = 0.0
        for line in self._lines:
            if line.at - before > GAP:
                found.append(f"{'':9}  … {span(line.at - before)} later")
            found += self._shown(line)
            before = max(before, line.last)
        return found

    def verdict(self, run: Run) -> list[str]:
        if run.wrong is None:
            return [CALM]
        found = [_rule(f"WRONG: {legible(run.wrong.name)}", self._width)]
        found += _paragraphs(self._names.in_text(run.wrong.sentence), self._width, "  ")
        found += _blame(run.wrong)
        return [self._painted(Kind.VIOLATION, line) for line in (*found, "━" * self._width)]

    def _shown(self, line: Line) -> list[str]:
        kind = kind_of(line.boxes)
        front = self._front(line.at, _lane(line), "!" if kind is Kind.FAULT else "")
        wrapped = textwrap.wrap(
            self._together.sub(_unbroken, text_of(line)),
            self._width,
            initial_indent=front,
            subsequent_indent=" " * (len(front) + 2),
            break_on_hyphens=False,
            max_lines=_MOST_LINES,
            placeholder=" …",
        )
        return [self._painted(kind, row.replace(_NO_BREAK, " ")) for row in wrapped]

    def _front(self, at: float, lane: str, mark: str) -> str:
        short = lane if len(lane) <= self._lane else f"{lane[: self._lane - 1]}…"
        return f"{at:9.3f}  {short:{self._lane}} {mark:1} "

    def _painted(self, kind: Kind, text: str) -> str:
        return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if self._colour else text


def _unbroken(found: re.Match[str]) -> str:
    return found[0].replace(" ", _NO_BREAK)


def _wrapped(named: Iterable[tuple[str, str]], width: int) -> list[str]:
    lines = (f"{name}: {text}" for name, text in named)
    return [row for line in lines for row in textwrap.wrap(line, width, subsequent_indent="  ")]


def _left_out(lines: Sequence[Line]) -> Iterator[tuple[str, str]]:
    count = sum(line.is_bookkeeping for line in lines)
    if count:
        yield "Left out", f"{count} × a record that is marked as done"


def facts(run: Run) -> Iterator[tuple[str, str]]:
    """What is to be known of a run before it is told: names and texts."""
    yield "Seed", str(run.plan.seed)
    yield "Faults", _faults(run)
    kept = run.sendings - len(run.plan.dropped)
    yield "Sent", f"{kept} of {run.sendings}" if run.plan.dropped else str(run.sendings)
    yield "Took", f"{span(run.seconds)} of simulated time"


def _faults(run: Run) -> str:
    counts = Counter(fault.kind for fault in run.struck)
    most_first = sorted(counts.items(), key=lambda counted: (-counted[1], counted[0]))
    kinds = ", ".join(f"{count} × {kind}" for kind, count in most_first)
    return f"{len(run.struck)} ({kinds})" if kinds else "none"


def kind_of(boxes: Sequence[Box]) -> Kind:
    """What a line is about: a fault, if anything in it is one."""
    kinds = [box.kind for box in boxes]
    return Kind.FAULT if Kind.FAULT in kinds else kinds[0]


def text_of(line: Line) -> str:
    """All that a line says."""
    if len(line.boxes) == 1:
        return legible(line.boxes[0].text) + again(line)
    return f"start: {', '.join(map(_started, line.boxes))}{again(line)}"


def _started(box: Box) -> str:
    rest = box.text.removeprefix("starts").lstrip(", ")
    return legible(f"{box.lane} ({rest})" if rest else box.lane)


def again(line: Line) -> str:
    """How often, for what happened more than once."""
    return f" ({line.times} times, until {line.until:.3f})" if line.times > 1 else ""


def span(seconds: float) -> str:
    """A stretch of time, for people."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def legible(text: str) -> str:
    """Text without what a terminal or a page does not show, or obeys."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _lane(line: Line) -> str:
    one, *more = (box.lane for box in line.boxes)
    return legible(f"{len(more) + 1} processes" if more else one)


def _rule(title: str, width: int) -> str:
    return f"━━ {title} ".ljust(width, "━")


def _paragraphs(text: str, width: int, indent: str) -> Iterator[str]:
    """Wrapped, but with the lines that it has of its own, as a diff has them."""
    for line in legible(text).splitlines():
        own = indent + line[: len(line) - len(line.lstrip())]
        wrapped = textwrap.wrap(
            line.strip(), width, initial_indent=own, subsequent_indent=f"{own}  "
        )
        yield from wrapped or [""]


def _blame(wrong: Wrong) -> Iterator[str]:
    for place in blamed(wrong.error):
        yield f"  {place.where} in {place.function}"
        yield f"    {place.code}"
