"""What a case expects, against what came of it: the differences, as sentences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from headrace import Delivery
from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.service import Handler
from tests.parity.case import ACKED, BY_FATE, DEAD, DONE, NONE, SOON, Case, Count, Inbox, Note
from tests.parity.play import Facts, id_out
from tests.parity.posting import Posted, events_of

Value = TypeVar("Value")


def findings(case: Case, facts: Facts) -> list[str]:
    """Everything that is not as the case says; nothing, if it all is."""
    return [
        *_fates(facts),
        *_counts(case, facts),
        *_letters(facts),
        *_waits(facts),
        *_faults(facts),
        *_runs(facts),
        *_records(facts),
        *_accounts(case, facts),
        *_published(facts),
    ]


def _fates(facts: Facts) -> Iterator[str]:
    """Of two copies, whichever is which."""
    for name in events_of(facts.messages):
        copies = [message for message in facts.messages if message.name == name]
        found = sorted(tuple(facts.fates[copy]) for copy in copies)
        wanted = sorted(copy.fates for copy in copies)
        if found != wanted:
            yield f"{name}: its fate is {_shown(found)}, not {_shown(wanted)}"


def _counts(case: Case, facts: Facts) -> Iterator[str]:
    for number in range(1, case.rounds + 1):
        fates = [
            message.fates[number - message.sent_in]
            for message in facts.messages
            if message.sent_in <= number < message.sent_in + len(message.fates)
        ]
        visible = fates.count(SOON)
        hidden = sum(fate.comes_again for fate in fates) - visible
        found = [*zip(facts.visible, facts.hidden, strict=True), (None, None)][number - 1]
        if found != (visible, hidden):
            yield (
                f"round {number}: {found[0]} visible and {found[1]} hidden messages are left, not "
                f"{visible} and {hidden}"
            )


# --- dead letters --------------------------------------------------------------------------------


def _letters(facts: Facts) -> Iterator[str]:
    for message in facts.messages:
        letters = facts.letters[message.entry.body]
        given = message.sent.letters
        wanted = (message.fates[-1] is DEAD) if given is None else given
        if len(letters) != wanted:
            yield f"{message.name}: there are {len(letters)} dead letters, not {int(wanted)}"
        elif letters and message.sent.note is not None:
            yield from _note(message, letters[-1], message.sent.note)
        elif letters:
            yield f"{message.name}: the case does not say what stands on its dead letter"


def _note(message: Posted, letter: Delivery, wanted: Note) -> Iterator[str]:
    found = json.loads(letter.attributes[NOTE_ATTRIBUTE].value)
    said = (found["handler"], found["attempts"])
    if said != (wanted.handler, wanted.attempts):
        yield f"{message.name}: its letter says {said}, not {wanted.handler, wanted.attempts}"
    if wanted.reason not in found["reason"]:
        yield f"{message.name}: the reason is {found['reason']!r}, not {wanted.reason!r}"
    kept = {k: v for k, v in letter.attributes.items() if k != NOTE_ATTRIBUTE}
    if kept != message.entry.attributes:
        yield f"{message.name}: the attributes of its letter are {kept}"
    if letter.group_id != message.entry.group_id:
        yield f"{message.name}: its letter is in the group {letter.group_id!r}"


# --- inside of the host --------------------------------------------------------------------------


def _waits(facts: Facts) -> Iterator[str]:
    for message in facts.messages:
        if message.sent.hidden is None:
            continue
        id = facts.message_ids[message]
        found = [e.seconds for e in facts.journal if e.what == "hid" and e.about == id]
        if found[-1:] != [message.sent.hidden.total_seconds()]:
            yield f"{message.name}: it was hidden for {found}, not {message.sent.hidden}"


def _faults(facts: Facts) -> Iterator[str]:
    """A fault that never bit proves nothing."""
    bitten = {entry.about for entry in facts.journal if entry.what == "bit"}
    for message in facts.messages:
        if message.sent.fault and message.id not in bitten:
            yield f"{message.name}: {message.sent.fault} never bit"


def _runs(facts: Facts) -> Iterator[str]:
    ran = Counter((entry.about, entry.by) for entry in facts.journal if entry.what == "ran")
    for message, handler in _handled(facts):
        wanted = _of(message.sent.runs, handler, 1)
        found = ran.pop((facts.ids[message], handler.name), 0)
        if not _is(found, wanted):
            yield f"{message.name}: {handler.name} ran {found} times, not {_shown(wanted)}"
    for about, by in ran:
        yield f"{by} ran for {about}, which was not for it"


# --- what is left behind -------------------------------------------------------------------------


def _records(facts: Facts) -> Iterator[str]:
    for message, handler in _handled(facts):
        by_fate = DONE if message.fates[-1] is ACKED and not handler.idempotent else NONE
        wanted: Inbox = _of(message.sent.inbox, handler, by_fate)
        found = facts.inbox[message.name, handler.name]
        if found is not wanted:
            yield f"{message.name}: the record of {handler.name} is {found}, not {wanted}"


def _accounts(case: Case, facts: Facts) -> Iterator[str]:
    in_order = any(message.sent.group for message in facts.messages) or case.rounds > 1
    for name, entries in facts.accounts.items():
        wanted = case.accounts[name].split() if name in case.accounts else None
        found = entries
        if not in_order:
            found, wanted = (x and sorted(x) for x in (found, wanted))
        if found != wanted:
            yield f"account {name}: {_shown(found)} is booked, not {_shown(wanted)}"


def _published(facts: Facts) -> Iterator[str]:
    """Every message that is out has the id that its cause gives it, and is out as often as it
    should be."""
    out = Counter(str(detail["metadata"]["id"]) for detail in facts.details)
    details = {str(detail["metadata"]["id"]): detail for detail in facts.details}
    for message, handler in _handled(facts):
        by_fate: tuple[Count, ...] = (1,) if message.fates[-1] is ACKED else ()
        wanted = _of(message.sent.out, handler, by_fate)
        found = []
        for index in range(len(wanted) + 1):
            id = _id_out(message, handler, index, details, facts)
            found.append(out.pop(id, 0))
            if found[-1]:
                yield from _lineage(message, details[id], facts)
        if not all(map(_is, found, (*wanted, 0))):
            sent = f"what {handler.name} sends is out {_shown(found)} times"
            yield f"{message.name}: {sent}, not {_shown(wanted)}"
    for id in out:
        yield f"nobody should have sent {details[id]}"


def _id_out(
    message: Posted, handler: Handler, index: int, details: Mapping[str, Any], facts: Facts
) -> str:
    """The id that a message must have which this handler caused in this place; for an idempotent
    one it depends on what is in it."""
    cause = facts.ids[message]
    candidates = {id_out(handler, cause, index, detail) for detail in details.values()}
    return next((id for id in candidates if id in details), "")


def _lineage(message: Posted, detail: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    metadata = detail["metadata"]
    if metadata["causation_id"] != facts.ids[message]:
        yield f"{message.name}: what it caused names {metadata['causation_id']} as its cause"
    if not metadata["correlation_id"].endswith(facts.ids[message]):
        yield f"{message.name}: what it caused has the correlation {metadata['correlation_id']}"


# --- reading a case ------------------------------------------------------------------------------


def _handled(facts: Facts) -> Iterator[tuple[Posted, Handler]]:
    """Every event with every handler of it, where there is anything to be handled."""
    for message in events_of(facts.messages).values():
        for handler in message.handlers:
            if message.fates and message in facts.ids:
                yield message, handler


def _of(given: Any, handler: Handler, by_fate: Value) -> Value:
    if given is BY_FATE:
        return by_fate
    value: Value = given[handler.name] if isinstance(given, Mapping) else given
    return value


def _is(found: int, wanted: Count) -> bool:
    return found in wanted if isinstance(wanted, frozenset) else found == wanted


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple, frozenset)):
        return ", ".join(map(_shown, value)) or "nothing"
    return "nothing" if value is None else str(value)
