"""`headrace topology`: what services need in AWS."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .loading import Services, load_services

if TYPE_CHECKING:
    from headrace.service import Handler, Service
    from headrace.topology.model import Queue, Table, Topology


def topology(
    services: Services,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Show what services need in AWS."""
    from headrace.topology.derive import topology as derive

    loaded = load_services(services)
    derived = derive(*loaded)
    if as_json:
        print(json.dumps(derived.as_json(), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(derived, loaded)))


def _lines(topology: Topology, services: Sequence[Service]) -> Iterator[str]:
    yield f"buses   {', '.join(bus.name for bus in topology.buses) or 'only the default one'}"
    yield f"tables  {', '.join(map(_table, topology.tables)) or 'none'}"
    for queue in topology.queues:
        if queue.dead_letters is not None:
            yield ""
            handlers = [h for s in services for h in s.handlers if h.queue == queue.name]
            yield from _queue(topology, queue, handlers)


def _table(table: Table) -> str:
    """By its name, and those of its indexes if it has any."""
    if not table.indexes:
        return table.name
    return f"{table.name} (indexed by {', '.join(table.indexes)})"


def _queue(topology: Topology, queue: Queue, handlers: Sequence[Handler]) -> Iterator[str]:
    seconds, days = int(queue.visibility.total_seconds()), queue.retention.total_seconds() / 86_400
    yield f"queue   {queue.name}"
    yield f"        hidden for {seconds} s once received, kept for {days:g} days"
    yield f"        to {queue.dead_letters}: {_given_up(queue, handlers)}"
    for rule in topology.rules_into(queue.name):
        yield f"        rule {rule.name} on the bus {rule.bus}:"
        yield from (f"          {line}" for line in _branches(rule.pattern))


def _given_up(queue: Queue, handlers: Sequence[Handler]) -> str:
    """By whom, and after how many receives."""
    # In a FIFO group a message is received with those that hold it back, which is no attempt.
    fifo = queue.name.endswith(".fifo")
    last = queue.max_receive_count - 1
    tried = sorted({last if fifo and h.lease is None else h.policy.attempts for h in handlers})
    counts = [n for n in tried if n < queue.max_receive_count]
    by_sqs = f"by SQS itself after {queue.max_receive_count}"
    if not counts:
        return f"given up {by_sqs} receives"
    several = f"{counts[0]} to {counts[-1]}" if counts[1:] else str(counts[0])
    return f"given up by headrace after {several} receives, {by_sqs}"


def _branches(pattern: Any) -> Iterator[str]:
    for branch in pattern.get("$or", [pattern]):
        yield f"{', '.join(branch['source'])}: {', '.join(branch['detail-type'])}"
        if "detail" in branch:
            yield f"  where detail matches {json.dumps(branch['detail'], ensure_ascii=False)}"
