"""A scenario with one protection less."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import pytest

from headrace.testing.simulation.plan import Plan, Run, Setting
from headrace.testing.simulation.run import run
from headrace.testing.simulation.timeline import as_text
from services.simulation import invariants, shop
from tests.sabotage.sabotage import Sabotage
from tests.simulation import zoo

SEEDS: Final = 300
"""Within so many each of them has to be caught."""

NEARBY: Final = 12
"""Seeds that a test looks at, where it has a hint which."""

_COLLECT_EVERY: Final = 25

SCENARIOS: Final = {
    "shop": Setting(
        services=shop.SERVICES,
        scenario=shop.orders,
        invariants=invariants.IN_THE_END,
        always=invariants.ALWAYS,
        resources={service.name: opened for service, opened in shop.RESOURCES.items()},
        expected_letter=invariants.is_expected,
    ),
    "zoo": Setting(
        services=zoo.SERVICES,
        scenario=zoo.open_day,
        invariants=zoo.IN_THE_END,
        always=zoo.ALWAYS,
        resources={service.name: opened for service, opened in zoo.RESOURCES.items()},
        expected_letter=zoo.is_expected,
    ),
}


@dataclass
class Search:
    """What came out of looking for a seed that shows a sabotage: the first run that one of those
    has noticed who are to, and how often others noticed something before."""

    sabotage: Sabotage
    found: Run | None = None
    seeds: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        if self.found is None or self.found.wrong is None:
            told = f", but by {', '.join(sorted(self.others))}" if self.others else ""
            return f"{self.sabotage.name}: not caught within {self.seeds} seeds{told}"
        wrong = self.found.wrong
        return f"{self.sabotage.name}: seed {self.found.plan.seed}: {wrong.name}: {wrong.sentence}"


def search(sabotage: Sabotage, seeds: Iterable[int] = range(SEEDS)) -> Search:
    """Run the scenario under one seed after the other until the sabotage is caught. What goes wrong
    under a seed without it too is none of its doing."""
    searched = Search(sabotage)
    for seed in seeds:
        searched.seeds += 1
        sabotaged = _sabotaged(sabotage, seed)
        if sabotaged.wrong is not None:
            if sabotaged.wrong.name not in sabotage.caught_by:
                searched.others[sabotaged.wrong.name] += 1
            elif run(_setting(sabotage), Plan(seed)).wrong is not None:
                searched.others["what is wrong without it too"] += 1
            else:
                searched.found = sabotaged
                break
        if searched.seeds % _COLLECT_EVERY == 0:
            gc.collect()
    return searched


def nearby(seed: int) -> list[int]:
    """Some seeds around one, itself first."""
    first = max(0, seed - NEARBY // 2)
    return sorted(range(first, first + NEARBY), key=lambda other: abs(other - seed))


def timeline(sabotage: Sabotage, seed: int) -> str:
    """What happens under this seed."""
    return as_text(_sabotaged(sabotage, seed, traced=True))


def _sabotaged(sabotage: Sabotage, seed: int, *, traced: bool = False) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        sabotage.apply(patch)
        return run(_setting(sabotage), Plan(seed), traced=traced)


def _setting(sabotage: Sabotage) -> Setting:
    return replace(SCENARIOS[sabotage.scenario], faults=sabotage.faults)
