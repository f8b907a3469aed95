"""pytest's part of `headrace.testing`: the seeds of simulations on its command line.

Apart from the package, because pytest imports it in every project of an environment, and this
costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

SEEDS: Final = 100
"""Seeds of a simulation that nobody has said more about."""

_CHUNK: Final = 25
_CHUNKS: Final = 16

_config: list[pytest.Config] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("headrace", "simulations")
    group.addoption(
        "--headrace-seeds", type=int, metavar="N", help="run each simulation with N seeds"
    )
    group.addoption(
        "--headrace-seed", type=int, metavar="S", help="run each simulation with seed S alone"
    )
    group.addoption(
        "--headrace-no-shrink",
        action="store_true",
        help="show a run that went wrong as it was, without looking for a smaller one",
    )


def pytest_configure(config: pytest.Config) -> None:
    many = config.getoption("headrace_seeds")
    if many is not None and many < 1:
        raise pytest.UsageError(f"--headrace-seeds {many}: a simulation needs at least one seed.")
    _config.append(config)
    config.addinivalue_line(
        "markers", "headrace(seeds=100): runs a simulation, by default with so many seeds"
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    if config in _config:
        _config.remove(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of many seeds becomes some tests of fewer, which may run on different processes."""
    if "headrace_seeds" in metafunc.fixturenames:
        markers = metafunc.definition.iter_markers("headrace")
        own = next((m.kwargs["seeds"] for m in markers if "seeds" in m.kwargs), SEEDS)
        asked = asked_for()
        given = range(own) if isinstance(own, int) else own
        seeds = given if asked is None else asked
        metafunc.parametrize("headrace_seeds", _chunks(seeds), ids=_id)


def asked_for() -> Sequence[int] | None:
    """The seeds that the command line names."""
    for config in _config:
        one, many = config.getoption("headrace_seed"), config.getoption("headrace_seeds")
        if one is not None:
            return [int(one)]
        if many is not None:
            return range(int(many))
    return None


def shrinks() -> bool:
    """Whether a run that went wrong is to be made smaller."""
    return not any(config.getoption("headrace_no_shrink") for config in _config)


def _chunks(seeds: Sequence[int]) -> list[Sequence[int]]:
    size = max(_CHUNK, -(-len(seeds) // _CHUNKS))
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def _id(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    follow = isinstance(seeds, range) and seeds.step == 1
    return f"seeds {seeds[0]}{'-' if follow else '..'}{seeds[-1]}"
