"""What becomes of one delivery: a value that the pipeline decides and a host carries out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Ack:
    """Done: the message may be deleted. It is a `duplicate` of one that was done before, or it is
    `parked` in the table, where it waits for another message of its group."""

    duplicate: bool = False
    parked: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Not done: the message comes again after `delay` (`None`: when its visibility ends)."""

    reason: str
    delay: timedelta | None = None
    handler: str | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Never to be done: a copy with its reason goes to the dead-letter queue. It `gave_up` if the
    message may be good, and was tried often enough."""

    reason: str
    handler: str | None = None
    error: BaseException | None = None
    correlation_id: str | None = None
    gave_up: bool = False


Outcome: TypeAlias = Ack | Retry | DeadLetter


def combine(outcomes: Iterable[Outcome]) -> Outcome:
    """The one fate of a message that several handlers took.

    A `Retry` wins, so that no handler is cut short by another's dead letter; those that are
    done answer the next delivery from their inbox record. Then a `DeadLetter`; then `Ack`.
    """
    worst: Outcome | None = None
    for outcome in outcomes:
        if worst is None or _rank(outcome) > _rank(worst):
            worst = outcome
    return worst if worst is not None else Ack()


def _rank(outcome: Outcome) -> int:
    if isinstance(outcome, Retry):
        return 3
    if isinstance(outcome, DeadLetter):
        return 2
    return 0 if outcome.duplicate else 1
