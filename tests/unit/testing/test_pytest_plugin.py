"""Simulations as tests: what pytest collects, runs and says of them.

pytest runs in a process of its own, as its command line is what is tested.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[3]

ORCHARD = """
import os
import pytest
from headrace import Command, Entity, Service, Transaction
from headrace.testing import Faults, World, simulation

class PickApple(Command, owner="orchard"):
    tree: int

class Basket(Entity, pk="basket#{name}"):
    name: str = "main"
    apples: int = 0

orchard = Service("orchard", bus="garden")

@orchard.on(PickApple)
async def pick(command: PickApple, tx: Transaction) -> None:
    basket = await tx.get(Basket, "main") or Basket()
    basket.apples += 1
    tx.put(basket)

calm = Faults.none()
"""

PASSING = (
    ORCHARD
    + """
@pytest.fixture
def trees() -> int:
    return 3

@simulation(orchard, workers=1)
async def test_apples_add_up(aws: World) -> None:
    await aws.send(PickApple(tree=1), PickApple(tree=2))
    await aws.settled()
    assert aws.get(Basket, "main", service=orchard).apples == 2

@pytest.mark.parametrize("more", [1, 2], ids=["one", "two"])
@simulation(orchard, workers=1, faults=calm)
async def test_beside_others(aws: World, trees: int, more: int, tmp_path: object) -> None:
    await aws.send(*(PickApple(tree=tree) for tree in range(trees + more)))
    await aws.settled()
    assert aws.get(Basket, "main", service=orchard).apples == 3 + more
    assert tmp_path

@pytest.mark.headrace(seeds=60)
@simulation(orchard, workers=1, faults=calm)
async def test_with_seeds_of_its_own(aws: World) -> None:
    await aws.send(PickApple(tree=1))

@simulation(orchard, seeds=[7, 9], workers=1, faults=calm)
async def test_with_seeds_that_it_names(aws: World) -> None:
    await aws.send(PickApple(tree=1))
"""
)

FAILING = (
    ORCHARD
    + """
@simulation(orchard, faults=calm)
async def test_nothing_is_picked(aws: World) -> None:
    await aws.send(*(PickApple(tree=tree) for tree in range(3)))
    await aws.settled()
    luck = aws.random.random()
    assert luck > 0.5, "Somebody picks apples."
"""
)

PLAIN = (
    ORCHARD
    + """
from headrace.testing import simulate

async def apples(aws: World) -> None:
    await aws.send(PickApple(tree=1))

def test_so_many_seeds():
    report = simulate([orchard], apples, faults=calm, workers=1)
    assert report.seeds == int(os.environ["SEEDS"])

def test_seeds_that_are_named_are_those():
    assert simulate([orchard], apples, faults=calm, seeds=2).seeds == 2

async def test_a_coroutine_may_simulate_too():
    import asyncio
    assert simulate([orchard], apples, faults=calm, seeds=1).seeds == 1
    await asyncio.sleep(0.001)
"""
)

SETTINGS = """[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
"""


@dataclass(frozen=True)
class Outcome:
    """What pytest has said, and how it ended."""

    code: int
    text: str

    def tests(self, name: str) -> list[str]:
        """The parameters of a test of this name, as collected or run."""
        return re.findall(rf"{name}\[(.+?)\]", self.text)


Run: TypeAlias = Callable[..., Outcome]


@pytest.fixture
def pytest_of(tmp_path: Path) -> Run:
    """Runs pytest on one file in a folder of its own."""

    def run(source: str, *options: str, mode: str = "auto", **environment: str) -> Outcome:
        (tmp_path / "test_orchard.py").write_text(source)
        (tmp_path / "pytest.ini").write_text(SETTINGS.format(mode=mode))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "headrace_pytest", "--strict-markers"),
                *("-W", "error", "-p", "no:cacheprovider", "--color=no", *options),
            ],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": str(ROOT / "framework"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return Outcome(done.returncode, done.stdout)

    return run


CHUNKS = ["seeds 0-24", "seeds 25-49", "seeds 50-74", "seeds 75-99"]


def test_a_simulation_is_collected_as_tests_of_some_seeds_each_with_a_marker(
    pytest_of: Run,
) -> None:
    source = f"{PASSING}\ndef test_something_else(): pass\n"
    found = pytest_of(source, "--collect-only", "-q", "-m", "headrace")
    assert found.code == 0, found.text
    assert found.tests("test_apples_add_up") == CHUNKS
    assert found.tests("test_with_seeds_of_its_own") == [*CHUNKS[:2], "seeds 50-59"]
    assert found.tests("test_with_seeds_that_it_names") == ["seeds 7..9"]
    beside = {frozenset(name.split("-", 1)) for name in found.tests("test_beside_others")}
    assert len(beside) == 2 * len(CHUNKS)
    assert "test_something_else" not in found.text


def test_many_seeds_are_still_not_many_tests(pytest_of: Run) -> None:
    found = pytest_of(PASSING, "--collect-only", "-q", "--headrace-seeds", "100000")
    assert len(found.tests("test_apples_add_up")) == 16
    assert found.tests("test_apples_add_up")[-1] == "seeds 93750-99999"


def test_the_command_line_says_how_many_seeds_to_run_in_strict_mode_too(pytest_of: Run) -> None:
    found = pytest_of(PASSING, "-v", "--headrace-seeds", "30", mode="strict")
    assert found.code == 0, found.text
    assert found.tests("test_apples_add_up") == ["seeds 0-24", "seeds 25-29"]
    assert found.tests("test_with_seeds_of_its_own") == ["seeds 0-24", "seeds 25-29"]
    assert "10 passed" in found.text


def test_the_command_line_names_one_seed(pytest_of: Run) -> None:
    found = pytest_of(PASSING, "-v", "--headrace-seed", "4711")
    assert found.code == 0, found.text
    assert found.tests("test_apples_add_up") == ["seed 4711"]
    assert found.tests("test_with_seeds_that_it_names") == ["seed 4711"]
    assert "5 passed" in found.text


def test_simulations_are_shared_out_to_several_processes(pytest_of: Run) -> None:
    found = pytest_of(
        PASSING, "-v", "-n", "2", "-k", "apples or of_its_own", "--headrace-seeds", "26"
    )
    assert found.code == 0, found.text
    assert "4 passed" in found.text
    assert set(re.findall(r"\[gw\d\]", found.text)) == {"[gw0]", "[gw1]"}


def test_a_failing_simulation_shows_its_timeline_and_a_seed_that_fails_again(
    pytest_of: Run, tmp_path: Path
) -> None:
    found = pytest_of(FAILING, "--headrace-seeds", "20")
    assert found.code == 1
    assert "Somebody picks apples." in found.text
    assert "receives PickApple" in found.text
    assert "in test_nothing_is_picked" in found.text
    [seed] = set(re.findall(r"--headrace-seed (\d+)", found.text))
    assert (tmp_path / ".headrace" / f"test_nothing_is_picked-{seed}.html").exists()

    again = pytest_of(FAILING, "--headrace-seed", seed, "--headrace-no-shrink")
    assert "Somebody picks apples." in again.text
    assert again.tests("test_nothing_is_picked")[0] == f"seed {seed}"
    assert "Sent: 3\n" in again.text


def test_simulate_in_a_plain_test_takes_its_seeds_from_the_command_line(pytest_of: Run) -> None:
    found = pytest_of(PLAIN, "--headrace-seeds", "7", SEEDS="7")
    assert found.code == 0, found.text
    assert "3 passed" in found.text
