"""What `headrace saga` shows: tables, one saga with its history, and JSON lines of the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

import orjson
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.observe.redaction import redacted_payload
from headrace.saga.handling import sagas_of
from headrace.saga.machine import Action
from headrace.saga.operating import deadline_of, steps_of
from headrace.saga.progress import Direction, Status, StepProgress, StepStatus

if TYPE_CHECKING:
    from headrace.saga.definition import Definition
    from headrace.saga.item import SagaItem
    from headrace.saga.operating import Entry
    from headrace.service import Service

_LONG: Final = ("key", "step", "reason")
_MOST: Final = 200
"""Characters of a reason in a table."""

_UNBROKEN: Final = 1_000
"""Columns where there is no terminal: a file or another program has no edge."""

_GOING_ON: Final = frozenset(
    {StepStatus.SENT, StepStatus.PAUSED, StepStatus.UNDOING, StepStatus.UNDO_PAUSED}
)


def command(name: str, service: str, saga: str, key: str) -> str:
    """A call of this command line, to be copied."""
    return f"`headrace saga {name} {quote(service)} {quote(key)} --saga {saga}`"


# --- a table -----------------------------------------------------------------------------


def saga_rows(items: Sequence[SagaItem], now: datetime, *, stuck: bool, as_json: bool) -> None:
    if as_json:
        for item in items:
            print(_dumped(_row(item, now)))
        return
    table = _table("saga", "key", "version", "status", "step", "since", "age", "reason")
    for item in items:
        table.add_row(
            _name(item),
            _line(item.key),
            str(item.version),
            item.status.value,
            _line(_where(item)),
            _time(item.changed),
            _age(now - item.begun),
            _line(item.trouble or item.reason or "-"),
        )
    nothing = "No saga is stuck." if stuck else "There are no sagas that are not over."
    _console().print(table if items else nothing)


def _row(item: SagaItem, now: datetime) -> dict[str, Any]:
    return {
        "saga": _name(item),
        "key": item.key,
        "version": item.version,
        "status": item.status,
        "steps": _going_on(item),
        "begun": item.begun,
        "since": item.changed,
        "age": round((now - item.begun).total_seconds()),
        "reason": item.reason,
        "trouble": item.trouble,
    }


def _where(item: SagaItem) -> str:
    """The steps that it waits for, or the one that waits for somebody."""
    steps = steps_of(item, None)
    return ", ".join(f"{name} {_shown(steps[name])}" for name in _going_on(item)) or "-"


def _going_on(item: SagaItem) -> list[str]:
    if item.stuck is not None:
        return [item.stuck]
    return [name for name, step in steps_of(item, None).items() if step.status in _GOING_ON]


def _shown(step: StepProgress) -> str:
    return f"{step.status} ({step.attempt})" if step.attempt > 1 else step.status.value


# --- one saga ----------------------------------------------------------------------------


def shown_saga(
    item: SagaItem, history: Sequence[Entry], service: Service, given: str, *, as_json: bool
) -> None:
    saga = sagas_of(service)[_name(item)]
    definition = saga.versions.get(item.version)
    steps = steps_of(item, definition)
    if as_json:
        print(_dumped(_whole(item, history, definition, steps)))
        return
    for name, value in _facts(item, definition, steps, given):
        print(f"{name:<10} {value}")
    print()
    print(_stated(item, definition))
    _console().print(_step_rows(steps, definition))
    for entry in history:
        print("\n".join(_told(entry)))
    if not history:
        print("Its history is not to be seen yet, or has expired.")


def standing(item: SagaItem) -> str:
    """One line about a saga, before something is done with it."""
    why = item.trouble or item.reason
    reason = f": {why}" if why else ""
    at = f" at {_where(item)}" if _going_on(item) else ""
    return f"{item.consumer} {item.key} is {item.status}{at} since {_time(item.changed)}{reason}"


def question(item: SagaItem, action: Action) -> str:
    step = item.stuck or "the step"
    undoes = orjson.loads(item.progress)["direction"] == Direction.BACK
    match action:
        case Action.RESUME:
            return f"Try {'to undo ' if undoes else ''}{step} again?"
        case Action.SKIP if undoes:
            return f"Let {step} count as undone, and go on?"
        case Action.SKIP:
            return f"Let {step} count as done, and go on?"
        case Action.COMPENSATE:
            return "Undo what was done, and do nothing more?"


def _whole(
    item: SagaItem,
    history: Sequence[Entry],
    definition: Definition | None,
    steps: dict[str, StepProgress],
) -> dict[str, Any]:
    return {
        "saga": _name(item),
        "key": item.key,
        "version": item.version,
        "known": definition is not None,
        "status": item.status,
        "stuck": item.stuck,
        "reason": item.reason,
        "trouble": item.trouble,
        "begun": item.begun,
        "changed": item.changed,
        "deadline": deadline_of(item),
        "state": None if definition is None else _state(item, definition),
        "steps": {
            name: {"status": step.status, "attempt": step.attempt, "due": step.due}
            for name, step in steps.items()
        },
        "history": [entry.as_json() for entry in history],
    }


def _facts(
    item: SagaItem,
    definition: Definition | None,
    steps: dict[str, StepProgress],
    service: str,
) -> Iterator[tuple[str, object]]:
    yield "saga", f"{item.consumer} {item.key}"
    yield "version", item.version if definition else f"{item.version}, which this code has not"
    yield "status", item.status if item.stuck is None else f"{item.status} at {item.stuck}"
    yield "begun", item.begun
    yield "changed", item.changed
    if (deadline := deadline_of(item)) is not None and item.status is Status.RUNNING:
        yield "deadline", deadline
    if item.reason:
        yield "reason", item.reason
    if item.trouble:
        yield "trouble", item.trouble
    yield "next", _next(item, definition, steps, service)


def _next(
    item: SagaItem,
    definition: Definition | None,
    steps: dict[str, StepProgress],
    service: str,
) -> str:
    """What becomes of it, or what somebody has to do."""
    if item.status in (Status.COMPLETED, Status.COMPENSATED):
        return "It is over."
    if definition is None:
        return (
            f"No message of it can be handled by code without version {item.version}: deploy a "
            "class of that version beside the newer ones."
        )
    if item.stuck is not None:
        resume, skip = (
            command(name, service, _name(item), item.key) for name in (Action.RESUME, Action.SKIP)
        )
        return (
            f"See in its history why, mend that, then {resume}. If {item.stuck} was seen to by "
            f"hand, {skip}."
        )
    dues = [step.due for step in steps.values() if step.due is not None]
    waits = ", ".join(_going_on(item)) or "what comes next"
    until = f", until {min(dues)} at the latest" if dues else ""
    return f"It waits for {waits}{until}: there is nothing to do."


def _stated(item: SagaItem, definition: Definition | None) -> str:
    if definition is None:
        return "Its state is not shown: without its class it is not known what in it is sensitive."
    return json.dumps(_state(item, definition), indent=2, ensure_ascii=False)


def _state(item: SagaItem, definition: Definition) -> dict[str, Any]:
    """Without what its fields say is sensitive."""
    return redacted_payload(definition.cls, orjson.loads(item.state))


def _step_rows(steps: dict[str, StepProgress], definition: Definition | None) -> Table:
    table = _table("step", "status", "attempt", "due", "undone by")
    for name, step in steps.items():
        known = definition.steps.get(name) if definition else None
        undo = known.reverse if known else None
        table.add_row(
            name,
            step.status.value,
            str(step.attempt or "-"),
            _time(step.due),
            undo.name if undo else "-",
        )
    return table


def _told(entry: Entry) -> Iterator[str]:
    yield f"{_time(entry.time)}  {entry.turn:>3}  {entry.event} {entry.id}: {entry.status}"
    yield from (f"{'':>21}{change}" for change in entry.changes)
    if entry.sent:
        yield f"{'':>21}sent: {', '.join(entry.sent)}"


# --- how ---------------------------------------------------------------------------------


def _name(item: SagaItem) -> str:
    return item.consumer.rpartition(".")[2]


def _console() -> Console:
    found = Console(highlight=False)
    return found if found.is_terminal else Console(width=_UNBROKEN, highlight=False)


def _table(*columns: str) -> Table:
    """Only what can be said in fewer words gives way where there is little room."""
    table = Table(box=SIMPLE_HEAD, header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column not in _LONG)
    return table


def _line(text: str) -> Text:
    """On one line, and never read as markup: a sender may have written it."""
    words = " ".join(text.split())
    cut = words if len(words) <= _MOST else f"{words[: _MOST - 1]}…"
    return Text(cut, no_wrap=True, overflow="ellipsis")


def _time(time: datetime | None) -> str:
    return "-" if time is None else time.astimezone().strftime("%m-%d %H:%M:%S")


def _age(age: timedelta) -> str:
    """In the two largest units."""
    seconds, parts = max(0, int(age.total_seconds())), list[str]()
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, unit)
        if count or parts or unit == 1:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def _dumped(row: dict[str, Any]) -> str:
    return orjson.dumps(row, option=orjson.OPT_UTC_Z).decode()
