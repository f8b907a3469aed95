"""Buses, queues, rules and tables, one by one beside those that are wanted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Final

from headrace.aws.config import AwsConfig
from headrace.aws.standing import (
    OFF,
    Standing,
    StandingIndex,
    StandingQueue,
    StandingRule,
    StandingTable,
    StandingTarget,
)

from .difference import MISSING, Difference, called, error, seconds, spelled, warning
from .model import Queue, Rule, Table, Topology

IMAGE: Final = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")
"""Views of a stream in which the relay finds what is to be sent."""
_KEYS: Final = {"pk": "S HASH", "sk": "S RANGE"}


def differences(wanted: Topology, found: Standing, relayed: Set[str]) -> Iterator[Difference]:
    physical = AwsConfig(namespace=found.namespace)
    closed = {each.subject for each in found.unseen}
    for bus in wanted.buses:
        subject = f"bus {physical.physical_bus(bus.name)}"
        if bus.name not in found.buses and subject not in closed:
            yield error(subject, MISSING, "does not exist, so nothing can be published on it")
    for queue in wanted.queues:
        subject = f"queue {physical.physical(queue.name)}"
        stands = next((each for each in found.queues if each.name == queue.name), None)
        if stands is not None:
            yield from _queue(subject, queue, stands, wanted, physical)
        elif subject not in closed:
            yield error(subject, MISSING, "does not exist")
    for rule in wanted.rules:
        subject = f"rule {physical.physical(rule.name)}"
        is_rule = [r for r in found.rules if (r.bus, r.name) == (rule.bus, rule.name)]
        if is_rule:
            yield from _rule(subject, rule, is_rule[0], physical)
        elif not closed & {subject, f"bus {physical.physical_bus(rule.bus)}"}:
            lost = f"does not exist, so {physical.physical(rule.queue)} gets nothing by it"
            yield error(subject, MISSING, lost)
    for table in wanted.tables:
        subject = f"table {physical.physical(table.name)}"
        is_table = next((each for each in found.tables if each.name == table.name), None)
        if is_table is not None:
            yield from _table(subject, table, is_table, relayed=table.name in relayed)
        elif subject not in closed:
            yield error(subject, MISSING, "does not exist")


# --- queues ----------------------------------------------------------------------------


def _queue(
    subject: str, wanted: Queue, found: StandingQueue, topology: Topology, names: AwsConfig
) -> Iterator[Difference]:
    if found.visibility != wanted.visibility:
        yield error(
            subject,
            "visibility",
            f"hides a message for {seconds(found.visibility)}, and the code wants "
            f"{seconds(wanted.visibility)}",
        )
    if found.retention != wanted.retention:
        yield error(
            subject,
            "retention",
            f"keeps messages for {seconds(found.retention)}, and the code wants "
            f"{seconds(wanted.retention)}",
        )
    yield from _redrive(subject, wanted, found, names)
    if wanted.fifo and not found.deduplicates:
        yield error(
            subject,
            "deduplication",
            "does not deduplicate by content, so EventBridge cannot send to it",
        )
    if wanted.fifo and not found.high_throughput:
        yield warning(
            subject, "throughput", "has the low throughput of a FIFO queue, and the code wants high"
        )
    if found.delay:
        yield warning(
            subject, "delay", f"holds every message back for {seconds(found.delay)} at first"
        )
    if found.encrypted is False:
        yield warning(subject, "encryption", "does not encrypt what is in it")
    yield from _gate(subject, wanted, found, topology, names)


def _redrive(
    subject: str, wanted: Queue, found: StandingQueue, names: AwsConfig
) -> Iterator[Difference]:
    if wanted.dead_letters is None:
        if found.dead_letters is not None:
            yield error(
                subject,
                "redrive",
                f"moves what is received {found.max_receive_count} times to "
                f"{called(found.dead_letters, names)}, and the code wants that nowhere",
            )
        return
    to = names.physical(wanted.dead_letters)
    if found.dead_letters is None:
        yield error(
            subject,
            "redrive",
            "has no redrive policy, so what kills its consumer comes again until it expires, and "
            f"the code wants it in {to} after {wanted.max_receive_count} receives",
        )
    elif found.dead_letters != wanted.dead_letters:
        yield error(
            subject,
            "redrive",
            f"moves dead letters to {called(found.dead_letters, names)}, and the code wants {to}",
        )
    elif found.max_receive_count != wanted.max_receive_count:
        yield error(
            subject,
            "redrive",
            f"moves a message to {to} after {found.max_receive_count} receives, and the code wants "
            f"{wanted.max_receive_count}",
        )


def _gate(
    subject: str, wanted: Queue, found: StandingQueue, topology: Topology, names: AwsConfig
) -> Iterator[Difference]:
    gate = found.gate
    senders = {(rule.bus, rule.name) for rule in topology.rules_to(wanted.name)}
    for bus, rule in sorted(senders - gate.rules):
        yield error(
            subject,
            "senders",
            f"does not let the rule {names.physical(rule)} on the bus {names.physical_bus(bus)} "
            "send to it, so what that matches is lost",
        )
    for bus, rule in sorted(gate.rules - senders):
        yield warning(
            subject,
            "senders",
            f"lets the rule {names.physical(rule)} on the bus {names.physical_bus(bus)} send to "
            "it, which the code does not",
        )
    for said in gate.others:
        yield error(subject, "others", f"has a policy that lets others in ({said})")
    for said in gate.denied:
        yield warning(subject, "denied", f"has a policy that keeps some out ({said})")
    if not gate.tls_only:
        yield error(subject, "tls", "may be called without TLS")


# --- rules -----------------------------------------------------------------------------


def _rule(
    subject: str, wanted: Rule, found: StandingRule, names: AwsConfig
) -> Iterator[Difference]:
    if not found.enabled:
        yield error(
            subject,
            "state",
            f"is disabled, so what it would match never gets to {names.physical(wanted.queue)}",
        )
    if _canonical(found.pattern) != _canonical(wanted.pattern):
        yield error(subject, "pattern", _patterns(wanted.pattern, found.pattern))
    if found.targets is not None:
        yield from _targets(subject, wanted, found.targets, names)


def _canonical(pattern: Any) -> Any:
    """The order of alternatives means nothing."""
    if isinstance(pattern, Mapping):
        return {key: _canonical(value) for key, value in pattern.items()}
    if isinstance(pattern, (list, tuple)):
        return sorted(map(_canonical, pattern), key=lambda each: json.dumps(each, sort_keys=True))
    return pattern


def _patterns(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """By the events that are too few or too many, where both are spelled as headrace does it."""
    want, have = _events(wanted), _events(found)
    if want is None or have is None or want == have:
        return f"matches {spelled(found)}, and the code wants {spelled(wanted)}"
    said = []
    if want - have:
        said.append(f"does not match {', '.join(sorted(want - have))}, which the code wants")
    if have - want:
        said.append(f"matches {', '.join(sorted(have - want))}, which the code does not want")
    return " and ".join(said)


def _events(pattern: Mapping[str, Any]) -> set[str] | None:
    found: set[str] = set()
    for branch in pattern.get("$or", [pattern]):
        if not {"source", "detail-type"} <= branch.keys() <= {"source", "detail-type", "detail"}:
            return None
        names = [(source, name) for source in branch["source"] for name in branch["detail-type"]]
        if not all(isinstance(part, str) for name in names for part in name):
            return None
        found |= {f"{source}: {name}" for source, name in names}
    return found


def _targets(
    subject: str, wanted: Rule, found: Iterable[StandingTarget], names: AwsConfig
) -> Iterator[Difference]:
    to = names.physical(wanted.queue)
    targets = {target.queue: target for target in found}
    for other in sorted(targets.keys() - {wanted.queue}):
        yield warning(
            subject, "targets", f"also sends to {called(other, names)}, which the code does not"
        )
    target = targets.get(wanted.queue)
    if target is None:
        yield error(subject, "target", f"does not send to {to}, which gets nothing by it")
        return
    if target.undelivered != wanted.undelivered:
        yield _undelivered(subject, wanted, target, names)
    group = wanted.name if wanted.queue.endswith(".fifo") else None
    if target.group != group:
        yield error(
            subject,
            "group",
            f"sends to {to} in the message group {target.group!r}, and the code wants {group!r}",
        )
    if target.beyond:
        yield error(
            subject,
            "beyond",
            f"has {' and '.join(target.beyond)} for {to}, and the code has not",
        )


def _undelivered(subject: str, wanted: Rule, found: StandingTarget, names: AwsConfig) -> Difference:
    if found.undelivered is None:
        return error(
            subject,
            "undelivered",
            f"has no dead-letter queue for its target, so what EventBridge cannot put into "
            f"{names.physical(wanted.queue)} is lost, and the code wants it in "
            f"{names.physical(wanted.undelivered or '')}",
        )
    want = names.physical(wanted.undelivered) if wanted.undelivered else "that nowhere"
    return error(
        subject,
        "undelivered",
        f"puts what it cannot deliver into {called(found.undelivered, names)}, and the code wants "
        f"{want}",
    )


# --- tables ----------------------------------------------------------------------------


def _table(
    subject: str, wanted: Table, found: StandingTable, *, relayed: bool
) -> Iterator[Difference]:
    if found.keys != _KEYS:
        yield error(subject, "", f"{_other_keys(found.keys, _KEYS)}: give the service another.")
    if not found.on_demand:
        yield warning(subject, "billing", "has provisioned capacity, and the code wants on demand")
    yield from _expiry(subject, wanted, found)
    if found.recovery is False:
        yield warning(subject, "recovery", "cannot be restored to a point in time")
    if not found.protected:
        yield warning(subject, "protection", "may be deleted by mistake: it is not protected")
    if relayed and found.stream not in IMAGE:
        has = "no stream" if found.stream == OFF else f"a stream of {found.stream}"
        yield warning(
            subject, "stream", f"has {has}, so only the sweep of the relay finds what is to be sent"
        )
    yield from _indexes(subject, wanted, found)


def _expiry(subject: str, wanted: Table, found: StandingTable) -> Iterator[Difference]:
    if found.ttl_attribute == OFF:
        yield error(
            subject,
            "ttl",
            f"does not let items expire by {wanted.ttl_attribute}, so inbox records stay for ever",
        )
    elif found.ttl_attribute not in (None, wanted.ttl_attribute):
        yield error(
            subject,
            "ttl",
            f"lets items expire by {found.ttl_attribute}, and the code wants "
            f"{wanted.ttl_attribute}",
        )


def _indexes(subject: str, wanted: Table, found: StandingTable) -> Iterator[Difference]:
    there = {index.name: index for index in found.indexes}
    for name in wanted.indexes:
        if name in there:
            yield from _index(subject, there[name])
        else:
            yield error(subject, f"index {name}", f"has no index {name}")
    for name in sorted(there.keys() - set(wanted.indexes)):
        yield warning(
            subject, f"index {name}", f"has an index {name}, which the code does not need"
        )


def _index(subject: str, found: StandingIndex) -> Iterator[Difference]:
    keys = {f"{found.name}_{key}": kind for key, kind in _KEYS.items()}
    if found.keys != keys:
        yield error(
            subject,
            "",
            f"has an index {found.name} that {_other_keys(found.keys, keys)}: delete "
            "it, and deploy again when it is gone.",
        )
    if found.projection != "KEYS_ONLY":
        yield warning(
            subject,
            f"projection {found.name}",
            f"copies {found.projection} into its index {found.name}, and the code wants KEYS_ONLY, "
            "which costs less",
        )
    if found.status not in (None, "ACTIVE"):
        yield warning(
            subject,
            "",
            f"has an index {found.name} that is {found.status}: wait until it is ACTIVE.",
        )


def _other_keys(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    return (
        f"has the keys {spelled(found)}, and the code needs {spelled(wanted)}, which DynamoDB "
        "cannot change"
    )
