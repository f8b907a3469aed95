"""What goes wrong in a simulation, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any, Final, Self

from headrace.errors import ConfigurationError

_OFF: Final = 0.3
"""How many of the kinds are left out of a run. What is always hidden among everything else going
wrong is found where only that goes wrong."""

_SPREAD: Final = 4.0
"""A rate is between so many times less and so many times more, from run to run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The rate of each fault: how probable it is on each occasion.

    Each run draws which of them it has at all and how strong they are, so that over many seeds
    faults come alone and in every combination. With `mixed=False` every run has these very rates.
    """

    # What SQS, EventBridge and DynamoDB may do.
    duplicate: float = 0.04
    """A message is delivered again: while it is handled, or after it was deleted; an event
    reaches a queue twice. Per message."""
    reorder: float = 0.2
    """A standard queue is looked through in another order. Per receive."""
    delay: float = 0.05
    """A message can be received late, by up to 15 seconds. Per message."""
    stale_index: float = 0.2
    """An index does not know of a change, for up to 20 seconds. Per change."""
    ttl: float = 0.1
    """DynamoDB deletes what has expired, or would within the hour, and not only some days later.
    Per minute of a run."""

    # Calls that fail.
    timeout: float = 0.01
    """A call does not arrive, and the caller hears nothing. Per call."""
    lost_answer: float = 0.01
    """A call has its effect, and the caller hears nothing. Per call."""
    resend: float = 0.01
    """A call has its effect twice: the SDK sends it again, as the first answer was lost. Per
    call."""
    late: float = 0.005
    """A call has its effect after its caller has given up. Per call."""
    throttle: float = 0.01
    """AWS refuses a call for now. Per call."""
    conflict: float = 0.02
    """A transaction is cancelled because of another one, or a single write refused because of a
    transaction just now. Per write."""
    partial: float = 0.03
    """Some entries of a batch fail, the others do not. Per batch call."""
    outage: float = 0.1
    """A whole service of AWS does not answer for up to half a minute. Per minute of a run."""

    # Processes.
    crash: float = 0.005
    """A process dies and is started again. Per call that it makes, per answer that it gets, and
    per sleep that ends."""
    expiry: float = 0.03
    """A visibility timeout is over while the message is handled. Per message."""
    pause: float = 0.01
    """A process stands still for up to a minute, as for a garbage collection or without CPU. Per
    call."""
    slow_handler: float = 0.02
    """A handler takes up to a minute longer. Per run of a handler."""
    skew: float = 0.5
    """A process's clock is off by up to 2 seconds. Per process."""
    deploy: float = 0.3
    """A process is stopped, and a new one (of the next version, if there is one) is started
    beside it. Per service and run."""

    # What is sent.
    poison: float = 0.3
    """A message that nobody can read lies in a queue. Per service and run."""

    mixed: bool = True

    def __post_init__(self) -> None:
        for name, rate in self.rates().items():
            if not 0 <= rate <= 1:
                raise ConfigurationError(
                    f"Faults({name}={rate}): a rate is a probability, from 0 to 1."
                )

    @classmethod
    def none(cls) -> Self:
        """Nothing goes wrong; calls still take their time."""
        return cls().without(*KINDS)

    @classmethod
    def only(cls, **rates: float) -> Self:
        """These faults at these rates, in every run, and no others."""
        _refuse_unknown(rates)
        given: dict[str, Any] = dict(rates)
        return replace(cls.none(), mixed=False, **given)

    def without(self, *kinds: str) -> Self:
        """All but these."""
        _refuse_unknown(kinds)
        none: dict[str, Any] = dict.fromkeys(kinds, 0.0)
        return replace(self, **none)

    def rates(self) -> dict[str, float]:
        return {kind: getattr(self, kind) for kind in KINDS}

    def drawn(self, random: Random) -> dict[str, float]:
        """The rates of one run."""
        return {kind: self._drawn(rate, random) for kind, rate in self.rates().items()}

    def _drawn(self, rate: float, random: Random) -> float:
        off, strength = random.random(), random.random()
        if not self.mixed:
            return rate
        return 0.0 if off < _OFF else min(1.0, rate * _SPREAD ** (2 * strength - 1))


def _refuse_unknown(kinds: Mapping[str, float] | tuple[str, ...]) -> None:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ConfigurationError(
            f"There is no fault {unknown[0]!r}: choose from {', '.join(KINDS)}."
        )


KINDS: Final[tuple[str, ...]] = tuple(f.name for f in fields(Faults) if f.name != "mixed")
"""Every kind of fault by name, which is also its name in a timeline."""


def as_text(rates: Mapping[str, Any]) -> str:
    """The rates of a run, those that are on."""
    return ", ".join(f"{kind} {rate:.3g}" for kind, rate in rates.items() if rate) or "none"
