"""What is simulated, one run of it, and how that ended."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import Any, Final, TypeAlias

from headrace.service import Service
from headrace.testing.letters import Letter
from headrace.testing.simulation.chance import Allowed, Fault
from headrace.testing.simulation.faults import Faults
from headrace.testing.simulation.trace import Entry
from headrace.testing.simulation.world import World

_NUMBERS: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]+")

ResourcesOf: TypeAlias = Callable[[World], AbstractAsyncContextManager[Any]]
Scenario: TypeAlias = Callable[[World], Awaitable[None]]
Invariant: TypeAlias = Callable[[World], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A service of which a new version is deployed while it is at work: for some seconds both
    versions run beside each other."""

    before: Service
    after: Service

    @property
    def versions(self) -> tuple[Service, Service]:
        return self.before, self.after


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated, whatever the seed."""

    services: tuple[Service | Rollout, ...]
    scenario: Scenario
    invariants: tuple[Invariant, ...] = ()
    always: tuple[Invariant, ...] = ()
    faults: Faults = field(default_factory=Faults)
    resources: Mapping[str, ResourcesOf] = field(default_factory=dict)
    expected_letter: Callable[[Letter], bool] = lambda letter: False
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of a setting. `allowed` are the faults that may happen, `dropped` the sendings of
    the scenario that do not; `shuffled=False` runs what is ready in the order it became so."""

    seed: int
    allowed: Allowed = None
    dropped: frozenset[int] = frozenset()
    shuffled: bool = True
    calm: bool = False
    """No fault at all."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What was wrong: the name of what was broken, and how."""

    name: str
    sentence: str
    error: BaseException | None = field(default=None, compare=False)
    shrinks: bool = True
    """Whether to look for a smaller run."""

    @property
    def kind(self) -> tuple[str, str]:
        """What tells one thing that is wrong from another, whatever the ids and numbers in it:
        what was broken, and where that was said or how."""
        if isinstance(self.error, AssertionError) and self.error.__traceback__ is not None:
            *_, last = walk_tb(self.error.__traceback__)
            return self.name, f"{last[0].f_code.co_filename}:{last[1]}"
        return self.name, _NUMBERS.sub("#", self.sentence)


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended. `struck` are the faults that happened; `sendings` counts what the scenario
    sent; `seconds` is how long it took, in its own time. `entries` are kept on demand."""

    plan: Plan
    rates: Mapping[str, float]
    wrong: Wrong | None
    struck: tuple[Fault, ...]
    sendings: int
    seconds: float
    entries: tuple[Entry, ...] = ()
