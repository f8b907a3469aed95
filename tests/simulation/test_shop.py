"""The sample shop keeps its promises, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from headrace.testing import simulate
from headrace.testing.simulation import KINDS
from services.simulation.invariants import ALWAYS, IN_THE_END, is_expected
from services.simulation.shop import RESOURCES, SERVICES, orders


@pytest.mark.slow
@pytest.mark.headrace(seeds=80)
def test_no_fault_makes_the_shop_lose_or_repeat_anything(headrace_seeds: Sequence[int]) -> None:
    report = simulate(
        SERVICES,
        orders,
        IN_THE_END,
        always=ALWAYS,
        seeds=headrace_seeds,
        resources=RESOURCES,
        expected_letter=is_expected,
        pages=None,
    )
    assert report.seeds == len(headrace_seeds)


@pytest.mark.slow
def test_every_kind_of_fault_happens_within_a_hundred_runs_of_the_shop() -> None:
    # Nothing in the shop expires.
    missing = set(KINDS) - {"ttl"}
    for seed in range(100):
        report = simulate(
            SERVICES, orders, seeds=[seed], resources=RESOURCES, expected_letter=is_expected
        )
        missing -= set(report.faults)
        if not missing:
            break
    assert missing == set()
