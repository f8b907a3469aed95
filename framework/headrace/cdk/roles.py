"""One role for a service on a host, with what its handlers do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from constructs import Construct

from headrace.topology.access import Host, Resource, access

from .deployment import Placed
from .excuses import Excuse, excuse
from .names import Names


def service_role(
    scope: Construct, placed: Placed, names: Names, host: Host, assumed_by: str
) -> iam.Role:
    """The role as which a service runs, for a principal such as `lambda.amazonaws.com`."""
    role = iam.Role(
        scope,
        "Role",
        assumed_by=iam.ServicePrincipal(assumed_by),
        description=f"What the handlers of the service {placed.name} do.",
    )
    for statement in statements(placed, names, host):
        role.add_to_policy(statement)
    excuse(role, *_wildcards(placed, names, host))
    return role


def statements(placed: Placed, names: Names, host: Host) -> Iterator[iam.PolicyStatement]:
    """One for each grant of the topology, and one for the secrets that the service names."""
    for grant in access(placed.service, host):
        yield _allow([names.arn_of(grant)], grant.actions)
    secrets = [names.secret_arn(placed.name, name) for name in placed.options.secrets]
    if secrets:
        yield _allow(secrets, ["secretsmanager:GetSecretValue"])


def allow_xray(role: iam.Role) -> None:
    """Let a role send traces."""
    role.add_to_policy(_allow(["*"], ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]))
    excuse(
        role,
        Excuse(
            "AwsSolutions-IAM5",
            "X-Ray has no resources for these: they are allowed on all, or on nothing.",
            on="Resource::*",
        ),
    )


def _wildcards(placed: Placed, names: Names, host: Host) -> Iterator[Excuse]:
    for grant in access(placed.service, host):
        if reason := _WILD.get(grant.resource):
            yield _wildcard(names.arn_of(grant), reason)
    for name in placed.options.secrets:
        yield _wildcard(
            names.secret_arn(placed.name, name),
            "Secrets Manager ends the name of a secret with six characters of its own.",
        )


_WILD: Final = {
    Resource.SCHEDULE: "Each schedule has a name of its own, which begins with the namespace.",
    Resource.STREAM: "A stream is named by the time at which it was turned on.",
}


def _wildcard(arn: str, reason: str) -> Excuse:
    for token, shown in _SHOWN:
        arn = arn.replace(token, shown)
    return Excuse("AwsSolutions-IAM5", reason, on=f"Resource::{arn}")


_SHOWN: Final = (
    (Aws.PARTITION, "<AWS::Partition>"),
    (Aws.REGION, "<AWS::Region>"),
    (Aws.ACCOUNT_ID, "<AWS::AccountId>"),
)
"""How cdk-nag writes what is known only in the account."""


def _allow(arns: Sequence[str], actions: Sequence[str]) -> iam.PolicyStatement:
    return iam.PolicyStatement(actions=list(actions), resources=list(arns))
