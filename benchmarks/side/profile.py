"""Where the time of a message goes in headrace: `python -m benchmarks.side.profile`.

A worker of headrace drains a queue on the server that answers at once (job b). A timer of the
kernel interrupts it each time it has used another few milliseconds of CPU, and the stack is noted.
Of a stack, the innermost function that `OWNERS` names a share for owns the whole sample: what it
calls of the standard library, pydantic, tenacity or asyncio is its own doing, and what it calls of
another share is not. So every sample is in one share, and the shares add up to 100 %; the
microseconds are these shares of the CPU time that the job itself reports.

Of a sampling profiler, this one has two biases. Nothing is instrumented, so functions that make
many calls are not made slower than others, as they are under cProfile. But Python runs a signal's
handler at a function's entry, at the end of a call into C, or at the end of a turn of a loop: time
in a short function without any of these is noted at its caller's next one. Where the stack was
noted at a function's entry, the sample is its caller's. And a share has the error of its number of
samples, which is printed.

The last line has the shares.
"""

from __future__ import annotations

import argparse
import dis
import gc
import json
import runpy
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from math import sqrt
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from benchmarks.side import protocol
from benchmarks.side.contest import Failed, environment, run_process
from benchmarks.side.protocol import Job, Measure
from benchmarks.side.server.process import instant_server

# --- shares --------------------------------------------------------------------------------------

SHARES: Final[Mapping[str, str]] = {
    "decode": "from what SQS answered to a typed event",
    "handler": "the handler itself, its transaction, and the pipeline around it",
    "commit": "items, record and events: built, joined into calls, sent, marked as done",
    "botocore": "requests written, answers read, without the next two",
    "sign": "SigV4, in botocore",
    "http": "aiohttp, with its writes to sockets",
    "settle": "receives, turns, heartbeat, deletes",
    "loop": "the event loop's own turns, its reads from sockets, and tasks woken up",
    "other": "what has no owner",
}
"""Every sample is in one of these; the names are those of the last line."""

OURS: Final = ("decode", "handler", "commit", "settle", "other")

OWNERS: Final[Mapping[str, str]] = {
    "headrace.codec": "decode",
    "headrace.dead_letter": "decode",
    "headrace.aws.deliveries": "decode",
    "headrace.aws.sqs:_delivery": "decode",
    "headrace.aws.sqs:_attribute": "decode",
    "headrace.pipeline:Pipeline._codec": "decode",
    # The contender is run as a program.
    "__main__": "handler",
    "benchmarks": "handler",
    "headrace.filters": "handler",
    "headrace.invoke": "handler",
    "headrace.pipeline": "handler",
    "headrace.reads": "handler",
    "headrace.service": "handler",
    "headrace.transaction": "handler",
    "headrace.attributes": "commit",
    "headrace.aws.dynamodb": "commit",
    "headrace.aws.eventbridge": "commit",
    "headrace.aws.sqs:SqsQueues.send": "commit",
    "headrace.aws.sqs:_request_entry": "commit",
    "headrace.commit": "commit",
    "headrace.entity": "commit",
    "headrace.envelope": "commit",
    "headrace.group": "commit",
    "headrace.inbox": "commit",
    "headrace.outbox": "commit",
    "headrace.pipeline:Pipeline._commit": "commit",
    "headrace.pipeline:Pipeline._committed": "commit",
    "headrace.pipeline:Pipeline._place": "commit",
    "headrace.pipeline:Pipeline._seal": "commit",
    "headrace.pipeline:Pipeline._take_effect": "commit",
    "headrace.pipeline:_Patience": "commit",
    "headrace.pipeline:_refuse_unrecorded": "commit",
    "headrace.pipeline:refuse_undeclared": "commit",
    "headrace.record": "commit",
    "headrace.aws.sqs": "settle",
    "headrace.batch": "settle",
    "headrace.hosts": "settle",
    "headrace.settle": "settle",
    "headrace.turns": "settle",
    "aiobotocore": "botocore",
    "botocore": "botocore",
    "aiobotocore.credentials": "sign",
    "aiobotocore.signers": "sign",
    "botocore.auth": "sign",
    "botocore.credentials": "sign",
    "botocore.signers": "sign",
    "aiobotocore.httpsession": "http",
    "aiohttp": "http",
    "multidict": "http",
    "propcache": "http",
    "yarl": "http",
}
"""By module and function, or by module, or by package; the longest name counts."""

_TURNS: Final = frozenset(
    {
        "asyncio.base_events:BaseEventLoop._run_once",
        "asyncio.base_events:BaseEventLoop.run_forever",
        "asyncio.runners:Runner.run",
        "uvloop:run",
    }
)
"""What runs the loop: who called that has nothing to do with what the loop calls."""


