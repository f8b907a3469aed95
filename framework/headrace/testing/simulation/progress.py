"""A bar while many seeds run, where somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Final, TypeAlias

from headrace.testing.simulation.report import Report

Advance: TypeAlias = Callable[[Report], None]
Progress: TypeAlias = Callable[[int], AbstractContextManager[Advance]]
"""`with progress(total) as advance: …; advance(report)`"""

_EVERY: Final = 0.1
_WIDTH: Final = 30


def told(name: str) -> Progress:
    """A bar on the terminal; silence where standard error is none."""

    @contextmanager
    def progress(total: int) -> Iterator[Advance]:
        if not sys.stderr.isatty():
            yield lambda report: None
            return
        shown = 0.0

        def advance(report: Report) -> None:
            nonlocal shown
            now = monotonic()
            if now - shown >= _EVERY or report.seeds == total:
                shown = now
                _show(name, report, total)

        try:
            yield advance
        finally:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    return progress


def _show(name: str, report: Report, total: int) -> None:
    done = _WIDTH * report.seeds // total
    bar = "━" * done + "─" * (_WIDTH - done)
    left = (total - report.seeds) * report.seconds / report.seeds
    faults = sum(report.faults.values())
    sys.stderr.write(
        f"\r\x1b[K{name} {bar} {report.seeds:,}/{total:,} seeds, "
        f"{report.per_minute:,.0f} a minute, {faults:,} faults, {left:.0f} s left"
    )
    sys.stderr.flush()
