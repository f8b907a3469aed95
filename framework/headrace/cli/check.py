"""`headrace check`: what is wrong before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.errors import NotProvisioned

from .loading import Services, load_services
from .running import run

if TYPE_CHECKING:
    from headrace.saga.operating import InFlight
    from headrace.service import Service
    from headrace.topology.check import Finding


def check(
    services: Services,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    in_flight: Annotated[
        bool,
        typer.Option(
            "--in-flight",
            help="Look into the tables too, for sagas of versions that the code no longer has.",
        ),
    ] = False,
    deployed: Annotated[
        str | None,
        typer.Option(
            "--deployed",
            metavar="STACK",
            help="Look at what stands in the account too, and tell what is not as the code wants "
            "it. STACK is the CloudFormation stack that has the queues.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Look for mistakes in and between services.

    Name all services that share a bus. Exits with 1 if there is an error, or with --strict
    a warning. Nothing is asked of AWS, unless --in-flight or --deployed is given, and nothing
    is changed there.
    """
    from headrace.topology.check import Severity
    from headrace.topology.check import check as find

    loaded = load_services(services)
    found = find(*loaded)
    if in_flight:
        found += run(_left_behind(loaded))
    if deployed is not None:
        found += run(_drifted(loaded, deployed))
    found.sort(key=lambda each: each.severity)
    for finding in found:
        print(finding)
    errors = [finding for finding in found if finding.severity is Severity.ERROR]
    print(_summary(len(errors), len(found) - len(errors)))
    if errors or (strict and found):
        raise typer.Exit(1)


async def _left_behind(services: Sequence[Service]) -> list[Finding]:
    """What is wrong with sagas in flight: nothing would handle the messages for them."""
    from headrace.aws import client
    from headrace.aws.config import AwsConfig
    from headrace.saga.handling import sagas_of
    from headrace.saga.operating import Sagas

    found: list[Finding] = []
    async with client.open_ports(AwsConfig.from_environment()) as ports:
        for service in services:
            if not sagas_of(service):
                continue
            try:
                counts = await Sagas(service, ports).in_flight()
            except NotProvisioned as error:
                found.append(_not_there(service, error))
            else:
                found += [_left(service, each) for each in counts if not each.known]
    return found


def _left(service: Service, left: InFlight) -> Finding:
    from headrace.saga.handling import sagas_of
    from headrace.topology.check import Finding, Severity

    newest = sagas_of(service)[left.saga].newest
    sagas, were = ("saga", "was") if left.count == 1 else ("sagas", "were")
    what = f"{left.count:,} {sagas} in flight {were} begun by version {left.version}, which this"
    then = (
        f"code no longer has: keep the class of that version beside {newest.cls.__name__} until "
        f"`headrace saga list … --saga {left.saga}` shows none of it any more."
        if left.version < newest.version
        else f"code does not have yet, as its newest is {newest.version}: deploy code with both."
    )
    return Finding(Severity.ERROR, f"{service.name}.{left.saga}", f"{what} {then}")


def _not_there(service: Service, error: NotProvisioned) -> Finding:
    """As before the first deployment; or it is somebody else's account."""
    from headrace.topology.check import Finding, Severity

    return Finding(
        Severity.WARNING,
        service.name,
        f"can have no sagas in flight here, if this is the right place to look: {error}",
    )


async def _drifted(services: Sequence[Service], stack: str) -> list[Finding]:
    """What in the account is not as the code wants it."""
    from headrace.aws.config import AwsConfig
    from headrace.aws.deployed import looking, stacks_beside, with_stacks
    from headrace.topology.derive import topology
    from headrace.topology.drift import drift

    wanted = topology(*services)
    beside = stacks_beside(stack, [service.name for service in services])
    async with looking(with_stacks(AwsConfig.from_environment())) as look:
        found = await look.deployed(wanted, stack=stack, beside=beside)
    return drift(
        wanted,
        found.standing,
        stack=stack,
        declared=found.declared,
        relayed={service.table for service in services if service.table and service.emits},
    )


def _summary(errors: int, warnings: int) -> str:
    if not errors and not warnings:
        return "Nothing found."
    counts = ((errors, "error"), (warnings, "warning"))
    return " and ".join(f"{n} {word}{'s'[: n != 1]}" for n, word in counts if n) + "."
