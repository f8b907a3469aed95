"""What wakes somebody, as data: the kinds of alarms, and which of them a deployment has.

Each kind has a page of its own in docs/runbooks, named as the kind is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from math import ceil
from typing import Final

from headrace.limits import SQS_MAX_DELAY
from headrace.policy import Policy
from headrace.saga.handling import sagas_of
from headrace.service import Service
from headrace.topology.access import schedules_to
from headrace.topology.model import Queue, Rule, Table, Topology

from .deployment import Deployment, Placed
from .measures import Measures, Metric, functions, least_tasks

RUNBOOKS: Final = "docs/runbooks"

SQS_IN_FLIGHT: Final = 120_000
"""Messages of a queue that may be in flight (SQS quotas, November 2026); beyond that, a receive
is refused or comes back empty."""
LAMBDA_CONCURRENCY: Final = 1_000
"""Invocations at a time in an account that never asked for more (Lambda quotas)."""
NEARLY: Final = 0.8
"""The share of a limit at which somebody should know, while there is time to do something."""
LEAST_PATIENCE: Final = timedelta(minutes=5)
"""A deployment, or a host that starts, may take that long, and nobody has to be woken for it."""
OUTBOX_PATIENCE: Final = timedelta(minutes=5)
"""Five sweeps of a relay on Lambda, which is invoked every minute; a worker makes more."""
_OF_RETENTION: Final = 0.25
"""The share of a queue's retention after which its messages are old whatever its handlers say: what
is left must be enough for a weekend, if the retention is its default."""


class Missing(StrEnum):
    """What a minute without a value means, in CloudWatch's words."""

    FINE = "notBreaching"
    WRONG = "breaching"
    UNCHANGED = "ignore"


@dataclass(frozen=True, slots=True)
class Kind:
    """One reason to be woken. `means` is a sentence about a `{resource}`, with the threshold as
    `{threshold}`. The alarm goes off when `points` of `minutes` are above its threshold, or below
    it where `below` says so. A kind that is no alarm on a metric has no `missing`."""

    name: str
    means: str
    missing: Missing | None
    points: int = 1
    minutes: int = 1
    below: bool = False

    @property
    def page(self) -> str:
        return f"{RUNBOOKS}/{self.name}.md"


# SQS sends no metrics of a queue that nobody has called for six hours, although there may be
# letters in it: what was known last is still so.
DEAD_LETTERS: Final = Kind(
    "dead-letters",
    "Messages that could not be handled are in the dead-letter queue {resource}.",
    Missing.UNCHANGED,
)
UNDELIVERED: Final = Kind(
    "undelivered",
    "Events that EventBridge could not deliver are in the queue {resource}.",
    Missing.UNCHANGED,
)
# SQS tells of no age while there is no message.
OLD_MESSAGES: Final = Kind(
    "old-messages",
    "A message of the queue {resource} has not been handled for more than {threshold:g} s.",
    Missing.FINE,
    points=3,
    minutes=3,
)
IN_FLIGHT: Final = Kind(
    "in-flight",
    "More than {threshold:g} messages of the queue {resource} are in flight, and SQS stops "
    f"giving them out at {SQS_IN_FLIGHT}.",
    Missing.FINE,
)
# The relay says at each look how old the oldest is, and 0 if there is none. Silence means that
# nobody looks.
OUTBOX: Final = Kind(
    "outbox-lag",
    "What the service {resource} has committed is not sent after {threshold:g} ms, or no relay "
    "has looked for it.",
    Missing.WRONG,
    points=5,
    minutes=5,
)
# What did not happen is not written; the same is true of all counts of errors below.
STUCK_SAGAS: Final = Kind(
    "stuck-sagas",
    "A saga of the service {resource} cannot go on, and waits for an operator.",
    Missing.FINE,
)
# Messages that fail are no errors of the function. One timeout is made good by SQS.
FUNCTION_ERRORS: Final = Kind(
    "function-errors",
    "The function {resource} fails as a whole: it cannot start, or does not end in time.",
    Missing.FINE,
    points=2,
    minutes=5,
)
FUNCTION_THROTTLES: Final = Kind(
    "function-throttles",
    "Lambda refuses to run the function {resource} as often as it is invoked.",
    Missing.FINE,
    points=3,
    minutes=5,
)
CONCURRENCY: Final = Kind(
    "concurrency",
    "The functions of this account hold more than {threshold:g} places to run in, and no function "
    "runs beyond the quota.",
    Missing.FINE,
    points=3,
    minutes=3,
)
# Without a single task there is nobody to count.
TOO_FEW_TASKS: Final = Kind(
    "too-few-tasks",
    "The service {resource} has fewer than {threshold:g} running tasks on Fargate.",
    Missing.WRONG,
    points=5,
    minutes=5,
    below=True,
)
FAILED_DEPLOYMENT: Final = Kind(
    "failed-deployment", "ECS gave up a deployment of {resource}, and rolled it back.", None
)
# Both are made good by headrace's retries unless they last.
TABLE_THROTTLES: Final = Kind(
    "table-throttles",
    "DynamoDB refuses a part of the reads and writes of the table {resource}.",
    Missing.FINE,
    points=3,
    minutes=5,
)
TABLE_ERRORS: Final = Kind(
    "table-errors",
    "DynamoDB fails on calls for the table {resource}.",
    Missing.FINE,
    points=3,
    minutes=5,
)
FAILED_DELIVERIES: Final = Kind(
    "failed-deliveries",
    "EventBridge has given up delivering events of the rule {resource} to its queue.",
    Missing.FINE,
)
LOST_EVENTS: Final = Kind(
    "lost-events",
    "EventBridge could put events of the rule {resource} neither into its queue nor into the queue "
    "for what is undelivered: they are lost.",
    Missing.FINE,
)
FAILED_SCHEDULES: Final = Kind(
    "failed-schedules",
    "EventBridge Scheduler could not send what was scheduled in the group {resource}.",
    Missing.FINE,
)

