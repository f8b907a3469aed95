"""What is done a number of times, to see what it costs once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from headrace.cost.account import Account
from headrace.service import ResourcesFactory, Service

Run: TypeAlias = Callable[[Account], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Work:
    """Units of work: `run` does as many as its account asks for. `resources` are opened in place
    of a service's own, as nothing outside may be reached, neither a mail server nor a bank."""

    run: Run
    resources: Mapping[Service, ResourcesFactory] = field(default_factory=dict)


def work(*, resources: Mapping[Service, ResourcesFactory]) -> Callable[[Run], Work]:
    """Decorates a function that does units of work on services with resources."""

    def decorate(run: Run) -> Work:
        return Work(run, resources)

    return decorate
