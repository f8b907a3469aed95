"""How dead letters are shown: as tables, as JSON, as progress."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from shlex import quote
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from headrace.dlq.blocks import Head
from headrace.dlq.groups import Group, fingerprint, named
from headrace.dlq.redrive import Watcher
from headrace.text import counted

from .tables import console, line, table, time

if TYPE_CHECKING:
    from typing import Self

    from headrace.dlq.blocks import Waiting
    from headrace.dlq.fates import Fate
    from headrace.dlq.letters import Letter
    from headrace.dlq.records import Standing
    from headrace.dlq.redrive import Plan, Report

_table = partial(
    table,
    long=("event", "handler", "what", "reason", "one of them"),
    numbers=("letters", "waiting", "reasons"),
)
_SHOWN = 5

_NOT_SHOWN = (
    "The body cannot be decoded, so it is not known what in it is sensitive: --raw shows it as it "
    "is."
)


# --- tables ------------------------------------------------------------------------------


def letter_rows(letters: Sequence[Letter], *, as_json: bool) -> None:
    if as_json:
        _json_lines({**letter.as_json(), "group": fingerprint(letter)} for letter in letters)
        return
    rows = _table("group", "id", "given up", "event", "handler", "reason")
    for letter in letters:
        rows.add_row(
            fingerprint(letter),
            letter.original_id,
            time(letter.last_time),
            line(named(letter)),
            line(letter.handler or "-"),
            line(letter.reason),
        )
    console().print(rows)


def group_rows(groups: Sequence[Group], *, as_json: bool) -> None:
    if as_json:
        _json_lines(group.as_json() for group in groups)
        return
    rows = _table("group", "letters", "first", "last", "what", "reasons", "one of them", "its id")
    for group in groups:
        rows.add_row(
            group.fingerprint,
            f"{len(group.letters):,}",
            time(group.first_time),
            time(group.last_time),
            line(group.cause),
            f"{group.reasons:,}",
            line(group.example.reason),
            group.example.original_id,
        )
    console().print(rows)


def blocked_rows(found: Sequence[Waiting], service: str, *, as_json: bool) -> None:
    if as_json:
        _json_lines(waiting.as_json() for waiting in found)
        return
    rows = _table("handler", "group", "waiting", "since", "event id", "letter", "reason")
    for waiting in found:
        block = waiting.block
        rows.add_row(
            line(block.consumer),
            line(block.group),
            f"{block.waiting:,}",
            time(block.since),
            line(block.event_id),
            line(waiting.head.value),
            line(block.reason),
        )
    console().print(rows if found else "No message group waits for a letter.")
    for waiting in found:
        print(_next_of(waiting, service))


def _next_of(waiting: Waiting, service: str) -> str:
    block, given = waiting.block, quote(service)
    free = (
        f"`headrace dlq free {given} --consumer {quote(block.consumer)} "
        f"--group {quote(block.group)}`"
    )
    match waiting.head:
        case Head.THERE:
            redrive = f"`headrace dlq redrive {given} --id {waiting.letter_id}`"
            then = "" if waiting.parks else f"; then {free}, as this handler parks no more"
            what = f"Mend what the reason says, then {redrive}; or drop it{then}."
        case Head.GONE | Head.SETTLED if not waiting.parks:
            what = f"This handler parks no more: {free} sends back what waits."
        case Head.GONE:
            what = f"Its letter is no longer in the dead-letter queue: {free}."
        case Head.UNSEEN:
            what = "Whether its letter is there cannot be seen: look again in a minute."
        case _:
            what = f"It is dealt with, and `headrace dlq redrive {given}` goes on with the group."
    return f"{block.group}: {what}"


def _json_lines(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        print(orjson.dumps(row).decode())


# --- one letter --------------------------------------------------------------------------


def shown_letter(
    letter: Letter, standing: Standing, service: str, *, raw: bool, as_json: bool
) -> None:
    body = _body(letter, raw=raw)
    records = {name: _record(record) for name, record in standing.records.items()}
    if as_json:
        fields = {**letter.as_json(), "group": fingerprint(letter), "records": records}
        print(orjson.dumps({**fields, "body": body, "unreadable": letter.unreadable}).decode())
        return
    for name, value in _facts(letter):
        print(f"{name:<12} {value}")
    for name, record in records.items():
        print(f"{'inbox':<12} {name}: {record}")
    print(f"{'next':<12} {_next(letter, standing, service)}")
    print()
    print(body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False))


def _facts(letter: Letter) -> Iterable[tuple[str, object]]:
    note, delivery = letter.note, letter.delivery
    yield "letter", letter.original_id
    if letter.id != letter.original_id:
        yield "in SQS now", letter.id
    yield "group", fingerprint(letter)
    yield "queue", letter.source
    yield "event", f"{named(letter)}, {letter.event_id or 'without an id that can be read'}"
    yield "given up by", letter.handler or "-"
    yield "attempts", note.attempts or "-"
    yield "first", letter.first_time or "-"
    yield "last", letter.last_time or "-"
    if delivery.group_id is not None:
        yield "msg group", delivery.group_id
    if letter.correlation_id is not None:
        yield "correlation", letter.correlation_id
    yield "reason", letter.reason
    if letter.reconstructed:
        yield "", "This reason was not written down: it is put together from what is known now."
    if letter.error is not None:
        yield "error", letter.error
    for frame in note.frames:
        yield "  in", frame
    if note.redrive is not None:
        yield "redriven", f"by the run {note.redrive}, and failed again"
    if letter.unreadable and letter.unreadable != letter.reason:
        yield "unreadable", letter.unreadable


def _body(letter: Letter, *, raw: bool) -> Any:
    """What the message says; without what its fields say is sensitive, unless it is wanted raw."""
    if raw:
        try:
            return json.loads(letter.delivery.body)
        except ValueError:
            return letter.delivery.body
    from headrace.observe.redaction import redacted

    said = _unread(letter) if letter.message is None else redacted(letter.message)
    return said if isinstance(said, str) else {"detail-type": letter.name, "data": said}


def _unread(letter: Letter) -> dict[str, Any] | str:
    """What a body says that cannot be decoded, as far as it is known what in it is sensitive."""
    from headrace.dlq.edits import InvalidEdit, payload_in
    from headrace.events import registry
    from headrace.observe.redaction import redacted_payload

    cls = registry.find(letter.name or "")
    try:
        if cls is not None:
            return redacted_payload(cls, payload_in(json.loads(letter.delivery.body)))
    except (ValueError, InvalidEdit):
        return _NOT_SHOWN
    return _NOT_SHOWN


def _record(record: Any) -> str:
    if record is None:
        return "no record, so it has not committed"
    if record.outgoing:
        left = counted(len(record.outgoing), "message")
        return f"{record.status.value}, {left} may not be out"
    failures = f", {counted(record.failures, 'failure')}" if record.failures else ""
    return f"{record.status.value}{failures}"


def _next(letter: Letter, standing: Standing, service: str) -> str:
    redrive = f"`headrace dlq redrive {service} --id {letter.original_id}`"
    drop = f"`headrace dlq drop {service} --id {letter.original_id}`"
    if standing.done:
        return f"It is done: {redrive} only deletes it."
    if standing.stands:
        return (
            f"Its effects stand: {redrive} sends what is left of its messages, and so does {drop}."
        )
    if letter.unreadable:
        return (
            "The code here cannot read it: deploy what can, or mend it with --body, then "
            f"{redrive}. If nobody needs it, {drop}."
        )
    return f"Mend what the reason says, deploy, then {redrive}. If nobody needs it, {drop}."


# --- progress ----------------------------------------------------------------------------


class Lines(Watcher):
    """Says what a run does, a line each."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()

    def begin(self, total: int) -> None:
        """The letters are known, and are sent from now on."""

    def clear(self) -> None:
        """Something else is to be printed."""

    def already(self, letters: Sequence[Letter]) -> None:
        were, are = ("was", "is") if len(letters) == 1 else ("were", "are")
        print(f"{len(letters):,} {were} done before, and {are} deleted", flush=True)

    def step(self, group: Group, letters: Sequence[Letter], *, canary: bool) -> None:
        what = f"canary of {group.fingerprint} ({group.cause})" if canary else group.fingerprint
        print(f"{what}: {len(letters):,} sent back", flush=True)

    def said(self, text: str) -> None:
        print(text, flush=True)


