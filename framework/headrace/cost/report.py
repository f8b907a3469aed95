"""The bill, as a person reads it and as a program does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from headrace.cost.bill import HOURS, MILLION, Assumed, Bill, Line
from headrace.cost.hosts import Host
from headrace.cost.measure import Load, Measured
from headrace.cost.prices import Price, Prices
from headrace.cost.usage import Usage

_SENT_BY: Final = "(the work itself)"

NOT_IN_IT: Final = (
    "free tiers and discounts",
    "what DynamoDB stores and backs up",
    "how long logs are kept",
    "metrics, alarms and traces",
    "data transfer",
    "keys of KMS and secrets",
    "load balancers and HTTP in front of services",
    "cold starts, and images in ECR",
    "empty receives beside those of idle queues",
)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is known: what was counted, what was assumed, and what that comes to."""

    services: Sequence[str]
    load: Load
    measured: Sequence[Measured]
    assumed: Assumed
    prices: Prices
    bill: Bill
    per_month: float

    @property
    def totals(self) -> dict[str, float]:
        """In dollars, by what the last line calls them."""
        bill, hosts = self.bill, list(Host)
        return {
            **{f"{host}_usd_per_million": bill.per_million(host) for host in hosts},
            **{f"{host}_idle_usd_per_month": bill.idle_month(host) for host in hosts},
            **{f"{host}_usd_per_month": bill.month(host, self.per_month) for host in hosts},
        }

    def last_line(self) -> str:
        return " ".join(f"{name}={dollars:.2f}" for name, dollars in self.totals.items())


# --- for a person ----------------------------------------------------------------------


def as_text(report: Report) -> str:
    """Tables, the formula in words, and one line for programs at the end."""
    parts = [
        _heading(report),
        _table(_measured_rows(report.measured), left=2),
        _table(_bill_rows(report), left=2),
        _table(_idle_rows(report), left=2),
        _table(_month_rows(report), left=1),
        "\n".join(_words(report)),
        report.last_line(),
    ]
    return "\n\n".join(parts)


def _heading(report: Report) -> str:
    load, prices = report.load, report.prices
    return (
        f"{load.times} units of work, {load.at_a_time} at a time, on {', '.join(report.services)}. "
        f"Prices of {prices.region}, {prices.date}."
    )


def _measured_rows(measured: Sequence[Measured]) -> Iterator[Sequence[str]]:
    yield (
        *("measured, for a unit of work", "on", "messages", "in a batch", "AWS calls"),
        *("KB", "write units", "read units", "waited ms"),
    )
    for found in measured:
        for name, usage in found.usage.items():
            yield (name or _SENT_BY, found.host, *_measured_row(usage, found))


def _measured_row(usage: Usage, measured: Measured) -> Iterator[str]:
    units = measured.units
    batches = len(usage.invocations) if measured.host is Host.LAMBDA else usage.receives
    waited = sum(invocation.waited for invocation in usage.invocations) * 1000
    yield f"{usage.received / units:.2f}"
    yield f"{usage.received / batches:.2f}" if batches else ""
    yield f"{sum(usage.calls.values()) / units:.2f}"
    yield f"{usage.payload_bytes / 1000 / units:.1f}"
    yield f"{(usage.write_units + usage.index_units) / units:.2f}"
    yield f"{usage.read_units / units:.2f}"
    yield f"{waited / units:.1f}" if usage.invocations else ""


def _bill_rows(report: Report) -> Iterator[Sequence[str]]:
    yield (
        *("for a million units of work", "count is", "price"),
        *("Lambda, each", "Lambda $", "Fargate, each", "Fargate $"),
    )
    for line in report.bill.lines:
        yield _row(line, MILLION)
    yield _total_row([f"{report.bill.per_million(host):,.2f}" for host in Host])


def _idle_rows(report: Report) -> Iterator[Sequence[str]]:
    yield (
        *(f"for a month without work, {HOURS} h", "count is", "price"),
        *("Lambda", "Lambda $", "Fargate", "Fargate $"),
    )
    for line in report.bill.idle:
        yield _row(line, 1)
    yield _total_row([f"{report.bill.idle_month(host):,.2f}" for host in Host])


def _row(line: Line, times: float) -> Sequence[str]:
    cells = [line.label, str(line.basis), str(line.price)]
    for host in Host:
        count = line.count(host)
        dollars = f"{line.dollars(host, times):,.2f}"
        cells += ["", ""] if count is None else [_number(count), dollars]
    return cells


def _total_row(dollars: Sequence[str]) -> Sequence[str]:
    on_lambda, on_fargate = dollars
    return ("total", "", "", "", on_lambda, "", on_fargate)


def _month_rows(report: Report) -> Iterator[Sequence[str]]:
    yield ("for a month with units of work", "Lambda $", "Fargate $")
    for units in sorted({report.per_month / 10, report.per_month, report.per_month * 10}):
        yield (f"{units:,.0f}", *(f"{report.bill.month(host, units):,.2f}" for host in Host))


def _number(count: float) -> str:
    return f"{count:,.0f}" if count >= 1000 else f"{count:.4g}"


