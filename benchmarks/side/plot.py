"""Bars as an SVG, without a library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 760
_LABELS: Final = 130
_FIGURES: Final = 90
_BAR: Final = 18
_GAP: Final = 6
_TITLE: Final = 34
_BELOW: Final = 14
_STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.unit, .figure { fill: #57606a }
.bar { fill: #8c959f }
.own { fill: #0969da }
.range { stroke: #24292f; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .unit, .figure { fill: #9198a1 }
  .bar { fill: #6e7681 }
  .own { fill: #4493f8 }
  .range { stroke: #e6edf3 }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A median, and between what the rounds were."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of one unit, on a scale of their own that begins at 0."""

    title: str
    unit: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        return _TITLE + len(self.bars) * (_BAR + _GAP) + _BELOW


def svg(groups: Sequence[Bars], *, own: str = "headrace") -> str:
    """One group below the other; the bar with the label `own` stands out."""
    height = sum(group.height for group in groups)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img">',
        f"<style>{_STYLE}</style>",
    ]
    top = 0
    for group in groups:
        lines += _group(group, top, own)
        top += group.height
    return "\n".join([*lines, "</svg>", ""])


def _group(group: Bars, top: int, own: str) -> Iterator[str]:
    longest = max((bar.high for bar in group.bars), default=0) or 1
    scale = (_WIDTH - _LABELS - _FIGURES) / longest
    yield (
        f'<text class="title" x="0" y="{top + 20}">{escape(group.title)}'
        f'<tspan class="unit" dx="8">{escape(group.unit)}</tspan></text>'
    )
    for index, bar in enumerate(group.bars):
        yield from _bar(bar, top + _TITLE + index * (_BAR + _GAP), scale, bar.label == own)


def _bar(bar: Bar, top: int, scale: float, own: bool) -> Iterator[str]:
    width, middle = bar.value * scale, top + _BAR / 2
    low, high = (_LABELS + value * scale for value in (bar.low, bar.high))
    yield f'<text x="{_LABELS - 8}" y="{top + 14}" text-anchor="end">{escape(bar.label)}</text>'
    yield (
        f'<rect class="{"own" if own else "bar"}" x="{_LABELS}" y="{top}" '
        f'width="{width:.1f}" height="{_BAR}" rx="2"/>'
    )
    yield f'<path class="range" d="M{low:.1f} {middle}H{high:.1f}"/>'
    yield f'<text class="figure" x="{high + 6:.1f}" y="{top + 14}">{bar.value:,.0f}</text>'
