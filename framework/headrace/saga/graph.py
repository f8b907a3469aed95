"""A saga as a picture: its steps, what undoes them, and how it ends.

    mermaid(definition)    a Mermaid flowchart
    svg(definition)        a standalone SVG image

Forward goes with solid arrows, steps side by side where they run so. Back goes with dashed ones:
from a step that failed to what undoes it or those before it, the last one first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from typing import Final

from headrace.events import MessageType
from headrace.saga.definition import Definition, Retries, Saga, Step, Undo, definition_of

NO_RETURN: Final = "point of no return"


def mermaid(saga: type[Saga] | Definition) -> str:
    """The saga as a Mermaid flowchart, from top to bottom."""
    definition = definition_of(saga)
    drawn = _Chart(definition)
    return "\n".join(("flowchart TD", *(f"    {line}" for line in drawn.lines()))) + "\n"


def svg(saga: type[Saga] | Definition) -> str:
    """The saga as a standalone SVG image: forward from left to right, below it the way back."""
    return "\n".join(_Image(definition_of(saga)).parts()) + "\n"


# --- what is said ----------------------------------------------------------------------


def _step_lines(definition: Definition, step: Step) -> Iterator[str]:
    """What a picture says of a step, below its name."""
    if step.sends:
        yield ("maybe " if step.conditional else "") + _names(step.sends, " + ")
    elif step.local:
        yield "sends nothing"
    for word, types in (("done", step.done), ("fails", step.failed), ("again", step.again)):
        if types:
            yield f"{word}: {_names(types)}"
    if step.waits:
        stuck = step.name in definition.after_pivot
        yield from _patience(step.timeout, step.retries, then_stuck=stuck)


def _undo_lines(undo: Undo) -> Iterator[str]:
    if undo.sends:
        yield _names(undo.sends, " + ")
    for word, types in (("done", undo.done), ("fails", undo.failed)):
        if types:
            yield f"{word}: {_names(types)}"
    if undo.done:
        yield from _patience(undo.timeout, undo.retries, then_stuck=True)


def _patience(timeout: timedelta | None, retries: Retries, *, then_stuck: bool) -> Iterator[str]:
    times = f"{retries.attempts} times" if retries.attempts > 1 else "once"
    yield f"sent {times}" + (", then stuck" if then_stuck else "")
    if timeout is not None:
        yield f"waits {_shown(timeout)}"


def _free_lines(definition: Definition) -> Iterator[str]:
    for cls, free in definition.free.items():
        yield f"{cls.__name__}: {free.name}"


def _beginning(definition: Definition) -> Sequence[str]:
    deadline = definition.deadline
    lines = [_names(definition.starts_on)]
    return lines if deadline is None else [*lines, f"deadline {_shown(deadline)}"]


def _title(definition: Definition) -> str:
    return f"{definition.name} version {definition.version}"


def _names(types: Iterable[MessageType], between: str = ", ") -> str:
    return between.join(cls.__name__ for cls in types)


def _shown(span: timedelta) -> str:
    """In the largest unit that leaves nothing over."""
    seconds = span.total_seconds()
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            number = int(seconds // size)
            return f"{number} {unit[: -1 if number == 1 and unit == 'days' else None]}"
    return f"{seconds:g} s"


# --- where it leads --------------------------------------------------------------------


def _last(definition: Definition) -> list[Step]:
    """The steps that nothing stands behind."""
    waited_for = {name for step in definition.steps.values() for name in step.after}
    return [step for step in definition.steps.values() if step.name not in waited_for]


def _can_turn_back(definition: Definition, step: Step) -> bool:
    """Whether the saga is undone if this step does not succeed."""
    return step.waits and step.name not in definition.after_pivot


def _undone_after(definition: Definition, step: Step | None) -> Step | None:
    """Which step is undone once this one is, or has failed: the last one above it that can be."""
    above = list(definition.steps.values())
    if step is not None:
        above = above[: above.index(step)]
    return next((other for other in reversed(above) if other.reverse is not None), None)


def _gets_stuck(definition: Definition) -> bool:
    steps = definition.steps.values()
    undone = any(step.reverse is not None and step.reverse.done for step in steps)
    return undone or bool(definition.after_pivot)


# --- Mermaid ---------------------------------------------------------------------------


class _Chart:
    """The lines of one flowchart."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._ids = {name: f"s{number}" for number, name in enumerate(definition.steps)}

    def lines(self) -> Iterator[str]:
        definition = self._definition
        yield f'begin(["{_joined(_beginning(definition))}"])'
        for step in definition.steps.values():
            yield from self._step(step)
        yield 'completed(["completed"])'
        yield from (f"{self._ids[step.name]} --> completed" for step in _last(definition))
        undone = [step for step in reversed(definition.steps.values()) if step.reverse]
        for step in undone:
            yield from self._undo(step)
        if any(_can_turn_back(definition, step) for step in definition.steps.values()) or undone:
            yield 'compensated(["compensated"])'
        if _gets_stuck(definition):
            yield 'stuck(["stuck: until an operator helps"])'
        for step in definition.steps.values():
            yield from self._failing(step)
        if definition.free:
            yield f'free["<i>at any time</i><br/>{_joined(_free_lines(definition))}"]:::back'
        yield "classDef back stroke-dasharray: 4 3"
        if definition.pivot is not None:
            yield "classDef pivot stroke-width: 4px"

    def _step(self, step: Step) -> Iterator[str]:
        said = [f"<b>{step.name}</b>", *_step_lines(self._definition, step)]
        shape = ("{{", "}}") if step.conditional else ("[", "]")
        style = ":::pivot" if step.pivot else ""
        said += [f"<i>{NO_RETURN}</i>"] * step.pivot
        yield f'{self._ids[step.name]}{shape[0]}"{_joined(said)}"{shape[1]}{style}'
        for other in step.after or ("",):
            yield f"{self._ids.get(other, 'begin')} --> {self._ids[step.name]}"

    def _undo(self, step: Step) -> Iterator[str]:
        if step.reverse is None:
            return
        said = [f"<b>{step.reverse.name}</b>", *_undo_lines(step.reverse)]
        here = self._undo_id(step)
        yield f'{here}["{_joined(said)}"]:::back'
        yield f"{here} -.-> {self._undo_id(_undone_after(self._definition, step))}"
        if step.reverse.done:
            yield f"{here} -. exhausted .-> stuck"

    def _failing(self, step: Step) -> Iterator[str]:
        here = self._ids[step.name]
        if step.name in self._definition.after_pivot and step.waits:
            yield f"{here} -. exhausted .-> stuck"
        if not _can_turn_back(self._definition, step):
            return
        before = self._undo_id(_undone_after(self._definition, step))
        unsure = self._undo_id(step) if step.reverse else before
        if step.failed:
            yield f'{here} -. "{_names(step.failed)}" .-> {before}'
        if step.timeout is not None:
            yield f'{here} -. "no answer" .-> {unsure}'

    def _undo_id(self, step: Step | None) -> str:
        return "compensated" if step is None else f"u{self._ids[step.name][1:]}"


