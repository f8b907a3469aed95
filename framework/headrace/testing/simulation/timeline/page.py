"""A run as a page of HTML, for a browser."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from headrace.testing.simulation.plan import Run
from headrace.testing.simulation.timeline.blame import blamed
from headrace.testing.simulation.timeline.folding import Box, Line, lines_of, names_of
from headrace.testing.simulation.timeline.markup import PAGE
from headrace.testing.simulation.timeline.naming import Names
from headrace.testing.simulation.timeline.text import (
    CALM,
    GAP,
    UNTRACED,
    again,
    facts,
    legible,
    span,
)
from headrace.testing.simulation.trace import Kind

_OUTSIDE = {"AWS": 1, "world": 2}
"""Lanes that stand to the right of all processes, in this order."""


def as_page(run: Run, title: str) -> str:
    """One HTML page that needs nothing else: a table with a column for each process and a row for
    each thing that happened. A script in it lets its reader follow an event and filter rows; it is
    complete without. The same run and title always give the same page, byte for byte."""
    names = names_of(run)
    lines = lines_of(run, names)
    return PAGE.substitute(
        title=_text(title),
        facts="".join(f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in facts(run)),
        verdict=_verdict(run, names),
        table=_Table(lines).html(run) if lines else f"<p>{UNTRACED}</p>",
        names=_legend(names),
    )


class _Table:
    """The swimlanes."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._columns = _columns(lines)
        ids = dict.fromkeys(id for line in lines for box in line.boxes for id in box.about)
        self._numbers = {id: str(number) for number, id in enumerate(ids)}

    def html(self, run: Run) -> str:
        heads = "".join(f'<th scope="col">{_text(column)}</th>' for column in self._columns)
        return (
            "<table><caption>What happened, in order</caption>"
            f'<thead><tr><th scope="col">Time</th>{heads}</tr></thead>'
            f"<tbody>\n{''.join(self._rows())}{self._end(run)}</tbody></table>"
        )

    def _rows(self) -> Iterator[str]:
        before = 0.0
        for line in self._lines:
            if line.at - before > GAP:
                yield self._across("gap", f"… {span(line.at - before)} later")
            before = max(before, line.last)
            yield self._row(line)

    def _row(self, line: Line) -> str:
        kind = ' class="bookkeeping"' if line.is_bookkeeping else ""
        cells = "".join(self._cell(column, line) for column in self._columns)
        return f'<tr{kind}><th scope="row">{line.at:.3f}</th>{cells}</tr>\n'

    def _cell(self, column: str, line: Line) -> str:
        own = (box for box in line.boxes if _column(box.lane) == column)
        return f"<td>{''.join(self._box(box, again(line)) for box in own)}</td>"

    def _box(self, box: Box, times: str) -> str:
        about = " ".join(self._numbers[id] for id in box.about)
        follow = f' data-about="{about}" data-story="{_text(box.story)}"' if about else ""
        mark = '<strong title="a fault">!</strong> ' if box.kind is Kind.FAULT else ""
        return f'<div class="box {box.kind.value}"{follow}>{mark}{_text(box.text)}{times}</div>'

    def _end(self, run: Run) -> str:
        if run.wrong is None:
            return ""
        return self._across("violation", f'<a href="#verdict">Wrong: {_text(run.wrong.name)}</a>')

    def _across(self, kind: str, content: str) -> str:
        width = len(self._columns) + 1
        return f'<tr class="{kind}"><td colspan="{width}"><span>{content}</span></td></tr>\n'


def _columns(lines: Iterable[Line]) -> list[str]:
    """One for each lane: those of one service beside each other, what is no process last."""
    lanes = dict.fromkeys(_column(box.lane) for line in lines for box in line.boxes)
    services = {lane.partition("/")[0]: None for lane in lanes}
    order = {service: place for place, service in enumerate(services)}

    def place(lane: str) -> tuple[bool, int, int]:
        return lane != "scenario", _OUTSIDE.get(lane, 0), order[lane.partition("/")[0]]

    return sorted(lanes, key=place)


def _column(lane: str) -> str:
    """The column of a lane: all requests to a service, each a process of its own, share one."""
    return re.sub(r"/request \d+$", "/requests", lane)


def _verdict(run: Run, names: Names) -> str:
    if run.wrong is None:
        return f'<p id="verdict">{CALM}</p>'
    places = "".join(
        f"<li><b>{_text(place.where)}</b> in {_text(place.function)}"
        f"<pre>{_text(place.code)}</pre></li>"
        for place in blamed(run.wrong.error)
    )
    return (
        f'<section id="verdict" class="violation"><h2>Wrong: {_text(run.wrong.name)}</h2>'
        f"<pre>{_text(names.in_text(run.wrong.sentence))}</pre>"
        f"{f'<ul>{places}</ul>' if places else ''}</section>"
    )


def _legend(names: Names) -> str:
    found = "".join(
        f"<tr><td>{_text(name)}</td><td><code>{_text(id)}</code></td></tr>"
        for id, name in names.of_events().items()
    )
    head = '<thead><tr><th scope="col">Event</th><th scope="col">Id</th></tr></thead>'
    table = f"<table>{head}<tbody>{found}</tbody></table>"
    return f"<details><summary>Ids of the events</summary>{table}</details>" if found else ""


def _text(text: str) -> str:
    return escape(legible(text))