KINDS: Final = (
    *(DEAD_LETTERS, UNDELIVERED, OLD_MESSAGES, IN_FLIGHT),
    *(OUTBOX, STUCK_SAGAS),
    *(FUNCTION_ERRORS, FUNCTION_THROTTLES, CONCURRENCY, TOO_FEW_TASKS, FAILED_DEPLOYMENT),
    *(TABLE_THROTTLES, TABLE_ERRORS),
    *(FAILED_DELIVERIES, LOST_EVENTS, FAILED_SCHEDULES),
)


@dataclass(frozen=True, slots=True)
class Watch:
    """One alarm: the sum of its metrics, or of what a query in Metrics Insights finds, against a
    threshold. `resource` is a logical name."""

    kind: Kind
    resource: str
    threshold: float
    metrics: tuple[Metric, ...] = ()
    query: str = ""

    @property
    def name(self) -> str:
        """Without the namespace, which comes before it."""
        return f"{self.kind.name}-{self.resource}"

    @property
    def description(self) -> str:
        means = self.kind.means.format(resource=self.resource, threshold=self.threshold)
        return f"{means} See {self.kind.page}."


def watches(deployment: Deployment, *, concurrency: int = LAMBDA_CONCURRENCY) -> Iterator[Watch]:
    """All alarms of a deployment, from its topology. `concurrency` is the account's quota of
    Lambda."""
    measures, topology = Measures(deployment), deployment.topology
    for queue in topology.queues:
        yield from _queue(queue, deployment, measures)
    for placed in deployment.services:
        yield from _service(placed, measures)
    for table in topology.tables:
        yield from _table(table, measures)
    for rule in topology.rules:
        yield from _rule(rule, measures)
    yield from _account(deployment, measures, concurrency)


# --- queues ------------------------------------------------------------------------------


def kind_of(queue: Queue, topology: Topology) -> Kind:
    """What it means that something is in a queue for long."""
    if queue.dead_letters is not None:
        return OLD_MESSAGES
    letters = {each.dead_letters for each in topology.queues}
    return DEAD_LETTERS if queue.name in letters else UNDELIVERED


def _queue(queue: Queue, deployment: Deployment, measures: Measures) -> Iterator[Watch]:
    kind = kind_of(queue, deployment.topology)
    hidden = measures.queue(queue.name, "ApproximateNumberOfMessagesNotVisible")
    if kind is not OLD_MESSAGES:
        # Who looks at letters hides them for a while, and they are no fewer for that.
        visible = measures.queue(queue.name, "ApproximateNumberOfMessagesVisible")
        yield Watch(kind, queue.name, 0, (visible, hidden))
        return
    age = measures.queue(queue.name, "ApproximateAgeOfOldestMessage")
    yield Watch(kind, queue.name, patience(queue, deployment).total_seconds(), (age,))
    yield Watch(IN_FLIGHT, queue.name, NEARLY * SQS_IN_FLIGHT, (hidden,))


