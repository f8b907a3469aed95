"""Read what stands in an account, to be compared with what the code wants. Nothing is changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from headrace.aws import localstack, stacks
from headrace.aws.account import Account, is_wanted, told
from headrace.aws.answers import Namespace
from headrace.aws.client import Clients, open_client, open_clients
from headrace.aws.config import AwsConfig, place
from headrace.aws.declared import declared
from headrace.aws.stacks import KINDS, NAMESPACE_OUTPUT, Resource, Stack
from headrace.aws.standing import StackItem, Standing, Unseen
from headrace.errors import ConfigurationError, NotProvisioned, Refused
from headrace.topology.model import Topology

_MESSAGING: Final = "-messaging"


_ENDPOINTS: Final[Mapping[str, str]] = {
    "cloudformation": "AWS_ENDPOINT_URL_CLOUDFORMATION",
    "lambda": "AWS_ENDPOINT_URL_LAMBDA",
}


def with_stacks(config: AwsConfig, environ: Mapping[str, str] = os.environ) -> AwsConfig:
    """The same configuration, and on an emulator the endpoints of CloudFormation and Lambda too,
    from AWS_ENDPOINT_URL and its forms for these services, or LocalStack's variables."""
    if not config.is_local("sqs"):
        return config
    named = {service: _endpoint(service, environ) for service in _ENDPOINTS}
    found = {service: url for service, url in named.items() if url}
    return replace(config, endpoints={**found, **config.endpoints})


def _endpoint(service: str, environ: Mapping[str, str]) -> str | None:
    named = environ.get(_ENDPOINTS[service]) or environ.get("AWS_ENDPOINT_URL")
    return named or localstack.endpoint(service, environ)


@dataclass(frozen=True, slots=True)
class Deployed:
    """What stands, and what the template of the stack says should: nothing, if it is not known."""

    standing: Standing
    declared: Standing | None


def stacks_beside(stack: str, services: Iterable[str]) -> list[str]:
    """The stacks in which the functions of services are, by the name of the one that has their
    queues: `shop-order-lambda` beside `shop-messaging`."""
    system = stack.removesuffix(_MESSAGING)
    return [f"{system}-{service}-lambda" for service in services]


@asynccontextmanager
async def looking(config: AwsConfig) -> AsyncIterator[Look]:
    """Clients for looks at an account, closed on exit. Raises `ConfigurationError` when no region
    is set, or when queues would be looked for in an emulator and stacks in AWS."""
    async with (
        open_clients(config) as clients,
        open_client("lambda", config) as functions,
        open_client("cloudformation", config) as cloudformation,
    ):
        for client in (cloudformation, functions):
            _refuse_two_clouds(client, config)
        yield Look(config, clients, functions, cloudformation)


