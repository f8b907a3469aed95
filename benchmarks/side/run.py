"""headrace beside its peers and its floors: `python -m benchmarks.side.run [--quick]`.

Each job is done by every contender that has it, each in a process and an environment of its own,
against a server that answers at once, in a process of its own. In every round the contenders go
one after the other, and in every other round in the opposite order. The main figure is the CPU
time of a contender's process for each message; the median of the rounds counts, and beside it
stands what the rounds were. The last line has the figures that decide what is built next.

With --write, the tables and the plot in `benchmarks/README.md` are replaced.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from benchmarks.side import contest, report
from benchmarks.side.contest import Bench, Contender, Failed, NoEnvironment, Run
from benchmarks.side.figures import sample
from benchmarks.side.plot import svg
from benchmarks.side.report import Findings
from benchmarks.side.server.process import instant_server

README: Final = contest.ROOT / "benchmarks" / "README.md"
PLOT: Final = contest.ROOT / "benchmarks" / "side.svg"

QUICK_SECONDS: Final = 60.0
"""For one contender on one job, which takes some seconds: one that hangs must not take all."""

ROUNDS: Final = 5
QUICK_ROUNDS: Final = 3

Rounds = Mapping[str, Sequence[Run]]


@dataclass(frozen=True, slots=True)
class Spec:
    """A job that compares contenders by what a message costs."""

    title: str
    messages: int
    quick: int
    poison: float = 0.0
    job: str = ""
    """Whose work it is, where that is another's."""
    latency: float = 0.0
    """Seconds that each call takes."""
    floors: bool = True


SPECS: Final[Mapping[str, Spec]] = {
    "lambda": Spec(
        "a. Lambda: batches of 10 with a bad record, idempotent", 10_000, 1_000, poison=0.1
    ),
    "drain": Spec("b. A worker drains a queue, idempotent", 10_000, 2_000),
    "late": Spec(
        "b. The same, where each call takes 5 ms",
        2_000,
        500,
        job="drain",
        latency=0.005,
        floors=False,
    ),
    "plain": Spec("c. A worker drains a queue, without idempotency", 10_000, 300),
    "publish": Spec("d. Publish events", 10_000, 1_000),
}
MODULES: Final = ("cold", "memory", "idle", "growth")
"""Jobs with another question. Each is a module here with `findings(bench, names, quick)`."""


@dataclass(frozen=True, slots=True)
class Options:
    quick: bool
    jobs: Sequence[str]
    names: Sequence[str] | None
    rounds: int
    messages: int | None


class Left:
    """Contenders that could not be run on a job, and why."""

    def __init__(self) -> None:
        self.reasons: dict[tuple[str, str], str] = {}

    def note(self, job: str, contender: str, reason: Exception) -> None:
        self.reasons[job, contender] = str(reason)
        say(f"{job} {contender}: {reason}")


# --- the rounds ------------------------------------------------------------------------


def compare(bench: Bench, name: str, options: Options, left: Left) -> Findings:
    spec = SPECS[name]
    messages = options.messages or (spec.quick if options.quick else spec.messages)
    job = bench.job(spec.job or name, messages, poison=spec.poison)
    named = contest.contenders(job.name, options.names)
    taking_part = [each for each in named if spec.floors or not each.floor]
    rounds: dict[str, list[Run]] = {each.name: [] for each in taking_part}
    for number in range(options.rounds):
        for contender in alternated(taking_part, number):
            if (name, contender.name) in left.reasons:
                continue
            try:
                run = bench.run(contender, job, latency=spec.latency)
            except (Failed, NoEnvironment) as reason:
                left.note(name, contender.name, reason)
            else:
                rounds[contender.name].append(run)
                say(f"{name} {number + 1}/{options.rounds} {contender.name}: {run.cpu_us:,.0f} µs")
    # A contender that failed in a later round has no ratio to those that did not.
    whole = {name: runs for name, runs in rounds.items() if len(runs) == options.rounds}
    found = report.compared(f"{spec.title} ({messages:,} messages)", whole)
    found.figures = FIGURES[name](whole)
    return found


