"""The simulation bites: without one of its protections, the library is caught at once.

All seeds are gone through by `make sabotage`; here it is those around the one that is known to
show it.
"""

from __future__ import annotations

import pytest

from headrace.testing.simulation.checks import name_of
from tests.sabotage import workers
from tests.sabotage.laboratory import SCENARIOS, nearby, search, timeline
from tests.sabotage.sabotage import Sabotage
from tests.sabotage.sabotages import SABOTAGES

CHECKS = {"settled", "exactly once", "worker", "dead letters"}
"""What every simulation looks at without being asked."""


@pytest.mark.slow
@pytest.mark.parametrize("sabotage", [pytest.param(each, id=each.name) for each in SABOTAGES])
def test_each_protection_that_is_taken_away_is_missed(sabotage: Sabotage) -> None:
    searched = search(sabotage, nearby(sabotage.around))
    assert searched.found is not None, (
        f"{searched} around {sabotage.around}. If the library has changed, the seeds have too: "
        "run python -m tests.sabotage --hints, and put its seeds into around=."
    )
    told = timeline(sabotage, searched.found.plan.seed)
    print(told)
    assert "WRONG" in told


def test_the_names_of_sabotages_are_their_own_and_there_are_enough_of_them() -> None:
    assert len({sabotage.name for sabotage in SABOTAGES}) == len(SABOTAGES) >= 30


@pytest.mark.parametrize("sabotage", [pytest.param(each, id=each.name) for each in SABOTAGES])
def test_a_sabotage_is_to_be_noticed_by_a_check_that_there_is(sabotage: Sabotage) -> None:
    setting = SCENARIOS[sabotage.scenario]
    known = CHECKS | {name_of(invariant) for invariant in (*setting.invariants, *setting.always)}
    assert sabotage.caught_by
    assert set(sabotage.caught_by) <= known


def test_what_breaks_everything_is_not_taken_for_caught() -> None:
    broken = Sabotage("", workers.error_in_the_background, caught_by=("exactly once",), around=0)
    searched = search(broken, range(5))
    assert searched.found is None
    assert set(searched.others) == {"worker"}


def test_what_is_wrong_without_a_sabotage_is_not_taken_for_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers.error_in_the_background(monkeypatch)
    idle = Sabotage("nothing is taken away", lambda patch: None, caught_by=("worker",), around=0)
    searched = search(idle, range(5))
    assert searched.found is None
    assert "what is wrong without it too" in str(searched)