def _refuse_two_clouds(client: Any, config: AwsConfig) -> None:
    asked = replace(config, endpoints={"asked": client.meta.endpoint_url})
    if config.is_local("sqs") and not asked.is_local("asked"):
        raise ConfigurationError(
            "Queues would be looked for in an emulator, and stacks in AWS: set AWS_ENDPOINT_URL, "
            "or AWS_ENDPOINT_URL_CLOUDFORMATION and AWS_ENDPOINT_URL_LAMBDA too."
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What reads. Made by `looking`."""

    config: AwsConfig
    clients: Clients
    functions: Any
    cloudformation: Any

    async def deployed(
        self, wanted: Topology, *, stack: str, beside: Sequence[str] = ()
    ) -> Deployed:
        """Read what `wanted` names, what the stack has, and what feeds the queues to functions. Of
        the stacks `beside`, those that exist are read for such mappings.

        The namespace is the one in the configuration, or else the one that the stack tells. Raises
        `NotProvisioned` when there is no such stack, `ConfigurationError` when it is of another
        namespace, and `CloudError` when the account cannot be asked at all. What it refuses to
        tell is in `Standing.unseen`.
        """
        formed = await _formed(self.cloudformation, stack, beside)
        config = replace(self.config, namespace=_namespace(self.config, formed.stack, stack))
        known = Namespace(config)
        standing = await self._standing(wanted, known, formed.declared_mappings())
        items = _items(known, formed.resources)
        standing = replace(
            standing,
            stack=items if formed.resources.get(stack) is not None else None,
            statuses={each.name: each.status for each in formed.stacks if not each.is_settled},
            unseen=(*formed.unseen, *standing.unseen),
        )
        return Deployed(standing, formed.declared(known))

    async def standing(self, wanted: Topology) -> Standing:
        """Read the account alone, whatever stacks there are."""
        return await self._standing(wanted, Namespace(self.config), {})

    async def _standing(
        self, wanted: Topology, known: Namespace, mappings: Mapping[str, Mapping[str, Any]]
    ) -> Standing:
        account = Account(self.clients, self.functions, known)
        buses, rules, queues, tables = await asyncio.gather(
            account.buses(wanted),
            account.rules(wanted),
            account.queues(wanted),
            account.tables(wanted),
        )
        return Standing(
            namespace=known.config.namespace,
            buses=buses,
            rules=tuple(rule for rule in rules if is_wanted(rule, wanted)),
            queues=queues,
            tables=tables,
            mappings=await account.mappings(queues, mappings),
            beside=await account.beside(wanted, rules),
            unseen=tuple(account.unseen),
        )


def _namespace(config: AwsConfig, found: Stack | None, stack: str) -> str:
    told = found.outputs.get(NAMESPACE_OUTPUT, "") if found else ""
    if told and config.namespace and told != config.namespace:
        raise ConfigurationError(
            f"The stack '{stack}' is of the namespace {told!r}, and HEADRACE_NAMESPACE says "
            f"{config.namespace!r}: name the other stack, or leave the variable out."
        )
    return config.namespace or told


def _items(
    known: Namespace, listed: Mapping[str, Sequence[Resource] | None]
) -> tuple[StackItem, ...]:
    return tuple(
        sorted(
            StackItem(stack, kind, each.name, _logical(known, kind, each.name))
            for stack, resources in listed.items()
            for each in resources or ()
            if (kind := KINDS.get(each.type)) is not None
        )
    )


def _logical(known: Namespace, kind: str, name: str) -> str:
    if kind == "mapping":
        return ""
    return known.bus(name) if kind == "bus" else known.name(name)


# --- stacks ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Formed:
    """What CloudFormation tells: the stack that was asked for, if it may be looked at, and those
    beside it; by their names what is in them, and their templates."""

    stack: Stack | None
    stacks: list[Stack] = field(default_factory=list)
    resources: dict[str, Sequence[Resource] | None] = field(default_factory=dict)
    templates: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    unseen: list[Unseen] = field(default_factory=list)

    def declared(self, known: Namespace) -> Standing | None:
        """What the template says; nothing where it is not known, or not written in JSON."""
        if self.stack is None or not self.templates[self.stack.name]:
            return None
        name = self.stack.name
        return declared(known, self.stack, self.resources[name] or (), self.templates[name])

    def declared_mappings(self) -> dict[str, Mapping[str, Any]]:
        """By UUID, what the templates say of the mappings in them."""
        return {
            each.physical: _properties(self.templates[stack], each.id)
            for stack, resources in self.resources.items()
            for each in resources or ()
            if KINDS.get(each.type) == "mapping"
        }

    async def add(self, cloudformation: Any, stack: Stack) -> None:
        subject = f"stack {stack.name}"
        self.stacks.append(stack)
        asked = stacks.resources(cloudformation, stack.name)
        self.resources[stack.name] = await told(self.unseen, subject, "what is in it", asked)
        template = stacks.template(cloudformation, stack.name)
        said = await told(self.unseen, subject, "its template", template)
        self.templates[stack.name] = said or {}


def _properties(template: Mapping[str, Any], id: str) -> Mapping[str, Any]:
    found = (template.get("Resources") or {}).get(id) or {}
    return dict(found.get("Properties") or {})


async def _formed(cloudformation: Any, name: str, beside: Sequence[str]) -> _Formed:
    try:
        found = await stacks.describe(cloudformation, name)
    except Refused as error:
        if not error.code.startswith("AccessDenied"):
            raise
        return _Formed(None, unseen=[Unseen(f"stack {name}", "what it is", str(error))])
    if found is None:
        raise NotProvisioned(
            f"There is no stack '{name}' in {place(cloudformation)}: check its name, the region "
            "and the account (`aws cloudformation describe-stacks` shows what there is).",
            operation="DescribeStacks",
        )
    formed = _Formed(found)
    await formed.add(cloudformation, found)
    for other in beside:
        asked = stacks.describe(cloudformation, other)
        there = await told(formed.unseen, f"stack {other}", "whether it is there", asked)
        if there is not None:
            await formed.add(cloudformation, there)
    return formed
