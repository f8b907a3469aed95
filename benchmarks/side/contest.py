"""Who takes part, and how one contender is run on one job.

Each runs in a process of its own, with the Python of its own environment, against the instant
server, which is reset before. What it reports and what the server has counted are one `Run`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final

from benchmarks.side import protocol, work
from benchmarks.side.protocol import Job

ROOT: Final = Path(__file__).resolve().parents[2]

SECONDS: Final = 300.0
"""After which a contender is ended, and has failed; and a second more for each `_PACE` messages."""
_PACE: Final = 50
_WORKS: Final = frozenset({"drain", "plain", "memory", "backlog", "handlers"})
"""The jobs of workers, which find messages in the queue and delete them."""


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    module: str
    """In `benchmarks.side.contenders`."""
    environment: str
    """The lock in `infra/requirements` that it runs with; `test` is this checkout's own."""
    jobs: frozenset[str]
    floor: bool = False
    """It is there to compare with, and nothing that would be used."""
    fills: bool = False
    """Only it can write the messages that its worker reads, by its job `fill`."""

    @property
    def is_peer(self) -> bool:
        return self.environment != "test"


_LAMBDA: Final = ("lambda", "cold")
_WORKER: Final = ("drain", "memory", "idle", "backlog", "publish")
_PEER: Final = frozenset({"plain", "publish", "memory", "idle"})

CONTENDERS: Final = (
    Contender(
        "headrace", "headrace_", "test", frozenset({*_LAMBDA, *_WORKER, "plain", "handlers"})
    ),
    Contender("bare_loop", "bare_loop", "test", frozenset({*_LAMBDA, *_WORKER}), floor=True),
    Contender("tuned_loop", "tuned_loop", "test", frozenset({"lambda", "drain"}), floor=True),
    Contender("wire", "wire", "test", frozenset({*_LAMBDA, *_WORKER}), floor=True),
    Contender("powertools", "powertools", "bench-powertools", frozenset(_LAMBDA)),
    Contender(
        "boto3_plain", "boto3_plain", "bench-powertools", frozenset({*_LAMBDA, *_WORKER, "plain"})
    ),
    Contender("celery_sqs", "celery_sqs", "bench-celery", _PEER, fills=True),
    Contender("taskiq_sqs", "taskiq_sqs", "bench-taskiq", _PEER, fills=True),
    Contender("dramatiq_sqs", "dramatiq_sqs_", "bench-dramatiq", _PEER, fills=True),
    Contender("asyncfast", "asyncfast_", "bench-asyncfast", _PEER),
)


def contenders(job: str, names: Iterable[str] | None = None) -> list[Contender]:
    """Those that have this job, of these."""
    wanted = None if names is None else set(names)
    return [
        each for each in CONTENDERS if job in each.jobs and (wanted is None or each.name in wanted)
    ]


# --- environments ----------------------------------------------------------------------


class NoEnvironment(Exception):
    """A contender cannot be run, and why."""


def python_of(contender: Contender, given: Mapping[str, str]) -> str:
    """Its interpreter: one that was given for it or for its environment, or that of
    `.venv/<environment>`, which is made if it is not there. Raises `NoEnvironment`."""
    for name in (contender.name, contender.environment):
        if name in given:
            return given[name]
    if not contender.is_peer:
        return sys.executable
    lock = _lock(contender.environment)
    if not lock.exists():
        raise NoEnvironment(
            f"{contender.name} is left out: there is no {lock.relative_to(ROOT)}. Make it with "
            f"`make lock`, or give --python {contender.name}=/path/to/python."
        )
    if _making(contender.environment).wait():
        raise NoEnvironment(f"{contender.name} is left out: its environment could not be made.")
    return str(ROOT / ".venv" / contender.environment / "bin" / "python")


def prepare(jobs: Iterable[str], names: Iterable[str] | None, given: Mapping[str, str]) -> None:
    """Make the environments of these jobs and contenders side by side, so that nothing is installed
    while something is measured. What cannot be made `python_of` tells of, once it is needed."""
    wanted = {each for job in jobs for each in contenders(job, names) if each.is_peer}
    named = {each.environment for each in wanted if each.name not in given}
    if "cold" in jobs:
        named.add("lambda")
    making = [_making(name) for name in sorted(named - set(given)) if _lock(name).exists()]
    for each in making:
        each.wait()


def _making(environment: str) -> subprocess.Popen[bytes]:
    # The same Python for all.
    variables = {**os.environ, "PYTHON": sys.executable}
    return subprocess.Popen([str(ROOT / ".ci" / "venv"), environment], env=variables)


def _lock(environment: str) -> Path:
    return ROOT / "infra" / "requirements" / f"{environment}.txt"


def command(contender: Contender, python: str) -> list[str]:
    return [python, "-m", f"benchmarks.side.contenders.{contender.module}"]


