"""What AWS answers about a rule, a queue, a table or a mapping, as the plain values of
`headrace.aws.standing`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from headrace.aws.config import DEFAULT_BUS, AwsConfig
from headrace.aws.standing import (
    OFF,
    Gate,
    RuleId,
    StandingIndex,
    StandingMapping,
    StandingQueue,
    StandingRule,
    StandingTable,
    StandingTarget,
)

_OF_A_TARGET: Final = {"Id", "Arn", "DeadLetterConfig", "SqsParameters"}
_EVENTBRIDGE: Final = {"Service": "events.amazonaws.com"}
_EVERYONE: Final = ("*", {"AWS": "*"})
_WORKS: Final = ("Creating", "Enabling", "Enabled", "Updating")
"""States of a mapping that does its work, or is about to."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """Tells what is of a namespace, and in one account and region with something else."""

    config: AwsConfig

    def name(self, physical: str) -> str:
        """The logical name, or nothing for what is not of the namespace."""
        of_it = f"{self.config.namespace}-" if self.config.namespace else ""
        return physical.removeprefix(of_it) if physical.startswith(of_it) else ""

    def bus(self, physical: str) -> str:
        return physical if physical == DEFAULT_BUS else self.name(physical)

    def queue(self, arn: str, beside: str) -> str:
        """The logical name of the queue with this ARN, or the ARN itself if it is not of the
        namespace, or elsewhere than the resource `beside`."""
        *place, name = arn.split(":")
        here = place == ["arn", beside.split(":")[1], "sqs", *beside.split(":")[3:5]]
        return (self.name(name) if here else "") or arn

    def rule(self, arn: str, beside: str) -> RuleId | None:
        *place, name = arn.split(":", 5)
        if place != ["arn", beside.split(":")[1], "events", *beside.split(":")[3:5]]:
            return None
        bus, _, rule = name.removeprefix("rule/").rpartition("/")
        found = (self.bus(bus or DEFAULT_BUS), self.name(rule))
        return found if name.startswith("rule/") and all(found) and "*" not in name else None


# --- rules -----------------------------------------------------------------------------


def rule_of(
    known: Namespace, answer: Mapping[str, Any], targets: Iterable[Mapping[str, Any]] | None
) -> StandingRule:
    """From an entry of ListRules, and from ListTargetsByRule."""
    pattern = answer.get("EventPattern") or "{}"
    arn = answer["Arn"]
    return StandingRule(
        name=known.name(answer["Name"]),
        bus=known.bus(answer.get("EventBusName", DEFAULT_BUS)),
        pattern=json.loads(pattern) if isinstance(pattern, str) else pattern,
        enabled=answer.get("State", "ENABLED").startswith("ENABLED"),
        targets=None
        if targets is None
        else tuple(sorted((_target(known, arn, t) for t in targets), key=lambda t: t.queue)),
    )


def _target(known: Namespace, rule_arn: str, target: Mapping[str, Any]) -> StandingTarget:
    letters = target.get("DeadLetterConfig", {}).get("Arn")
    return StandingTarget(
        queue=known.queue(target["Arn"], rule_arn),
        undelivered=known.queue(letters, rule_arn) if letters else None,
        group=target.get("SqsParameters", {}).get("MessageGroupId"),
        beyond=tuple(sorted(target.keys() - _OF_A_TARGET)),
    )


# --- queues ----------------------------------------------------------------------------


def queue_of(known: Namespace, attributes: Mapping[str, str]) -> StandingQueue:
    """From GetQueueAttributes."""
    arn = attributes["QueueArn"]
    redrive = json.loads(attributes.get("RedrivePolicy") or "{}")
    letters = redrive.get("deadLetterTargetArn")
    scope = attributes.get("DeduplicationScope"), attributes.get("FifoThroughputLimit")
    return StandingQueue(
        name=known.name(arn.rpartition(":")[2]),
        visibility=_seconds(attributes.get("VisibilityTimeout", 30)),
        retention=_seconds(attributes.get("MessageRetentionPeriod", 345_600)),
        delay=_seconds(attributes.get("DelaySeconds", 0)),
        fifo=attributes.get("FifoQueue") == "true",
        dead_letters=known.queue(letters, arn) if letters else None,
        max_receive_count=int(redrive.get("maxReceiveCount", 0)),
        deduplicates=attributes.get("ContentBasedDeduplication") == "true",
        high_throughput=scope == ("messageGroup", "perMessageGroupId"),
        encrypted=_encrypted(attributes),
        gate=_gate(known, arn, json.loads(attributes.get("Policy") or "{}")),
    )


def _encrypted(attributes: Mapping[str, str]) -> bool | None:
    if attributes.get("KmsMasterKeyId"):
        return True
    said = attributes.get("SqsManagedSseEnabled")
    return None if said is None else said == "true"


def _seconds(number: object) -> timedelta:
    return timedelta(seconds=int(str(number)))


def _gate(known: Namespace, arn: str, policy: Mapping[str, Any]) -> Gate:
    rules: set[RuleId] = set()
    others: list[str] = []
    denied: list[str] = []
    tls_only = False
    for statement in _listed(policy.get("Statement", ())):
        if statement.get("Effect") == "Deny":
            if _is_tls_only(statement):
                tls_only = True
            else:
                denied.append(_shown(statement))
        elif (named := _senders(known, arn, statement)) is not None:
            rules |= named
        else:
            others.append(_shown(statement))
    return Gate(frozenset(rules), tuple(sorted(others)), tuple(sorted(denied)), tls_only)


def _is_tls_only(statement: Mapping[str, Any]) -> bool:
    return (
        statement.get("Principal") in _EVERYONE
        and [action.lower() for action in _listed(statement.get("Action"))] == ["sqs:*"]
        and statement.get("Condition") in _NOT_OVER_TLS
    )


_NOT_OVER_TLS: Final = tuple(
    {"Bool": {"aws:SecureTransport": said}} for said in ("false", False, ["false"])
)


def _senders(known: Namespace, arn: str, statement: Mapping[str, Any]) -> set[RuleId] | None:
    """The rules that a statement lets send; nothing if it lets anybody else do anything."""
    condition = statement.get("Condition") or {}
    [(operator, compared)] = condition.items() if len(condition) == 1 else [("", {})]
    actions = [action.lower() for action in _listed(statement.get("Action"))]
    if (
        statement.get("Principal") != _EVENTBRIDGE
        or actions != ["sqs:sendmessage"]
        or operator not in ("ArnEquals", "ArnLike", "StringEquals")
        or compared.keys() != {"aws:SourceArn"}
    ):
        return None
    found = [known.rule(source, arn) for source in _listed(compared["aws:SourceArn"])]
    return None if None in found else {rule for rule in found if rule is not None}


def _shown(statement: Mapping[str, Any]) -> str:
    who = statement.get("Principal", statement.get("NotPrincipal", "*"))
    names = who if isinstance(who, str) else ", ".join(_each(who))
    actions = ", ".join(_listed(statement.get("Action", statement.get("NotAction", "*"))))
    where = f" where {_spelled(statement['Condition'])}" if statement.get("Condition") else ""
    return f"{'everyone' if names == '*' else names}: {actions}{where}"


def _each(principals: Mapping[str, Any]) -> Iterator[str]:
    for names in principals.values():
        yield from _listed(names)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _spelled(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


# --- tables ----------------------------------------------------------------------------


def table_of(
    known: Namespace,
    description: Mapping[str, Any],
    *,
    ttl: Mapping[str, Any] | None,
    recovery: bool | None,
) -> StandingTable:
    """From DescribeTable, DescribeTimeToLive and DescribeContinuousBackups."""
    billing = description.get("BillingModeSummary", {}).get("BillingMode")
    stream = description.get("StreamSpecification") or {}
    indexes = (_index(description, each) for each in description.get("GlobalSecondaryIndexes", ()))
    return StandingTable(
        name=known.name(description["TableName"]),
        keys=_keys(description, description["KeySchema"]),
        on_demand=billing == "PAY_PER_REQUEST",
        protected=bool(description.get("DeletionProtectionEnabled")),
        stream=stream.get("StreamViewType", OFF) if stream.get("StreamEnabled") else OFF,
        indexes=tuple(sorted(indexes, key=lambda index: index.name)),
        ttl_attribute=None if ttl is None else _expiring(ttl),
        recovery=recovery,
    )


def _index(description: Mapping[str, Any], index: Mapping[str, Any]) -> StandingIndex:
    return StandingIndex(
        name=index["IndexName"],
        keys=_keys(description, index["KeySchema"]),
        projection=index.get("Projection", {}).get("ProjectionType", ""),
        status=index.get("IndexStatus"),
    )


def _keys(description: Mapping[str, Any], schema: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    types = {d["AttributeName"]: d["AttributeType"] for d in description["AttributeDefinitions"]}
    return {
        key["AttributeName"]: f"{types[key['AttributeName']]} {key['KeyType']}" for key in schema
    }


def _expiring(ttl: Mapping[str, Any]) -> str:
    on = ttl.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    return str(ttl.get("AttributeName", OFF)) if on else OFF


# --- mappings --------------------------------------------------------------------------


def mapping_of(
    known: Namespace,
    answer: Mapping[str, Any],
    function: Mapping[str, Any] | None,
    declared: Mapping[str, Any] | None,
) -> StandingMapping:
    """From ListEventSourceMappings or GetEventSourceMapping, and GetFunctionConfiguration."""
    arn, called = answer["EventSourceArn"], answer["FunctionArn"]
    return StandingMapping(
        id=answer["UUID"],
        source=known.queue(arn, called),
        function=":".join(called.split(":")[6:]),
        enabled=answer.get("State") in _WORKS,
        partial="ReportBatchItemFailures" in (answer.get("FunctionResponseTypes") or ()),
        batch=int(answer.get("BatchSize", 10)),
        window=_seconds(answer.get("MaximumBatchingWindowInSeconds") or 0),
        max_concurrency=(answer.get("ScalingConfig") or {}).get("MaximumConcurrency"),
        function_timeout=None if function is None else _seconds(function["Timeout"]),
        declared=declared,
    )
