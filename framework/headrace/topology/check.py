"""What is wrong with a set of services before any of it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from headrace.errors import DefinitionError, DuplicateName
from headrace.events import Contract, Event, MessageType, contract_of, json_schema
from headrace.filters.patterns import length_of
from headrace.limits import EVENT_PATTERN_CHARACTERS, SQS_MAX_RETENTION, SQS_MAX_VISIBILITY
from headrace.saga.definition import Definition
from headrace.saga.handling import sagas_of
from headrace.service import Handler, Service

from .derive import FIFO, needs_table, topology
from .graph import Graph, Link, graph

LEAST_RECEIVE_COUNT: Final = 5
"""Lambda scaling down can return messages unhandled, which counts as a receive (Lambda guide)."""
VISIBILITY_PER_TIMEOUT: Final = 6
"""Visibility to timeout, as the Lambda guide advises: room for throttled invocations."""
SQS_LEAST_RETENTION: Final = timedelta(seconds=60)

_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}|(?=.{1,80}$)[A-Za-z0-9_-]+\.fifo")
_TABLE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_BUS_NAME: Final = re.compile(r"[A-Za-z0-9_./-]{1,256}")


class Severity(StrEnum):
    """An error will fail or lose something; a warning may be meant."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at: where, and in a sentence what it is and what to write instead."""

    severity: Severity
    subject: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.subject}: {self.sentence}"


def check(*services: Service) -> list[Finding]:
    """Everything wrong with these services, errors first; empty if there is nothing.

    Services that are deployed but not named here count as strangers: give all that share a bus.
    """
    distinct = list(dict.fromkeys(services))
    sagas = list(_sagas(distinct))
    found = [
        *_names(distinct),
        *(finding for service in distinct for finding in _service(service)),
        *_messages(distinct),
        *(finding for _, finding in sagas),
        *_without_undo(distinct),
        *_links(distinct, graph(*distinct), told={name for name, _ in sagas}),
    ]
    ordered = sorted(found, key=lambda f: (f.severity, f.subject, f.sentence))
    return list(dict.fromkeys(ordered))


def _error(subject: str, sentence: str) -> Finding:
    return Finding(Severity.ERROR, subject, sentence)


def _warning(subject: str, sentence: str) -> Finding:
    return Finding(Severity.WARNING, subject, sentence)


# --- names and rules -------------------------------------------------------------------


def _names(services: Sequence[Service]) -> Iterator[Finding]:
    try:
        derived = topology(*services)
    except DuplicateName as error:
        yield _error("services", str(error))
        return
    for rule in derived.rules:
        length = length_of(rule.pattern)
        if length > EVENT_PATTERN_CHARACTERS:
            yield _error(
                rule.queue,
                f"the pattern of its rule {rule.name!r} has {length:,} characters, and EventBridge "
                f"takes {EVENT_PATTERN_CHARACTERS:,}: compare fewer values in where=, or give the "
                'handlers of one event queues of their own with queue="…".',
            )
    for queue in derived.queues:
        if not _QUEUE_NAME.fullmatch(queue.name):
            yield _error(
                queue.service,
                f"the queue name {queue.name!r} cannot be used: SQS takes 80 letters, digits, "
                "hyphens and underscores, and .fifo at the end. Shorten the service or queue=.",
            )


# --- one service -----------------------------------------------------------------------


def _service(service: Service) -> Iterator[Finding]:
    yield from _places(service)
    if service.handlers:
        yield from _settings(service)
    else:
        yield _warning(
            service.name,
            "has no handlers: write @service.on(…) above them, and import the modules that hold "
            "them where the service is named.",
        )
    for handler in service.handlers:
        yield from _handler(service, handler)
    for queue in service.queues:
        yield from _queue(service, queue)


def _places(service: Service) -> Iterator[Finding]:
    if service.table is None and needs_table(service):
        names = [h.name for h in service.handlers if h.uses_transaction or not h.idempotent]
        yield _error(
            service.name,
            f"has no table, but {_listed(names)} needs one for inbox records or entities: leave "
            "table=None out, or say idempotent=True and take no Transaction.",
        )
    if service.table is not None and not _TABLE_NAME.fullmatch(service.table):
        yield _error(
            service.name,
            f"the table name {service.table!r} cannot be used: DynamoDB takes 3 to 255 letters, "
            'digits, hyphens, underscores and dots. Write table="…".',
        )
    if not _BUS_NAME.fullmatch(service.bus):
        yield _error(
            service.name,
            f"the bus name {service.bus!r} cannot be used: EventBridge takes 1 to 256 letters, "
            "digits and the characters . - _ /.",
        )


