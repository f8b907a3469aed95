"""The smallest run that is still wrong in the same way.

A failing run has dozens of faults, and one or two that matter. They are left out by halves, then
one by one (delta debugging), and so is what the scenario sends. Only runs under the same seed are
tried: leaving out a fault changes nothing until the moment at which it would have happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Final, TypeVar

from headrace.testing.simulation.chance import Fault
from headrace.testing.simulation.plan import Plan, Run, Setting
from headrace.testing.simulation.run import run

T = TypeVar("T")

RUNS: Final = 400
"""Runs after which the smallest one so far is good enough."""
_ALL: Final = 10_000
"""More than any scenario sends."""

SECONDS: Final = 60.0
"""The same in seconds, for scenarios that take long."""


def shrunk(setting: Setting, failed: Run) -> tuple[Run, bool]:
    """The smallest run that was found, which may be the one that was given; and whether the search
    came to its end."""
    search = _Search(setting, failed)
    return search.smallest(), not search.is_exhausted


class _Search:
    def __init__(self, setting: Setting, failed: Run) -> None:
        self._setting = setting
        self._best = failed
        self._runs = 0
        self._until = monotonic() + SECONDS

    def smallest(self) -> Run:
        if self._try(Plan(self._best.plan.seed, calm=True)):
            self._leave_out_sendings()
        else:
            self._try(replace(self._best.plan, allowed=frozenset(self._best.struck)))
            self._leave_out_faults()
            self._leave_out_sendings()
            self._leave_out_faults()
        self._try(replace(self._best.plan, shuffled=False))
        return self._best

    def _leave_out_faults(self) -> None:
        def allowing(struck: Sequence[Fault]) -> bool:
            return self._try(replace(self._best.plan, allowed=frozenset(struck)))

        self._leave_out(lambda: self._best.struck, allowing)

    def _leave_out_sendings(self) -> None:
        for number in reversed(range(self._best.sendings)):
            if number in self._best.plan.dropped:
                continue
            plan = replace(self._best.plan, dropped=self._best.plan.dropped | {number})
            if not self.is_exhausted and not self._is_missed(plan):
                self._try(plan)

    def _is_missed(self, plan: Plan) -> bool:
        """Whether an invariant only complains of what was not sent: then it does so, too, when
        nothing goes wrong; or, where that is what goes wrong, when nothing is sent at all."""
        if plan.calm:
            return self._is_wrong_alike(replace(plan, dropped=frozenset(range(_ALL))))
        return self._is_wrong_alike(replace(plan, allowed=None, calm=True))

    def _is_wrong_alike(self, plan: Plan) -> bool:
        wrong, best = self._run(plan).wrong, self._best.wrong
        return wrong is not None and best is not None and wrong.kind == best.kind

    def _leave_out(
        self, have: Callable[[], Sequence[T]], without: Callable[[Sequence[T]], bool]
    ) -> None:
        """Leave out chunks, smaller and smaller ones, for as long as what is wrong stays so."""
        size = max(1, len(have()) // 2)
        while have():
            for start in _starts(len(have()), size):
                if self.is_exhausted:
                    return
                kept = have()
                without([*kept[:start], *kept[start + size :]])
            if size == 1:
                return
            size //= 2

    def _try(self, plan: Plan) -> bool:
        """Whether this plan goes wrong in the same way; then it is the best one."""
        if self.is_exhausted:
            return False
        found = self._run(plan)
        best = self._best.wrong
        if found.wrong is None or best is None or found.wrong.kind != best.kind:
            return False
        self._best = found
        return True

    def _run(self, plan: Plan) -> Run:
        self._runs += 1
        return run(self._setting, plan)

    @property
    def is_exhausted(self) -> bool:
        return self._runs >= RUNS or monotonic() > self._until


def _starts(length: int, size: int) -> Iterator[int]:
    """From the end, because what happened last is the least likely to matter, and what comes
    before it stays where it is."""
    return reversed(range(0, length, size))
