"""What an idle worker calls: `run --jobs idle` (job g).

Each worker waits on a queue that stays empty, on a server of its own, and what it calls in a
minute is counted there, once it has begun to receive. The calls of an hour are 60 times that.
AWS bills for empty receives as for full ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from benchmarks.side import protocol
from benchmarks.side.contest import (
    ROOT,
    Bench,
    Contender,
    Failed,
    NoEnvironment,
    command,
    contenders,
    environment,
    python_of,
)
from benchmarks.side.report import Findings, Table
from benchmarks.side.server.process import instant_server

SECONDS: Final = 60.0
_COLUMNS: Final = ("contender", "calls an hour", "remarks")
_STARTING: Final = 60.0
_SETTLING: Final = 5.0
"""From the first receive until a worker does nothing but wait."""


@dataclass(frozen=True, slots=True)
class Idle:
    """The calls of one contender while it waited."""

    contender: str
    calls: Mapping[str, int]
    seconds: float

    @property
    def per_hour(self) -> float:
        return sum(self.calls.values()) / self.seconds * 3600


def findings(bench: Bench, names: Iterable[str] | None, quick: bool) -> Findings:
    """Of all workers that can be run, or of these. A minute, quick or not."""
    left: list[str] = []
    found = measured(bench.given, names, left)
    rows = [[each.contender, f"{each.per_hour:,.0f}", _named(each.calls)] for each in found]
    title = f"g. Calls of an idle worker, counted for {SECONDS:.0f} s"
    per_hour = {each.contender: each.per_hour for each in found}
    figures = {"idle_calls_per_hour": per_hour["headrace"]} if "headrace" in per_hour else {}
    return Findings([Table(title, _COLUMNS, rows, left)], figures=figures)


def measured(given: Mapping[str, str], names: Iterable[str] | None, left: list[str]) -> list[Idle]:
    """They all wait at the same time. `given` are interpreters, as `Bench` has them; to `left` is
    added why one could not be run."""
    with ExitStack() as stack:
        waiting: dict[str, str] = {}
        for contender in contenders("idle", names):
            try:
                waiting[contender.name] = stack.enter_context(_waiting(contender, given))
            except (Failed, NoEnvironment) as reason:
                left.append(str(reason))
        time.sleep(_SETTLING)
        before = {name: _calls(endpoint) for name, endpoint in waiting.items()}
        time.sleep(SECONDS)
        after = {name: _calls(endpoint) for name, endpoint in waiting.items()}
    return [Idle(name, after[name] - before[name], SECONDS) for name in waiting]


def _named(calls: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(calls.items()))


@contextmanager
def _waiting(contender: Contender, given: Mapping[str, str]) -> Iterator[str]:
    """A worker that has begun to wait on an empty queue; yields the address of its server."""
    with instant_server() as endpoint:
        protocol.reset(endpoint, hold=True)
        # The job is never done: whoever began it ends it.
        name = "drain" if "drain" in contender.jobs else "plain"
        job = Bench(endpoint).job(name, 10)
        process = subprocess.Popen(
            command(contender, python_of(contender, given)),
            env=environment(job),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _until_it_receives(contender, process, endpoint)
            yield endpoint
        finally:
            with suppress(ProcessLookupError):
                # With the processes that it has started, which are in its session.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _until_it_receives(
    contender: Contender, process: subprocess.Popen[bytes], endpoint: str
) -> None:
    late = time.monotonic() + _STARTING
    while not _calls(endpoint)["ReceiveMessage"]:
        if process.poll() is not None or time.monotonic() > late:
            raise Failed(f"{contender.name} did not begin to receive.")
        time.sleep(0.1)


def _calls(endpoint: str) -> Counter[str]:
    return Counter(protocol.counts(endpoint)["calls"])
