"""What `headrace saga` shows: tables, one saga with its history, and JSON lines of the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

import orjson

from headrace.observe.redaction import redacted_payload
from headrace.saga.handling import sagas_of
from headrace.saga.item import course_of
from headrace.saga.machine import Action
from headrace.saga.progress import OVER, Direction, Status, StepProgress, StepStatus

from .tables import console, line, table, time

if TYPE_CHECKING:
    from rich.table import Table

    from headrace.saga.definition import Definition
    from headrace.saga.item import Course, SagaItem
    from headrace.saga.operating import Entry
    from headrace.service import Service

_table = partial(table, long=("key", "step", "reason"))

_GOING_ON: Final = frozenset(
    {StepStatus.SENT, StepStatus.PAUSED, StepStatus.UNDOING, StepStatus.UNDO_PAUSED}
)
_LATE: Final = timedelta(minutes=2)
"""After this a timer counts as lost: EventBridge Scheduler is up to a minute late."""


def command(name: str, service: str, saga: str, key: str) -> str:
    """A call of this command line, to be copied."""
    return f"`headrace saga {name} {quote(service)} {quote(key)} --saga {saga}`"


# --- a table -----------------------------------------------------------------------------


def saga_rows(items: Sequence[SagaItem], now: datetime, *, stuck: bool, as_json: bool) -> None:
    if as_json:
        for item in items:
            print(_dumped(_row(item, now)))
        return
    rows = _table("saga", "key", "version", "status", "step", "since", "age", "reason")
    for item in items:
        rows.add_row(
            _name(item),
            line(item.key),
            str(item.version),
            item.status.value,
            line(_where(item)),
            time(item.changed),
            _age(now - item.begun),
            line(item.trouble or item.reason or "-"),
        )
    nothing = "No saga is stuck." if stuck else "There are no sagas that are not over."
    console().print(rows if items else nothing)


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
    steps = course_of(item).all_steps(None)
    return ", ".join(f"{name} {_shown(steps[name])}" for name in _going_on(item)) or "-"


def _going_on(item: SagaItem) -> list[str]:
    if item.stuck is not None:
        return [item.stuck]
    return [name for name, step in course_of(item).steps.items() if step.status in _GOING_ON]


def _shown(step: StepProgress) -> str:
    return f"{step.status} ({step.attempt})" if step.attempt > 1 else step.status.value


# --- one saga ----------------------------------------------------------------------------


def shown_saga(
    item: SagaItem,
    history: Sequence[Entry],
    service: Service,
    given: str,
    now: datetime,
    *,
    as_json: bool,
) -> None:
    saga, course = sagas_of(service)[_name(item)], course_of(item)
    definition = saga.versions.get(item.version)
    if as_json:
        print(_dumped(_whole(item, history, definition, course)))
        return
    for name, value in _facts(item, definition, course, given, now):
        print(f"{name:<10} {value}")
    print()
    print(_stated(item, definition))
    console().print(_step_rows(course.all_steps(definition), definition))
    for entry in history:
        print("\n".join(_told(entry)))
    if not history:
        print("Its history is not to be seen yet, or has expired.")


def standing(item: SagaItem) -> str:
    """One line about a saga, before something is done with it."""
    why = item.trouble or item.reason
    reason = f": {why}" if why else ""
    at = f" at {_where(item)}" if _going_on(item) else ""
    return f"{item.consumer} {item.key} is {item.status}{at} since {time(item.changed)}{reason}"


def question(item: SagaItem, action: Action) -> str:
    step = item.stuck or "the step"
    undoes = course_of(item).direction is Direction.BACK
    match action:
        case Action.RESUME if item.stuck is None:
            return "Wake it, if something is overdue?"
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
    course: Course,
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
        "deadline": course.deadline,
        "state": None if definition is None else _state(item, definition),
        "steps": {
            name: {"status": step.status, "attempt": step.attempt, "due": step.due}
            for name, step in course.all_steps(definition).items()
        },
        "history": [entry.as_json() for entry in history],
    }


def _facts(
    item: SagaItem,
    definition: Definition | None,
    course: Course,
    service: str,
    now: datetime,
) -> Iterator[tuple[str, object]]:
    yield "saga", f"{item.consumer} {item.key}"
    yield "version", item.version if definition else f"{item.version}, which this code has not"
    yield "status", item.status if item.stuck is None else f"{item.status} at {item.stuck}"
    yield "begun", item.begun
    yield "changed", item.changed
    if course.deadline is not None and item.status is Status.RUNNING:
        yield "deadline", course.deadline
    if item.reason:
        yield "reason", item.reason
    if item.trouble:
        yield "trouble", item.trouble
    yield "next", _next(item, definition, course, service, now)


def _next(
    item: SagaItem,
    definition: Definition | None,
    course: Course,
    service: str,
    now: datetime,
) -> str:
    """What becomes of it, or what somebody has to do."""
    if item.status in (Status.COMPLETED, Status.COMPENSATED):
        return "It is over."
    if definition is None:
        return (
            f"No message of it can be handled by code without version {item.version}: deploy a "
            "class of that version beside the newer ones."
        )
    resume, skip, compensate = (
        command(action, service, _name(item), item.key)
        for action in (Action.RESUME, Action.SKIP, Action.COMPENSATE)
    )
    if item.stuck is not None:
        return (
            f"See in its history why, mend that, then {resume}. If {item.stuck} was seen to by "
            f"hand, {skip}."
        )
    due = min((step.due for step in course.steps.values() if step.due is not None), default=None)
    if due is not None and due + _LATE <= now:
        return f"{_unwoken(due, now)} {resume} wakes it."
    deadline = _deadline(definition, course)
    if deadline is not None and deadline + _LATE <= now:
        return f"{_unwoken(deadline, now)} {compensate} does what the deadline is for."
    waits = ", ".join(_going_on(item)) or "what comes next"
    until = "" if due is None else f", until {due} at the latest"
    return f"It waits for {waits}{until}: there is nothing to do."


def _deadline(definition: Definition, course: Course) -> datetime | None:
    """When it is undone, if it can be still."""
    pivot = definition.pivot
    past = pivot is not None and course.all_steps(definition)[pivot.name].status in OVER
    return None if past or course.direction is Direction.BACK else course.deadline


def _unwoken(due: datetime, now: datetime) -> str:
    return (
        f"It was to go on at {due}, {_age(now - due)} ago, and nothing woke it. If a worker runs, "
        "and keeps up with its queue, the timer is lost, or a dead letter:"
    )


def _stated(item: SagaItem, definition: Definition | None) -> str:
    if definition is None:
        return "Its state is not shown: without its class it is not known what in it is sensitive."
    return json.dumps(_state(item, definition), indent=2, ensure_ascii=False)


def _state(item: SagaItem, definition: Definition) -> dict[str, Any]:
    """Without what its fields say is sensitive."""
    return redacted_payload(definition.cls, orjson.loads(item.state))


def _step_rows(steps: dict[str, StepProgress], definition: Definition | None) -> Table:
    rows = _table("step", "status", "attempt", "due", "undone by")
    for name, step in steps.items():
        known = definition.steps.get(name) if definition else None
        undo = known.reverse if known else None
        rows.add_row(
            name,
            step.status.value,
            str(step.attempt or "-"),
            time(step.due),
            undo.name if undo else "-",
        )
    return rows


def _told(entry: Entry) -> Iterator[str]:
    yield f"{time(entry.time)}  {entry.turn:>3}  {entry.event} {entry.id}: {entry.status}"
    yield from (f"{'':>21}{change}" for change in entry.changes)
    if entry.sent:
        yield f"{'':>21}sent: {', '.join(entry.sent)}"


# --- how ---------------------------------------------------------------------------------


def _name(item: SagaItem) -> str:
    return item.consumer.rpartition(".")[2]


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