def _settings(service: Service) -> Iterator[Finding]:
    settings = service.queue_settings
    if not timedelta(0) <= settings.visibility <= SQS_MAX_VISIBILITY:
        yield _error(
            service.name, f"the visibility {_shown(settings.visibility)} is not within 0 to 12 h."
        )
    for name, retention in (
        ("retention", settings.retention),
        ("dead_letter_retention", settings.dead_letter_retention),
    ):
        if not SQS_LEAST_RETENTION <= retention <= SQS_MAX_RETENTION:
            yield _error(service.name, f"{name}={_shown(retention)} is not within 60 s to 14 days.")
    if settings.dead_letter_retention <= settings.retention:
        yield _error(
            service.name,
            f"dead letters are kept for {_shown(settings.dead_letter_retention)}, the queue's "
            f"messages for {_shown(settings.retention)}: a dead letter keeps its first date, so it "
            "could vanish on arrival. Make dead_letter_retention longer.",
        )
    if settings.max_receive_count < LEAST_RECEIVE_COUNT:
        yield _warning(
            service.name,
            f"max_receive_count is {settings.max_receive_count}: below {LEAST_RECEIVE_COUNT}, "
            "messages that Lambda could not start may become dead letters unhandled.",
        )


def _handler(service: Service, handler: Handler) -> Iterator[Finding]:
    settings = service.queue_settings
    if handler.policy.attempts >= settings.max_receive_count:
        yield _error(
            handler.consumer,
            f"is tried {handler.policy.attempts} times, and SQS moves a message away after "
            f"{settings.max_receive_count}: it would become a dead letter without a reason. Raise "
            "max_receive_count above attempts.",
        )
    if handler.timeout is not None:
        yield from _timeout(handler, handler.timeout, settings.visibility)


def _timeout(handler: Handler, timeout: timedelta, visibility: timedelta) -> Iterator[Finding]:
    wanted = VISIBILITY_PER_TIMEOUT * timeout
    if visibility <= timeout:
        yield _error(
            handler.consumer,
            f"may run for {_shown(timeout)}, but its message comes again after "
            f"{_shown(visibility)}: raise visibility to {_shown(wanted)}.",
        )
    elif visibility < wanted:
        yield _warning(
            handler.consumer,
            f"may run for {_shown(timeout)}: on Lambda the visibility should be "
            f"{VISIBILITY_PER_TIMEOUT} times that, {_shown(wanted)}, and is {_shown(visibility)}.",
        )


def _queue(service: Service, queue: str) -> Iterator[Finding]:
    handlers = service.handlers_of(queue)
    if queue.endswith(FIFO) and any(contract_of(t).source for h in handlers for t in h.takes):
        yield _warning(
            queue,
            "takes events through EventBridge, which puts all of them into one message group: one "
            "at a time is handled. Use a standard queue unless all of them must be in one order.",
        )
    for handler in handlers:
        for cls in handler.takes:
            others = [h for h in handlers if h.where is None and cls in h.takes]
            if handler.where is not None and others:
                yield _warning(
                    handler.consumer,
                    f"filters {contract_of(cls).name}, but {_listed([h.name for h in others])} on "
                    f"the same queue takes every one, so all of them are delivered and paid for: "
                    f'write queue="{handler.name.replace("_", "-")}" to receive only what matches.',
                )


# --- events and commands ---------------------------------------------------------------


def _messages(services: Sequence[Service]) -> Iterator[Finding]:
    handlers = [handler for service in services for handler in service.handlers]
    taken = {cls for handler in handlers for cls in handler.takes}
    emitted = {cls for handler in handlers for cls in handler.emits}
    for cls in taken | emitted | {cls for service in services for cls in service.emits}:
        yield from _schema(cls)
    for cls in taken:
        yield from _versions(contract_of(cls))


def _schema(cls: MessageType) -> Iterator[Finding]:
    try:
        json_schema(cls)
    except DefinitionError as error:
        yield _error(contract_of(cls).name, str(error))


def _versions(contract: Contract) -> Iterator[Finding]:
    oldest = contract.oldest_readable()
    if oldest > 1:
        yield _warning(
            contract.name,
            f"versions before {oldest} cannot be read: if any are still stored or under way, write "
            f"@upcaster({contract.name}, from_version={oldest - 1}).",
        )


def _links(services: Sequence[Service], graph: Graph, told: Set[str]) -> Iterator[Finding]:
    """What is wrong between services. Of the events `told` it was said before who is missing."""
    buses = {service.name: service.bus for service in services}
    for link in graph.links:
        if link.command:
            yield from _command(link, graph)
            continue
        if link.name not in told:
            yield from _event(link)
        yield from _buses(link, buses)


def _command(link: Link, graph: Graph) -> Iterator[Finding]:
    if link.consumers or not link.emitters:
        return
    if link.party in graph.services:
        yield _error(
            link.name,
            f"is sent by {_listed(link.emitters)}, but its owner {link.party!r} has no handler for "
            f"it: write @{link.party}.on({link.name}).",
        )
    else:
        yield _warning(
            link.name,
            f"is sent by {_listed(link.emitters)} to {link.party!r}, which is not among these "
            "services: name it too, or correct owner=.",
        )


def _event(link: Link) -> Iterator[Finding]:
    if not link.emitters and not link.native:
        yield _warning(
            link.name,
            f"is handled by {_listed(link.consumers)}, but none of these services emits it: name "
            f"the one behind {link.party!r} too, or declare what tx.publish sends with emits=.",
        )
    if not link.consumers:
        yield _warning(
            link.name, f"is emitted by {_listed(link.emitters)}, and none of these handles it."
        )


