"""What a case of the table says: what is sent, and what has to come of it on every host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Final, TypeAlias, TypeVar

from tests.parity.bodies import Wrapping, bridged
from tests.parity.contracts import Book, Booking

Value = TypeVar("Value")


class Fate(StrEnum):
    """What became of a message after a round of the host."""

    ACKED = "acked"
    """Gone, and no letter was written."""
    DEAD = "dead letter"
    """Gone, with a copy in the dead-letter queue."""
    LATER = "comes again later"
    """In the queue, and hidden."""
    SOON = "comes again at once"
    """In the queue, and not hidden: the next receive can have it."""

    @property
    def comes_again(self) -> bool:
        return self in (Fate.LATER, Fate.SOON)


ACKED, DEAD, LATER, SOON = Fate.ACKED, Fate.DEAD, Fate.LATER, Fate.SOON


class Inbox(StrEnum):
    """The status of the inbox record of a handler and an event."""

    DONE = "done"
    PENDING = "pending"
    LEASED = "leased"
    NONE = "none"


DONE, PENDING, LEASED, NONE = Inbox.DONE, Inbox.PENDING, Inbox.LEASED, Inbox.NONE


class _ByFate(Enum):
    IT = "by fate"


BY_FATE: Final = _ByFate.IT
"""Acked in the end: the handler ran once, its record is done, and its one message is out once.
Otherwise: the handler ran once, there is no record, and nothing is out."""

ONE_OR_TWO: Final = frozenset({1, 2})
"""Where two deliveries are at work at once, one of them may do again what the other did."""

Count: TypeAlias = int | frozenset[int]
ByHandler: TypeAlias = Value | Mapping[str, Value] | _ByFate
"""For all handlers of an event, or for each by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What stands on a dead letter. `reason` are words of its sentence."""

    handler: str | None
    reason: str
    attempts: int = 1


def given_up(handler: str, reason: str) -> Note:
    """The note of a message that was received as often as the policy lets it."""
    return Note(handler=handler, reason=f"Gave up after 5 receives: {reason}", attempts=5)


@dataclass(frozen=True, slots=True)
class Sent:
    """One message. `fate` is what becomes of it in each round, from the one it is sent in.

    `runs` is how often the handler runs in all rounds, and `out` how often each of the messages
    that it causes is out, in the order in which it names them.
    """

    what: Booking | Book | str
    fate: Fate | Sequence[Fate]
    _: KW_ONLY
    fault: str = ""
    body: Wrapping = bridged
    group: str | None = None
    runs: ByHandler[Count] = BY_FATE
    inbox: ByHandler[Inbox] = BY_FATE
    out: ByHandler[tuple[Count, ...]] = BY_FATE
    note: Note | None = None
    letters: int | None = None
    hidden: timedelta | None = None
    sent_in: int = 1

    @property
    def fates(self) -> tuple[Fate, ...]:
        return (self.fate,) if isinstance(self.fate, Fate) else tuple(self.fate)


@dataclass(frozen=True, slots=True)
class Copy:
    """Another message with the event of the message that the case calls `of`. The two fates are
    those of the two messages, whichever is which."""

    of: str
    fate: Fate | Sequence[Fate]
    _: KW_ONLY
    sent_in: int = 1

    @property
    def fates(self) -> tuple[Fate, ...]:
        return (self.fate,) if isinstance(self.fate, Fate) else tuple(self.fate)


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not the same on both hosts, and why it cannot be."""

    what: str
    on_lambda: str
    on_worker: str
    why: str


CUT_SHORT: Final = Difference(
    "when a handler that does not end is cut short",
    "500 ms before the function's timeout",
    "when the drain is over, after a stop",
    "an invocation has a deadline, and a worker has none until it is told to stop",
)
DELETING: Final = Difference(
    "who deletes a message that was handled",
    "the event source mapping, after the answer",
    "headrace, in batches",
    "Lambda deletes what a function does not report, and takes no delete from it",
)


@dataclass(frozen=True, slots=True)
class Case:
    """Messages that arrive together, and what has to come of them.

    The messages are called a, b, c, … in the order of `sent`, copies aside. `accounts` says which
    of them are booked where, in order where order counts. What comes again is received again in
    the next round, as long as a message has a fate in it. `received` is how often all of them
    were received before. `difference` names the one that this case has to do with.
    """

    name: str
    sent: Sequence[Sent | Copy]
    _: KW_ONLY
    accounts: Mapping[str, str] = field(default_factory=dict)
    received: int = 0
    difference: Difference | None = None

    @property
    def cut_short(self) -> bool:
        """Whether it is for the host to end what hangs."""
        return self.difference is CUT_SHORT

    @property
    def rounds(self) -> int:
        return max(sent.sent_in + len(sent.fates) - 1 for sent in self.sent)
