"""The same seed gives the same run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.traces import trace

ROOT = Path(__file__).parents[2]

SEEDS = ("0", "1", "2")

OTHER_PYTHONS = os.environ.get("HEADRACE_OTHER_PYTHONS", "").split()
"""Interpreters of other versions, each with what the tests need."""


@pytest.fixture(scope="module")
def traces() -> bytes:
    return "".join(trace(int(seed)) for seed in SEEDS).encode()


def of_another_process(python: str, hash_seed: str) -> bytes:
    return subprocess.run(
        [python, "-m", "tests.simulation.traces", *SEEDS],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}/framework:{ROOT}"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    ).stdout


def test_a_seed_gives_the_same_trace_byte_for_byte_every_time(traces: bytes) -> None:
    again = {"".join(trace(int(seed)) for seed in SEEDS).encode() for _ in range(17)}
    assert again == {traces}
    assert traces.count(b"\n") > 300


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "1", "4294967295"])
def test_it_does_so_in_another_process_whatever_its_hash_seed(
    traces: bytes, hash_seed: str
) -> None:
    assert of_another_process(sys.executable, hash_seed) == traces


@pytest.mark.slow
@pytest.mark.skipif(not OTHER_PYTHONS, reason="HEADRACE_OTHER_PYTHONS names no interpreter")
@pytest.mark.parametrize("python", OTHER_PYTHONS)
def test_it_does_so_under_another_version_of_python(traces: bytes, python: str) -> None:
    assert of_another_process(python, "random") == traces


def test_another_seed_gives_another_trace() -> None:
    assert trace(0) != trace(1)
