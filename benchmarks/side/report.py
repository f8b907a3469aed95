"""What was found, as text, as Markdown, and as the last line."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.side.contest import Run
from benchmarks.side.figures import NOISY, Sample, sample
from benchmarks.side.plot import Bar, Bars
from headrace.cost.prices import PriceList, load_prices

FIGURES: Final = (
    "cpu_vs_powertools",
    "cpu_vs_bare_loop",
    "drain_vs_best_peer",
    "cold_vs_powertools",
    "calls_per_message",
)
"""Of the last line, in this order."""

_MARKED: Final = re.compile(r"(<!-- table -->\n).*?(<!-- /table -->)", re.DOTALL)
_MIB: Final = 1024
_COLUMNS: Final = (
    "contender",
    "CPU µs",
    "±",
    "x headrace",
    "messages/s",
    "calls",
    "$/million",
    "MiB",
    "remarks",
)


@dataclass(frozen=True, slots=True)
class Table:
    """One job: rows of text, one column for each heading."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(slots=True)
class Findings:
    """What a job has found. `figures` are for the last line, by their names."""

    tables: list[Table] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, other: Findings) -> None:
        self.tables += other.tables
        self.bars += other.bars
        self.figures |= other.figures
        self.versions |= other.versions


# --- one job ---------------------------------------------------------------------------


def compared(title: str, rounds: Mapping[str, Sequence[Run]]) -> Findings:
    """The rounds of all contenders on one job, beside headrace's if it is there."""
    cpu = {name: sample([run.cpu_us for run in runs]) for name, runs in rounds.items()}
    rows = [_row(name, runs, cpu) for name, runs in rounds.items()]
    bars = [Bar(name, each.median, each.low, each.high) for name, each in cpu.items()]
    return Findings(
        tables=[Table(title, _COLUMNS, rows, list(_notes(rounds, cpu)))],
        bars=[Bars(title, "µs of CPU per message", bars)],
        versions=versions(run for runs in rounds.values() for run in runs),
    )


def _row(name: str, runs: Sequence[Run], cpu: Mapping[str, Sample]) -> list[str]:
    own, last = cpu[name], runs[-1]
    return [
        name,
        f"{own.median:,.0f}" + ("!" if own.is_noisy else ""),
        f"{own.spread / 2:.0%}",
        _beside(own, cpu.get("headrace")),
        f"{sample([run.rate for run in runs]).median:,.0f}",
        f"{sample([run.calls for run in runs]).median:.2f}",
        f"{sample([dollars(run) for run in runs]).median:.2f}",
        f"{sample([run.result['peak_rss_kb'] / _MIB for run in runs]).median:.0f}",
        _remarks(runs) or str(last.result["notes"]),
    ]


def _beside(own: Sample, headrace: Sample | None) -> str:
    if headrace is None or own is headrace:
        return ""
    ratio = own.over(headrace)
    doubt = "?" if ratio.straddles_one else ""
    return f"{ratio.median:.2f}{doubt} ({ratio.low:.2f}–{ratio.high:.2f})"


def _remarks(runs: Sequence[Run]) -> str:
    return "; ".join(sorted({problem for run in runs for problem in run.problems}))


def _notes(rounds: Mapping[str, Sequence[Run]], cpu: Mapping[str, Sample]) -> Iterator[str]:
    headrace = cpu.get("headrace")
    noisy = [name for name, each in cpu.items() if each.is_noisy]
    if noisy:
        yield (
            f"!: the rounds of {', '.join(noisy)} differ by more than {NOISY:.0%}. Comparing "
            "anything with that is worthless: run it again on a machine that does nothing else."
        )
    alike = [
        name
        for name, each in cpu.items()
        if headrace is not None and each is not headrace and each.over(headrace).straddles_one
    ]
    if alike:
        yield (
            f"?: {', '.join(alike)} and headrace cannot be told apart: the rounds do not agree "
            "which of the two takes less."
        )
    if any(run.problems for runs in rounds.values() for run in runs):
        yield "Where something was lost, doubled or wrong, the other figures mean nothing."


