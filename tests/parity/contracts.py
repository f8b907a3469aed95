"""What the parity suite sends, receives and keeps: a small bookkeeper's contracts.

Every event says itself what its handler is to do: `do` lists acts (see `acts`), one for each
receive, the last one for all that follow. `name` is what a case calls the event.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from headrace import Command, Entity, Event, upcaster

ONE_ACT = ["book"]


class Booking(Event):
    """What all of them have in common."""

    name: str = ""
    account: str = "A"
    do: list[str] = Field(default_factory=ONE_ACT.copy)
    amount: int = 1


class Booked(Booking, source="parity.till", version=3):
    """For an `async def`. Version 2 can be read, version 1 cannot."""


@upcaster(Booked, from_version=2)
def name_the_account(payload: dict[str, Any]) -> dict[str, Any]:
    return {**payload, "account": payload["konto"]}


class BookedPlainly(Booking, source="parity.till"):
    """For a plain `def`, which runs in a thread."""


class BookedTwice(Booking, source="parity.till"):
    """For two handlers. `do` is for the first of them, `second` for the other."""

    second: list[str] = Field(default_factory=ONE_ACT.copy)


class BookedAbove(Booking, source="parity.till"):
    """For a handler that takes only amounts of more than 100."""


class BookedInTime(Booking, source="parity.till"):
    """For an `async def` with a timeout."""


class BookedPlainlyInTime(Booking, source="parity.till"):
    """For a plain `def` with a timeout."""


class BookedUnderLease(Booking, source="parity.till"):
    """For a leased handler; a second delivery comes again meanwhile."""


class BookedInWaiting(Booking, source="parity.till"):
    """For a leased handler; a second delivery waits meanwhile."""


class BookedPlainlyUnderLease(Booking, source="parity.till"):
    """For a leased plain `def`."""


class BookedAnew(Booking, source="parity.till"):
    """For a handler that is idempotent, and keeps no record."""


class BookedInOrder(Booking, source="parity.till"):
    """For a handler with a FIFO queue of its own."""


class Book(Command, owner="books"):
    """The same as a command."""

    name: str = ""
    account: str = "A"
    do: list[str] = Field(default_factory=ONE_ACT.copy)
    amount: int = 1


class Balanced(Event, source="parity.books"):
    """What a handler publishes."""

    account: str
    balance: int


class Remind(Command, owner="clerk"):
    """What a handler sends to another service."""

    account: str


class Unannounced(Event, source="parity.books"):
    """What no handler has declared."""

    account: str


class Account(Entity, pk="account#{number}"):
    """`entries` are the names of the events that were booked here, in the order of commits."""

    number: str
    entries: list[str] = Field(default_factory=list)
