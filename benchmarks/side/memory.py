"""What a contender keeps in memory: `run --jobs memory` (job f).

It is the resident memory of its process and of those that it has started, as the job itself reports
it. At rest is once its first batch is done, so that everything it needs is imported and open; under
load is the peak while it drains a queue, or its Lambda handler is called with batch after batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.side.contest import CONTENDERS, Bench, Contender, Failed, NoEnvironment
from benchmarks.side.report import Findings, Table

_MESSAGES: Final = 10_000
_QUICK_MESSAGES: Final = 200
_BATCH: Final = 10
_JOBS: Final = {"memory": "worker", "lambda": "Lambda handler"}
"""The first of these that a contender has."""
_COLUMNS: Final = ("contender", "MiB at rest", "MiB at the peak", "remarks")


@dataclass(frozen=True, slots=True)
class Kept:
    """MiB of one contender."""

    contender: str
    job: str
    rest: float
    peak: float


def findings(bench: Bench, names: Iterable[str] | None, quick: bool) -> Findings:
    """Of all contenders that can be run, or of these."""
    messages = _QUICK_MESSAGES if quick else _MESSAGES
    kept: list[Kept] = []
    left: list[str] = []
    for contender in CONTENDERS:
        if names is None or contender.name in names:
            try:
                kept.append(measured(bench, contender, messages))
            except (Failed, NoEnvironment) as reason:
                left.append(str(reason).splitlines()[0])
    rows = [
        [each.contender, f"{each.rest:.0f}", f"{each.peak:.0f}", _JOBS[each.job]] for each in kept
    ]
    return Findings([Table(f"f. Memory ({messages:,} messages)", _COLUMNS, rows, left)])


def measured(bench: Bench, contender: Contender, messages: int) -> Kept:
    """Raises `Failed`, `NoEnvironment`."""
    job = next(name for name in _JOBS if name in contender.jobs)
    rest = _figure(bench, contender, job, _BATCH, "rss_kb")
    return Kept(contender.name, job, rest, _figure(bench, contender, job, messages, "peak_rss_kb"))


def _figure(bench: Bench, contender: Contender, job: str, messages: int, name: str) -> float:
    run = bench.run(contender, bench.job(job, messages))
    if run.problems:
        raise Failed(f"{contender.name} on {job}: {', '.join(run.problems)}.")
    return float(run.result[name]) / 1024