def patience(queue: Queue, deployment: Deployment) -> timedelta:
    """How old a message may get while everything goes as it should: through all attempts of the
    most patient handler of its queue, each of them ended by a crash and followed by the longest
    wait. What may be sent with a delay waits for that before. It is at most a quarter of the
    retention.

    A handler that raises `RetryLater` with a delay of its own may make its messages older. On a
    standard queue that hardly matters, as SQS counts no message that was received three times.
    """
    service = next(p.service for p in deployment.services if p.name == queue.service)
    policies = [handler.policy for handler in service.handlers_of(queue.name)]
    retried = max((_retried(policy, queue) for policy in policies), default=timedelta())
    delayed = SQS_MAX_DELAY if _may_be_delayed(queue, deployment) else timedelta()
    usual = max(retried + delayed, LEAST_PATIENCE)
    return timedelta(seconds=ceil(min(usual, _OF_RETENTION * queue.retention).total_seconds()))


def _retried(policy: Policy, queue: Queue) -> timedelta:
    waits = (
        min(policy.backoff.cap, policy.backoff.base * 2**n) for n in range(policy.attempts - 1)
    )
    return sum(waits, policy.attempts * queue.visibility)


def _may_be_delayed(queue: Queue, deployment: Deployment) -> bool:
    return any(queue.name in schedules_to(placed.service) for placed in deployment.services)


# --- services and their hosts --------------------------------------------------------------


def _service(placed: Placed, measures: Measures) -> Iterator[Watch]:
    yield from _messages(placed.service, measures)
    for function in functions(placed):
        errors = measures.function(function, "Errors")
        yield Watch(FUNCTION_ERRORS, function, 0, (errors,))
        throttles = measures.function(function, "Throttles")
        yield Watch(FUNCTION_THROTTLES, function, 0, (throttles,))
    for name, least in least_tasks(placed).items():
        if least:
            yield Watch(TOO_FEW_TASKS, name, least, (measures.task_count(name),))


def _messages(service: Service, measures: Measures) -> Iterator[Watch]:
    if service.emits:
        age = measures.service(service.name, "OutboxAge", "Maximum")
        milliseconds = OUTBOX_PATIENCE.total_seconds() * 1000
        yield Watch(OUTBOX, service.name, milliseconds, (age,))
    if sagas_of(service):
        stuck = measures.service(service.name, "SagasStuck")
        yield Watch(STUCK_SAGAS, service.name, 0, (stuck,))


# --- the rest ------------------------------------------------------------------------------


def _table(table: Table, measures: Measures) -> Iterator[Watch]:
    refused = tuple(
        measures.table(table.name, name, index)
        for index in (None, *table.indexes)
        for name in ("ReadThrottleEvents", "WriteThrottleEvents")
    )
    yield Watch(TABLE_THROTTLES, table.name, 0, refused)
    # It is counted for each operation, and never for a table as a whole.
    physical = refused[0].dimensions["TableName"]
    query = (
        'SELECT SUM(SystemErrors) FROM SCHEMA("AWS/DynamoDB", Operation, TableName) '
        f"WHERE TableName = '{physical}'"
    )
    yield Watch(TABLE_ERRORS, table.name, 0, query=query)


def _rule(rule: Rule, measures: Measures) -> Iterator[Watch]:
    failed = measures.rule(rule, "FailedInvocations")
    yield Watch(FAILED_DELIVERIES, rule.name, 0, (failed,))
    if rule.undelivered is not None:
        lost = measures.rule(rule, "InvocationsFailedToBeSentToDlq")
        yield Watch(LOST_EVENTS, rule.name, 0, (lost,))


def _account(deployment: Deployment, measures: Measures, concurrency: int) -> Iterator[Watch]:
    if any(placed.options.host.on_lambda for placed in deployment.services):
        claimed = measures.lambda_account("ClaimedAccountConcurrency")
        yield Watch(CONCURRENCY, "account", NEARLY * concurrency, (claimed,))
    if any(schedules_to(placed.service) for placed in deployment.services):
        names = ("TargetErrorCount", "InvocationDroppedCount")
        failed = tuple(measures.schedules(name) for name in names)
        yield Watch(FAILED_SCHEDULES, "default", 0, failed)
