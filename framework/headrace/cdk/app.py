"""All stacks of a system, from its `deploy.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aws_cdk import App, Stack
from constructs import Construct

from .alarms import AlarmsStack
from .assets import Bundles, CodeOf
from .deployment import Deployment, Placement
from .messaging import EventBusStack
from .network import NetworkStack
from .on_fargate import ServiceOnFargate
from .on_lambda import ServiceOnLambda


def app(file: Path, *, code: CodeOf | None = None, outdir: str | None = None) -> App:
    """The CDK app of a deployment.

    `-c namespace=…` deploys a second one beside the first, and `-c host=both` (or `lambda`,
    `fargate`) is the place of all its services, whatever the file says. `code` gives the code of
    functions; by default it is bundled into `build/functions` beside the sources.

    Raises `ConfigurationError` for a file that says what cannot be.
    """
    made = App(outdir=outdir, context={"@aws-cdk/aws-iam:minimizePolicies": True})
    namespace, host = (made.node.try_get_context(name) for name in ("namespace", "host"))
    deployment = Deployment.read(file, namespace=namespace, host=Placement(host) if host else None)
    functions = deployment.sources / "build" / "functions"
    stacks(made, deployment, code or Bundles(deployment, functions))
    return made


def stacks(scope: Construct, deployment: Deployment, code: CodeOf, **options: Any) -> list[Stack]:
    """Messages and items in one stack, each service on each of its hosts in one of its own, and
    the alarms on all of it in another."""
    prefix = deployment.prefix
    messaging = EventBusStack(scope, f"{prefix}-messaging", deployment, **options)
    made: list[Stack] = [messaging]
    for placed in deployment.services:
        if placed.options.host.on_lambda:
            stack = Stack(scope, f"{prefix}-{placed.name}-lambda", **options)
            ServiceOnLambda(stack, "Service", placed, deployment, code)
            made.append(stack)
    on_fargate = [placed for placed in deployment.services if placed.options.host.on_fargate]
    if on_fargate:
        network = NetworkStack(scope, f"{prefix}-network", deployment, **options)
        made.append(network)
        for placed in on_fargate:
            stack = Stack(scope, f"{prefix}-{placed.name}-fargate", **options)
            ServiceOnFargate(
                stack,
                "Service",
                placed,
                deployment=deployment,
                network=network,
                certificate=placed.options.on_fargate.certificate,
            )
            made.append(stack)
    for stack in made[1:]:
        stack.add_stack_dependency(messaging)
    alarms = AlarmsStack(scope, f"{prefix}-alarms", deployment, **options)
    for stack in made:
        # What is missing because it is not there yet is nothing to be woken for.
        alarms.add_stack_dependency(stack)
    return [*made, alarms]