class Progress(Lines):
    """Shows a bar, and above it what there is to say."""

    def __init__(self) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), transient=True
        )
        self._letters = self._bar.add_task("Reading", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def begin(self, total: int) -> None:
        self._bar.update(self._letters, description="Redriving", total=total, completed=0)
        self._bar.start()

    def clear(self) -> None:
        self._bar.stop()

    def read(self, count: int) -> None:
        self._bar.update(self._letters, completed=count)

    def already(self, letters: Sequence[Letter]) -> None:
        self._bar.advance(self._letters, len(letters))

    def step(self, group: Group, letters: Sequence[Letter], *, canary: bool) -> None:
        what = "Canary" if canary else f"{len(letters):,}"
        self._bar.update(self._letters, description=f"{what} of {group.fingerprint}")

    def settled(self, fate: Fate) -> None:
        self._bar.advance(self._letters)

    def said(self, text: str) -> None:
        self._bar.console.print(line(text))


def show_summary(report: Report, plan: Plan) -> None:
    for said in _summary(report, plan):
        print(said)


def _summary(report: Report, plan: Plan) -> Iterable[str]:
    counts = (
        (len(report.done), "done"),
        (len(report.already), "done before, and only deleted"),
        (len(report.assumed), "not seen again"),
    )
    said = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    yield f"{plan.source}: {said or 'none is done'}."
    if report.assumed:
        yield f"Of those not seen again: {report.assumed[0].why}"
    troubles = (
        ("failed again", [(fate.letter, fate.why) for fate in report.failed]),
        ("not known to be done", [(fate.letter, fate.why) for fate in report.unknown]),
        ("not taken by SQS", report.unsent),
        ("cannot be sent back so", report.unfit),
    )
    for what, letters in troubles:
        if letters:
            yield f"{len(letters):,} {what}:"
            yield from (f"  {letter.original_id}: {why}" for letter, why in letters[:_SHOWN])
            if letters[_SHOWN:]:
                yield f"  and {len(letters) - _SHOWN:,} more"
    if report.stuck:
        wait = "group waits" if len(report.stuck) == 1 else "groups wait"
        yield f"{len(report.stuck):,} message {wait} still: run this again."
    if report.stopped:
        yield f"Stopped. {_untouched(report.left)}"


def _untouched(count: int) -> str:
    if count == 1:
        return "1 more was not sent back, and stays as it is."
    return f"{count:,} more were not sent back, and stay as they are."