def alternated(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    return contenders if number % 2 == 0 else contenders[::-1]


# --- the figures -----------------------------------------------------------------------


def of_lambda(rounds: Rounds) -> dict[str, float]:
    return {
        **cpu_beside(rounds, "powertools", "cpu_vs_powertools"),
        **cpu_beside(rounds, "bare_loop", "lambda_cpu_vs_bare_loop"),
    }


def of_drain(rounds: Rounds) -> dict[str, float]:
    figures = {
        **cpu_beside(rounds, "bare_loop", "cpu_vs_bare_loop"),
        **cpu_beside(rounds, "wire", "cpu_vs_wire"),
        **rate_beside_best(rounds, "drain_vs_best_peer"),
    }
    if runs := rounds.get("headrace"):
        figures["calls_per_message"] = sample([run.calls for run in runs]).median
    return figures


def of_late(rounds: Rounds) -> dict[str, float]:
    return rate_beside_best(rounds, "late_drain_vs_best_peer")


def of_plain(rounds: Rounds) -> dict[str, float]:
    return rate_beside_best(rounds, "drain_vs_best_plain_peer")


def of_publish(rounds: Rounds) -> dict[str, float]:
    return rate_beside_best(rounds, "publish_vs_best_peer")


FIGURES: Final[Mapping[str, Callable[[Rounds], dict[str, float]]]] = {
    "lambda": of_lambda,
    "drain": of_drain,
    "late": of_late,
    "plain": of_plain,
    "publish": of_publish,
}


def cpu_beside(rounds: Rounds, other: str, figure: str) -> dict[str, float]:
    """headrace's CPU time for a message as a multiple of the other's; nothing where one of the
    two is missing."""
    if not rounds.get("headrace") or not rounds.get(other):
        return {}
    own, others = (sample([run.cpu_us for run in rounds[name]]) for name in ("headrace", other))
    return {figure: own.over(others).median}


def rate_beside_best(rounds: Rounds, figure: str) -> dict[str, float]:
    """headrace's messages in a second as a multiple of the fastest peer's."""
    rates = {name: sample([run.rate for run in runs]) for name, runs in rounds.items() if runs}
    peers = [rate for name, rate in rates.items() if _BY_NAME[name].is_peer]
    if "headrace" not in rates or not peers:
        return {}
    best = max(peers, key=lambda rate: rate.median)
    return {figure: rates["headrace"].over(best).median}


_BY_NAME: Final = {contender.name: contender for contender in contest.CONTENDERS}


# --- the command -----------------------------------------------------------------------


def measured(bench: Bench, options: Options) -> tuple[Findings, Left]:
    found, left = Findings(), Left()
    for name in options.jobs:
        began = time.monotonic()
        if name in SPECS:
            found.add(compare(bench, name, options, left))
        else:
            module = import_module(f"benchmarks.side.{name}")
            try:
                found.add(module.findings(bench, options.names, options.quick))
            except (Failed, NoEnvironment) as reason:
                left.note(name, "all", reason)
        say(f"{name}: done in {time.monotonic() - began:.0f} s")
    return found, left


def write(found: Findings, command: str) -> None:
    report.write_between_marks(README, report.markdown(found, command, PLOT.name))
    PLOT.write_text(svg(found.bars), encoding="utf-8")


def command_of(given: argparse.Namespace) -> str:
    """The command as it stands in the README: without where interpreters are on this machine."""
    words = ["python -m benchmarks.side.run", *(["--quick"] if given.quick else [])]
    for name in ("jobs", "contenders"):
        if getattr(given, name) is not None:
            words.append(f"--{name} {','.join(getattr(given, name))}")
    for name in ("rounds", "messages"):
        if getattr(given, name) is not None:
            words.append(f"--{name} {getattr(given, name)}")
    return " ".join(words)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side.run", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="fewer messages and rounds")
    parser.add_argument("--jobs", type=_names([*SPECS, *MODULES]), default=None, metavar="A,B")
    parser.add_argument("--contenders", type=_names(_BY_NAME), default=None, metavar="A,B")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--messages", type=int, default=None, help="of each job, in all")
    parser.add_argument(
        "--python",
        type=_given,
        action="append",
        default=[],
        metavar="CONTENDER=PATH",
        help="the interpreter of a contender, or of an environment",
    )
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    return parser.parse_args(arguments)


def _names(known: Sequence[str] | Mapping[str, object]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        given = text.split(",")
        if unknown := sorted(set(given) - set(known)):
            raise argparse.ArgumentTypeError(f"{unknown} unknown: there are {[*known]}")
        return given

    return names


def _given(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not CONTENDER=PATH")
    return name, path


def main(arguments: Sequence[str]) -> int:
    given = parsed(arguments)
    rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
    jobs = given.jobs or [*SPECS, *MODULES]
    options = Options(given.quick, jobs, given.contenders, rounds, given.messages)
    contest.prepare(jobs, given.contenders, dict(given.python))
    with instant_server() as endpoint:
        seconds = QUICK_SECONDS if given.quick else contest.SECONDS
        found, left = measured(Bench(endpoint, dict(given.python), seconds), options)
    print(report.text(found))
    for (job, _), reason in left.reasons.items():
        print(f"\n{job}: {reason.splitlines()[0]}")
    if given.write:
        write(found, command_of(given))
    print(f"\n{report.other_figures(found)}")
    print(report.last_line(found))
    return 1 if left.reasons else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
