"""Who says what to whom: the events and commands between services, as data and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from headrace.events import MessageType, contract_of
from headrace.saga.messages import SagaIntervention, SagaTimer
from headrace.service import Service


@dataclass(frozen=True, slots=True)
class Link:
    """One event or command. `emitters` and `consumers` are services among those asked about,
    `handlers` the consumers' handlers as `service.handler`. `party` is who stands behind it
    otherwise: the source of an event, the owner of a command."""

    name: str
    version: int
    party: str
    command: bool
    native: bool
    emitters: tuple[str, ...]
    consumers: tuple[str, ...]
    handlers: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "kind": "command" if self.command else "event",
            "owner" if self.command else "source": self.party,
            "native": self.native,
            "emitters": list(self.emitters),
            "consumers": list(self.consumers),
            "handlers": list(self.handlers),
        }


@dataclass(frozen=True, slots=True)
class Graph:
    """Services and what passes between them, each sorted by name."""

    services: tuple[str, ...]
    links: tuple[Link, ...]

    def as_json(self) -> dict[str, Any]:
        return {"services": list(self.services), "links": [link.as_json() for link in self.links]}


def graph(*services: Service) -> Graph:
    """What these services emit, by their return annotations and `emits=`, and what they take. What
    headrace itself sends to the sagas of a service is between the two of them, and left out."""
    types = {cls for service in services for cls in (*_emitted(service), *_taken(service))}
    types = {cls for cls in types if not issubclass(cls, (SagaTimer, SagaIntervention))}
    links = (_link(cls, services) for cls in types)
    return Graph(
        services=tuple(sorted({service.name for service in services})),
        links=tuple(sorted(links, key=lambda link: link.name)),
    )


def _emitted(service: Service) -> set[MessageType]:
    return {*service.emits, *(cls for handler in service.handlers for cls in handler.emits)}


def _taken(service: Service) -> set[MessageType]:
    return {cls for handler in service.handlers for cls in handler.takes}


def _link(cls: MessageType, services: Sequence[Service]) -> Link:
    contract = contract_of(cls)
    takers = [h for service in services for h in service.handlers if cls in h.takes]
    return Link(
        name=contract.name,
        version=contract.version,
        party=contract.owner or contract.source or "",
        command=contract.owner is not None,
        native=contract.native,
        emitters=tuple(sorted({service.name for service in services if cls in _emitted(service)})),
        consumers=tuple(sorted({handler.service for handler in takers})),
        handlers=tuple(sorted({handler.consumer for handler in takers})),
    )


def _outside(link: Link) -> str:
    """Who emits what no service here does."""
    return "any sender" if link.command else link.party


def _takers(link: Link) -> Sequence[str]:
    """Who takes it: services, or a name for those that are not among them."""
    if link.consumers:
        return link.consumers
    return (f"{link.party} (not here)" if link.command else NOBODY,)


NOBODY: Final = "nobody here"


# --- Mermaid ---------------------------------------------------------------------------


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart. Events are rounded, commands six-sided; dashed is what
    comes from outside, or goes to nobody here."""
    ids = {name: f"s{index}" for index, name in enumerate(graph.services)}
    outside = sorted({_outside(link) for link in graph.links if not link.emitters})
    ids |= {f"outside {name}": f"o{index}" for index, name in enumerate(outside)}
    lines = ["flowchart LR", *(f'    {ids[name]}["{name}"]' for name in graph.services)]
    lines += [f'    {ids[f"outside {name}"]}["{name}"]:::outside' for name in outside]
    for index, link in enumerate(graph.links):
        lines += _mermaid_link(f"m{index}", link, ids)
    if outside or any(not link.consumers for link in graph.links):
        lines.append("    classDef outside stroke-dasharray: 4 3")
    return "\n".join(lines) + "\n"


def _mermaid_link(node: str, link: Link, ids: Mapping[str, str]) -> Iterator[str]:
    opening, closing = ("{{", "}}") if link.command else ("([", "])")
    style = "" if link.consumers else ":::outside"
    yield f'    {node}{opening}"{_label(link)}"{closing}{style}'
    for emitter in link.emitters:
        yield f"    {ids[emitter]} --> {node}"
    if not link.emitters:
        yield f"    {ids[f'outside {_outside(link)}']} -.-> {node}"
    for consumer in link.consumers:
        yield f"    {node} --> {ids[consumer]}"


def _label(link: Link) -> str:
    return f"{link.name} v{link.version}" if link.version > 1 else link.name


# --- SVG -------------------------------------------------------------------------------
#
# Three columns: who emits, what, who takes. A service that does both stands on both sides, in
# one colour: events go round in circles between services, and a picture of circles of more than
# a few services can no longer be read.

