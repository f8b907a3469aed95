"""One dashboard for a system, with a row for each service, as the JSON that CloudWatch draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from headrace.saga.handling import sagas_of
from headrace.topology.model import Queue, Rule

from .alarm_kinds import OLD_MESSAGES, kind_of
from .deployment import Deployment, Placed
from .measures import Measures, Metric, functions, least_tasks

Widget: TypeAlias = dict[str, Any]

WIDTH: Final = 24
"""Of a dashboard, in CloudWatch's units."""
_GRAPH: Final = (6, 5)
_HEADING: Final = (WIDTH, 1)
_ALARMS_OF_A_WIDGET: Final = 100
_PERIOD: Final = 60


def body(deployment: Deployment, region: str, alarms: Sequence[str]) -> dict[str, Any]:
    """A dashboard's body: the state of all alarms, given by their ARNs; then for each service its
    messages, queues, outbox, sagas, hosts, table and rules; then what they share."""
    rows = [_alarms(alarms)]
    for placed in deployment.services:
        rows.append([_heading(placed), *_Service(placed, deployment, region).widgets()])
    rows.append(list(_shared(deployment, region)))
    return {"widgets": list(_laid_out(rows))}


# --- where widgets are ---------------------------------------------------------------------


def _laid_out(rows: Iterable[Sequence[Widget]]) -> Iterator[Widget]:
    """From left to right; what does not fit in is below, and each row begins anew."""
    y = 0
    for row in rows:
        x = height = 0
        for widget in row:
            if x + widget["width"] > WIDTH:
                x, y, height = 0, y + height, 0
            yield {**widget, "x": x, "y": y}
            x, height = x + widget["width"], max(height, widget["height"])
        y += height


def _sized(size: tuple[int, int], kind: str, properties: dict[str, Any]) -> Widget:
    width, height = size
    return {"type": kind, "width": width, "height": height, "properties": properties}


def _heading(placed: Placed) -> Widget:
    text = f"## {placed.name}, on {placed.options.host.value}"
    return _sized(_HEADING, "text", {"markdown": text, "background": "transparent"})


def _alarms(alarms: Sequence[str]) -> list[Widget]:
    starts = range(0, len(alarms), _ALARMS_OF_A_WIDGET)
    parts = [alarms[start : start + _ALARMS_OF_A_WIDGET] for start in starts]
    return [
        _sized((WIDTH, 4), "alarm", {"title": "Alarms", "alarms": list(part)}) for part in parts
    ]


# --- what they show ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """A metric under a name of its own."""

    label: str
    metric: Metric

    def drawn(self) -> list[Any]:
        metric = self.metric
        dimensions = [text for pair in metric.dimensions.items() for text in pair]
        options = {"stat": metric.statistic, "label": self.label}
        return [metric.namespace, metric.name, *dimensions, options]


def _graph(title: str, region: str, lines: Iterable[_Line]) -> Widget:
    properties = {
        "title": title,
        "region": region,
        "view": "timeSeries",
        "stacked": False,
        "period": _PERIOD,
        "yAxis": {"left": {"min": 0}},
        "metrics": [line.drawn() for line in lines],
    }
    return _sized(_GRAPH, "metric", properties)


