"""Metrics in CloudWatch's embedded metric format (EMF): lines of JSON, of which CloudWatch Logs
makes metrics.

Source of the limits below: "Specification: Embedded metric format", Amazon CloudWatch User Guide.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

import orjson

from headrace.context import log_fields
from headrace.envelope import Outgoing
from headrace.observer import Handled, Observer, SagaChange
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Clock, Delivery
from headrace.system import SystemClock

MOST_VALUES: Final = 100
"""Of one metric in one line. Of a metric with more there are more lines, as every value counts."""

MOST_CHARACTERS: Final = 1024
"""Of a dimension's value."""

_MILLISECOND: Final = timedelta(milliseconds=1)
_COUNTERS: Final = (
    *("Received", "Handled", "Retried", "DeadLettered"),
    *("Duplicates", "Parked", "Conflicts"),
)
_SAGAS: Final[Mapping[str, str]] = {
    "started": "SagasStarted",
    "completed": "SagasCompleted",
    "compensated": "SagasCompensated",
    "stuck": "SagasStuck",
}
"""The metrics of sagas, by what a saga came to. That one turned back counts when it is undone."""

_UNITS: Final[Mapping[str, str]] = {
    **dict.fromkeys(_COUNTERS, "Count"),
    **dict.fromkeys(_SAGAS.values(), "Count"),
    "HandlingTime": "Milliseconds",
    "MessageAge": "Milliseconds",
    "OutboxLag": "Milliseconds",
    "OutboxAge": "Milliseconds",
    "InFlight": "Count",
    "GroupCommitSize": "Count",
}
"""The metrics, and what they are counted in."""


