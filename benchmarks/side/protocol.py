"""What every contender shares: the job it is given, how it is measured, and how it answers.

Standard library only, for Python 3.11 and newer, as it runs in every peer's own environment.

A contender that calls its own code in a loop (a Lambda handler, a publisher):

    job = Job.from_environment()
    measure = Measure(job, "boto3_plain")
    for event in measure.over(events):        # started after the warm-up, ended after the last
        handler(event, None)
    measure.report(packages=["boto3"])

One that runs a worker, in this process or in children, is watched from outside of it:

    measure.watch(stop)                       # a thread; calls stop() when all are deleted
    run_worker()                              # returns some time after stop() was called
    measure.report(packages=["celery", "kombu"])
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

T = TypeVar("T")

VARIABLE: Final = "BENCH_JOB"
"""The environment variable that holds the job, as a JSON object."""

ACCOUNT: Final = "000000000000"

WARM_UP: Final = 20
"""One message in so many comes before the measuring begins."""

_CONTROL_SECONDS: Final = 900
_A_DAY: Final = 86_400
"""A million messages take half an hour, and whoever runs the contender ends it if need be."""
_proxyless = build_opener(ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, and where. The AWS variables of the environment (endpoint, region,
    dummy credentials) are set as well, so that a library finds what it looks for."""

    name: str
    """`lambda` (a), `drain` (b), `plain` (c), `publish` (d), `cold` (e), `memory` (f), `idle` (g),
    `backlog` and `handlers` (h)."""
    endpoint: str
    """Of the server, as `http://127.0.0.1:4566`."""
    messages: int
    """All of them, those of the warm-up included; numbered from 0."""
    queue: str = "orders"
    table: str = "orders"
    bus: str = "shop"
    batch: int = 10
    """Records in one Lambda event, or entries in one call."""
    poison: float = 0.0
    """The share of messages that do not validate; see `work.is_bad`."""
    seed: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of one kind of job, as the number of handlers."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Job:
        """Raises `KeyError` where `BENCH_JOB` is not set, `TypeError` for what a job has not."""
        return cls(**json.loads(environ[VARIABLE]))

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def warm_up(self) -> int:
        """Messages before the measuring begins, in whole batches."""
        return self.messages // WARM_UP // self.batch * self.batch

    @property
    def queue_url(self) -> str:
        return f"{self.endpoint}/{ACCOUNT}/{self.queue}"


