"""The contenders: `python -m benchmarks.side.contenders.<name>` runs one on the job in BENCH_JOB.

What stands here they share, so it is standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

from benchmarks.side.protocol import Job, Measure
from benchmarks.side.work import ACCOUNT, REGION, lambda_event

Answer: TypeAlias = Mapping[str, Any] | None
LambdaHandler: TypeAlias = Callable[[dict[str, Any], "Context"], Answer]

AT_ONCE: Final = 100
"""So many events a publisher has at hand: ten calls of PutEvents."""


@dataclass(frozen=True, slots=True)
class Context:
    """Lambda's context object, of a function that has half a minute."""

    function_name: str = "orders"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 512
    aws_request_id: str = "5f8a1c52-6c2e-4a5e-9d57-1b3c8a7d2e60"
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:orders"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


def run_lambda(
    job: Job,
    contender: str,
    handler: LambdaHandler,
    *,
    packages: Iterable[str],
    buries: bool = False,
) -> None:
    """Call a Lambda handler with all messages, one batch at a time, and report. `failed` counts
    what it named in `batchItemFailures`; nothing, where it `buries` what is bad: a message that is
    in the dead-letter queue already must not come again."""
    measure, context, failed = Measure(job, contender), Context(), 0
    for event in measure.over(_events(job)):
        failed += len((handler(event, context) or {}).get("batchItemFailures", ()))
    if not buries:
        measure.report(packages=packages, failed=failed)
    elif failed:
        raise RuntimeError(f"{failed} messages failed, and the bad ones are not among them.")
    else:
        measure.report(packages=packages, notes="bad messages to the dead-letter queue")


def refuse(job: Job, contender: str, known: Iterable[str]) -> NoReturn:
    raise SystemExit(
        f"{contender} has no job {job.name!r}: give it one of {', '.join(sorted(known))}."
    )


def publish_steps(job: Job) -> list[range]:
    """The numbers of the events to publish, `AT_ONCE` in each step."""
    return _parts(job.messages, AT_ONCE)


def published(job: Job) -> int:
    """So many of them are measured: all but those of the steps that end with the warm-up."""
    return job.messages - job.warm_up // AT_ONCE * AT_ONCE


def _events(job: Job) -> list[dict[str, Any]]:
    return [
        lambda_event(numbers, queue=job.queue, seed=job.seed, poison=job.poison)
        for numbers in _parts(job.messages, job.batch)
    ]


def _parts(count: int, most: int) -> list[range]:
    return [range(start, min(start + most, count)) for start in range(0, count, most)]
