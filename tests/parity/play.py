"""One case on one host: messages are sent, the host handles them, and everything is looked at."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, Final

from headrace.entity import from_item, key_for
from headrace.envelope import derived_id
from headrace.ports import Delivery, Item, ItemKey
from headrace.service import Handler
from headrace.topology.model import dead_letter_queue
from tests.parity.app import auditor, books, clerk
from tests.parity.case import Case, Fate, Inbox
from tests.parity.contracts import Account
from tests.parity.hosts import TOPOLOGY, Host, Round
from tests.parity.journal import Entry
from tests.parity.posting import LANE, QUEUE, Posted, account_of, events_of, held_back, posted
from tests.parity.stage import STAGE

TURN: Final = count()


@dataclass(slots=True)
class Facts:
    """What came of a case on one host.

    `fates` are those of each message, round after round; `visible` and `hidden` count the messages
    in the queues after each round. `letters` are dead letters by body, `out` counts what is on the
    bus or in the queue of another service by its id, and `items` says of every account that a case
    names what is booked there, or `None`.
    """

    messages: Sequence[Posted]
    fates: defaultdict[Posted, list[Fate]] = field(default_factory=lambda: defaultdict(list))
    visible: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)
    letters: defaultdict[str, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    ids: dict[Posted, str] = field(default_factory=dict)
    message_ids: dict[Posted, str] = field(default_factory=dict)
    accounts: dict[str, list[str] | None] = field(default_factory=dict)
    inbox: dict[tuple[str, str], Inbox] = field(default_factory=dict)
    details: list[Mapping[str, Any]] = field(default_factory=list)
    journal: Sequence[Entry] = ()


async def play(case: Case, host: Host) -> Facts:
    """What comes of the case. Raises `TimeoutError` if the host does not end."""
    token = f"{host.name}/{next(TURN)}/"
    messages = posted(case, token)
    facts = Facts(messages)
    await host.begin()
    try:
        left = await _rounds(case, messages, host, facts)
        await _look_around(case, token, host, facts)
        await _delete(left, host)
    except Exception:
        await _clear(host)
        raise
    finally:
        STAGE.end(token)
    facts.journal = [e for e in host.entries() if _is_about(e, token, facts)]
    return facts


def _is_about(entry: Entry, token: str, facts: Facts) -> bool:
    return token in entry.about or entry.about in facts.message_ids.values()


# --- rounds --------------------------------------------------------------------------------------


async def _rounds(
    case: Case, messages: Sequence[Posted], host: Host, facts: Facts
) -> Sequence[Posted]:
    """Returns what is in the queues in the end."""
    there: list[Posted] = []
    for number in range(1, case.rounds + 1):
        new = [message for message in messages if message.sent_in == number]
        await _send(new, host)
        there += new
        if number == 1:
            for _ in range(case.received):
                await _receive_in_vain(there, host)
        if not there:
            break
        behind = [message for message in held_back(number, messages) if message in there]
        await host.handle(Round(there, behind, case.cut_short))
        there = await _what_comes_again(there, host, facts)
    return there


async def _send(messages: Sequence[Posted], host: Host) -> None:
    for queue in dict.fromkeys(message.queue for message in messages):
        entries = [message.entry for message in messages if message.queue == queue]
        assert await host.ports.queues.send(queue, entries) == []


async def _receive_in_vain(messages: Sequence[Posted], host: Host) -> None:
    """As if a host had received them and come to nothing."""
    for queue, number in Counter(message.queue for message in messages).items():
        await host.received(queue, number)
    await _reveal(messages, host)


async def _what_comes_again(there: list[Posted], host: Host, facts: Facts) -> list[Posted]:
    """Note the fates of the messages in this round; what is in the queue is made visible."""
    queues = dict.fromkeys(message.queue for message in there)
    depths = [await host.ports.queues.depth(queue) for queue in queues]
    facts.visible.append(sum(depth.visible for depth in depths))
    facts.hidden.append(sum(depth.in_flight + depth.delayed for depth in depths))
    again = await _reveal(there, host)
    for queue in queues:
        for letter in await _drained(dead_letter_queue(queue), host):
            facts.letters[letter.body].append(letter)
    last = {e.about: e.seconds for e in host.entries() if e.what == "hid"}
    for message in there:
        delivery = host.latest[message.entry.body]
        facts.message_ids[message] = delivery.message_id
        facts.ids[message] = delivery.message_id if message.has_id_of_message else message.id
        if message in again:
            soon = last.get(delivery.message_id) == 0
            facts.fates[message].append(Fate.SOON if soon else Fate.LATER)
        else:
            dead = message.entry.body in facts.letters
            facts.fates[message].append(Fate.DEAD if dead else Fate.ACKED)
    return again


async def _reveal(messages: Sequence[Posted], host: Host) -> list[Posted]:
    """Make everything that is still in the queue visible; returns what was."""
    found = []
    for queue in dict.fromkeys(message.queue for message in messages):
        here = [message for message in messages if message.queue == queue]
        changes = [(host.latest[m.entry.body].receipt_handle, timedelta(0)) for m in here]
        failures = await host.ports.queues.change_visibility(queue, changes)
        # What is visible already is there too; only an account in memory minds.
        gone = {f.index for f in failures if f.code != "MessageNotInflight"}
        found += [message for index, message in enumerate(here) if index not in gone]
    return found


# --- what there is to see ------------------------------------------------------------------------


async def _look_around(case: Case, token: str, host: Host, facts: Facts) -> None:
    accounts, records = _account_keys(case, token, facts), _record_keys(facts)
    found = await _items([*accounts.values(), *records.values()], host)
    facts.accounts = {name: _entries(found[key]) for name, key in accounts.items()}
    facts.inbox = {each: _status(found[key]) for each, key in records.items()}
    for queue in (auditor.name, clerk.name):
        facts.details += [json.loads(each.body)["detail"] for each in await _drained(queue, host)]


def _account_keys(case: Case, token: str, facts: Facts) -> dict[str, ItemKey]:
    """Every account that the case or a message of it names, and what handlers that fail leave."""
    named = {*case.accounts, *(m.account for m in facts.messages if m.account)}
    keys = {}
    for name in sorted({*named, *(f"{name}-trace" for name in named)}):
        base, dash, rest = name.partition("-")
        number = account_of(token, base, facts.messages) + dash + rest
        keys[name] = key_for(Account, str(books.table), (number,), {})
    return keys


def _record_keys(facts: Facts) -> dict[tuple[str, str], ItemKey]:
    """By the name of the event and of the handler."""
    return {
        (name, handler.name): ItemKey(
            str(books.table), f"inbox#{handler.consumer}#{facts.ids[message]}", "-"
        )
        for name, message in events_of(facts.messages).items()
        for handler in message.handlers
    }


async def _items(keys: Sequence[ItemKey], host: Host) -> dict[ItemKey, Item | None]:
    items = await host.ports.store.get(keys) if keys else []
    return dict(zip(keys, items, strict=True))


def _entries(item: Item | None) -> list[str] | None:
    return None if item is None else from_item(Account, item).entries


def _status(item: Item | None) -> Inbox:
    return Inbox.NONE if item is None else Inbox(item["status"]["S"])


def id_out(handler: Handler, cause: str, index: int, detail: Mapping[str, Any]) -> str:
    """The id that a message must have which this handler caused in this place."""
    place = str(index)
    if handler.idempotent:
        place += " " + json.dumps(detail["data"], separators=(",", ":"))
    return derived_id(handler.consumer, cause, place)


# --- receiving without a host --------------------------------------------------------------------


async def _drained(queue: str, host: Host) -> list[Delivery]:
    """Everything that is visible in a queue, which is empty then."""
    found: list[Delivery] = []
    queues = host.ports.queues
    while batch := await queues.receive(queue, limit=10, wait=timedelta(0)):
        await queues.delete(queue, [delivery.receipt_handle for delivery in batch])
        found += batch
        if len(batch) < 10:
            break
    return found


async def _delete(messages: Sequence[Posted], host: Host) -> None:
    for queue in dict.fromkeys(message.queue for message in messages):
        here = [message for message in messages if message.queue == queue]
        receipts = [host.latest[message.entry.body].receipt_handle for message in here]
        await host.ports.queues.delete(queue, receipts)


async def _clear(host: Host) -> None:
    """Leave nothing to the next case of what one left that ended early."""
    for queue in (QUEUE, LANE):
        changes = [
            (delivery.receipt_handle, timedelta(0))
            for delivery in host.latest.values()
            if delivery.queue == queue
        ]
        if changes:
            await host.ports.queues.change_visibility(queue, changes)
    for each in TOPOLOGY.queues:
        await _drained(each.name, host)
