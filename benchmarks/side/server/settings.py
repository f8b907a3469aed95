"""How the server is set up by `POST /bench/reset`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """Given anew with every reset; what is left out has its default again."""

    messages: int = 0
    """How many there are in all: what the queue gives out before it is empty, unless it holds."""
    queue: str = "orders"
    """The one that has messages; every other is empty."""
    poison: float = 0.0
    seed: int = 1
    hold: bool = False
    """The queue gives what is sent to it, in that order, and nothing else: for contenders whose
    messages only they can write. Message 0 is the one that was sent first."""
    wait: bool = True
    """An empty queue answers after the wait that was asked for. If not, at once."""
    latency: float = 0.0
    """Seconds that every call of AWS takes."""
    keep: int = 20_000
    """Items that can be read again; of older ones only the keys are known."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """Raises `ValueError` for what is no setting."""
        known = {each.name for each in fields(cls)}
        if unknown := sorted(given.keys() - known):
            raise ValueError(f"{unknown} cannot be set: there are {sorted(known)}.")
        return cls(**given)
