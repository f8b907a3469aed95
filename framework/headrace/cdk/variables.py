"""What the processes of a service are told by their environment, on either host."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.aws.secrets import SUFFIX
from headrace.topology.access import schedules_to

from .deployment import Deployment, Placed
from .names import Names


def variables(placed: Placed, deployment: Deployment) -> dict[str, str]:
    """By name. Of a secret it is only where it stands."""
    return dict(_variables(placed, deployment))


def _variables(placed: Placed, deployment: Deployment) -> Iterator[tuple[str, str]]:
    names = Names(deployment.namespace)
    yield "HEADRACE_NAMESPACE", deployment.namespace
    yield "HEADRACE_LOGS", "json"
    yield "HEADRACE_METRICS", "emf"
    yield "HEADRACE_METRICS_NAMESPACE", deployment.metrics_namespace
    yield "HEADRACE_TRACING", deployment.tracing
    if schedules_to(placed.service):
        yield "HEADRACE_SCHEDULER_ROLE_ARN", names.scheduler_role_arn(placed.name)
    for name in placed.options.secrets:
        yield f"{name}{SUFFIX}", names.secret(placed.name, name)
    yield from placed.options.environment.items()