class _Service:
    """The widgets of one service."""

    def __init__(self, placed: Placed, deployment: Deployment, region: str) -> None:
        self._placed = placed
        self._service = placed.service
        self._region = region
        self._measures = Measures(deployment)
        self._topology = deployment.topology

    def widgets(self) -> Iterator[Widget]:
        for title, lines in self._all():
            found = list(lines)
            if found:
                yield _graph(title, self._region, found)

    def _all(self) -> Iterator[tuple[str, Iterator[_Line]]]:
        yield "messages", self._messages()
        yield "handlers, ms", self._percentiles("HandlingTime")
        yield "messages waiting", self._waiting()
        yield "oldest message, s", self._oldest()
        yield "dead letters", self._letters()
        yield "outbox, ms", self._outbox()
        yield "sagas", self._sagas()
        yield "Lambda, ms", self._durations()
        yield "Lambda, invocations", self._invocations()
        yield "Fargate, %", self._load()
        yield "Fargate, tasks", self._tasks()
        yield "DynamoDB, units consumed", self._consumed()
        yield "DynamoDB, throttled", self._throttled()
        yield "bus", self._rules()

    # --- headrace ---

    def _own(self, label: str, name: str, statistic: str = "Sum") -> _Line:
        return _Line(label, self._measures.service(self._service.name, name, statistic))

    def _messages(self) -> Iterator[_Line]:
        yield self._own("received", "Received")
        yield self._own("handled", "Handled")
        yield self._own("duplicates", "Duplicates")
        yield self._own("retried", "Retried")
        yield self._own("dead-lettered", "DeadLettered")
        if any(handler.park for handler in self._service.handlers):
            yield self._own("parked", "Parked")

    def _percentiles(self, name: str) -> Iterator[_Line]:
        yield self._own("p50", name, "p50")
        yield self._own("p99", name, "p99")

    def _outbox(self) -> Iterator[_Line]:
        yield self._own("until sent, p99", "OutboxLag", "p99")
        if self._service.emits:
            yield self._own("oldest that is not sent", "OutboxAge", "Maximum")

    def _sagas(self) -> Iterator[_Line]:
        if not sagas_of(self._service):
            return
        for status in ("started", "completed", "compensated", "stuck"):
            yield self._own(status, f"Sagas{status.title()}")

    # --- queues ---

    def _queues(self, *, letters: bool) -> list[Queue]:
        own = [queue for queue in self._topology.queues if queue.service == self._service.name]
        return [q for q in own if (kind_of(q, self._topology) is not OLD_MESSAGES) is letters]

    def _waiting(self) -> Iterator[_Line]:
        for queue in self._queues(letters=False):
            visible = self._measures.queue(queue.name, "ApproximateNumberOfMessagesVisible")
            yield _Line(f"{queue.name}, waiting", visible)
            hidden = self._measures.queue(queue.name, "ApproximateNumberOfMessagesNotVisible")
            yield _Line(f"{queue.name}, in flight", hidden)

    def _oldest(self) -> Iterator[_Line]:
        for queue in self._queues(letters=False):
            age = self._measures.queue(queue.name, "ApproximateAgeOfOldestMessage")
            yield _Line(queue.name, age)

    def _letters(self) -> Iterator[_Line]:
        for queue in self._queues(letters=True):
            visible = self._measures.queue(queue.name, "ApproximateNumberOfMessagesVisible")
            yield _Line(queue.name, visible)

    # --- hosts ---

    def _of_functions(self, name: str, statistic: str, what: str) -> Iterator[_Line]:
        for function in functions(self._placed):
            metric = self._measures.function(function, name, statistic)
            yield _Line(f"{function}, {what}", metric)

    def _durations(self) -> Iterator[_Line]:
        yield from self._of_functions("Duration", "p50", "p50")
        yield from self._of_functions("Duration", "p99", "p99")

    def _invocations(self) -> Iterator[_Line]:
        yield from self._of_functions("ConcurrentExecutions", "Maximum", "at a time")
        yield from self._of_functions("Errors", "Sum", "errors")
        yield from self._of_functions("Throttles", "Sum", "throttled")

    def _load(self) -> Iterator[_Line]:
        for name in least_tasks(self._placed):
            cpu = self._measures.tasks(name, "CPUUtilization", "Average")
            yield _Line(f"{name}, CPU", cpu)
            memory = self._measures.tasks(name, "MemoryUtilization", "Maximum")
            yield _Line(f"{name}, memory", memory)

    def _tasks(self) -> Iterator[_Line]:
        for name in least_tasks(self._placed):
            yield _Line(name, self._measures.task_count(name))

    # --- the table and the bus ---

    def _of_table(self, read: str, write: str) -> Iterator[_Line]:
        for table in self._topology.tables:
            if table.name != self._service.table:
                continue
            for index in (None, *table.indexes):
                on = f"{index}, " if index else ""
                yield _Line(f"{on}read", self._measures.table(table.name, read, index))
                yield _Line(f"{on}written", self._measures.table(table.name, write, index))

    def _consumed(self) -> Iterator[_Line]:
        return self._of_table("ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits")

    def _throttled(self) -> Iterator[_Line]:
        return self._of_table("ReadThrottleEvents", "WriteThrottleEvents")

    def _rules(self) -> Iterator[_Line]:
        into = {queue.name for queue in self._queues(letters=False)}
        for rule in self._topology.rules:
            if rule.queue in into:
                yield from self._rule(rule)

    def _rule(self, rule: Rule) -> Iterator[_Line]:
        yield _Line(f"{rule.name}, matched", self._measures.rule(rule, "MatchedEvents"))
        yield _Line(f"{rule.name}, failed", self._measures.rule(rule, "FailedInvocations"))
        if rule.undelivered is not None:
            lost = self._measures.rule(rule, "InvocationsFailedToBeSentToDlq")
            yield _Line(f"{rule.name}, lost", lost)


def _shared(deployment: Deployment, region: str) -> Iterator[Widget]:
    measures = Measures(deployment)
    text = "## what services share with others of the account"
    yield _sized(_HEADING, "text", {"markdown": text, "background": "transparent"})
    schedules = (
        _Line("sent", measures.schedules("InvocationAttemptCount")),
        _Line("failed", measures.schedules("TargetErrorCount")),
        _Line("dropped", measures.schedules("InvocationDroppedCount")),
    )
    yield _graph("EventBridge Scheduler", region, schedules)
    if any(placed.options.host.on_lambda for placed in deployment.services):
        claimed = measures.lambda_account("ClaimedAccountConcurrency")
        yield _graph("Lambda, concurrency of the account", region, [_Line("claimed", claimed)])
