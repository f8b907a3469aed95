"""What the template of a stack says, in the same values as what stands in the account.

Both are compared with the code: what differs in the account alone was changed by hand, and what
differs in the template too comes right with a deployment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.aws.answers import Namespace, queue_of, rule_of, table_of
from headrace.aws.config import DEFAULT_BUS
from headrace.aws.stacks import Resource, Stack
from headrace.aws.standing import Standing, Unseen

_NOT_TOLD = "the template has what only CloudFormation can work out"


def declared(
    known: Namespace, stack: Stack, resources: Sequence[Resource], template: Mapping[str, Any]
) -> Standing:
    """The buses, rules, queues and tables of a template. What has something in it that cannot be
    worked out here, such as a condition, is among the `unseen`."""
    read = _Template(known, stack, {each.id: each for each in resources}, template)
    return Standing(
        namespace=known.config.namespace,
        buses=tuple(known.bus(each.name) for each, _ in read.of("AWS::Events::EventBus")),
        rules=tuple(rule_of(known, *read.rule(*each)) for each in read.of("AWS::Events::Rule")),
        queues=tuple(queue_of(known, read.queue(*each)) for each in read.of("AWS::SQS::Queue")),
        tables=tuple(
            table_of(known, _table(*each), ttl=_ttl(each[1]), recovery=_recovery(each[1]))
            for each in read.of("AWS::DynamoDB::Table")
        ),
        unseen=tuple(read.unseen()),
    )


@dataclass(frozen=True, slots=True)
class _Template:
    known: Namespace
    stack: Stack
    resources: Mapping[str, Resource]
    template: Mapping[str, Any]

    def of(self, type: str) -> Iterator[tuple[Resource, Mapping[str, Any]]]:
        """Those of one type, with all their properties worked out."""
        for each, properties in self._all(type):
            if not _is_open(properties):
                yield each, properties

    def _all(self, type: str) -> Iterator[tuple[Resource, Mapping[str, Any]]]:
        for id, said in (self.template.get("Resources") or {}).items():
            if said.get("Type") == type and id in self.resources:
                yield self.resources[id], self.worked_out(said.get("Properties") or {})

    def unseen(self) -> Iterator[Unseen]:
        for kind, type in (
            ("rule", "AWS::Events::Rule"),
            ("queue", "AWS::SQS::Queue"),
            ("table", "AWS::DynamoDB::Table"),
        ):
            for each, properties in self._all(type):
                if _is_open(properties):
                    yield Unseen(f"{kind} {each.name}", "it", _NOT_TOLD)
        for _, properties in self._all("AWS::SQS::QueuePolicy"):
            for url in properties.get("Queues", ()) if _is_open(properties) else ():
                name = str(url).rpartition("/")[2]
                yield Unseen(f"queue {name}", "its policy", _NOT_TOLD)

    # --- what becomes of properties ---

    def rule(
        self, each: Resource, properties: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        bus = properties.get("EventBusName", DEFAULT_BUS)
        told = {"EventBusName": bus, "Name": each.name, "Arn": self._rule_arn(bus, each.name)}
        return {**properties, **told}, properties["Targets"]

    def queue(self, each: Resource, properties: Mapping[str, Any]) -> dict[str, str]:
        """SQS encrypts, unless it is told not to."""
        said = {"SqsManagedSseEnabled": True, **properties, "QueueArn": self.arn("sqs", each.name)}
        for _, policy in self.of("AWS::SQS::QueuePolicy"):
            if each.physical in policy["Queues"]:
                said["Policy"] = policy["PolicyDocument"]
        return {
            name: value if isinstance(value, str) else _json(value) for name, value in said.items()
        }

    # --- intrinsic functions ---

    def arn(self, service: str, resource: str) -> str:
        _, partition, _, region, account, _ = self.stack.arn.split(":", 5)
        return f"arn:{partition}:{service}:{region}:{account}:{resource}"

    def worked_out(self, said: Any) -> Any:
        """The value, as far as it can be worked out without asking anybody."""
        if isinstance(said, list):
            return [self.worked_out(each) for each in said]
        if not isinstance(said, Mapping):
            return said
        if len(said) == 1:
            [(function, of)] = said.items()
            if function in ("Ref", "Fn::GetAtt", "Fn::Join"):
                return self._called(function, of, said)
        return {name: self.worked_out(value) for name, value in said.items()}

    def _called(self, function: str, of: Any, said: Any) -> Any:
        if function == "Ref":
            return self._pseudo().get(of) or self._physical(of) or said
        if function == "Fn::Join":
            glue, parts = of
            values = self.worked_out(parts)
            return said if _is_open(values) else glue.join(map(str, values))
        id, attribute = of if isinstance(of, list) else of.split(".", 1)
        found = self.resources.get(id)
        return (self._arn_of(found) if found and attribute == "Arn" else None) or said

    def _arn_of(self, each: Resource) -> str | None:
        if each.type == "AWS::SQS::Queue":
            return self.arn("sqs", each.name)
        if each.type != "AWS::Events::Rule":
            return None
        said = self.template["Resources"][each.id]["Properties"]
        bus = self.worked_out(said.get("EventBusName", DEFAULT_BUS))
        return None if _is_open(bus) else self._rule_arn(bus, each.name)

    def _rule_arn(self, bus: str, name: str) -> str:
        on = "" if bus == DEFAULT_BUS else f"{bus}/"
        return self.arn("events", f"rule/{on}{name}")

    def _pseudo(self) -> dict[str, str]:
        _, partition, _, region, account, _ = self.stack.arn.split(":", 5)
        return {"AWS::Partition": partition, "AWS::Region": region, "AWS::AccountId": account}

    def _physical(self, id: str) -> str | None:
        found = self.resources.get(id)
        return None if found is None else found.physical


def _is_open(value: Any) -> bool:
    """Whether there is something left to be worked out."""
    if isinstance(value, Mapping):
        return any(key == "Ref" or key.startswith("Fn::") for key in value) or any(
            map(_is_open, value.values())
        )
    return isinstance(value, list) and any(map(_is_open, value))


def _table(each: Resource, properties: Mapping[str, Any]) -> dict[str, Any]:
    stream = properties.get("StreamSpecification")
    return {
        **properties,
        "TableName": each.name,
        "BillingModeSummary": {"BillingMode": properties.get("BillingMode", "PROVISIONED")},
        "StreamSpecification": {"StreamEnabled": True, **stream} if stream else {},
    }


def _ttl(properties: Mapping[str, Any]) -> dict[str, Any]:
    said = properties.get("TimeToLiveSpecification") or {}
    return {**said, "TimeToLiveStatus": "ENABLED" if said.get("Enabled") else "DISABLED"}


def _recovery(properties: Mapping[str, Any]) -> bool:
    said = properties.get("PointInTimeRecoverySpecification") or {}
    return bool(said.get("PointInTimeRecoveryEnabled"))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