def environment(job: Job) -> dict[str, str]:
    """What a contender's process is given: the job, and an AWS that is the instant server. Nothing
    of this process but where programs are."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": "C.UTF-8",
        # The checkout itself is in the path already, as the working directory.
        "PYTHONPATH": str(ROOT / "framework"),
        "AWS_ENDPOINT_URL": job.endpoint,
        "AWS_REGION": work.REGION,
        "AWS_DEFAULT_REGION": work.REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        protocol.VARIABLE: job.as_json(),
    }


# --- one run ---------------------------------------------------------------------------


class Failed(Exception):
    """A contender did not do its job."""


@dataclass(frozen=True, slots=True)
class Run:
    """One contender on one job, once."""

    contender: str
    job: Job
    result: Mapping[str, Any]
    """The line that it has printed; see `protocol.Measure.report`."""
    counts: Mapping[str, Any]
    """What the server has counted, from its start to its end; see `server.counts`."""
    exec_s: float
    """From before the process is started to its end."""

    @property
    def cpu_us(self) -> float:
        """Of a message, in microseconds."""
        return float(self.result["cpu_s"] / self.result["messages"] * 1e6)

    @property
    def rate(self) -> float:
        """Messages in a second."""
        return float(self.result["messages"] / self.result["wall_s"])

    @property
    def calls(self) -> float:
        """Of a message, those at the start and at the end included."""
        return float(self.counts["all_calls"] / self.job.messages)

    @property
    def problems(self) -> list[str]:
        """What the server has not seen as it ought to be: it makes all other figures void."""
        return list(_problems(self))


def _problems(run: Run) -> Iterable[str]:
    counts, job = run.counts, run.job
    looked_at = {
        "lambda": ("effects", "events"),
        "cold": ("effects", "events"),
        "publish": ("events",) if counts["events"] else (),
    }.get(job.name, ("effects", "events", "deleted"))
    if job.name == "idle":
        return
    for kind in ("lost", "doubled", "wrong"):
        for what in looked_at:
            if number := counts[kind].get(what, 0):
                yield f"{number} {what} {kind}"
    if job.name == "publish" and not counts["events"] and counts["sent"] != job.messages:
        yield f"{counts['sent']} of {job.messages} sent"
    bad = len(work.expected_failures(range(job.messages), job.poison)["batchItemFailures"])
    if "failed" in run.result and run.result["failed"] != bad:
        yield f"{run.result['failed']} records failed, not {bad}"


@dataclass(frozen=True, slots=True)
class Bench:
    """The server, and the interpreters."""

    endpoint: str
    given: Mapping[str, str] = field(default_factory=dict)
    """Interpreters, by the name of a contender or of an environment."""
    seconds: float = SECONDS
    """For one contender on one job, without messages."""

    def job(self, name: str, messages: int, **more: Any) -> Job:
        return Job(name, self.endpoint, messages, **more)

    def run(self, contender: Contender, job: Job, **settings: Any) -> Run:
        """Run it once. `settings` are more of the server's. Raises `Failed`, `NoEnvironment`."""
        python = python_of(contender, self.given)
        within = self.seconds + job.messages / _PACE
        self._prepare(contender, python, job, settings)
        began = time.perf_counter()
        result = run_process(command(contender, python), environment(job), within=within)
        took = time.perf_counter() - began
        return Run(contender.name, job, result, protocol.counts(self.endpoint), took)

    def _prepare(
        self, contender: Contender, python: str, job: Job, settings: Mapping[str, Any]
    ) -> None:
        holds = contender.fills and job.name in (*_WORKS, "idle")
        wanted = {
            "messages": job.messages,
            "queue": job.queue,
            "poison": job.poison,
            "seed": job.seed,
            "hold": holds,
        }
        protocol.reset(self.endpoint, **(wanted | dict(settings)))
        if holds and job.messages:
            filling = replace(job, name="fill")
            run_process(command(contender, python), environment(filling), reports=False)
            protocol.recount(self.endpoint)


def run_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    within: float = SECONDS,
    reports: bool = True,
) -> dict[str, Any]:
    """The JSON in the last line that it prints. Raises `Failed`, with the end of what it says on
    standard error."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=within)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise Failed(f"{command[-1]} had no end in {within:.0f} s.{_tail(said)}") from error
        except BaseException:
            _end(process)
            raise
        if process.returncode:
            raise Failed(f"{command[-1]} ended with {process.returncode}.{_tail(said)}")
        if not reports:
            return {}
        return _last_line(command[-1], output, said)


def _last_line(name: str, output: str, said: IO[str]) -> dict[str, Any]:
    lines = output.strip().splitlines()
    with suppress(IndexError, json.JSONDecodeError):
        result: dict[str, Any] = json.loads(lines[-1])
        return result
    raise Failed(f"{name} has printed no result, but {output[-500:]!r}.{_tail(said)}")


def _end(process: subprocess.Popen[str]) -> None:
    """With what it has started, which is in its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _tail(said: IO[str]) -> str:
    said.seek(0)
    text = said.read()[-4_000:].strip()
    return f" It said:\n{text}" if text else ""
