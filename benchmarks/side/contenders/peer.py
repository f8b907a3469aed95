"""What the peers with a worker and messages of their own share. Standard library only.

Jobs: `fill` and `publish` send all messages through the peer, the first without measuring, so that
a worker finds them (the server is set to `hold` what is sent to it). All others run the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from benchmarks.side import work
from benchmarks.side.contenders import refuse
from benchmarks.side.protocol import Job, Measure

TASK: Final = "orders.accept"
"""The name under which a worker knows the work."""

SENDS: Final = ("fill", "publish")
WORKS: Final = ("plain", "memory")


def sends(job: Job, contender: str) -> bool:
    """Whether this job is to send, not to work. Ends the program for jobs that peers have not."""
    if job.name not in (*SENDS, *WORKS):
        refuse(job, contender, (*SENDS, *WORKS))
    return job.name in SENDS


def arguments(job: Job, number: int) -> dict[str, Any]:
    """What the producer calls a peer with: of the event's detail, the metadata and the payload."""
    bad = work.is_bad(number, job.poison)
    detail = work.detail(number, seed=job.seed, bad=bad)
    return {"metadata": detail["metadata"], "order": detail["data"]}


def run_worker(
    measure: Measure, start: Callable[[], object], *, stop: Callable[[], object]
) -> None:
    """Measure while `start` runs, which may return before `stop` is called, from a thread."""
    watching = measure.watch(stop)
    start()
    watching.join()


def report(
    measure: Measure, *, packages: tuple[str, ...], notes: str, messages: int | None = None
) -> None:
    """Nothing for `fill`, which is not to be measured."""
    if measure.job.name != "fill":
        measure.report(packages=packages, notes=notes, messages=messages)
