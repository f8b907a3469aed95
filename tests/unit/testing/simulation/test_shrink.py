"""The smallest run that is still wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from headrace import Command, Entity, PoisonMessage, Service, Transaction
from headrace.testing import Faults, Violation, World
from headrace.testing.simulation import shrink
from headrace.testing.simulation.plan import Plan, Run, Setting
from headrace.testing.simulation.run import run
from headrace.testing.simulation.shrink import shrunk
from tests.unit.testing.simulation.ferry import broken, violation_of


class LoadBarge(Command, owner="barge"):
    cargo: str


class Hold(Entity, pk="hold#{cargo}"):
    cargo: str
    loaded: int = 0


barge = Service("barge", bus="harbour")


@barge.on(LoadBarge, idempotent=True)
async def load(command: LoadBarge, tx: Transaction) -> None:
    """It says that it is idempotent, and is not."""
    hold = await tx.get(Hold, command.cargo) or Hold(cargo=command.cargo)
    hold.loaded += 1
    tx.put(hold)


CARGOES = ["coal", "grain", "timber", "salt", "wool"]
EVERYTHING = [LoadBarge(cargo=cargo) for cargo in CARGOES]


def nothing_is_loaded_twice(aws: World) -> None:
    for hold in aws.all(Hold, barge):
        assert hold.loaded == 1, f"The {hold.cargo} is loaded {hold.loaded} times."


MANY = Faults.only(
    duplicate=0.9, reorder=1.0, delay=0.5, skew=1.0, conflict=0.3, deploy=1.0, slow_handler=0.3
)


def overloaded(seed: int = 0) -> Violation:
    return violation_of(
        [barge], EVERYTHING, [nothing_is_loaded_twice], seeds=range(seed, seed + 50), faults=MANY
    )


@pytest.fixture(scope="module")
def violation() -> Violation:
    return overloaded()


async def everything_is_sent(aws: World) -> None:
    await aws.send(*EVERYTHING)


SETTING = Setting((barge,), everything_is_sent, (nothing_is_loaded_twice,), faults=MANY, workers=1)


def first_failing(setting: Setting) -> Run:
    runs = (run(setting, Plan(seed)) for seed in range(50))
    return next(found for found in runs if found.wrong is not None)


def kinds(found: Run) -> Counter[str]:
    return Counter(fault.kind for fault in found.struck)


def test_of_many_faults_the_one_that_is_needed_is_left(violation: Violation) -> None:
    assert sum(violation.report.faults.values()) > 10
    assert kinds(violation.run) == {"duplicate": 1}


def test_messages_that_do_not_matter_are_left_out(violation: Violation) -> None:
    assert violation.run.sendings == len(CARGOES)
    assert len(violation.run.plan.dropped) == len(CARGOES) - 1


def test_what_is_found_in_the_smallest_run_is_what_was_found(violation: Violation) -> None:
    assert broken(violation) == "nothing is loaded twice"
    assert violation.run.wrong is not None
    assert violation.run.wrong.name == broken(violation)


def test_the_smallest_run_fails_again_under_its_plan_alone() -> None:
    failed = first_failing(SETTING)
    smallest, _ = shrunk(SETTING, failed)
    again = run(SETTING, smallest.plan)
    assert again.wrong is not None
    assert again.struck == smallest.struck
    assert len(again.struck) < len(failed.struck)
    assert again.wrong.name == "nothing is loaded twice"


def test_no_part_of_the_smallest_run_can_be_left_out() -> None:
    smallest, _ = shrunk(SETTING, first_failing(SETTING))
    assert smallest.plan.allowed is not None
    for fault in smallest.struck:
        without = [other for other in smallest.struck if other != fault]
        plan = Plan(smallest.plan.seed, frozenset(without), smallest.plan.dropped, shuffled=False)
        assert run(SETTING, plan).wrong is None


def test_a_smallest_run_runs_in_the_order_in_which_everything_came(violation: Violation) -> None:
    assert violation.run.plan.shuffled is False


def test_the_same_violation_is_made_as_small_every_time(violation: Violation) -> None:
    assert str(overloaded(violation.seed)) == str(violation)


def test_what_needs_no_fault_is_shown_without_any() -> None:
    raft = Service("barge", bus="harbour")

    @raft.on(LoadBarge)
    async def refuse(command: LoadBarge) -> None:
        if command.cargo == "salt":
            raise PoisonMessage("Salt is wet.")

    found = violation_of([raft], EVERYTHING, seeds=[3], faults=MANY)
    assert sum(found.report.faults.values()) > 0
    assert found.run.struck == ()
    assert found.run.plan.calm
    assert "Salt is wet." in str(found)


def test_a_message_that_an_invariant_would_miss_is_not_left_out() -> None:
    async def coal_and_grain_are_there_once(aws: World) -> None:
        loaded = {hold.cargo: hold.loaded for hold in aws.all(Hold, barge)}
        assert (loaded.get("coal"), loaded.get("grain")) == (1, 1)

    violation = violation_of(
        [barge],
        EVERYTHING,
        [coal_and_grain_are_there_once],
        seeds=50,
        faults=Faults.only(duplicate=0.2),
    )
    assert violation.run.wrong is not None
    assert {0, 1}.isdisjoint(violation.run.plan.dropped)
    assert violation.run.plan.dropped


def test_two_faults_that_are_needed_together_stay_together() -> None:
    def two_are_loaded_twice(aws: World) -> None:
        twice = [hold.cargo for hold in aws.all(Hold, barge) if hold.loaded > 1]
        assert len(twice) < 2, "Two are loaded twice."

    found = violation_of(
        [barge],
        EVERYTHING,
        [two_are_loaded_twice],
        seeds=50,
        faults=Faults.only(duplicate=0.9, reorder=0.5),
    )
    assert kinds(found.run) == {"duplicate": 2}
    assert found.run.plan.dropped


def test_without_the_time_to_look_for_it_the_smallest_run_is_the_one_there_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = first_failing(SETTING)
    monkeypatch.setattr(shrink, "RUNS", 0)
    assert shrunk(SETTING, failed) == (failed, False)


def test_whenever_the_search_ends_its_smallest_run_so_far_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = first_failing(SETTING)
    sizes = []
    for runs in (2, 8, 40):
        monkeypatch.setattr(shrink, "RUNS", runs)
        smallest, _ = shrunk(SETTING, failed)
        assert run(SETTING, smallest.plan).wrong is not None
        sizes.append(len(smallest.struck))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
