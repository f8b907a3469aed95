"""What a simulation has been through."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """What a simulation has been through. `seconds` are real ones, `virtual_seconds` those of the
    runs; `faults` counts them by kind."""

    seeds: int = 0
    seconds: float = 0.0
    virtual_seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def per_minute(self) -> float:
        return 60 * self.seeds / self.seconds if self.seconds else 0.0
