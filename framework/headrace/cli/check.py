"""`headrace check`: what is wrong before anything runs."""

from __future__ import annotations

from typing import Annotated

import typer

from .loading import Services, load_services


def check(
    services: Services,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
) -> None:
    """Look for mistakes in and between services.

    Name all services that share a bus. Exits with 1 if there is an error, or with --strict
    a warning.
    """
    from headrace.topology.check import Severity
    from headrace.topology.check import check as find

    found = find(*load_services(services))
    for finding in found:
        print(finding)
    errors = [finding for finding in found if finding.severity is Severity.ERROR]
    print(_summary(len(errors), len(found) - len(errors)))
    if errors or (strict and found):
        raise typer.Exit(1)


def _summary(errors: int, warnings: int) -> str:
    if not errors and not warnings:
        return "Nothing found."
    counts = ((errors, "error"), (warnings, "warning"))
    return " and ".join(f"{n} {word}{'s'[: n != 1]}" for n, word in counts if n) + "."
