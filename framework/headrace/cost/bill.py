"""The bill: what was counted, times what it costs. Nothing is measured here.

dollars for a million = count for one unit of work × price × 1,000,000
dollars a month       = what costs when nothing happens, for 730 hours
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from math import ceil
from typing import Final

from headrace.cost.hosts import Host
from headrace.cost.measure import Measured, Sweep
from headrace.cost.prices import Price, PriceList
from headrace.cost.usage import Action, Invocation, QueueKind, Request, Usage, kind_of
from headrace.errors import ConfigurationError
from headrace.limits import SQS_MAX_WAIT
from headrace.relay import INTERVAL

MILLION: Final = 1_000_000
HOURS: Final = 730
"""Of a month, as AWS's own calculator has it."""

VCPU_MEGABYTES: Final = 1_769
"""Memory at which a Lambda function has one vCPU; with less, it has as much less of one (developer
guide, "Configure Lambda function memory")."""

FARGATE_SIZES: Final[Mapping[float, tuple[float, ...]]] = {
    0.25: (0.5, 1, 2),
    0.5: tuple(range(1, 5)),
    1: tuple(range(2, 9)),
    2: tuple(range(4, 17)),
    4: tuple(range(8, 31)),
    8: tuple(range(16, 61, 4)),
    16: tuple(range(32, 121, 8)),
}
"""Gigabytes that a task may have, by its vCPUs (ECS developer guide, "Task CPU and memory")."""

_LAMBDA_LINES: Final = 3
"""START, END and REPORT: what Lambda itself writes of each invocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """What memory does not show, and a running system does. Raises `ConfigurationError`."""

    ms_per_message: float = 5.0
    """Milliseconds of one vCPU for a message, with everything that is done for it."""
    memory: int = 512
    """Of a function, in megabytes."""
    pollers: int = 5
    """Long polls that Lambda keeps open on each queue."""
    relay_every: timedelta = timedelta(minutes=1)
    """How often a schedule invokes the function of a relay."""
    vcpu: float = 0.25
    task_memory: float = 0.5
    """Of a task, in gigabytes."""
    utilisation: float = 0.5
    """How busy tasks are that are paid for: those beside them wait for more work."""
    tasks: int = 1
    """Of each service, at least, at all times."""
    vpc_endpoints: int = 0
    """Interface endpoints that tasks need in private subnets, each as often as it has zones."""
    bytes_per_line: int = 250
    """Of the log."""

    def __post_init__(self) -> None:
        for wrong in self._wrong():
            raise ConfigurationError(wrong)

    def _wrong(self) -> Iterator[str]:
        if not 0 <= self.ms_per_message <= 900_000:
            yield "A message takes 0 to 900,000 milliseconds."
        if not 128 <= self.memory <= 10_240:
            yield "A function has 128 to 10,240 megabytes of memory."
        if not 0 < self.utilisation <= 1:
            yield "Tasks are busy for more than 0 and at most 1 of their time."
        if min(self.pollers, self.vpc_endpoints, self.bytes_per_line) < 0 or self.tasks < 0:
            yield "Pollers, tasks, endpoints and bytes are counted from 0 up."
        if self.relay_every < timedelta(minutes=1):
            yield "A schedule invokes a function once a minute at most."
        if self.vcpu not in FARGATE_SIZES:
            sizes = ", ".join(f"{size:g}" for size in FARGATE_SIZES)
            yield f"A task has {sizes} vCPUs, not {self.vcpu:g}."
        elif self.task_memory not in (fits := FARGATE_SIZES[self.vcpu]):
            gigabytes = ", ".join(f"{size:g}" for size in fits)
            yield f"A task of {self.vcpu:g} vCPUs has {gigabytes} GB, not {self.task_memory:g}."

    @property
    def cpu_on_lambda(self) -> float:
        """Milliseconds for a message on the part of a vCPU that a function has. One process uses
        no more than one vCPU."""
        return self.ms_per_message * max(1.0, VCPU_MEGABYTES / self.memory)

    @property
    def cpu_of_task(self) -> float:
        """The part of a vCPU that one process can use in a task."""
        return min(self.vcpu, 1.0)

    def billed_ms(self, invocation: Invocation) -> int:
        """What Lambda bills for an invocation: it waits as long as was measured, and works."""
        working = self.cpu_on_lambda * invocation.messages
        # A wait of a whole millisecond must not become two by how a float is written.
        return ceil(round(invocation.waited * 1000 + working, 6))

    def task_hours(self, messages: float) -> float:
        """Hours of tasks for this many messages."""
        seconds = messages * self.ms_per_message / 1000
        return seconds / self.cpu_of_task / self.utilisation / 3600


class Basis(StrEnum):
    """Where a count comes from."""

    MEASURED = "measured"
    ASSUMED = "assumed"
    BOTH = "measured × assumed"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the bill: how many units of the price on each host, or `None` where the host has
    no such line. Of a unit of work, or of a month."""

    label: str
    price: Price
    basis: Basis
    on_lambda: float | None
    on_fargate: float | None

    def count(self, host: Host) -> float | None:
        return self.on_lambda if host is Host.LAMBDA else self.on_fargate

    def dollars(self, host: Host, times: float = 1) -> float:
        return self.price.of((self.count(host) or 0) * times)