def _table(rows: Iterable[Sequence[str]], *, left: int) -> str:
    """Columns as wide as they have to be; the first ones to the left."""
    cells = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def _words(report: Report) -> Iterator[str]:
    assumed, load = report.assumed, report.load
    yield "dollars for a million = count for one unit of work × price × 1,000,000"
    yield "  SQS       a request for every call and every 64 KB; what a rule sends is one each"
    yield "  DynamoDB  a write unit for 1 KB of an item, two in a transaction; a read unit for 4 KB"
    yield (
        f"  Lambda    invocations × (ms they waited + messages × "
        f"{assumed.cpu_on_lambda:.3g} ms) × {assumed.memory} MB"
    )
    yield (
        f"  Fargate   messages × {assumed.ms_per_message:g} ms ÷ {assumed.cpu_of_task:g} of a vCPU "
        f"÷ {assumed.utilisation:g} busy × ({assumed.vcpu:g} vCPU + {assumed.task_memory:g} GB)"
    )
    yield "assumed"
    yield from (f"  {sentence}" for sentence in _assumptions(assumed, load))
    yield f"not in it: {'; '.join(_left_out(report))}."


def _assumptions(assumed: Assumed, load: Load) -> Iterator[str]:
    yield f"{_ms(load.call):g} ms for a call to AWS (--call-ms)"
    yield (
        f"{assumed.ms_per_message:g} ms of a vCPU for a message (--ms-per-message), which is "
        f"{assumed.cpu_on_lambda:.3g} ms with {assumed.memory} MB (--memory)"
    )
    yield (
        f"{load.source.pollers} polls of Lambda on a queue (--lambda-pollers), each with its own "
        f"invocation of {load.source.batch} messages at most (--batch) within "
        f"{load.source.window.total_seconds():g} s (--window)"
    )
    yield (
        f"tasks of {assumed.vcpu:g} vCPU and {assumed.task_memory:g} GB (--vcpu, --task-memory), "
        f"busy for {assumed.utilisation:g} of their time (--utilisation), {assumed.tasks} of each "
        "service at all times (--tasks)"
    )
    yield "20 s for a poll that finds nothing; one poll of each task on a queue without work"
    yield f"{assumed.bytes_per_line} bytes for a line of the log (--bytes-per-line)"


def _left_out(report: Report) -> Iterator[str]:
    yield from NOT_IN_IT
    if not report.assumed.vpc_endpoints:
        yield "VPC endpoints of tasks (--vpc-endpoints)"
    elsewhere = sorted({name for found in report.measured for name in found.elsewhere})
    if elsewhere:
        yield f"what becomes of commands for {', '.join(elsewhere)}"
    if any(found.later for found in report.measured):
        yield "schedules that fire more than a day after the work"


# --- for a program ---------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """Everything in the report, as JSON has it."""
    load, source = report.load, report.load.source
    return {
        "services": list(report.services),
        "load": {
            "times": load.times,
            "at_a_time": load.at_a_time,
            "call_ms": _ms(load.call),
            "batch": source.batch,
            "window_seconds": source.window.total_seconds(),
            "pollers": source.pollers,
            "timeout_seconds": source.timeout.total_seconds(),
        },
        "assumed": {
            **{n: v for n, v in asdict(report.assumed).items() if not isinstance(v, timedelta)},
            "relay_seconds": report.assumed.relay_every.total_seconds(),
        },
        "prices": report.prices.model_dump(exclude={"prices"}),
        "measured": {found.host.value: _measured_json(found) for found in report.measured},
        "lines": [_line_json(line, MILLION) for line in report.bill.lines],
        "idle": [_line_json(line, 1) for line in report.bill.idle],
        "per_month": report.per_month,
        "not_in_it": list(_left_out(report)),
        **{name: round(dollars, 6) for name, dollars in report.totals.items()},
    }


def _measured_json(measured: Measured) -> dict[str, Any]:
    return {
        "units": measured.units,
        "log_lines": measured.log_lines,
        "services": {name or "": _usage_json(usage) for name, usage in measured.usage.items()},
    }


def _usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "calls": dict(sorted(usage.calls.items())),
        "sqs": [
            {"action": request.action.value, "queue": request.kind.value, "requests": count}
            for request, count in sorted(usage.requests.items())
        ],
        "events": usage.events,
        "schedules": usage.schedules,
        "write_units": usage.write_units,
        "index_units": usage.index_units,
        "read_units": usage.read_units,
        "messages": usage.received,
        "bytes": usage.payload_bytes,
        "receives": usage.receives,
        "left_to_the_relay": usage.relayed,
        "invocations": len(usage.invocations),
        "waited_ms": round(1000 * sum(each.waited for each in usage.invocations), 3),
    }


def _line_json(line: Line, times: float) -> dict[str, Any]:
    return {
        "line": line.label,
        "basis": line.basis.value,
        "price": _price_json(line.price),
        **{
            host.value: None
            if line.count(host) is None
            else {"count": line.count(host), "usd": line.dollars(host, times)}
            for host in Host
        },
    }


def _price_json(price: Price) -> dict[str, Any]:
    return {"usd": price.usd, "per": price.per, "unit": price.unit, "page": price.page}


def _ms(duration: timedelta) -> float:
    return duration.total_seconds() * 1000
