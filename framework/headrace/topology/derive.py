"""The topology that services need, read from their handlers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Any, Final, TypeAlias

from headrace.errors import DuplicateName
from headrace.events import Event, MessageType, contract_of
from headrace.filters.patterns import length_of
from headrace.limits import EVENT_PATTERN_CHARACTERS
from headrace.record import RELAY_INDEX
from headrace.saga.handling import sagas_of
from headrace.service import Handler, Service

from .model import Bus, Queue, Rule, Table, Topology, dead_letter_queue, undelivered_queue

DEFAULT_BUS: Final = "default"
FIFO: Final = ".fifo"
RULE_NAME_CHARACTERS: Final = 64

Pattern: TypeAlias = Mapping[str, Any]


def topology(*services: Service) -> Topology:
    """Everything these services need in AWS, the same for the same code.

    Each service has a queue of its own name, if a handler reads it, one for each `queue=` of its
    handlers, and a dead-letter queue for each of these. A FIFO queue that takes events has one
    more, for what EventBridge could not deliver. A queue has one rule, which lists by source what
    its handlers take; only a pattern over 2,048 characters is split, and no event matches two
    parts. Raises `DuplicateName` when two services claim one name.
    """
    distinct = tuple(dict.fromkeys(services))
    queues = [queue for service in distinct for queue in _queues(service)]
    _refuse_twice("service", [service.name for service in distinct])
    _refuse_twice("queue", [queue.name for queue in queues])
    tables = sorted({s.table for s in distinct if s.table and needs_table(s)})
    indexed = {service.table for service in distinct if needs_index(service)}
    return Topology(
        buses=tuple(map(Bus, sorted({service.bus for service in distinct} - {DEFAULT_BUS}))),
        rules=tuple(sorted(_all_rules(distinct), key=lambda rule: rule.name)),
        queues=tuple(sorted(queues, key=lambda queue: queue.name)),
        tables=tuple(
            Table(name, indexes=(RELAY_INDEX,) if name in indexed else ()) for name in tables
        ),
    )


def needs_table(service: Service) -> bool:
    """Whether a handler reads or writes entities or keeps inbox records, a saga stands there, or
    what is published outside of handlers is kept until it is out."""
    return needs_index(service) or any(
        handler.uses_transaction or not handler.idempotent for handler in service.handlers
    )


def needs_index(service: Service) -> bool:
    """Whether something in its table is looked for without its key: what no message brings up
    again, sagas that are not over, and the history of each."""
    return bool(service.emits) or bool(sagas_of(service))


# --- queues ----------------------------------------------------------------------------


def _queues(service: Service) -> Iterator[Queue]:
    settings = service.queue_settings
    for name in service.queues:
        fifo = name.endswith(FIFO)
        yield Queue(
            name=name,
            visibility=settings.visibility,
            retention=settings.retention,
            fifo=fifo,
            dead_letters=dead_letter_queue(name),
            max_receive_count=settings.max_receive_count,
            service=service.name,
        )
        yield Queue(
            name=dead_letter_queue(name),
            visibility=settings.visibility,
            retention=settings.dead_letter_retention,
            fifo=fifo,
            service=service.name,
        )
        if fifo and any(_taken(service.handlers_of(name))):
            yield Queue(
                name=undelivered_queue(name),
                visibility=settings.visibility,
                retention=settings.dead_letter_retention,
                service=service.name,
            )


def _refuse_twice(kind: str, names: Sequence[str]) -> None:
    for name in sorted(names):
        if names.count(name) > 1:
            raise DuplicateName(
                f"Two definitions make a {kind} named {name!r}: rename a service, or the queue= of "
                "one of its handlers."
            )


# --- rules -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Taken:
    """One event that a queue takes: all of it, or what matches `detail`."""

    source: str
    name: str
    detail: Pattern | None


def _all_rules(services: Iterable[Service]) -> Iterator[Rule]:
    for service in services:
        for queue in service.queues:
            taken = sorted(_taken(service.handlers_of(queue)), key=lambda t: (t.source, t.name))
            # What AWS itself publishes arrives on the account's default bus, and only there.
            elsewhere = service.bus != DEFAULT_BUS
            native = [t for t in taken if elsewhere and t.source.startswith("aws.")]
            own = [t for t in taken if t not in native]
            yield from _rules(queue, service.bus, queue, own)
            yield from _rules(f"{queue}.aws", DEFAULT_BUS, queue, native)


def _rules(name: str, bus: str, queue: str, taken: Sequence[_Taken]) -> Iterator[Rule]:
    for index, part in enumerate(_parts(taken), start=1):
        numbered = name if index == 1 else f"{name}.{index}"
        yield Rule(_rule_name(numbered), bus, _pattern(part), queue, undelivered_queue(queue))


def _parts(taken: Sequence[_Taken]) -> Iterator[list[_Taken]]:
    """As many as fit into one pattern, in order. The parts share no event, so none arrives
    twice."""
    part: list[_Taken] = []
    for each in taken:
        if part and length_of(_pattern([*part, each])) > EVENT_PATTERN_CHARACTERS:
            yield part
            part = []
        part.append(each)
    if part:
        yield part


def _pattern(taken: Sequence[_Taken]) -> Pattern:
    """One branch for each source, and one for each filtered event. Listing all sources beside
    all names would also match one source's event under another's name."""
    branches = list(_branches(taken))
    return branches[0] if len(branches) == 1 else {"$or": branches}


def _branches(taken: Sequence[_Taken]) -> Iterator[Pattern]:
    for source, events in groupby(taken, key=lambda each: each.source):
        listed = list(events)
        whole = [each.name for each in listed if each.detail is None]
        if whole:
            yield {"source": [source], "detail-type": whole}
        for each in listed:
            if each.detail is not None:
                yield {"source": [source], "detail-type": [each.name], "detail": each.detail}


def _taken(handlers: Sequence[Handler]) -> Iterator[_Taken]:
    """The events of a queue; commands need no rule."""
    events = dict.fromkeys(cls for handler in handlers for cls in handler.takes)
    for cls in events:
        contract = contract_of(cls)
        if issubclass(cls, Event) and contract.source is not None:
            takers = [handler for handler in handlers if cls in handler.takes]
            yield _Taken(contract.source, contract.name, _detail(cls, takers))


def _detail(cls: MessageType, takers: Sequence[Handler]) -> Pattern | None:
    """What some handler wants of the event's detail; `None` if one of them wants every event."""
    wanted = [handler.where.pattern_for(cls) if handler.where else None for handler in takers]
    if None in wanted:
        return None
    distinct = list({repr(pattern): pattern for pattern in wanted if pattern}.values())
    payload = distinct[0] if len(distinct) == 1 else {"$or": distinct}
    return payload if contract_of(cls).native else _of_any_version(payload, cls)


def _of_any_version(payload: Pattern, cls: MessageType) -> Pattern:
    """The filter speaks of the current version, after upcasting: an event of another version,
    or one that came without headrace's metadata, is let through and filtered on receipt."""
    other = [{"anything-but": [contract_of(cls).version]}, {"exists": False}]
    return {"$or": [{"data": payload}, {"metadata": {"version": other}}]}


def _rule_name(name: str) -> str:
    if len(name) <= RULE_NAME_CHARACTERS:
        return name
    return f"{name[: RULE_NAME_CHARACTERS - 9]}-{sha256(name.encode()).hexdigest()[:8]}"
