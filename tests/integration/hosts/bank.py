"""A small bank: the contracts and entities that the test services share."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from headrace import Command, Entity, Event, upcaster


class Deposited(Event, source="bank.teller", version=2):
    account: str
    amount: int
    note: str = ""
    tags: dict[str, int] = Field(default_factory=dict)


@upcaster(Deposited, from_version=1)
def name_the_amount(payload: dict[str, Any]) -> dict[str, Any]:
    return {**payload, "amount": payload["sum"]}


class Withdrawn(Event, source="bank.teller", version=3):
    """Only its last version but one can still be read."""

    account: str
    amount: int


@upcaster(Withdrawn, from_version=2)
def keep(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


class Bounced(Event, source="bank.teller"):
    """Its handler fails, each time."""

    account: str


class Forged(Event, source="bank.teller"):
    """Its handler says that it can never be handled."""

    account: str


class Postponed(Event, source="bank.teller"):
    """Its handler asks for more time."""

    account: str


class Stalled(Event, source="bank.teller"):
    """Its handler never returns."""

    account: str


class Audited(Event, source="bank.auditor"):
    """It is handled on a queue of its own."""

    account: str


class Scanned(Event, source="bank.scanner", native=True):
    """A cheque was scanned, says a machine that knows nothing of headrace."""

    object: dict[str, Any]


class OpenAccount(Command, owner="ledger"):
    account: str


class Credited(Event, source="bank.ledger"):
    account: str
    balance: int


class Account(Entity, pk="account#{number}"):
    number: str
    balance: int = 0
    movements: int = 0

    def after(self, amount: int) -> Account:
        return Account(
            number=self.number, balance=self.balance + amount, movements=self.movements + 1
        )