class Place(NamedTuple):
    """A function, by the name of its module and its own qualified name."""

    module: str
    function: str

    def __str__(self) -> str:
        return f"{self.module}:{self.function}"


class Blame(NamedTuple):
    """The share that a sample is in, the function that owns it there, and what that has called, if
    it is a function of Python's."""

    share: str
    place: str
    callee: str = ""


def blamed(stack: Sequence[Place]) -> Blame:
    """Whose time it is while this is the stack, the innermost function first."""
    called = list(takewhile(lambda place: str(place) not in _TURNS, stack))
    for index, place in enumerate(called):
        share = owner_of(place)
        if share is not None:
            return Blame(share, str(place), str(called[index - 1]) if index else "")
    for place in called:
        if place.module.partition(".")[0] == "headrace":
            return Blame("other", str(place))
    if len(called) < len(stack):
        return Blame("loop", str(stack[0]))
    return Blame("other", str(stack[0]) if stack else "nothing")


@cache
def owner_of(place: Place) -> str | None:
    """The share of a function; `None` for what is used by several, and is its caller's."""
    for name in _names_of(place):
        if name in OWNERS:
            return OWNERS[name]
    return None


def _names_of(place: Place) -> Iterator[str]:
    """From the longest: `a.b:C.d.<locals>.e`, …, `a.b:C`, `a.b`, `a`."""
    function = place.function
    while function:
        yield f"{place.module}:{function}"
        function = function.rpartition(".")[0]
    module = place.module
    while module:
        yield module
        module = module.rpartition(".")[0]


# --- samples -------------------------------------------------------------------------------------


