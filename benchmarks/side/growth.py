"""Whether a message costs more the more there are: `run --jobs growth` (job h).

Two series, each with the CPU of a message: as the backlog grows from 1,000 messages to a million
(10,000 if it has to be quick), and as the handlers of headrace's service grow from 1 to 200, of
which one takes what comes. A series is flat if its dearest size costs at most `FLAT` times what its
cheapest does. The floor drains the backlogs, too: where it grows as well, that is not headrace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.side.contest import Bench, Contender, Failed, Run, contenders
from benchmarks.side.figures import Sample, sample
from benchmarks.side.report import Findings, Table

BACKLOGS: Final = (1_000, 10_000, 100_000, 1_000_000)
HANDLERS: Final = (1, 10, 50, 200)
FLAT: Final = 1.15

_QUICK_BACKLOG: Final = 10_000
_MESSAGES: Final = 10_000
_QUICK_MESSAGES: Final = 1_000
"""Of a run with so many handlers."""
_ROUNDS: Final = 3
_QUICK_ROUNDS: Final = 2
_TOGETHER: Final = 30_000
_QUICK_TOGETHER: Final = 10_000
"""A backlog is drained as often as makes so many messages, up to three times: a run of one second
says less than one of a minute."""
_COMPARED: Final = ("headrace", "bare_loop")
_COLUMNS: Final = ("contender", "size", "CPU µs", "lowest", "highest", "peak MiB", "runs")


@dataclass(frozen=True, slots=True)
class Series:
    """One contender as something grows: for each size the runs that were made."""

    contender: str
    grows: str
    runs: dict[int, list[Run]]

    def cost(self, size: int) -> Sample:
        """Microseconds of CPU for a message."""
        return sample([run.cpu_us for run in self.runs[size]])

    @property
    def growth(self) -> float:
        """The dearest size over the cheapest."""
        costs = [self.cost(size).median for size in self.runs]
        return max(costs) / min(costs)

    @property
    def verdict(self) -> str:
        flat = "flat" if self.growth <= FLAT else "not flat"
        return f"{self.contender}: {flat}, the dearest is {self.growth:.2f} x the cheapest."


def findings(bench: Bench, names: Iterable[str] | None, quick: bool) -> Findings:
    """Both series, of those among `names` that have them. Raises `Failed`, `NoEnvironment`."""
    named = set(_COMPARED if names is None else names) & set(_COMPARED)
    sizes = [size for size in BACKLOGS if not quick or size <= _QUICK_BACKLOG]
    together = _QUICK_TOGETHER if quick else _TOGETHER
    by_backlog = [backlogs(bench, each, sizes, together) for each in contenders("backlog", named)]
    messages = _QUICK_MESSAGES if quick else _MESSAGES
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    by_handlers = [
        handlers(bench, each, messages, rounds) for each in contenders("handlers", named)
    ]
    return Findings(
        tables=[
            *_table("h. As the backlog grows", by_backlog),
            *_table(f"h. As a service has more handlers ({messages:,} messages)", by_handlers),
        ],
        figures={
            f"{series.grows}_growth": series.growth
            for series in (*by_backlog, *by_handlers)
            if series.contender == "headrace"
        },
    )


def backlogs(
    bench: Bench, contender: Contender, sizes: Iterable[int], together: int = _TOGETHER
) -> Series:
    """The queue holds so many messages at once."""
    runs = {}
    for size in sizes:
        times = max(1, min(_ROUNDS, together // size))
        job = bench.job("backlog", size)
        runs[size] = [_sound(bench.run(contender, job)) for _ in range(times)]
    return Series(contender.name, "backlog", runs)


def handlers(bench: Bench, contender: Contender, messages: int, rounds: int = _ROUNDS) -> Series:
    """The sizes take turns, so that what slows down the machine for a while slows down all."""
    runs: dict[int, list[Run]] = {size: [] for size in HANDLERS}
    for _ in range(rounds):
        for size, made in runs.items():
            job = bench.job("handlers", messages, options={"handlers": size})
            made.append(_sound(bench.run(contender, job)))
    return Series(contender.name, "handlers", runs)


def _sound(run: Run) -> Run:
    if run.problems:
        raise Failed(f"{run.contender} on {run.job.name}: {', '.join(run.problems)}.")
    return run


def _table(title: str, found: Sequence[Series]) -> list[Table]:
    rows = [_row(series, size) for series in found for size in series.runs]
    return [Table(title, _COLUMNS, rows, [series.verdict for series in found])] if rows else []


def _row(series: Series, size: int) -> list[str]:
    runs, cost = series.runs[size], series.cost(size)
    peak = max(run.result["peak_rss_kb"] for run in runs) / 1024
    figures = [f"{each:,.0f}" for each in (size, cost.median, cost.low, cost.high, peak, len(runs))]
    return [series.contender, *figures]