@dataclass(frozen=True, slots=True)
class Bill:
    """`lines` are of one unit of work, `idle` of a month in which nothing happens. `tasks` are the
    hours of tasks that a month has at least, and `task_hours` those that one unit takes, by
    service."""

    lines: tuple[Line, ...]
    idle: tuple[Line, ...]
    task_hours: Mapping[str, float]
    tasks: float
    per_task_hour: float

    def per_million(self, host: Host) -> float:
        """Dollars for a million units of work."""
        return sum(line.dollars(host, MILLION) for line in self.lines)

    def idle_month(self, host: Host) -> float:
        """Dollars for a month without work."""
        return sum(line.dollars(host) for line in self.idle)

    def month(self, host: Host, units: float) -> float:
        """Dollars for a month with this much work. The tasks that are there at all times do what
        they can of it, and only those beyond them are paid for besides."""
        both = self.idle_month(host) + self.per_million(host) * units / MILLION
        if host is Host.LAMBDA:
            return both
        shared = (min(self.tasks, hours * units) for hours in self.task_hours.values())
        return both - sum(shared) * self.per_task_hour


def bill(on_lambda: Measured, on_fargate: Measured, assumed: Assumed, prices: PriceList) -> Bill:
    """What the same work costs on both hosts."""
    counts = _Counts(on_lambda, assumed), _Counts(on_fargate, assumed)
    hours = {
        name: assumed.task_hours(usage.received / on_fargate.units)
        for name, usage in on_fargate.usage.items()
        if name
    }
    each = prices.fargate_vcpu.of(assumed.vcpu) + prices.fargate_memory.of(assumed.task_memory)
    return Bill(
        lines=tuple(_lines(*counts, sum(hours.values()), assumed, prices)),
        idle=tuple(_idle(*counts, assumed, prices)),
        task_hours=hours,
        tasks=float(assumed.tasks * HOURS),
        per_task_hour=each,
    )


class _Counts:
    """What one unit of work used, in all services together."""

    def __init__(self, measured: Measured, assumed: Assumed) -> None:
        self.measured = measured
        self._assumed = assumed
        self._usage: list[Usage] = list(measured.usage.values())

    def per_unit(self, total: float) -> float:
        return total / self.measured.units

    def requests(self, action: Action, kind: QueueKind) -> float:
        return self.per_unit(sum(usage.requests[Request(action, kind)] for usage in self._usage))

    def total(self, counted: str) -> float:
        return self.per_unit(sum(getattr(usage, counted) for usage in self._usage))

    @property
    def invocations(self) -> list[Invocation]:
        """Also those that a stream makes of what is left to the relay: it is shown one by one."""
        return [*self._handling, *self._relaying]

    @property
    def _handling(self) -> list[Invocation]:
        return [invocation for usage in self._usage for invocation in usage.invocations]

    @property
    def _relaying(self) -> list[Invocation]:
        return [Invocation(1, 0.0)] * sum(usage.relayed for usage in self._usage)

    def gigabyte_seconds(self) -> float:
        milliseconds = sum(map(self._assumed.billed_ms, self.invocations))
        return self.per_unit(milliseconds / 1000 * self._assumed.memory / 1024)

    def logged(self, host: Host) -> float:
        """Gigabytes of log."""
        of_host = _LAMBDA_LINES * len(self.invocations) if host is Host.LAMBDA else 0
        lines = self.measured.log_lines + of_host
        return self.per_unit(lines * self._assumed.bytes_per_line / 1e9)


_KINDS: Final = {
    QueueKind.STANDARD: "",
    QueueKind.FAIR: ", fair queues",
    QueueKind.FIFO: ", FIFO",
}


