"""What headrace sends to the sagas of a service: the timer that wakes one, and what an operator
wants. Each service has commands of its own, as a command has one owner."""

from __future__ import annotations

from datetime import datetime
from types import new_class
from typing import Any, NamedTuple

from headrace.events import Command, contract_of, registry
from headrace.saga.machine import Action


class SagaTimer(Command):
    """A saga wanted to be woken now. `turn` is the transition that wanted it."""

    saga: str
    key: str
    turn: int
    at: datetime


class SagaIntervention(Command):
    """An operator wants something of a saga; `by` and `why` stand in its history."""

    saga: str
    key: str
    action: Action
    by: str
    why: str = ""


class Signals(NamedTuple):
    """The two, for one service."""

    timer: type[SagaTimer]
    intervention: type[SagaIntervention]


_known: dict[str, Signals] = {}


def signals_of(service: str) -> Signals:
    """The commands by which the sagas of a service are woken and mended."""
    if service not in _known:
        _known[service] = Signals(_owned(SagaTimer, service), _owned(SagaIntervention, service))
    for cls in _known[service]:
        # Again, as a test may have forgotten all names that were added inside it.
        registry.add(cls, contract_of(cls))
    return _known[service]


def _owned(base: Any, service: str) -> Any:
    name = f"{base.__name__}.{service}"
    return new_class(
        base.__name__,
        (base,),
        {"owner": service, "name": name},
        lambda namespace: namespace.update(
            __module__=__name__, __qualname__=name, __doc__=base.__doc__
        ),
    )