class Measure:
    """The cost of a job in this process and its children. `started` and `ended` are called once
    each, by hand or by `over` or `watch`; `report` prints the one line that is read."""

    def __init__(self, job: Job, contender: str) -> None:
        self.job = job
        self.contender = contender
        self._from: tuple[float, float] | None = None
        self._result: dict[str, Any] = {}

    def started(self) -> None:
        self._from = (cpu_seconds(), time.perf_counter())

    def ended(self) -> None:
        cpu, wall = cpu_seconds(), time.perf_counter()
        if self._from is None:
            raise RuntimeError("Nothing was measured: call started() before ended().")
        rss, peak = memory_kb()
        self._result = {
            "cpu_s": round(cpu - self._from[0], 6),
            "wall_s": round(wall - self._from[1], 6),
            "rss_kb": rss,
            "peak_rss_kb": peak,
        }

    def over(self, steps: Sequence[T], *, each: int | None = None) -> Iterator[T]:
        """The steps one by one; each stands for `each` messages, which is `job.batch` if not said.
        Make them before, so that making them is not measured."""
        warm = self.job.warm_up // (each or self.job.batch)
        for index, step in enumerate(steps):
            if index == warm:
                self.started()
            yield step
        self.ended()

    def watch(self, stop: Callable[[], object], *, until: str = "deleted") -> threading.Thread:
        """Measure while the server's count `until` goes from the warm-up to all messages, then
        call `stop`, in the thread that is returned. On a loop, pass
        `lambda: loop.call_soon_threadsafe(event.set)`."""
        thread = threading.Thread(target=self._watch, args=(stop, until), daemon=True)
        thread.start()
        return thread

    def _watch(self, stop: Callable[[], object], until: str) -> None:
        try:
            wait_until(self.job.endpoint, until, self.job.warm_up)
            self.started()
            wait_until(self.job.endpoint, until, self.job.messages)
            self.ended()
            stop()
        except BaseException:
            # A worker that nobody stops would run for ever.
            traceback.print_exc()
            os._exit(70)

    def report(
        self,
        *,
        packages: Iterable[str] = (),
        messages: int | None = None,
        notes: str = "",
        **figures: float,
    ) -> None:
        """Print the result as one line of JSON, with the versions of `packages`. `messages` are
        those that were measured, if they are not all but the warm-up."""
        measured = self.job.messages - self.job.warm_up if messages is None else messages
        line = {
            "contender": self.contender,
            "job": self.job.name,
            "messages": measured,
            **self._result,
            **figures,
            "notes": notes,
            "python": ".".join(map(str, sys.version_info[:3])),
            "versions": {name: version(name) for name in packages},
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


# --- the server's control plane --------------------------------------------------------


def counts(endpoint: str) -> dict[str, Any]:
    """What the server has counted since it was last reset; see `server.counts`."""
    return _called(f"{endpoint}/bench/counts")


def reset(endpoint: str, **settings: Any) -> dict[str, Any]:
    """Forget everything and set the server up; see `server.settings`."""
    return _called(f"{endpoint}/bench/reset", json.dumps(settings).encode())


def recount(endpoint: str) -> dict[str, Any]:
    """Count from 0 again, and leave what is in the queue and in the tables."""
    return _called(f"{endpoint}/bench/recount", b"{}")


def wait_until(endpoint: str, count: str, reached: int) -> dict[str, Any]:
    """The counts, once this one is so high: `deleted`, `effects`, `events`, `received`, `sent`, or
    the calls of an operation, as `PutEvents`."""
    return _called(f"{endpoint}/bench/until?{urlencode({count: reached})}", within=_A_DAY)


def _called(
    url: str, body: bytes | None = None, *, within: float = _CONTROL_SECONDS
) -> dict[str, Any]:
    request = Request(url, data=body)
    with _proxyless.open(request, timeout=within) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


# --- what the process costs ------------------------------------------------------------


def cpu_seconds() -> float:
    """User and system time of this process, its ended children, and its running ones. The last
    are known to 10 ms, and only on Linux."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(map(_cpu_of, descendants()))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + running


def memory_kb() -> tuple[int, int]:
    """Resident memory of this process and its running children, in KiB: now, and at its peak.
    Pages that they share are counted for each of them."""
    processes = [_memory_of(pid) for pid in (os.getpid(), *descendants())]
    if not any(processes):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak, peak
    return sum(now for now, _ in processes), sum(peak for _, peak in processes)


def descendants() -> list[int]:
    """The processes that this one has started, and those that they have."""
    found = [os.getpid()]
    for pid in found:
        found += _children_of(pid)
    return found[1:]


def _children_of(pid: int) -> list[int]:
    listed = (_read(path) for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for text in listed for child in text.split()]


def _cpu_of(pid: int) -> float:
    """Its own time and that of its ended children: fields 14 to 17 of proc_pid_stat(5)."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _memory_of(pid: int) -> tuple[int, int]:
    lines = (line.split() for line in _read(Path(f"/proc/{pid}/status")).splitlines())
    found = {words[0]: int(words[1]) for words in lines if words[0] in ("VmRSS:", "VmHWM:")}
    return found.get("VmRSS:", 0), found.get("VmHWM:", 0)


def _read(path: Path) -> str:
    """Nothing for a process that has ended meanwhile."""
    try:
        return path.read_text()
    except OSError:
        return ""
