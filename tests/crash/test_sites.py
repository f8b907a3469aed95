"""Every place where a delivery can be left is passed by a scenario, and so it is died at.

A new await makes the first test here fail until some scenario comes by; see `scenarios`.
"""

from __future__ import annotations

import ast
import asyncio
from concurrent.futures import Executor
from typing import Any

import pytest

from tests.crash import instrument, memory, passing
from tests.crash.passing import Life, Moment, living
from tests.crash.scenarios import SCENARIOS, UNREACHED


@pytest.fixture(scope="module")
def passed(instrumented: Executor) -> set[str]:
    """The ids of the sites that any scenario passes."""
    names = [scenario.name for scenario in SCENARIOS]
    return set().union(*instrumented.map(memory.sites_passed, names))


def function_of(site: instrument.Site) -> str:
    return f"{site.module}:{site.function}"


def test_every_place_where_a_delivery_can_be_left_is_passed_by_a_scenario(
    passed: set[str],
) -> None:
    missed = [site for site in instrument.sites() if site.id not in passed]
    assert [str(site) for site in missed if function_of(site) not in UNREACHED] == []


def test_no_exception_is_made_for_what_a_scenario_passes(passed: set[str]) -> None:
    missed = {function_of(site) for site in instrument.sites() if site.id not in passed}
    assert UNREACHED.keys() - missed == set()


def test_every_await_of_the_path_is_a_site() -> None:
    awaits, found = 0, instrument.sites()
    for path in instrument.path_sources().values():
        for node in ast.walk(ast.parse(path.read_text())):
            awaits += isinstance(node, ast.Await)
    assert [site.kind for site in found].count("await") == awaits
    assert len({site.id for site in found}) == len(found)


def test_the_path_is_what_its_beginnings_import() -> None:
    path = set(instrument.path_sources())
    assert {f"headrace.{name}" for name in ("inbox", "outbox", "coalesce", "middleware")} <= path
    assert not {name for name in path if name.startswith(("headrace.aws", "headrace.testing"))}


def test_only_the_process_for_it_has_modules_with_sites(instrumented: Executor) -> None:
    assert not instrument.has_sites("headrace.pipeline")
    assert instrumented.submit(instrument.has_sites, "headrace.pipeline").result()
    with pytest.raises(RuntimeError, match=r"Imported before .*headrace\.pipeline"):
        instrument.install()


SAMPLE = """
class Door:
    async def __aenter__(self): seen.append("in")
    async def __aexit__(self, *error): seen.append("out")

async def steps():
    yield 1

async def fails():
    raise ValueError

async def visit():
    async with Door():
        seen.extend([step async for step in steps()])
    async for step in steps():
        await stay()
    try:
        await fails()
    except ValueError:
        seen.append("failed")

async def stay():
    await nap(0)
"""


def sample() -> dict[str, Any]:
    tree, _ = instrument.instrumented(SAMPLE, "sample")
    namespace = {"__crash__": passing, "seen": [], "nap": asyncio.sleep}
    exec(compile(tree, "sample", "exec"), namespace)
    return namespace


async def test_a_module_with_sites_does_what_it_did_and_passes_them_in_order() -> None:
    module, life = sample(), Life()
    with living(life):
        await module["visit"]()
    assert module["seen"] == ["in", 1, "out", "failed"]
    assert [(m.site.removeprefix("sample:"), m.side) for m, _ in life.trail] == [
        ("visit:1", "before"),  # the entry
        ("visit:1", "after"),
        ("visit:3", "before"),  # the comprehension
        ("visit:3", "after"),
        ("visit:3", "before"),
        ("visit:3", "raised"),
        ("visit:2", "before"),  # the exit
        ("visit:2", "after"),
        ("visit:4", "before"),  # the loop
        ("visit:4", "after"),
        ("visit:5", "before"),
        ("stay:1", "before"),
        ("stay:1", "after"),
        ("visit:5", "after"),
        ("visit:4", "before"),
        ("visit:4", "raised"),
        ("visit:6", "before"),
        ("visit:6", "raised"),
    ]


@pytest.mark.parametrize(
    ("moment", "seen"),
    [
        (Moment("sample:visit:1", "before"), []),
        (Moment("sample:visit:1", "after"), ["in", 1, "out"]),
        (Moment("sample:stay:1", "before"), ["in", 1, "out"]),
        (Moment("sample:visit:6", "before"), ["in", 1, "out"]),
        (Moment("sample:visit:6", "raised"), ["in", 1, "out"]),
    ],
    ids=str,
)
async def test_a_life_ends_at_its_moment(moment: Moment, seen: list[object]) -> None:
    module = sample()
    task = asyncio.ensure_future(module["visit"]())
    life = Life(moment, task.cancel)
    with living(life):
        await asyncio.wait({task})
    assert life.ended
    assert task.cancelled()
    assert module["seen"] == seen
