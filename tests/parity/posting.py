"""From the messages of a case to those that are sent on one host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Final

from headrace.ports import QueueEntry
from headrace.service import Handler
from tests.parity.acts import ACTS
from tests.parity.app import books
from tests.parity.bodies import Body, payload
from tests.parity.case import Case, Copy, Fate, Sent
from tests.parity.contracts import Book, Booking

QUEUE: Final = "books"
LANE: Final = "books-lane.fifo"


@dataclass(frozen=True, slots=True, eq=False)
class Posted:
    """One message of a case on one host. `id` is the event's, except for a bare payload, whose id
    is that of its message; `booked` is the event as it was sent, if it is one."""

    name: str
    sent: Sent
    fates: tuple[Fate, ...]
    sent_in: int
    id: str
    booked: Booking | Book | None
    entry: QueueEntry

    @property
    def queue(self) -> str:
        return LANE if self.sent.group else QUEUE

    @property
    def account(self) -> str | None:
        """What the case calls the account that it is booked into."""
        return None if isinstance(self.sent.what, str) else self.sent.what.account

    @property
    def number(self) -> str | None:
        """What that account is called here."""
        return None if self.booked is None else self.booked.account

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """Those that its event has, wherever it was sent."""
        return tuple(handler for handler in books.handlers if type(self.sent.what) in handler.takes)

    @property
    def has_id_of_message(self) -> bool:
        return self.sent.body is payload


def posted(case: Case, token: str) -> list[Posted]:
    """The messages of a case, in order. Everything in them begins with the token."""
    originals: dict[str, Sent] = {}
    made = []
    for number, each in enumerate(case.sent):
        if isinstance(each, Sent):
            name = ascii_lowercase[len(originals)]
            originals[name] = each
        else:
            name = each.of
        made.append(_posted(name, originals[name], each, token, number))
    return made


def account_of(token: str, name: str, sent: Sequence[Posted]) -> str:
    """The full name of an account: with the mark of the event that is booked there, if it has
    one."""
    found = [each.number for each in sent if each.number and each.account == name]
    return found[0] if found else f"{token}{name}"


def held_back(round: int, sent: Sequence[Posted]) -> Iterator[Posted]:
    """Messages of a FIFO group that are behind one that comes again after this round."""
    waiting: set[str] = set()
    for each in sent:
        if each.sent.group is None or not each.sent_in <= round < each.sent_in + len(each.fates):
            continue
        if each.sent.group in waiting:
            yield each
        if each.fates[round - each.sent_in].comes_again:
            waiting.add(each.sent.group)


def _posted(name: str, sent: Sent, each: Sent | Copy, token: str, number: int) -> Posted:
    mark = f"!{sent.fault}!" if sent.fault else ""
    id = f"{token}{name}{mark}"
    unique = f"{token}{number}"
    booked = _booked(name, sent, token, mark)
    body = Body(f"{sent.what} {id}") if booked is None else sent.body(booked, id, unique)
    entry = QueueEntry(
        body.text,
        attributes=body.attributes,
        group_id=f"{token}{sent.group}" if sent.group else None,
        deduplication_id=unique.replace("/", "-") if sent.group else None,
    )
    return Posted(name, sent, each.fates, each.sent_in, id, booked, entry)


def _booked(name: str, sent: Sent, token: str, mark: str) -> Booking | Book | None:
    if isinstance(sent.what, str):
        return None
    if unknown := set(sent.what.do) - set(ACTS):
        raise ValueError(f"There are no acts {unknown}.")
    # What befalls the store befalls reads too, and those are of accounts.
    mark = mark if sent.fault.startswith("store") else ""
    account = f"{token}{sent.what.account}{mark}"
    return sent.what.model_copy(update={"name": name, "account": account})


def events_of(sent: Sequence[Posted]) -> Mapping[str, Posted]:
    """One message for each event, by the name of the event."""
    return {each.name: each for each in reversed(sent)}
