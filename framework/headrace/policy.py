"""What an exception means for the message that caused it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from headrace.errors import (
    CloudError,
    CommitError,
    DecodeError,
    HeadraceError,
    LeaseHeld,
    PoisonMessage,
    RetryLater,
    TooLarge,
)
from headrace.outcome import DeadLetter, Retry
from headrace.ports import Randomness
from headrace.text import shown

_EARLY_LOOKS: Final = 3
"""Receives after which a delivery comes again before the lease that it waits for is over."""

ELSEWHERE: Final = timedelta(minutes=1)
"""How long a message waits that a worker of another version may know, while that is deployed."""

_LONGEST_LOOK: Final = timedelta(minutes=15)
"""Between two looks at a lease that is renewed again and again."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter: uniform between nothing and `base` x 2^(n-1), at most
    `cap`. Full jitter spreads a burst of failures best (AWS Architecture Blog, 2015)."""

    base: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(minutes=15)

    def delay(self, receive_count: int, randomness: Randomness) -> timedelta:
        # The exponent is bounded, as 2.0 ** 1024 overflows and a FIFO poison may be received often.
        ceiling = min(self.cap, self.base * 2 ** min(receive_count - 1, 30))
        return timedelta(seconds=randomness.uniform(0, ceiling.total_seconds()))

    def __str__(self) -> str:
        return f"{self.base.total_seconds():g} s doubling up to {self.cap.total_seconds():g} s"


@dataclass(frozen=True, slots=True)
class Policy:
    """Exception x receive count -> outcome.

    `dead_letter` are a service's own exceptions that no further attempt can help;
    `PoisonMessage` always is one. Any other exception of a handler is retried until the message
    was received `attempts` times, or its handler failed so often under a lease; then it goes to the
    dead-letter queue with its reason. So is a `DefinitionError`: while one version is deployed
    after another, the next receive may be by code that defines it right.
    Failures of AWS and conflicts say nothing about the message, so they are retried for as long
    as the queue's redrive policy allows; a handler with `park=True` gives up just before that.
    """

    attempts: int = 5
    backoff: Backoff = field(default_factory=Backoff)
    dead_letter: tuple[type[Exception], ...] = ()

    def decide(
        self,
        error: Exception,
        *,
        receive_count: int,
        randomness: Randomness,
        handler: str | None = None,
        attempts: int | None = None,
        failures: int | None = None,
    ) -> Retry | DeadLetter:
        """What becomes of a message whose handler raised `error`; `attempts` overrides the
        policy's own. Every receive counts as an attempt, unless it is known how many `failures`
        of the handler there were."""
        error = self._decisive(error)
        reason = reason_of(error)
        if isinstance(error, self._fatal):
            return DeadLetter(reason, handler, error)
        delay = self.backoff.delay(receive_count, randomness)
        if isinstance(error, LeaseHeld) and error.delay is not None:
            return Retry(reason, _next_look(delay, error.delay, receive_count), handler, error)
        if isinstance(error, RetryLater):
            return Retry(reason, delay if error.delay is None else error.delay, handler, error)
        tried = receive_count if failures is None else failures
        if not self.counts(error) or tried < (attempts or self.attempts):
            return Retry(reason, delay, handler, error)
        what = f"{tried} {'receive' if failures is None else 'failure'}{'' if tried == 1 else 's'}"
        return DeadLetter(f"Gave up after {what}: {reason}", handler, error, gave_up=True)

    def counts(self, error: BaseException) -> bool:
        """Whether this is a failure of the handler itself, of which there may be so many."""
        error = self._decisive(error) if isinstance(error, Exception) else error
        others = (*self._fatal, RetryLater, CloudError, CommitError)
        return isinstance(error, Exception) and not isinstance(error, others)

    @property
    def _fatal(self) -> tuple[type[Exception], ...]:
        return (PoisonMessage, *self.dead_letter, DecodeError, TooLarge)

    def _decisive(self, error: Exception) -> Exception:
        """Of the exceptions in a group, which a `TaskGroup` raises, the one that decides."""
        if not isinstance(error, ExceptionGroup):
            return error
        leaves = list(_leaves(error))
        for kinds in (self._fatal, (RetryLater,), (CloudError, CommitError)):
            for leaf in leaves:
                if isinstance(leaf, kinds):
                    return leaf
        return leaves[0]

    def sentences(self) -> list[str]:
        """The rules in the order they are tried, each as a sentence."""
        fatal: tuple[type[Exception], ...] = (PoisonMessage, *self.dead_letter)
        named = " or ".join(cls.__name__ for cls in fatal)
        return [
            f"{named} goes to the dead-letter queue at once, and so do a body that cannot be "
            "decoded, and a message that is too large to be sent.",
            "RetryLater comes again after the delay it names.",
            "Failures of AWS and conflicts come again until the queue's redrive policy acts.",
            f"Any other exception comes again, up to {self.attempts} attempts in all, then goes "
            "to the dead-letter queue with its reason.",
            f"Waiting times are random between 0 and {self.backoff}.",
        ]

    def __str__(self) -> str:
        return " ".join(self.sentences())


def _next_look(delay: timedelta, left: timedelta, receive_count: int) -> timedelta:
    """When to look again at a lease that somebody holds, of which so much is left.

    Whoever holds it will mostly be done long before it ends. But every look is a receive that the
    redrive policy counts; so once the lease was renewed under our eyes, we wait longer and longer.
    """
    later = receive_count - _EARLY_LOOKS
    if later <= 0:
        return min(delay, left)
    return min(left * (1 << min(later - 1, 10)), max(left, _LONGEST_LOOK))


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def reason_of(error: BaseException) -> str:
    """Why, in a sentence that fits into a dead letter."""
    if isinstance(error, HeadraceError):
        return shown(str(error))
    return shown(f"{type(error).__name__}: {error}")
