"""What a harness makes of the services that it is given."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from headrace.errors import DefinitionError, DuplicateName
from headrace.service import ResourcesFactory, Service
from headrace.topology.check import Severity, check

_sound: Final[deque[list[Any]]] = deque(maxlen=16)
"""What was found to be in order, as `_parts` has it. A check takes as long as a test."""


def refuse_unsound(services: Sequence[Service]) -> None:
    """Raises `DefinitionError` with everything that `check` calls an error."""
    if not services:
        raise DefinitionError("A harness needs a service: write harness(order, inventory).")
    for service in services:
        if services.count(service) > 1:
            raise DuplicateName(
                f"The harness is given the service {service.name!r} twice: name each of them once."
            )
    parts = list(_parts(services))
    if any(_are_same(parts, known) for known in _sound):
        return
    errors = [found for found in check(*services) if found.severity is Severity.ERROR]
    if errors:
        raise DefinitionError("\n".join(f"{e.subject}: {e.sentence}" for e in errors))
    _sound.append(parts)


def _parts(services: Sequence[Service]) -> Iterator[Any]:
    for service in services:
        yield service
        yield from vars(service).values()
        yield from service.handlers


def _are_same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def with_resources(
    services: Sequence[Service], resources: Mapping[Service, ResourcesFactory]
) -> list[Service]:
    """The services, or copies of them with other resources. Raises `DefinitionError` for
    resources of a service that is not among them."""
    for service in resources:
        if service not in services:
            raise DefinitionError(
                f"There are resources for {service.name!r}, which is not in the harness: write "
                f"harness({service.name}, …)."
            )
    return [
        _with(service, resources[service]) if service in resources else service
        for service in services
    ]


def _with(service: Service, resources: ResourcesFactory) -> Service:
    other = copy.copy(service)
    other.resources = resources
    return other
