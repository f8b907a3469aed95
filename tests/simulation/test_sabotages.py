"""The simulation bites: without one of its protections, the library is caught at once."""

from __future__ import annotations

import pytest

from tests.sabotage.laboratory import SEEDS, caught
from tests.sabotage.sabotages import SABOTAGES, Sabotage


@pytest.mark.slow
@pytest.mark.parametrize("sabotage", [pytest.param(each, id=each.name) for each in SABOTAGES])
def test_each_protection_that_is_taken_away_is_missed(sabotage: Sabotage) -> None:
    violation = caught(sabotage)
    assert violation is not None, f"{sabotage.name}: nothing was wrong in {SEEDS} runs"
    print(violation)
    assert f"Seed {violation.seed}" in str(violation)
    assert violation.run.wrong is not None


def test_the_names_of_sabotages_are_their_own_and_there_are_enough_of_them() -> None:
    assert len({sabotage.name for sabotage in SABOTAGES}) == len(SABOTAGES) >= 12
