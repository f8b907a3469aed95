"""All chance of one run, from one seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from random import Random
from typing import NamedTuple, TypeAlias
from uuid import UUID
from zlib import crc32


class Fault(NamedTuple):
    """One fault of one run: the `nth` occasion for its kind, counted from 0."""

    kind: str
    nth: int


Allowed: TypeAlias = Collection[Fault] | None
"""The faults that may happen; `None` for all of them."""


class Chance:
    """Draws from streams of their own, so that what one of them draws shifts no other.

    A fault is named by its kind and the number of the occasion. A run under the same seed that
    allows only some of its faults is the same up to the first one that is left out.
    """

    def __init__(self, seed: int, rates: Mapping[str, float], allowed: Allowed = None) -> None:
        self.seed = seed
        self.struck: list[Fault] = []
        self.healed = False
        self._rates = rates
        self._allowed = allowed
        self._occasions = dict.fromkeys(rates, 0)
        self._streams = {kind: self.stream(kind) for kind in rates}

    def stream(self, name: str) -> Random:
        """A stream of draws of its own."""
        return Random((self.seed << 32) ^ crc32(name.encode()))

    def strikes(self, kind: str) -> float | None:
        """Whether a fault happens on this occasion: a number from 0 to 1 that says how hard, or
        `None`."""
        rate = self._rates[kind]
        if not rate or self.healed:
            return None
        draw = self._streams[kind].random
        strikes, hard = draw() < rate, draw()
        nth = self._occasions[kind]
        self._occasions[kind] = nth + 1
        if strikes and self._is_allowed(kind, nth):
            self.struck.append(Fault(kind, nth))
            return hard
        return None

    def drawn(self, kind: str) -> tuple[Fault, float] | None:
        """For a fault that comes some time after its occasion: which it would be and a number
        from 0 to 1, or `None` if it is not to happen. Whoever lets it happen says `strike`."""
        if not self._rates[kind] or self.healed:
            return None
        nth = self._occasions[kind]
        self._occasions[kind] = nth + 1
        number = self._streams[kind].random()
        return (Fault(kind, nth), number) if self._is_allowed(kind, nth) else None

    def strike(self, fault: Fault) -> None:
        self.struck.append(fault)

    def rate(self, kind: str) -> float:
        return self._rates[kind]

    def _is_allowed(self, kind: str, nth: int) -> bool:
        return self._allowed is None or (kind, nth) in self._allowed


class DrawnRandomness:
    """The Randomness port on one of the streams."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def uuid(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.random()
