"""The sample shop with one protection less."""

from __future__ import annotations

from typing import Final

import pytest

from headrace.testing import Violation, simulate
from services.simulation.invariants import ALWAYS, IN_THE_END, is_expected
from services.simulation.shop import RESOURCES, SERVICES, orders
from tests.sabotage.sabotages import Sabotage

SEEDS: Final = 200
"""Within so many each of them has to be caught."""


def caught(sabotage: Sabotage) -> Violation | None:
    """What the simulation says of the shop, if it notices."""
    with pytest.MonkeyPatch.context() as patch:
        sabotage.apply(patch)
        try:
            simulate(
                SERVICES,
                orders,
                (*IN_THE_END, *sabotage.invariants),
                always=ALWAYS,
                seeds=SEEDS,
                faults=sabotage.faults,
                resources=RESOURCES,
                expected_letter=is_expected,
                pages=None,
            )
        except Violation as violation:
            return violation
    return None
