"""`headrace saga explore` and `headrace saga graph`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.events import registry
from tests.unit.cli.conftest import Headrace

PROGRAM = """
from datetime import timedelta
from headrace import Command, Event, Service
from headrace.saga import Saga, step

class CakeWanted(Event, source="cli.guest"):
    cake: str

class BakeCake(Command, owner="baker"):
    cake: str

class CakeBaked(Event, source="cli.baker"):
    cake: str

class CakeBurnt(Event, source="cli.baker"):
    cake: str

bakery = Service("bakery", bus="shop")

class Cake(Saga, service=bakery, starts_on=CakeWanted, key="cake"):
    cake: str

    @classmethod
    def begin(cls, event: CakeWanted) -> "Cake":
        return cls(cake=event.cake)

    @step(done=CakeBaked, failed=CakeBurnt, timeout=timedelta(minutes=1), nothing_to_undo=True)
    def bake(self) -> BakeCake:
        return BakeCake(cake=self.cake)

class HastyCake(Cake, service=bakery, starts_on=CakeWanted, key="cake", name="cake", version=2):
    @step(done=CakeBaked, failed=CakeBurnt, nothing_to_undo=True)
    def bake(self) -> BakeCake:
        return BakeCake(cake=self.cake)
"""


@pytest.fixture
def bakery(project: Path) -> Iterator[None]:
    with registry.scratch(empty=True):
        (project / "shop" / "bakery.py").write_text(PROGRAM)
        yield


@pytest.mark.usefixtures("bakery")
def test_all_versions_of_all_sagas_are_walked_and_their_problems_shown(headrace: Headrace) -> None:
    ended = headrace("saga", "explore", "shop.bakery:bakery")

    lines = ended.out.splitlines()
    assert ended.code == 1
    assert lines[0].startswith("bakery.cake version 1: ")
    assert lines[1].startswith("bakery.cake version 2: ")
    assert "  problem: it does not end: it is running, and waits for bake" in lines
    assert "     2. nothing more comes: bake is never answered" in lines
    counts = dict(part.split("=") for part in lines[-1].split())
    assert counts.keys() == {"states", "transitions", "problems"}
    assert int(counts["problems"]) == 2


@pytest.mark.usefixtures("bakery")
def test_a_walk_without_problems_ends_well(project: Path, headrace: Headrace) -> None:
    good = PROGRAM.partition("class HastyCake")[0]
    (project / "shop" / "bakery.py").write_text(good)

    ended = headrace("saga", "explore", "shop.bakery:bakery", "--saga", "cake")

    assert ended.code == 0
    assert ended.out.splitlines()[-1].endswith(" problems=0")


@pytest.mark.usefixtures("bakery")
def test_a_saga_that_is_not_there_is_refused_with_those_that_are(headrace: Headrace) -> None:
    ended = headrace("saga", "explore", "shop.bakery:bakery", "--saga", "bread")

    assert ended.code == 2
    assert "There is no saga 'bread' in shop.bakery:bakery: these are: bakery.cake." in ended.err


@pytest.mark.usefixtures("bakery")
def test_a_saga_is_drawn_on_the_terminal_or_into_a_file(project: Path, headrace: Headrace) -> None:
    drawn = headrace("saga", "graph", "shop.bakery:bakery")
    written = headrace("saga", "graph", "shop.bakery:bakery", "--output", "cake.svg")

    assert drawn.out.startswith("flowchart TD\n")
    assert written.out == "Wrote cake.svg.\n"
    assert (project / "cake.svg").read_text().startswith("<svg ")


@pytest.mark.usefixtures("bakery")
def test_an_ending_that_is_not_known_is_refused_unless_the_format_is_given(
    project: Path, headrace: Headrace
) -> None:
    refused = headrace("saga", "graph", "shop.bakery:bakery", "--output", "cake.png")

    assert (refused.code, (project / "cake.png").exists()) == (2, False)
    assert "name a file that ends in .svg, or in .mmd for Mermaid" in refused.err

    given = headrace("saga", "graph", "shop.bakery:bakery", "--output", "cake", "--format", "svg")
    assert (given.code, (project / "cake").read_text()[:5]) == (0, "<svg ")