def _joined(lines: Iterable[str]) -> str:
    return "<br/>".join(line.replace('"', "#quot;") for line in lines)


# --- SVG -------------------------------------------------------------------------------
#
# A column for each step, and a row for each that runs beside others. Below its step stands what
# undoes it, all in one row, so that the way back is read from right to left.

_FONT: Final = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"
_INK: Final = "#0f172a"
_QUIET: Final = "#64748b"
_FORWARD: Final = "#2563eb"
_BACK: Final = "#d97706"
_PIVOT: Final = "#059669"
_MARGIN: Final = 28.0
_TITLE: Final = 44.0
_LINE: Final = 17.0
_PADDING: Final = 12.0
_LANE: Final = 56.0
_GAP: Final = 28.0
_CHARACTER: Final = 7.0
"""About the mean width of a character of 12 px."""


@dataclass(frozen=True, slots=True)
class _Box:
    name: str
    lines: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def centre(self) -> float:
        return self.x + self.width / 2


class _Image:
    """Where everything stands, and how it is drawn."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._rows = _rows(definition)
        said = {
            step.name: (step.name, tuple(_step_lines(definition, step)))
            for step in definition.steps.values()
        }
        undos = {
            step.name: (step.reverse.name, tuple(_undo_lines(step.reverse)))
            for step in definition.steps.values()
            if step.reverse
        }
        starts = tuple(_beginning(definition))
        ends = ("completed", "compensated", *starts)
        self._side = max(len(text) for text in ends) * _CHARACTER + 2 * _PADDING
        self._widths = [_widest((said[n], undos.get(n, said[n]))) for n in said]
        self._steps = self._placed(said, self._rows, _MARGIN + _TITLE)
        below = max(box.y + box.height for box in self._steps.values()) + _LANE
        self._undos = self._placed(undos, dict.fromkeys(undos, 0), below)
        self._begin = self._end("begin", starts, _MARGIN, self._steps)
        right = max(box.right for box in self._steps.values()) + _LANE
        self._completed = self._end("completed", ("completed",), right, self._steps)
        lowest = self._undos or {"": self._end("", ("",), _MARGIN, {}, below)}
        self._compensated = self._end("compensated", ("compensated",), _MARGIN, lowest)
        self._turns_back = bool(undos) or any(
            _can_turn_back(definition, step) for step in definition.steps.values()
        )
        boxes = [*self._steps.values(), *self._undos.values(), self._compensated]
        self._bottom = max(box.y + box.height for box in boxes)

    def parts(self) -> Iterator[str]:
        width = self._completed.right + _MARGIN
        height = self._bottom + 76
        yield (
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:.0f}' height='{height:.0f}' "
            f"viewBox='0 0 {width:.0f} {height:.0f}' role='img' {_FONT} font-size='12'>"
        )
        yield f"<title>{escape(f'The saga {_title(self._definition)}')}</title>"
        yield "<rect width='100%' height='100%' fill='#ffffff'/>"
        yield _text(_title(self._definition), _MARGIN, _MARGIN + 10, "font-size='15'", bold=True)
        yield from self._no_return()
        yield from self._forward()
        yield from self._back()
        yield from (self._step(step) for step in self._definition.steps.values())
        yield from (_box(box, _BACK, dashed=True) for box in self._undos.values())
        yield _pill(self._begin, _INK)
        yield _pill(self._completed, _PIVOT)
        if self._turns_back:
            yield _pill(self._compensated, _BACK)
        yield from self._notes()
        yield "</svg>"

    def _placed(
        self,
        said: Mapping[str, tuple[str, tuple[str, ...]]],
        rows: Mapping[str, int],
        top: float,
    ) -> dict[str, _Box]:
        heights = {name: (1 + len(said[name][1])) * _LINE + 2 * _PADDING - 4 for name in said}
        highest = [
            max((heights[name] for name in said if rows[name] == row), default=0.0)
            for row in range(1 + max(rows.values(), default=0))
        ]
        boxes: dict[str, _Box] = {}
        x = _MARGIN + self._side + _LANE
        for name, width in zip(self._definition.steps, self._widths, strict=True):
            if name in said:
                y = top + sum(highest[: rows[name]]) + _GAP * rows[name]
                y += (highest[rows[name]] - heights[name]) / 2
                boxes[name] = _Box(*said[name], x, y, width, heights[name])
            x += width + _LANE
        return boxes

    def _end(
        self,
        name: str,
        lines: tuple[str, ...],
        x: float,
        beside: Mapping[str, _Box],
        top: float = 0,
    ) -> _Box:
        """A round box at one side, as high as the middle of what stands beside it."""
        height = len(lines) * _LINE + _PADDING
        first = next(iter(beside.values()), None)
        y = top if first is None else first.middle - height / 2
        return _Box(name, lines, x, y, self._side, height)

    def _forward(self) -> Iterator[str]:
        for step in self._definition.steps.values():
            to = self._steps[step.name]
            for name in step.after:
                yield _arrow(self._steps[name], to)
            if not step.after:
                yield _arrow(self._begin, to)
        for step in _last(self._definition):
            yield _arrow(self._steps[step.name], self._completed)

    def _back(self) -> Iterator[str]:
        for step in self._definition.steps.values():
            before = _undone_after(self._definition, step)
            target = self._undos[before.name] if before else self._compensated
            own = self._undos.get(step.name)
            if _can_turn_back(self._definition, step):
                yield _down(self._steps[step.name], own or target)
            if own is not None:
                yield _leftwards(own, target)

    def _step(self, step: Step) -> str:
        colour = _PIVOT if step.pivot else _FORWARD
        return _box(self._steps[step.name], colour, thick=step.pivot, round_=step.conditional)

    def _no_return(self) -> Iterator[str]:
        pivot = self._definition.pivot
        if pivot is None:
            return
        x = self._steps[pivot.name].right + _LANE / 2
        top = _MARGIN + 18
        yield (
            f"<path d='M{x:.1f} {top:.1f} V{self._bottom:.1f}' stroke='{_PIVOT}' "
            "stroke-width='1.2' stroke-dasharray='2 4'/>"
        )
        yield _text(NO_RETURN, x, top - 6, f"text-anchor='middle' fill='{_PIVOT}'")

    def _notes(self) -> Iterator[str]:
        notes = [
            "solid: forward; dashed: back, the last step first; round corners: may be left out"
        ]
        if _gets_stuck(self._definition):
            notes.append("stuck: it waits until an operator resumes it, or skips the step")
        free = ", ".join(_free_lines(self._definition))
        notes += [f"at any time: {free}"] * bool(free)
        for number, note in enumerate(notes):
            y = self._bottom + 28 + number * 16
            yield _text(note, _MARGIN, y, f"font-size='11' fill='{_QUIET}'")


def _rows(definition: Definition) -> dict[str, int]:
    """For each step, how many of those above it in the class run beside it."""
    depths: dict[str, int] = {}
    rows: dict[str, int] = {}
    for step in definition.steps.values():
        depth = 1 + max((depths[name] for name in step.after), default=-1)
        rows[step.name] = sum(1 for other in depths.values() if other == depth)
        depths[step.name] = depth
    return rows


def _widest(said: Iterable[tuple[str, tuple[str, ...]]]) -> float:
    texts = [text for title, lines in said for text in (title, *lines)]
    return max(len(text) for text in texts) * _CHARACTER + 2 * _PADDING


def _text(text: str, x: float, y: float, attributes: str = "", *, bold: bool = False) -> str:
    fill = "" if "fill=" in attributes else f" fill='{_INK}'"
    weight = " font-weight='600'" if bold else ""
    return f"<text x='{x:.1f}' y='{y:.1f}'{weight}{fill} {attributes}>{escape(text)}</text>"


def _box(
    box: _Box, colour: str, *, dashed: bool = False, thick: bool = False, round_: bool = False
) -> str:
    dashes = " stroke-dasharray='5 4'" if dashed else ""
    lines = [_text(box.name, box.x + _PADDING, box.y + _PADDING + 9, bold=True)]
    for number, line in enumerate(box.lines, start=1):
        y = box.y + _PADDING + 9 + number * _LINE
        lines.append(_text(line, box.x + _PADDING, y, f"fill='{_QUIET}'"))
    return (
        f"<g><rect x='{box.x:.1f}' y='{box.y:.1f}' width='{box.width:.1f}' "
        f"height='{box.height:.1f}' rx='{18 if round_ else 5}' fill='#f8fafc' "
        f"stroke='{colour}' stroke-width='{3 if thick else 1.4}'{dashes}/>"
        f"{''.join(lines)}</g>"
    )


def _pill(box: _Box, colour: str) -> str:
    lines = [
        _text(
            line, box.centre, box.y + 18 + number * _LINE, "text-anchor='middle'", bold=not number
        )
        for number, line in enumerate(box.lines)
    ]
    return (
        f"<g><rect x='{box.x:.1f}' y='{box.y:.1f}' width='{box.width:.1f}' "
        f"height='{box.height:.1f}' rx='14' fill='#f8fafc' stroke='{colour}' "
        f"stroke-width='1.4'/>{''.join(lines)}</g>"
    )


def _arrow(start: _Box, end: _Box) -> str:
    """To the next column in a curve; beyond that, in the lower of the two rows, past the columns
    between them."""
    x, y, to_x, to_y = start.right, start.middle, end.x - 7, end.middle
    far = max(to_x - x - _LANE, 0)
    first, last = (0.0, far) if to_y > y else (far, 0.0)
    bend = (to_x - x - far) / 2
    return (
        f"<path d='M{x:.1f} {y:.1f} h{first:.1f} c{bend:.1f} 0 {bend:.1f} {to_y - y:.1f} "
        f"{2 * bend:.1f} {to_y - y:.1f} h{last:.1f}' fill='none' stroke='{_FORWARD}' "
        f"stroke-width='1.6'/><path d='M{end.x:.1f} {to_y:.1f} l-9 -4 v8 z' fill='{_FORWARD}'/>"
    )


def _leftwards(start: _Box, end: _Box) -> str:
    x, y, to_x, to_y = start.x, start.middle, end.right + 7, end.middle
    bend = (x - to_x) / 2
    return (
        f"<path d='M{x:.1f} {y:.1f} C{x - bend:.1f} {y:.1f} {to_x + bend:.1f} {to_y:.1f} "
        f"{to_x:.1f} {to_y:.1f}' fill='none' stroke='{_BACK}' stroke-width='1.6'{_DASHES}/>"
        f"<path d='M{end.right:.1f} {to_y:.1f} l9 -4 v8 z' fill='{_BACK}'/>"
    )


def _down(start: _Box, end: _Box) -> str:
    """From the bottom of a step to the top of what undoes it, or those before it."""
    x, y, to_x, to_y = start.centre, start.y + start.height, end.centre, end.y - 7
    turn = max(to_y - 40, y)
    return (
        f"<path d='M{x:.1f} {y:.1f} V{turn:.1f} C{x:.1f} {to_y - 12:.1f} {to_x:.1f} "
        f"{to_y - 28:.1f} {to_x:.1f} {to_y:.1f}' fill='none' stroke='{_BACK}' "
        f"stroke-width='1.4'{_DASHES}/><path d='M{to_x:.1f} {end.y:.1f} l-4 -9 h8 z' "
        f"fill='{_BACK}'/>"
    )


_DASHES: Final = " stroke-dasharray='5 4'"