def _buses(link: Link, buses: dict[str, str]) -> Iterator[Finding]:
    heard = {buses[name] for name in link.emitters}
    for consumer in link.consumers if heard else ():
        if buses[consumer] not in heard and not link.native:
            yield _error(
                consumer,
                f"listens on the bus {buses[consumer]!r}, but {link.name} is published on "
                f"{_listed(sorted(heard))}: give both services one bus.",
            )


# --- sagas -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a saga sends and waits for the answer to: a step, or what undoes it."""

    saga: str
    name: str
    definition: Definition
    sends: tuple[MessageType, ...]
    answers: tuple[MessageType, ...]

    def __str__(self) -> str:
        return f"{self.definition.cls.__name__}.{self.name}"


def _sagas(services: Sequence[Service]) -> Iterator[tuple[str, Finding]]:
    """The answers that sagas wait for in vain, and those that they do not know, by their names."""
    emitted = {cls for service in services for cls in service.emits}
    emitted |= {cls for service in services for h in service.handlers for cls in h.emits}
    told: set[tuple[Definition, str, MessageType]] = set()
    for asked in _asked(services):
        asks = [(command, _takers_of(command, services)) for command in asked.sends]
        # An event may be answered by anybody; a command of a stranger, by one who is not here.
        if all(takers is not None for _, takers in asks):
            for cls in asked.answers:
                if cls not in emitted and not contract_of(cls).native:
                    yield contract_of(cls).name, _unanswered(asked, cls)
        for command, takers in asks:
            for handler in takers or ():
                for cls in _unmapped(handler, asked.definition):
                    # A handler of several commands may answer all of them so.
                    if (asked.definition, handler.consumer, cls) not in told:
                        told.add((asked.definition, handler.consumer, cls))
                        yield contract_of(cls).name, _unknown(asked, command, handler, cls)


def _without_undo(services: Sequence[Service]) -> Iterator[Finding]:
    """Steps that would stay done when a saga is undone, and do not say that this is meant."""
    for saga in (saga for service in services for saga in sagas_of(service).values()):
        for definition in saga.versions.values():
            for step in definition.steps.values():
                stays = step.sends and not step.reverse and not step.nothing_to_undo
                if stays and not step.pivot and _may_be_undone(definition, step.name):
                    yield _warning(
                        saga.consumer,
                        f"its step {step.name} has no undo, so it stays done when a later step "
                        f"fails: write @{step.name}.undo(…), or nothing_to_undo=True.",
                    )


def _may_be_undone(definition: Definition, name: str) -> bool:
    """Whether another step can fail once this one is done."""
    over = {name, *definition.before(name), *definition.after_pivot}
    return name not in definition.after_pivot and any(
        other.answers and other.name not in over for other in definition.steps.values()
    )


def _asked(services: Sequence[Service]) -> Iterator[_Asked]:
    sagas = [saga for service in services for saga in sagas_of(service).values()]
    for saga in sagas:
        for definition in saga.versions.values():
            for step in definition.steps.values():
                if step.waits:
                    yield _Asked(saga.consumer, step.name, definition, step.sends, step.answers)
                undo = step.reverse
                if undo is not None and undo.done:
                    answers = (*undo.done, *undo.failed)
                    yield _Asked(saga.consumer, undo.name, definition, undo.sends, answers)


def _takers_of(command: MessageType, services: Sequence[Service]) -> list[Handler] | None:
    """Who handles a command; `None` if its owner is not among these services."""
    owner = contract_of(command).owner
    owners = [service for service in services if service.name == owner]
    if not owners:
        return None
    return [h for service in owners for h in service.handlers if command in h.takes]


def _unmapped(handler: Handler, definition: Definition) -> list[MessageType]:
    """What a handler may say of a saga, as it has the key, and the saga does not take."""
    replies = [
        cls
        for cls in handler.emits
        if issubclass(cls, Event)
        and definition.key in cls.model_fields
        and cls not in definition.takes
    ]
    return sorted(replies, key=lambda cls: contract_of(cls).name)


def _unanswered(asked: _Asked, cls: MessageType) -> Finding:
    owners = sorted({contract_of(command).owner or "" for command in asked.sends})
    return _warning(
        asked.saga,
        f"waits in {asked} for {contract_of(cls).name}, which none of these services emits: return "
        f"it from the handler in {_listed(owners)}, or declare there what tx.publish sends with "
        "emits=.",
    )


def _unknown(asked: _Asked, command: MessageType, handler: Handler, cls: MessageType) -> Finding:
    name = contract_of(cls).name
    return _warning(
        asked.saga,
        f"does not know {name}, by which {handler.consumer} may answer {contract_of(command).name} "
        f"of {asked}: nobody maps this reply, and the saga would wait. Name it in done=, failed= "
        f"or again=, or take it with @on({name}).",
    )


def _listed(names: Iterable[Any]) -> str:
    words = [str(name) for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _shown(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for unit, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