class EmfMetrics(Observer):
    """Counts in memory, and writes lines when it is told to `flush`.

    Each line names its dimensions twice: service, handler and event; and the service alone, which
    has the sums. What belongs to no handler has the service alone; what became of sagas has the
    service, and as its handler the saga. Times are in milliseconds, to a
    microsecond. What did not happen is not written.

    `write` is given one line at a time, with its end.
    """

    def __init__(
        self,
        *,
        namespace: str = "headrace",
        write: Callable[[str], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._namespace = namespace
        self._write = write or _to_stdout
        self._clock = clock or SystemClock()
        self._handlers: dict[tuple[str, str, str], _HandlerMetrics] = {}
        self._services: dict[str, _ServiceMetrics] = {}
        self._in_flight: dict[str, _InFlight] = {}
        self._sagas: dict[tuple[str, str], Counter[str]] = {}

    # --- counting ---

    def received(self, service: str, delivery: Delivery) -> None:
        self._service(service).received += 1
        in_flight = self._in_flight.get(service)
        if in_flight is None:
            in_flight = self._in_flight[service] = _InFlight()
        in_flight.now += 1
        if in_flight.now > in_flight.most:
            in_flight.most = in_flight.now

    def handled(self, service: str, handled: Handled) -> None:
        metrics = self._handler(service, handled.handler, handled.event)
        metrics.conflicts += handled.conflicts
        # Rounded here and not in the flush, which holds up the event loop.
        metrics.times.append(round(handled.seconds * 1000, 3))
        if handled.age is not None:
            metrics.ages.append(handled.age / _MILLISECOND)
        outcome = handled.outcome
        if not isinstance(outcome, Ack):
            return  # it counts once its fate was carried out, which is that of the message
        if outcome.duplicate:
            metrics.duplicates += 1
        elif outcome.parked:
            metrics.parked += 1
        else:
            metrics.handled += 1

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        in_flight = self._in_flight.get(service)
        if in_flight is not None:
            in_flight.now -= 1
        if not isinstance(outcome, Ack):
            self._blamed(service, outcome).fail(outcome)

    def committed(self, service: str, transactions: int) -> None:
        self._service(service).commits.append(transactions)

    def sent(self, service: str, outgoing: Outgoing) -> None:
        lag = (self._clock.now() - outgoing.time) / _MILLISECOND
        # Whoever committed it may have had a clock that is ahead.
        self._service(service).lags.append(max(lag, 0.0))

    def swept(self, service: str, oldest: timedelta | None) -> None:
        # That nothing is left is a value as well: its absence says that nobody has looked.
        self._service(service).ages.append(0.0 if oldest is None else oldest / _MILLISECOND)

    def saga(self, service: str, change: SagaChange) -> None:
        metric = _SAGAS.get(change.status)
        if metric is not None:
            self._sagas.setdefault((service, change.saga), Counter())[metric] += 1

    def _service(self, service: str) -> _ServiceMetrics:
        metrics = self._services.get(service)
        if metrics is None:
            metrics = self._services[service] = _ServiceMetrics()
        return metrics

    def _handler(self, service: str, handler: str, event: str) -> _HandlerMetrics:
        metrics = self._handlers.get((service, handler, event))
        if metrics is None:
            metrics = self._handlers[service, handler, event] = _HandlerMetrics()
        return metrics

    def _blamed(self, service: str, outcome: Retry | DeadLetter) -> _Failures:
        """Where a failure counts: at the handler that it came from, if there is one."""
        event = log_fields().get("event")
        if outcome.handler is None or event is None:
            return self._service(service)
        return self._handler(service, outcome.handler.removeprefix(f"{service}."), str(event))

    # --- writing ---

    def flush(self) -> None:
        """Write what was counted since the last time, and begin anew."""
        lines = list(self._lines(int(self._clock.now().timestamp() * 1000)))
        self._handlers.clear()
        self._services.clear()
        self._sagas.clear()
        for in_flight in self._in_flight.values():
            in_flight.most = in_flight.now
        for line in lines:
            self._write(line)

    def _lines(self, timestamp: int) -> Iterator[str]:
        for (service, handler, event), handled in self._handlers.items():
            dimensions = {"Service": service, "Handler": handler, "Event": event}
            yield from self._documents(timestamp, dimensions, handled.metrics())
        for (service, saga), changes in self._sagas.items():
            dimensions = {"Service": service, "Handler": saga}
            yield from self._documents(timestamp, dimensions, _happened(changes))
        for service in {**self._services, **self._in_flight}:
            metrics = self._service(service).metrics()
            in_flight = self._in_flight.get(service)
            if in_flight is not None and in_flight.most > 0:
                metrics["InFlight"] = [in_flight.now, in_flight.most]
            yield from self._documents(timestamp, {"Service": service}, metrics)

    def _documents(
        self, timestamp: int, dimensions: Mapping[str, str], metrics: Mapping[str, Sequence[float]]
    ) -> Iterator[str]:
        """As many lines as the metric with the most values needs."""
        sets = [list(dimensions)]
        if len(dimensions) > 1:
            sets.append(["Service"])
        targets = {name: _dimension(value) for name, value in dimensions.items()}
        longest = max(map(len, metrics.values()), default=0)
        for start in range(0, longest, MOST_VALUES):
            values = {
                name: _target(several[start : start + MOST_VALUES])
                for name, several in metrics.items()
                if len(several) > start
            }
            directive = {
                "Namespace": self._namespace,
                "Dimensions": sets,
                "Metrics": [{"Name": name, "Unit": _UNITS[name]} for name in values],
            }
            metadata = {"Timestamp": timestamp, "CloudWatchMetrics": [directive]}
            document = {"_aws": metadata, **targets, **values}
            yield orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE).decode()


class _Failures:
    """What did not go well, of a handler or of a whole service."""

    __slots__ = ("dead_lettered", "retried")

    def __init__(self) -> None:
        self.retried = 0
        self.dead_lettered = 0

    def fail(self, outcome: Retry | DeadLetter) -> None:
        if isinstance(outcome, Retry):
            self.retried += 1
        else:
            self.dead_lettered += 1


class _HandlerMetrics(_Failures):
    """What one handler did with one type of event. Values are kept as doubles, eight bytes each."""

    __slots__ = ("ages", "conflicts", "duplicates", "handled", "parked", "times")

    def __init__(self) -> None:
        super().__init__()
        self.handled = 0
        self.duplicates = 0
        self.parked = 0
        self.conflicts = 0
        self.times = array("d")
        self.ages = array("d")

    def metrics(self) -> dict[str, Sequence[float]]:
        counts = {
            "Handled": self.handled,
            "Retried": self.retried,
            "DeadLettered": self.dead_lettered,
            "Duplicates": self.duplicates,
            "Parked": self.parked,
            "Conflicts": self.conflicts,
        }
        return {
            **_happened(counts),
            "HandlingTime": self.times.tolist(),
            "MessageAge": self.ages.tolist(),
        }


class _ServiceMetrics(_Failures):
    """What belongs to no handler of a service."""

    __slots__ = ("ages", "commits", "lags", "received")

    def __init__(self) -> None:
        super().__init__()
        self.received = 0
        self.commits = array("l")
        self.lags = array("d")
        self.ages = array("d")

    def metrics(self) -> dict[str, Sequence[float]]:
        counts = {
            "Received": self.received,
            "Retried": self.retried,
            "DeadLettered": self.dead_lettered,
        }
        return {
            **_happened(counts),
            "OutboxLag": self.lags.tolist(),
            "OutboxAge": self.ages.tolist(),
            "GroupCommitSize": self.commits.tolist(),
        }


class _InFlight:
    """Deliveries that are being handled: now, and at most since the last flush."""

    __slots__ = ("most", "now")

    def __init__(self) -> None:
        self.now = 0
        self.most = 0


def _happened(counts: Mapping[str, int]) -> dict[str, Sequence[float]]:
    """Without counts of nothing."""
    return {name: [count] for name, count in counts.items() if count}


def _target(values: Sequence[float]) -> float | Sequence[float]:
    return values[0] if len(values) == 1 else values


def _dimension(text: str) -> str:
    """A value that CloudWatch takes: printable ASCII, not empty, and without a colon in front."""
    ascii_only = text.encode("ascii", "backslashreplace").decode()
    printable = "".join(c if c.isprintable() else "?" for c in ascii_only).lstrip(": ").rstrip()
    return printable[:MOST_CHARACTERS] or "-"


def _to_stdout(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