@cache
def _prices() -> PriceList:
    return load_prices().prices


def dollars(run: Run) -> float:
    """What the calls of a million messages cost, by the prices in `headrace.cost`."""
    counts, prices = run.counts, _prices()
    bill = (
        prices.sqs_standard.of(counts["queue_chunks"])
        + prices.events.of(counts["event_chunks"])
        + prices.writes.of(counts["write_units"])
        + prices.reads.of(counts["read_units"])
    )
    return float(bill / run.job.messages * 1e6)


def versions(runs: Iterable[Run]) -> dict[str, str]:
    """Of the packages that the contenders name, by contender and package."""
    return {
        f"{run.contender}: {package}": version
        for run in runs
        for package, version in run.result["versions"].items()
    }


# --- everything ------------------------------------------------------------------------


def text(findings: Findings) -> str:
    return "\n\n".join("\n".join(_text_of(table)) for table in findings.tables)


def _text_of(table: Table) -> Iterator[str]:
    lines = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    yield table.title
    for line in lines:
        cells = zip(line, widths, _is_left(table), strict=True)
        yield "  ".join(_aligned(cell, width, left) for cell, width, left in cells).rstrip()
    yield from table.notes


def _aligned(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def _is_left(table: Table) -> list[bool]:
    """The first column, and remarks."""
    return [index == 0 or name == "remarks" for index, name in enumerate(table.columns)]


def markdown(findings: Findings, command: str, plot: str) -> str:
    parts = [_heading(findings, command), f"![CPU per message]({plot})"]
    parts += ["\n".join(_markdown_of(table)) for table in findings.tables]
    parts += [f"`{line}`" for line in (other_figures(findings), last_line(findings)) if line]
    return "\n\n".join(parts)


def _heading(findings: Findings, command: str) -> str:
    named = "; ".join(_by_contender(findings.versions))
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `{command}` on {machine()}, "
        f"Python {platform.python_version()}.\n\nVersions: {named}."
    )


def _by_contender(versions: Mapping[str, str]) -> Iterator[str]:
    grouped: dict[str, list[str]] = {}
    for name, version in versions.items():
        contender, _, package = name.partition(": ")
        grouped.setdefault(contender, []).append(f"{package} {version}")
    for contender, packages in grouped.items():
        yield f"{contender} with {', '.join(packages)}"


def _markdown_of(table: Table) -> Iterator[str]:
    yield f"### {table.title}"
    yield ""
    yield _cells(table.columns)
    yield "|" + "|".join("-" if left else "-:" for left in _is_left(table)) + "|"
    yield from map(_cells, table.rows)
    for note in table.notes:
        yield f"\n{note}"


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def last_line(findings: Findings) -> str:
    """Every figure has its place in it; one that was not measured is `n/a`."""
    return " ".join(f"{name}={_figure(findings.figures.get(name))}" for name in FIGURES)


def other_figures(findings: Findings) -> str:
    """Those that have no place in the last line."""
    others = sorted(findings.figures.keys() - set(FIGURES))
    return " ".join(f"{name}={_figure(findings.figures[name])}" for name in others)


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def write_between_marks(file: Path, content: str) -> None:
    """Replace what stands between `<!-- table -->` and `<!-- /table -->`. Raises `ValueError` for
    a file without these marks."""
    text = file.read_text(encoding="utf-8")
    if not _MARKED.search(text):
        raise ValueError(f"{file.name} has no <!-- table --> and <!-- /table -->: put them in.")
    replaced = _MARKED.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text)
    file.write_text(replaced, encoding="utf-8")


def machine() -> str:
    """The processor, how many, and the system."""
    return f"{os.cpu_count()} x {_processor()}, {platform.system()} {platform.release()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
