"""The policies of all roles, as they are synthesised: their shape, and what only stands there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from headrace.service import Service
from headrace.topology.access import Host
from services.notification.app import notification
from services.order.app import order
from services.simulation.shop import SERVICES
from tests.infra.policies import Policy, role_policies, wildcards
from tests.infra.small import SMALL
from tests.infra.stacks import (
    PLACE,
    policy_of,
    require_cdk,
    resources_of_messaging,
    synthesised,
)

if TYPE_CHECKING:
    from headrace.cdk.deployment import Deployment

ROOT: Final = Path(__file__).parents[2]

ON_EVERYTHING: Final[Mapping[str, str]] = {
    "xray:GetSamplingRules": "X-Ray has no resource for them.",
    "xray:GetSamplingTargets": "X-Ray has no resource for them.",
    "xray:PutTelemetryRecords": "X-Ray has no resource for them.",
    "xray:PutTraceSegments": "X-Ray has no resource for them.",
    "ecr:GetAuthorizationToken": "A token is for the whole registry of the account.",
}
"""What is allowed on `*`, as the service authorization reference of AWS has no resource for it."""

BY_HOST: Final[Mapping[Host, frozenset[str]]] = {
    Host.LAMBDA: frozenset(
        {
            "logs:CreateLogStream",
            "logs:PutLogEvents",
            "xray:PutTelemetryRecords",
            "xray:PutTraceSegments",
        }
    ),
    Host.WORKER: frozenset(
        {
            "ecs:UpdateTaskProtection",
            "xray:GetSamplingRules",
            "xray:GetSamplingTargets",
            "xray:PutTraceSegments",
        }
    ),
}
"""What the host is for, and no handler: lines and traces, and the protection of its own task."""

LISTED: Final[Mapping[tuple[str, str], str]] = {
    ("RESOURCE_MISMATCH", "dynamodb:ListStreams"): (
        "The service authorization reference has no resource for it, and the developer guide of "
        "DynamoDB gives it this one (Using IAM, Lambda and streams)."
    ),
}
"""What parliament finds all the same, and why it stays."""


@pytest.fixture(scope="module")
def system(deployment: Deployment) -> Deployment:
    """The sample shop, where things are called as in the tests of its calls."""
    require_cdk()
    return replace(deployment, namespace=PLACE.namespace, tracing="xray")


@pytest.fixture(scope="module")
def roles(system: Deployment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Policy]:
    """What each role may do, by the names of its stack and its own."""
    templates = synthesised(system, order, notification, tmp_path_factory.mktemp("cdk"))
    return {
        f"{stack}/{role}": policy
        for stack, resources in templates.items()
        for role, policy in role_policies(PLACE, resources).items()
    }


def test_no_role_may_do_everything_that_a_service_of_aws_has(roles: dict[str, Policy]) -> None:
    actions = {action for policy in roles.values() for action, _ in policy.grants}
    assert [action for action in sorted(actions) if "*" in action or "?" in action] == []


def test_only_what_has_no_resource_is_allowed_on_everything(roles: dict[str, Policy]) -> None:
    assert wildcards(roles.values()) == ON_EVERYTHING.keys()


@pytest.mark.parametrize(
    ("service", "host"), [(order, Host.LAMBDA), (notification, Host.WORKER)], ids=["order", "mail"]
)
def test_a_role_has_what_its_handlers_do_and_what_its_host_does(
    system: Deployment, roles: dict[str, Policy], service: Service, host: Host
) -> None:
    stack = "lambda" if host is Host.LAMBDA else "fargate"
    (own,) = [policy for name, policy in roles.items() if name.startswith(f"{stack}/ServiceRole")]
    handlers = set(policy_of(service, host).grants)
    (options,) = [each.options for each in system.services if each.service is service]
    assert handlers <= set(own.grants)
    beyond = set(own.grants) - handlers
    read = {arn for action, arn in beyond if action == "secretsmanager:GetSecretValue"}
    assert read == {_secret(f"{service.name}/{name}") for name in options.secrets}
    assert {action for action, _ in beyond} - {"secretsmanager:GetSecretValue"} == BY_HOST[host]


def _secret(name: str) -> str:
    return PLACE.arn("secretsmanager", f"secret:{PLACE.namespace}/{name}-??????")


def test_what_parliament_finds_is_listed(roles: dict[str, Policy]) -> None:
    if find_spec("parliament") is None:
        pytest.skip("parliament is missing: install it to have the shape of policies looked at")
    found = {(issue, about) for all_ in _looked_at(roles).values() for issue, about in all_}
    assert found == LISTED.keys()


def _looked_at(roles: Mapping[str, Policy]) -> dict[str, list[list[str]]]:
    documents = {name: _document(policy) for name, policy in roles.items() if policy.statements}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tests" / "infra" / "shape.py")],
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answered: dict[str, list[list[str]]] = json.loads(ended.stdout)
    assert answered.keys() == documents.keys()
    return answered


def _document(policy: Policy) -> dict[str, Any]:
    statements = [
        {
            "Effect": "Allow" if each.allows else "Deny",
            "Action": list(each.actions),
            "Resource": list(each.resources),
        }
        for each in policy.statements
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def test_scheduler_may_send_where_a_service_schedules_and_nowhere_else(system: Deployment) -> None:
    resources = resources_of_messaging(system, [*SERVICES, *SMALL])
    policies = role_policies(PLACE, resources)
    found = {
        str(resources[role]["Properties"]["RoleName"]): {
            arn.rpartition(":")[2] for _, arn in policy.grants
        }
        for role, policy in policies.items()
    }
    assert found == {
        f"{PLACE.namespace}-{service}-scheduler": {
            f"{PLACE.namespace}-{queue}{end}" for queue in queues for end in ("", "-dlq")
        }
        for service, queues in _SCHEDULED_TO.items()
    }


_SCHEDULED_TO: Final = {
    "order": ("order",),
    "inventory": ("inventory",),
    "sluice": ("sluice",),
    "watch": ("sluice",),
    "dam": ("dam",),
}
"""By service: the owners of the commands that may come later. Of a saga that is its timer alone."""
