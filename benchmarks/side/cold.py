"""How long the first batch takes on Lambda: `run --jobs cold` (job e).

It is the time from the start of the process to the answer to its first batch of ten, one of them
bad, under Lambda's own runtime client; of headrace, and of Powertools with boto3. Each runs with
the Python of an environment that holds what it needs, and its modules are compiled: the first round
of each is not counted, and leaves their bytecode. The two take turns. Beside it stand the time of
the second batch, and the processor time of the whole process, which a busy machine changes less.

`benchmarks.bundle` measures headrace's own services from the bundles that are deployed.
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from textwrap import dedent
from typing import Any, Final

from benchmarks.bundle import Lambda
from benchmarks.side import protocol, work
from benchmarks.side.contest import (
    CONTENDERS,
    ROOT,
    Bench,
    Contender,
    Failed,
    NoEnvironment,
    environment,
    python_of,
)
from benchmarks.side.figures import sample
from benchmarks.side.report import Findings, Table
from headrace.testing.runtime_api import lambda_runtime

ROUNDS: Final = 20
QUICK_ROUNDS: Final = 10
BATCH: Final = 10
POISON: Final = 0.1

_ENTRY_POINTS: Final = {
    "headrace": """
        from benchmarks.side.contenders.headrace_ import service
        from benchmarks.side.protocol import Job
        from headrace.hosts.lambda_ import lambda_handler

        handler = lambda_handler(service(Job.from_environment()))
    """,
    "powertools": """
        from benchmarks.side.contenders.powertools import lambda_handler_of
        from benchmarks.side.protocol import Job

        handler = lambda_handler_of(Job.from_environment())
    """,
}
"""The module that Lambda would be given, by the name of a contender."""

_COLUMNS: Final = ("contender", "ms", "lowest", "highest", "ms of the next", "ms of CPU, both")
_ENVIRONMENTS: Final = {"headrace": "lambda"}
"""Instead of that of the checkout, which holds much more and takes longer to look through."""


@dataclass(frozen=True, slots=True)
class Started:
    """Of one contender, in milliseconds, one for each process."""

    contender: str
    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Function:
    """A contender as it would be deployed."""

    name: str
    python: str
    variables: Mapping[str, str]

    async def first_two(self, bench: Bench) -> tuple[float, float]:
        """Milliseconds to the answer to the first batch, and then of the next, in one process."""
        job = bench.job("cold", 2 * BATCH, poison=POISON)
        protocol.reset(bench.endpoint, messages=job.messages, poison=POISON, queue=job.queue)
        times = []
        given = {**environment(job), **self.variables}
        async with lambda_runtime(
            f"cold_{self.name}.handler", environment=given, python=self.python, name=self.name
        ) as function:
            for first in (0, BATCH):
                numbers = range(first, first + BATCH)
                event = work.lambda_event(numbers, queue=job.queue, poison=POISON)
                began = time.perf_counter()
                answer = await function.invoke(event)
                times.append((time.perf_counter() - began) * 1000)
                if not _is_right(answer, numbers):
                    raise Failed(f"{self.name} answered {answer}.\n{function.printed()}")
        lost = protocol.counts(bench.endpoint)["lost"]
        if lost["effects"] or lost["events"]:
            raise Failed(f"{self.name} did not do all of its work: lost are {lost}.")
        return times[0], times[1]


def _is_right(answer: Any, numbers: Iterable[int]) -> bool:
    """Whether nothing good failed; the bad one may be in the dead-letter queue already."""
    return answer in ({"batchItemFailures": []}, work.expected_failures(numbers, POISON))


def findings(bench: Bench, names: Iterable[str] | None, quick: bool) -> Findings:
    """headrace and Powertools, or one of them. Nothing but the reason where one cannot be run."""
    named = [name for name in _ENTRY_POINTS if names is None or name in names]
    try:
        found = measured(bench, named, QUICK_ROUNDS if quick else ROUNDS)
    except NoEnvironment as reason:
        return Findings([Table("e. Cold start", _COLUMNS, [], [str(reason)])])
    return Findings([_table(found)], figures=_ratio(found))


def _ratio(found: Sequence[Started]) -> dict[str, float]:
    cold = {each.contender: sample(each.cold) for each in found}
    if cold.keys() != _ENTRY_POINTS.keys():
        return {}
    return {"cold_vs_powertools": cold["headrace"].over(cold["powertools"]).median}


def measured(bench: Bench, names: Iterable[str], rounds: int) -> list[Started]:
    """These in turns, in so many rounds that count. Raises `NoEnvironment` and `Failed`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        client = Lambda.made(folder).client
        functions = [_function(bench, name, folder, client) for name in names]
        return asyncio.run(_in_turns(bench, functions, rounds))


def _function(bench: Bench, name: str, folder: Path, client: Path) -> Function:
    path = folder / f"cold_{name}.py"
    path.write_text(dedent(_ENTRY_POINTS[name]))
    (contender,) = (each for each in CONTENDERS if each.name == name)
    python = python_of(_deployed(contender), bench.given)
    return Function(name, python, _variables(folder, client))


def _variables(folder: Path, client: Path) -> dict[str, str]:
    """Where code is that is not installed, and where bytecode is kept, of the installed as well."""
    paths = (folder, client, ROOT, ROOT / "framework")
    return {
        "PYTHONPATH": ":".join(map(str, paths)),
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        "PYTHONDONTWRITEBYTECODE": "",
    }


def _deployed(contender: Contender) -> Contender:
    environment = _ENVIRONMENTS.get(contender.name, contender.environment)
    return replace(contender, environment=environment)


async def _in_turns(bench: Bench, functions: Sequence[Function], rounds: int) -> list[Started]:
    found = {each.name: Started(each.name) for each in functions}
    for number in range(rounds + 1):
        for function in functions if number % 2 else reversed(functions):
            before = _cpu()
            cold, warm = await function.first_two(bench)
            if number:
                figures = found[function.name]
                figures.cold.append(cold)
                figures.warm.append(warm)
                figures.cpu.append(_cpu() - before)
    return list(found.values())


def _cpu() -> float:
    """Milliseconds that processes have used which this one started, and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def _table(found: Sequence[Started]) -> Table:
    rows = [[each.contender, *_times(each)] for each in found]
    return Table(f"e. From the start of the process to its first batch of {BATCH}", _COLUMNS, rows)


def _times(of: Started) -> Iterator[str]:
    cold = sample(of.cold)
    for milliseconds in (cold.median, cold.low, cold.high, median(of.warm), median(of.cpu)):
        yield f"{milliseconds:,.0f}"
