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
    """An operator wants something of a saga, and saw it stuck at a `step`; `by` and `why` stand in
    its history."""

    saga: str
    key: str
    action: Action
    by: str
    why: str = ""
    step: str | None = None


class Signals(NamedTuple):
    """The two, for one saga of one service."""

    timer: type[SagaTimer]
    intervention: type[SagaIntervention]


_known: dict[tuple[str, str], Signals] = {}


def signals_of(service: str, saga: str) -> Signals:
    """The commands by which a saga of a service is woken and mended. They have names of their own:
    where a worker does not know the saga, it must not take them for handled."""
    known = _known.get((service, saga))
    if known is None:
        timer, intervention = (_owned(cls, service, saga) for cls in (SagaTimer, SagaIntervention))
        known = _known[service, saga] = Signals(timer, intervention)
    for cls in known:
        # Again, as a test may have forgotten all names that were added inside it.
        registry.add(cls, contract_of(cls))
    return known


def _owned(base: Any, service: str, saga: str) -> Any:
    name = f"{base.__name__}.{service}.{saga}"
    return new_class(
        base.__name__,
        (base,),
        {"owner": service, "name": name},
        lambda namespace: namespace.update(
            __module__=__name__, __qualname__=name, __doc__=base.__doc__
        ),
    )