_FONT: Final = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"
_COLOURS: Final = ("#2563eb", "#059669", "#d97706", "#9333ea", "#dc2626", "#0891b2", "#4d7c0f")
_GREY: Final = "#94a3b8"
_INK: Final = "#0f172a"
_MARGIN: Final = 28.0
_HEADING: Final = 34.0
_ROW: Final = 44.0
_PILL: Final = 30.0
_GAP: Final = 20.0
_LANE: Final = 130.0
_CHARACTER: Final = 7.6
"""About the mean width of a character of 13 px; a label may be a little wider."""


@dataclass(frozen=True, slots=True)
class _Box:
    name: str
    top: float
    height: float
    colour: str
    dashed: bool = False

    @property
    def middle(self) -> float:
        return self.top + self.height / 2


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where everything stands. `emitters` are in the order of their links, which are in
    `rows`; a link with several emitters stands beside the first."""

    emitters: list[_Box]
    rows: list[tuple[Link, float]]
    consumers: list[_Box]
    side: float
    centre: float

    @property
    def left(self) -> float:
        return _MARGIN + self.side

    @property
    def pill(self) -> float:
        return self.left + _LANE * 0.6

    @property
    def right(self) -> float:
        return self.pill + self.centre + _LANE

    @property
    def width(self) -> float:
        return self.right + self.side + _MARGIN

    @property
    def height(self) -> float:
        boxes = (*self.emitters, *self.consumers)
        return max((box.top + box.height for box in boxes), default=_HEADING + _MARGIN) + 64


def svg(graph: Graph) -> str:
    """The graph as a standalone SVG image: who emits on the left, who takes on the right."""
    layout = _laid_out(graph)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{layout.width:.0f}' "
        f"height='{layout.height:.0f}' viewBox='0 0 {layout.width:.0f} {layout.height:.0f}' "
        f"role='img' {_FONT} font-size='13'>",
        "<title>Events and commands between services</title>",
        "<rect width='100%' height='100%' fill='#ffffff'/>",
        *_headings(layout),
        *_arrows(layout),
        *(_service(box, _MARGIN, layout.side) for box in layout.emitters),
        *(_service(box, layout.right, layout.side) for box in layout.consumers),
        *(_pill(link, middle, layout) for link, middle in layout.rows),
        *_legend(layout),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _laid_out(graph: Graph) -> _Layout:
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(graph.services)}
    top, emitters, rows = _MARGIN + _HEADING, [], []
    for (name, outside), links in _by_emitter(graph).items():
        height = max(len(links), 1) * _ROW
        colour = _GREY if outside else colours[name]
        emitters.append(_Box(name, top, height - (_ROW - _PILL), colour, outside))
        rows += [(link, top + i * _ROW + _PILL / 2) for i, link in enumerate(links)]
        top += height + _GAP - (_ROW - _PILL)
    parties = [name for link in graph.links for name in (_outside(link), *_takers(link))]
    return _Layout(
        emitters=emitters,
        rows=rows,
        consumers=_consumers(rows, colours),
        side=_widest([*graph.services, *parties]) + 36,
        centre=_widest([_label(link) for link in graph.links]) + 40,
    )


def _by_emitter(graph: Graph) -> dict[tuple[str, bool], list[Link]]:
    """The links of each emitter, services first, then those outside. A link with several
    emitters is listed once, so one of them may have none."""
    groups: dict[tuple[str, bool], list[Link]] = {(name, False): [] for name in graph.services}
    for link in graph.links:
        key = (link.emitters[0], False) if link.emitters else (_outside(link), True)
        groups.setdefault(key, []).append(link)
    emitting = {name for link in graph.links for name in link.emitters}
    ordered = sorted(groups.items(), key=lambda item: (item[0][1], item[0][0]))
    return {
        key: sorted(links, key=lambda link: (not link.consumers, link.consumers, link.name))
        for key, links in ordered
        if links or key[0] in emitting
    }


def _consumers(rows: Sequence[tuple[Link, float]], colours: Mapping[str, str]) -> list[_Box]:
    """Each consumer beside the mean of what it takes, pushed down where it would overlap."""
    ends: dict[str, list[float]] = {}
    for link, middle in rows:
        for name in _takers(link):
            ends.setdefault(name, []).append(middle)
    boxes, free = [], _MARGIN + _HEADING
    order = sorted(ends, key=lambda name: (name not in colours, _mean(ends[name]), name))
    for name in order:
        middles = ends[name]
        height = max(_PILL, len(middles) * 22.0)
        top = max(free, _mean(middles) - height / 2)
        boxes.append(_Box(name, top, height, colours.get(name, _GREY), name not in colours))
        free = top + height + _GAP
    return boxes


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _widest(names: Iterable[str]) -> float:
    return max((len(name) for name in names), default=8) * _CHARACTER


def _headings(layout: _Layout) -> Iterator[str]:
    columns = (
        ("EMITS", _MARGIN + layout.side / 2),
        ("EVENT OR COMMAND", layout.pill + layout.centre / 2),
        ("TAKES", layout.right + layout.side / 2),
    )
    for text, x in columns:
        yield (
            f"<text x='{x:.1f}' y='{_MARGIN + 8:.1f}' text-anchor='middle' font-size='11' "
            f"letter-spacing='1.2' fill='#64748b'>{text}</text>"
        )


def _arrows(layout: _Layout) -> Iterator[str]:
    """Lines from emitters to links, and arrows from links to consumers, each consumer's arrows
    spread over its side in the order in which they come."""
    emitters = {(box.name, box.dashed): box for box in layout.emitters}
    for link, middle in layout.rows:
        first = emitters[(link.emitters[0], False) if link.emitters else (_outside(link), True)]
        yield _line(layout.left, middle, layout.pill, middle, first, arrow=False)
        for name in link.emitters[1:]:
            box = emitters.get((name, False))
            if box is not None:
                yield _line(layout.left, box.middle, layout.pill, middle, box, arrow=False)
    for box in layout.consumers:
        ends = [m for link, m in layout.rows if box.name in _takers(link)]
        step = box.height / (len(ends) + 1)
        for index, start in enumerate(sorted(ends), start=1):
            end = box.top + index * step
            yield _line(layout.pill + layout.centre, start, layout.right - 7, end, box, arrow=True)


def _line(x: float, y: float, to_x: float, to_y: float, box: _Box, *, arrow: bool) -> str:
    bend = (to_x - x) * 0.5
    dashes = " stroke-dasharray='5 4'" if box.dashed else ""
    head = (
        f"<path d='M{to_x + 7:.1f} {to_y:.1f} l-9 -4 v8 z' fill='{box.colour}'/>" if arrow else ""
    )
    return (
        f"<path d='M{x:.1f} {y:.1f} C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} "
        f"{to_x:.1f} {to_y:.1f}' fill='none' stroke='{box.colour}' stroke-width='1.6'{dashes}/>"
        f"{head}"
    )


def _service(box: _Box, x: float, width: float) -> str:
    dashes = " stroke-dasharray='5 4'" if box.dashed else ""
    fill, ink = ("#ffffff", "#475569") if box.dashed else (box.colour, _INK)
    return (
        f"<rect x='{x:.1f}' y='{box.top:.1f}' width='{width:.1f}' height='{box.height:.1f}' rx='6' "
        f"fill='{fill}' fill-opacity='0.13' stroke='{box.colour}' stroke-width='1.4'{dashes}/>"
        f"<text x='{x + width / 2:.1f}' y='{box.middle + 4.5:.1f}' text-anchor='middle' "
        f"font-weight='600' fill='{ink}'>{escape(box.name)}</text>"
    )


def _pill(link: Link, middle: float, layout: _Layout) -> str:
    dashes = "" if link.consumers and link.emitters else " stroke-dasharray='5 4'"
    takers = ", ".join(link.handlers or _takers(link))
    shape = _hexagon if link.command else _rounded
    return (
        f"<g><title>{escape(f'{_label(link)}: {takers}')}</title>"
        f"{shape(layout.pill, middle, layout.centre)} fill='#f8fafc' stroke='#475569' "
        f"stroke-width='1.4'{dashes}/>"
        f"<text x='{layout.pill + layout.centre / 2:.1f}' y='{middle + 4.5:.1f}' "
        f"text-anchor='middle' fill='{_INK}'>{escape(_label(link))}</text></g>"
    )


def _rounded(x: float, middle: float, width: float) -> str:
    top = middle - _PILL / 2
    return f"<rect x='{x:.1f}' y='{top:.1f}' width='{width:.1f}' height='{_PILL:.1f}' rx='15'"


def _hexagon(x: float, middle: float, width: float) -> str:
    half, slant = _PILL / 2, 12.0
    return (
        f"<path d='M{x:.1f} {middle:.1f} l{slant} -{half} h{width - 2 * slant:.1f} l{slant} {half} "
        f"l-{slant} {half} h-{width - 2 * slant:.1f} z'"
    )


def _legend(layout: _Layout) -> Iterator[str]:
    shapes: Sequence[tuple[str, Callable[[float, float, float], str], str]] = (
        ("event", _rounded, ""),
        ("command", _hexagon, ""),
        ("from outside, or to nobody here", _rounded, " stroke-dasharray='5 4'"),
    )
    x, y = _MARGIN, layout.height - 26
    for text, shape, dashes in shapes:
        drawn = f"{shape(0, 0, 60)} fill='#f8fafc' stroke='#475569' stroke-width='2.4'{dashes}/>"
        yield f"<g transform='translate({x:.1f} {y:.1f}) scale(0.5)'>{drawn}</g>"
        yield f"<text x='{x + 38:.1f}' y='{y + 4:.1f}' font-size='11' fill='#64748b'>{text}</text>"
        x += 38 + len(text) * 6.2 + 24
