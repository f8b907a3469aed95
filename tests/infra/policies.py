"""What IAM makes of policy documents, as far as those here go, and strictly: whatever is not
understood is refused, so that nothing is taken for allowed that IAM would not allow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from headrace.aws.config import AwsConfig
from headrace.testing.recording import Call
from headrace.topology.access import Resource

VERSION: Final = "2012-10-17"


class Misunderstood(Exception):
    """A policy, or a value of CloudFormation, says more than is known here."""


# --- policies --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Statement:
    allows: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Statement:
        if unknown := document.keys() - {"Sid", "Effect", "Action", "Resource"}:
            raise Misunderstood(f"A statement has {', '.join(sorted(unknown))}: {document}")
        if document["Effect"] not in ("Allow", "Deny"):
            raise Misunderstood(f"A statement has the effect {document['Effect']!r}.")
        actions, resources = _texts(document["Action"]), _texts(document["Resource"])
        if not actions or not resources:
            raise Misunderstood(f"A statement is for nothing: {document}")
        return cls(document["Effect"] == "Allow", actions, resources)

    def matches(self, action: str, arn: str) -> bool:
        named = any(_pattern(each.lower()).fullmatch(action.lower()) for each in self.actions)
        return named and any(_is_on(each, arn) for each in self.resources)


@dataclass(frozen=True, slots=True)
class Policy:
    """All that one role may do."""

    statements: tuple[Statement, ...]

    @classmethod
    def of(cls, *documents: Mapping[str, Any]) -> Policy:
        """What policies come to that are attached together; their values must be plain text."""
        for document in documents:
            if document.keys() != {"Version", "Statement"} or document["Version"] != VERSION:
                raise Misunderstood(f"This is no policy of {VERSION}: {document}")
        return cls(tuple(Statement.of(s) for d in documents for s in d["Statement"]))

    def allows(self, action: str, arn: str) -> bool:
        """Whether something allows it and nothing denies it."""
        effects = {each.allows for each in self.statements if each.matches(action, arn)}
        return effects == {True}

    @property
    def grants(self) -> Iterator[tuple[str, str]]:
        """Each action that is allowed, on each resource, as they are written."""
        for each in self.statements:
            if each.allows:
                yield from ((action, arn) for action in each.actions for arn in each.resources)


def _texts(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise Misunderstood(f"{value!r} is neither text nor a list of it.")
    return tuple(texts)


def _is_on(pattern: str, arn: str) -> bool:
    """Whether a resource of a statement means this ARN. A wildcard stands for no colon between
    the parts of an ARN, and for anything within the last one."""
    if pattern == "*":
        return True
    wanted, given = pattern.split(":", 5), arn.split(":", 5)
    if len(wanted) != 6 or len(given) != 6:
        raise Misunderstood(f"{pattern!r} or {arn!r} is no ARN.")
    return all(_pattern(w).fullmatch(g) for w, g in zip(wanted, given, strict=True))


@cache
def _pattern(text: str) -> re.Pattern[str]:
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in text)
    return re.compile("".join(parts), re.DOTALL)


# --- where -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """An account, a region and a namespace, and what things are called there. It is made without
    the names that the stacks are made with, so that those are tried too."""

    namespace: str
    account: str = "123456789012"
    region: str = "eu-central-1"
    partition: str = "aws"

    def arn(self, service: str, resource: str) -> str:
        region = "" if service == "iam" else self.region
        return f"arn:{self.partition}:{service}:{region}:{self.account}:{resource}"

    def arn_of(self, call: Call) -> str:
        """What a recorded call was made on."""
        kind, name = call.resource
        config = AwsConfig(namespace=self.namespace)
        match kind:
            case Resource.BUS:
                return self.arn("events", f"event-bus/{config.physical_bus(name)}")
            case Resource.QUEUE:
                return self.arn("sqs", config.physical(name))
            case Resource.TABLE:
                return self.arn("dynamodb", f"table/{config.physical(name)}")
            case Resource.INDEX:
                table, index = name.split("/")
                return self.arn("dynamodb", f"table/{config.physical(table)}/index/{index}")
            case Resource.STREAM:
                return self.arn("dynamodb", f"table/{config.physical(name)}/stream/2026-11-22T00")
            case Resource.SCHEDULE:
                return self.arn("scheduler", f"schedule/default/{config.physical(name)}")
            case Resource.SCHEDULER_ROLE:
                return self.arn("iam", f"role/{config.physical(name)}-scheduler")

    # --- values of CloudFormation ---

    def resolved(self, value: Any, resources: Mapping[str, Any] | None = None) -> Any:
        """A value of a template as CloudFormation would make it here, from the resources of the
        template that it refers to."""
        match value:
            case {"Fn::Join": [str() as separator, list() as parts]} if len(value) == 1:
                return separator.join(self.resolved(part, resources) for part in parts)
            case {"Ref": str() as name} if len(value) == 1:
                return self._referred(name, resources or {})
            case {"Fn::Sub": str() as text} if len(value) == 1:
                return _IN_TEXT.sub(lambda found: self._referred(found[1], resources or {}), text)
            case {"Fn::GetAtt": [str() as name, str() as attribute]} if len(value) == 1:
                return self._known(name, attribute, resources or {})
            case dict():
                if strange := [key for key in value if key.startswith("Fn::")]:
                    raise Misunderstood(f"{strange[0]} is not known here: {value}")
                return {key: self.resolved(each, resources) for key, each in value.items()}
            case list():
                return [self.resolved(each, resources) for each in value]
            case _:
                return value

    def _referred(self, name: str, resources: Mapping[str, Any]) -> str:
        pseudo = {
            "AWS::Partition": self.partition,
            "AWS::Region": self.region,
            "AWS::AccountId": self.account,
            "AWS::URLSuffix": "amazonaws.com",
        }
        if name in pseudo:
            return pseudo[name]
        return self._known(name, "Ref", resources)

    def _known(self, name: str, attribute: str, resources: Mapping[str, Any]) -> str:
        """What a template says of one of its own resources. One without a name has some name."""
        found = resources.get(name, {})
        kind, properties = found.get("Type"), found.get("Properties", {})

        def called(property: str) -> str:
            return str(self.resolved(properties.get(property, name), resources))

        match kind, attribute:
            case "AWS::Logs::LogGroup", "Arn":
                return self.arn("logs", f"log-group:{called('LogGroupName')}:*")
            case "AWS::SQS::Queue", "Arn":
                return self.arn("sqs", called("QueueName"))
            case "AWS::Lambda::Function", "Ref":
                return called("FunctionName")
            case "AWS::Lambda::Function", "Arn":
                return self.arn("lambda", f"function:{called('FunctionName')}")
            case "AWS::Lambda::Alias", "Ref":
                function = f"function:{called('FunctionName')}"
                return self.arn("lambda", f"{function}:{called('Name')}")
            case "AWS::IAM::Role", "Ref":
                return called("RoleName")
            case "AWS::IAM::Role", "Arn":
                return self.arn("iam", f"role/{called('RoleName')}")
            case _:
                what = f"What {attribute} of {name} ({kind}) is, is not known here."
                raise Misunderstood(what)


_IN_TEXT: Final = re.compile(r"\$\{([^}!]+)\}")


def role_policies(place: Place, resources: Mapping[str, Any]) -> dict[str, Policy]:
    """What each role of a template may do, by its logical id. Raises `Misunderstood` for a policy
    that is for anything else than roles of the template."""
    documents: dict[str, list[Any]] = {}
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::IAM::Role":
                own = [each["PolicyDocument"] for each in properties.get("Policies", ())]
                documents.setdefault(name, []).extend(own)
            case "AWS::IAM::Policy":
                if properties.keys() & {"Users", "Groups"}:
                    raise Misunderstood(f"{name} is not for roles alone.")
                for role in properties["Roles"]:
                    documents.setdefault(role["Ref"], []).append(properties["PolicyDocument"])
            case "AWS::IAM::ManagedPolicy":
                raise Misunderstood(f"{name} is a policy of its own, attached who knows where.")
            case _:
                continue
    return {
        role: Policy.of(*(place.resolved(each, resources) for each in all_))
        for role, all_ in documents.items()
    }


def wildcards(policies: Iterable[Policy]) -> set[str]:
    """The actions that are allowed on everything."""
    return {action for policy in policies for action, arn in policy.grants if arn == "*"}
