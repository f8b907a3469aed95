"""Run the sample shop on a simulated AWS under many seeds, and check what must hold."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from headrace.testing import Faults, Report, Violation, simulate
from services.simulation.invariants import ALWAYS, IN_THE_END, is_expected
from services.simulation.shop import RESOURCES, SERVICES, orders


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    first = options.first
    seeds = range(first, first + options.seeds) if options.seed is None else [options.seed]
    try:
        report = shop(seeds)
    except Violation as violation:
        sys.stdout.write(f"{violation}\n")
        _conclude(violation.report, violations=1)
        return 1
    _tell(report)
    _conclude(report, violations=0)
    return 0


def shop(seeds: Sequence[int], faults: Faults | None = None) -> Report:
    """Run the shop under these seeds, with all faults on unless told otherwise; raises
    `Violation`."""
    return simulate(
        SERVICES,
        orders,
        IN_THE_END,
        always=ALWAYS,
        seeds=seeds,
        faults=faults,
        resources=RESOURCES,
        expected_letter=is_expected,
    )


def _tell(report: Report) -> None:
    faults = ", ".join(f"{count:,} {kind}" for kind, count in sorted(report.faults.items()))
    days = report.virtual_seconds / 86400
    sys.stdout.write(
        f"{report.seeds:,} runs of {report.virtual_seconds / report.seeds:.0f} s each, "
        f"{days:.1f} days in all, in {report.seconds:.1f} s\n{faults}\n"
    )


def _conclude(report: Report, *, violations: int) -> None:
    sys.stdout.write(
        f"seeds={report.seeds} violations={violations} per_minute={report.per_minute:.0f}\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many")
    parser.add_argument("--first", type=int, default=0, metavar="S", help="the first of them")
    parser.add_argument("--seed", type=int, metavar="S", help="run this one alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