class Sampler:
    """Notes the stack of the main thread, each time the process has used `interval` seconds of
    CPU, or as soon after that as the kernel looks, from `start` to `stop`. Make it in the main
    thread."""

    def __init__(self, interval: float) -> None:
        self.collecting = 0.0
        """Seconds of the garbage collector, whose samples are those of what it interrupts."""
        self._interval = interval
        self._began = 0.0
        self._noted: list[tuple[int, tuple[CodeType, ...]]] = []
        self._modules: dict[CodeType, str] = {}
        signal.signal(signal.SIGPROF, self._take)

    def start(self) -> None:
        gc.callbacks.append(self._collects)
        signal.setitimer(signal.ITIMER_PROF, self._interval, self._interval)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.callbacks.remove(self._collects)

    @property
    def taken(self) -> int:
        return len(self._noted)

    def stacks(self) -> Counter[tuple[Place, ...]]:
        """How often each stack was seen, the innermost function first. Where that had only been
        entered, it is left out: the time was its caller's."""
        found: Counter[tuple[Place, ...]] = Counter()
        for instruction, codes in self._noted:
            if Sampler._take.__code__ in codes:
                # What it takes itself is no part of the job.
                continue
            entered = instruction in _entries(codes[0])
            found[tuple(self._place(code) for code in codes[entered:])] += 1
        return found

    def _take(self, number: int, frame: FrameType | None) -> None:
        # As little as can be: it is measured as well.
        codes = []
        instruction = 0 if frame is None else frame.f_lasti
        while frame is not None:
            code = frame.f_code
            codes.append(code)
            if code not in self._modules:
                self._modules[code] = frame.f_globals.get("__name__", "?")
            frame = frame.f_back
        if codes:
            self._noted.append((instruction, tuple(codes)))

    def _place(self, code: CodeType) -> Place:
        return Place(self._modules[code], code.co_qualname)

    def _collects(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.collecting += time.thread_time() - self._began


@cache
def _entries(code: CodeType) -> frozenset[int]:
    """Where the function stands while it has only been entered."""
    found = dis.get_instructions(code)
    return frozenset(each.offset for each in found if each.opname == "RESUME" and each.arg == 0)


# --- what was found ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The samples of some runs, and the microseconds of CPU that a message took in each."""

    blames: Counter[Blame] = field(default_factory=Counter)
    microseconds: list[float] = field(default_factory=list)
    collecting: list[float] = field(default_factory=list)

    def add(self, noted: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        for stack, count in noted["stacks"]:
            self.blames[blamed([Place(*place) for place in stack])] += count
        jobs_own = sum(count for _, count in noted["stacks"]) / noted["taken"]
        self.microseconds.append(result["cpu_s"] / result["messages"] * 1e6 * jobs_own)
        self.collecting.append(noted["collecting"] / result["messages"] * 1e6)

    @property
    def samples(self) -> int:
        return self.blames.total()

    @property
    def mean(self) -> float:
        return sum(self.microseconds) / len(self.microseconds)

    def part(self, share: str) -> float:
        """Of the whole, from 0 to 1."""
        found = sum(count for blame, count in self.blames.items() if blame.share == share)
        return found / self.samples


def table(found: Found, *, least: float = 0.01) -> Iterator[str]:
    """The shares, then what is headrace's own and has at least this part of the whole, by name."""
    yield f"{'a message':<10}{found.mean:>7.0f} us of CPU, from {found.samples:,} samples"
    yield f"{'':<10}{'us':>7}{'%':>8}"
    for share, meaning in SHARES.items():
        part = found.part(share)
        error = 2 * sqrt(part * (1 - part) / found.samples)
        yield f"{share:<10}{_row(found, part)} ±{error * 100:>4.1f}  {meaning}"
    collecting = sum(found.collecting) / len(found.collecting)
    yield f"In all of them, the garbage collector took {collecting:.0f} us."
    yield ""
    yield f"headrace's own, from {least:.0%}, by module and by function, with what it calls"
    for (share, module), count in _modules(found).most_common():
        if share in OURS and count >= least * found.samples:
            yield f"{share:<10}{_row(found, count / found.samples)}  {module}"
    yield ""
    for (share, place), count in _owned(found).most_common():
        if share in OURS and count >= least * found.samples:
            yield f"{share:<10}{_row(found, count / found.samples)}  {place}"
            yield from _callees(found, share, place, least)


def _modules(found: Found) -> Counter[tuple[str, str]]:
    modules: Counter[tuple[str, str]] = Counter()
    for blame, count in found.blames.items():
        modules[blame.share, blame.place.partition(":")[0]] += count
    return modules


def _owned(found: Found) -> Counter[tuple[str, str]]:
    owned: Counter[tuple[str, str]] = Counter()
    for blame, count in found.blames.items():
        owned[blame.share, blame.place] += count
    return owned


def _callees(found: Found, share: str, place: str, least: float) -> Iterator[str]:
    for blame, count in found.blames.most_common():
        part = count / found.samples
        if (blame.share, blame.place) == (share, place) and blame.callee and part >= least / 2:
            yield f"{'':<10}{_row(found, part)}    in {blame.callee}"


def _row(found: Found, part: float) -> str:
    return f"{part * found.mean:>7.1f}{part * 100:>8.1f}"


def last_line(found: Found) -> str:
    """`decode=…% handler=…% …`, in tenths that add up to 100."""
    parts = {share: found.part(share) * 1000 for share in SHARES}
    tenths = {share: int(part) for share, part in parts.items()}
    missing = 1000 - sum(tenths.values())
    for share in sorted(parts, key=lambda share: tenths[share] - parts[share])[:missing]:
        tenths[share] += 1
    return " ".join(f"{share}={count / 10:.1f}%" for share, count in tenths.items())


# --- a run ---------------------------------------------------------------------------------------

_PROFILE: Final = "benchmarks.side.profile"
_CONTENDER: Final = "benchmarks.side.contenders.headrace_"


def profiled(rounds: int, messages: int, interval: float) -> Found:
    """So many workers, one after the other, each in a process of its own. Raises `Failed`."""
    found = Found()
    with instant_server() as endpoint, tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds):
            path = Path(scratch, f"{number}.json")
            result = _worker(Job("drain", endpoint, messages), path, interval)
            found.add(json.loads(path.read_text()), result)
    return found


def _worker(job: Job, path: Path, interval: float) -> dict[str, Any]:
    """The job's own report; the samples are in the file."""
    protocol.reset(job.endpoint, messages=job.messages, queue=job.queue)
    noting = ["--note", str(path), "--every", str(interval)]
    result = run_process([sys.executable, "-m", _PROFILE, *noting], environment(job))
    lost = protocol.counts(job.endpoint)["lost"]
    if any(lost.values()):
        raise Failed(f"Messages were lost, so nothing was measured: {lost}.")
    return result


def note(path: Path, interval: float) -> None:
    """Run the contender in this process, and write down its samples."""
    sampler = Sampler(interval)

    class Sampled(Measure):
        def started(self) -> None:
            super().started()
            sampler.start()

        def ended(self) -> None:
            sampler.stop()
            super().ended()

    with patch.object(protocol, "Measure", Sampled):
        runpy.run_module(_CONTENDER, run_name="__main__")
    stacks = [(list(stack), count) for stack, count in sampler.stacks().items()]
    noted = {"stacks": stacks, "taken": sampler.taken, "collecting": sampler.collecting}
    path.write_text(json.dumps(noted))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side.profile",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--messages", type=int, default=10_000, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=float, default=0.001, help="seconds of CPU to a sample")
    parser.add_argument("--note", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.note is not None:
        note(options.note, options.every)
        return
    found = profiled(options.rounds, options.messages, options.every)
    sys.stdout.write("\n".join([*table(found), last_line(found)]) + "\n")


if __name__ == "__main__":
    main()
