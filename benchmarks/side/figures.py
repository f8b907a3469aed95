"""Figures of several rounds, and what can be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

NOISY: Final = 0.25
"""A spread above which a figure is not to be compared with any other."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The same figure of each round, in their order."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    @property
    def spread(self) -> float:
        """From the lowest to the highest, as a part of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0

    @property
    def is_noisy(self) -> bool:
        return self.spread > NOISY

    def over(self, other: Sample) -> Sample:
        """The ratio in each round: the two were measured one soon after the other, so what slows
        down the machine for a while slows down both."""
        pairs = zip(self.values, other.values, strict=True)
        return Sample(tuple(one / another for one, another in pairs))

    @property
    def straddles_one(self) -> bool:
        """Of a ratio: the rounds do not agree which of the two is more."""
        return self.low < 1 < self.high


def sample(values: Sequence[float]) -> Sample:
    return Sample(tuple(values))
