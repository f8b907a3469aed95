"""Stacks, as far as tests of permissions need them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from headrace.service import Service
from headrace.topology.access import Host
from tests.infra.policies import VERSION, Place, Policy

if TYPE_CHECKING:
    from headrace.cdk.deployment import Deployment, Placed

PLACE: Final = Place("rain")


def require_cdk() -> None:
    """Skip where there is no CDK."""
    pytest.importorskip("aws_cdk", reason="the CDK is missing: install headrace[cdk]")


def placed(service: Service) -> Placed:
    """A service on both hosts, about which nothing else is said."""
    from headrace.cdk.deployment import Placed, Placement, ServiceOptions

    return Placed(service, ServiceOptions(app=f"{service.name}:app", host=Placement.BOTH))


@cache
def policy_of(service: Service, host: Host) -> Policy:
    """What the role of a service may do on a host, by its handlers: made in a stack that is
    thrown away."""
    from headrace.cdk.names import Names
    from headrace.cdk.roles import statements

    made = statements(placed(service), Names(PLACE.namespace), host)
    found = _scratch().resolve([statement.to_statement_json() for statement in made])
    return Policy.of({"Version": VERSION, "Statement": PLACE.resolved(found)})


@cache
def _scratch() -> Any:
    from aws_cdk import App, Stack

    return Stack(App(analytics_reporting=False), "Scratch")


def synthesised(
    deployment: Deployment, on_lambda: Service, on_fargate: Service, folder: Path
) -> dict[str, dict[str, Any]]:
    """The stacks of one service on each host, without their code, and what they stand on: the
    resources of each, by its name."""
    from aws_cdk import App, Stack

    from headrace.cdk.network import NetworkStack
    from headrace.cdk.on_fargate import ServiceOnFargate
    from headrace.cdk.on_lambda import ServiceOnLambda
    from tests.infra.code import NO_CODE

    app = App(analytics_reporting=False, outdir=str(folder))
    of = {each.service: each for each in deployment.services}
    ServiceOnLambda(Stack(app, "lambda"), "Service", of[on_lambda], deployment, NO_CODE)
    network = NetworkStack(app, "network", deployment)
    ServiceOnFargate(
        Stack(app, "fargate"), "Service", of[on_fargate], deployment=deployment, network=network
    )
    app.synth()
    return {
        file.name.removesuffix(".template.json"): json.loads(file.read_text())["Resources"]
        for file in folder.glob("*.template.json")
    }


def resources_of_messaging(deployment: Deployment, services: Sequence[Service]) -> dict[str, Any]:
    """The stack with the state of these services, as its resources."""
    from aws_cdk import App
    from aws_cdk.assertions import Template

    from headrace.cdk.messaging import EventBusStack

    wanted = replace(deployment, services=tuple(map(placed, services)))
    stack = EventBusStack(App(analytics_reporting=False), "messaging", wanted)
    resources: dict[str, Any] = Template.from_stack(stack).to_json()["Resources"]
    return resources
