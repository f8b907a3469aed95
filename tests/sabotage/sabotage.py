"""What a sabotage is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import pytest

from headrace.testing import Faults

Patch: TypeAlias = pytest.MonkeyPatch


@dataclass(frozen=True)
class Sabotage:
    """Something to take away, and who is to notice it.

    `caught_by` are the names of the invariants and checks that it is about: what anything else
    notices is no proof that they can fail. `around` is a seed that shows it, from which a test
    begins to look. Most are found with everything going wrong; `faults` are others.
    """

    name: str
    apply: Callable[[Patch], None]
    caught_by: tuple[str, ...]
    around: int
    scenario: Literal["shop", "zoo"] = "shop"
    faults: Faults = field(default_factory=Faults)