def _lines(
    on_lambda: _Counts, on_fargate: _Counts, hours: float, assumed: Assumed, prices: PriceList
) -> Iterator[Line]:
    yield from _queues(on_lambda, on_fargate, prices)
    for label, counted, price in (
        ("EventBridge events", "events", prices.events),
        ("Scheduler, schedules that fire", "schedules", prices.schedules),
        ("DynamoDB writes", "write_units", prices.writes),
        ("DynamoDB index writes", "index_units", prices.writes),
        ("DynamoDB reads", "read_units", prices.reads),
    ):
        counts = on_lambda.total(counted), on_fargate.total(counted)
        yield Line(label, price, Basis.MEASURED, *counts)
    invocations = on_lambda.per_unit(len(on_lambda.invocations))
    yield Line("Lambda requests", prices.lambda_requests, Basis.MEASURED, invocations, None)
    duration = on_lambda.gigabyte_seconds()
    yield Line("Lambda duration", prices.lambda_duration, Basis.BOTH, duration, None)
    vcpu, gigabytes = hours * assumed.vcpu, hours * assumed.task_memory
    yield Line("Fargate vCPU", prices.fargate_vcpu, Basis.BOTH, None, vcpu)
    yield Line("Fargate memory", prices.fargate_memory, Basis.BOTH, None, gigabytes)
    logged = on_lambda.logged(Host.LAMBDA), on_fargate.logged(Host.FARGATE)
    yield Line("Logs", prices.logs, Basis.BOTH, *logged)


def _queues(on_lambda: _Counts, on_fargate: _Counts, prices: PriceList) -> Iterator[Line]:
    for action in Action:
        for kind, suffix in _KINDS.items():
            counts = on_lambda.requests(action, kind), on_fargate.requests(action, kind)
            if any(counts) or (kind is QueueKind.STANDARD and action is not Action.CHANGE):
                price = _price_of(kind, prices)
                yield Line(f"SQS {action}{suffix}", price, Basis.MEASURED, *counts)


def _price_of(kind: QueueKind, prices: PriceList) -> Price:
    match kind:
        case QueueKind.STANDARD:
            return prices.sqs_standard
        case QueueKind.FAIR:
            return prices.sqs_fair
        case QueueKind.FIFO:
            return prices.sqs_fifo


# --- a month in which nothing happens --------------------------------------------------


def _idle(
    on_lambda: _Counts, on_fargate: _Counts, assumed: Assumed, prices: PriceList
) -> Iterator[Line]:
    measured = on_lambda.measured
    polls = HOURS * 3600 / SQS_MAX_WAIT.total_seconds()
    for kind, queues in _by_kind(measured.queues.values()).items():
        counts = queues * polls * assumed.pollers, queues * polls * assumed.tasks
        label = f"SQS empty receives{_KINDS[kind]}"
        yield Line(label, _price_of(kind, prices), Basis.ASSUMED, *counts)
    if measured.sweeps:
        yield from _sweeps(measured.sweeps.values(), assumed, prices)
    hours = len(measured.queues) * assumed.tasks * HOURS
    vcpu, gigabytes = hours * assumed.vcpu, hours * assumed.task_memory
    yield Line("Fargate vCPU", prices.fargate_vcpu, Basis.ASSUMED, None, vcpu)
    yield Line("Fargate memory", prices.fargate_memory, Basis.ASSUMED, None, gigabytes)
    if assumed.vpc_endpoints:
        hours = assumed.vpc_endpoints * HOURS
        yield Line("VPC endpoints", prices.vpc_endpoint, Basis.ASSUMED, None, hours)


def _by_kind(queues: Iterable[Iterable[str]]) -> dict[QueueKind, int]:
    """How many queues there are of each price; an idle one has no groups in it."""
    kinds = [kind_of(queue, []) for some in queues for queue in some]
    return {kind: kinds.count(kind) for kind in QueueKind if kind in kinds}


def _sweeps(sweeps: Iterable[Sweep], assumed: Assumed, prices: PriceList) -> Iterator[Line]:
    """The relay looks for what is left to it: by a schedule, or every so often in each task."""
    found = list(sweeps)
    by_schedule = HOURS * 3600 / assumed.relay_every.total_seconds()
    by_task = HOURS * 3600 / INTERVAL.total_seconds() * assumed.tasks
    reads = sum(sweep.read_units for sweep in found)
    yield Line(
        "DynamoDB reads of the relay",
        prices.reads,
        Basis.BOTH,
        by_schedule * reads,
        by_task * reads,
    )
    invocations = by_schedule * len(found)
    yield Line("Scheduler, for the relay", prices.schedules, Basis.ASSUMED, invocations, None)
    yield Line(
        "Lambda requests of the relay", prices.lambda_requests, Basis.ASSUMED, invocations, None
    )
    milliseconds = sum(assumed.billed_ms(Invocation(1, sweep.seconds)) for sweep in found)
    duration = by_schedule * milliseconds / 1000 * assumed.memory / 1024
    yield Line("Lambda duration of the relay", prices.lambda_duration, Basis.BOTH, duration, None)
