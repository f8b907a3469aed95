"""The zoo keeps its promises, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from headrace.testing import Faults, World, simulate
from tests.simulation import zoo
from tests.simulation.zoo import ALWAYS, IN_THE_END, RESOURCES, SERVICES, is_expected, open_day


@pytest.mark.slow
@pytest.mark.headrace(seeds=200)
def test_no_fault_makes_the_zoo_lose_or_repeat_anything(headrace_seeds: Sequence[int]) -> None:
    report = simulate(
        SERVICES,
        open_day,
        IN_THE_END,
        always=ALWAYS,
        seeds=headrace_seeds,
        resources=RESOURCES,
        expected_letter=is_expected,
        pages=None,
    )
    assert report.seeds == len(headrace_seeds)


def test_a_renewal_that_is_stuck_on_its_way_takes_no_lease_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No clock is wrong here and nothing is down, so who loses a lease hears of it at once.
    monkeypatch.setattr(zoo, "_TO_KNOW", 0.9)

    async def three_long_operations(aws: World) -> None:
        for name, weight in zoo.ANIMALS.items():
            animal = zoo.Animal(house=zoo.HOUSE, name=name, weight=weight)
            await aws.put(animal, service=zoo.vet)
        for number in range(3):
            operate = zoo.ZooOperate(operation=f"operation-{number}", animal="lion", pulses=25)
            await aws.send(operate)

    simulate(
        zoo.vet,
        three_long_operations,
        [zoo.one_at_a_time_operates, zoo.every_operation_is_done_once],
        seeds=30,
        faults=Faults.only(late=0.1, duplicate=0.3),
        resources={zoo.vet: RESOURCES[zoo.vet]},
        pages=None,
    )


def test_the_zoo_does_all_that_it_is_made_for_when_nothing_goes_wrong() -> None:
    report = simulate(
        SERVICES,
        open_day,
        IN_THE_END,
        always=ALWAYS,
        seeds=10,
        faults=Faults.none(),
        resources=RESOURCES,
        expected_letter=is_expected,
        pages=None,
    )
    assert not report.faults
