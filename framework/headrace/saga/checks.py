"""What can be wrong with a saga, found when its class is made."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from headrace.errors import DefinitionError
from headrace.events import MessageType, contract_of, ensure_buildable
from headrace.saga.definition import (
    ONCE,
    Definition,
    FreeForm,
    Retries,
    Step,
    TimedOut,
    Undo,
    members,
    resolve,
)


def defined(definition: Definition) -> Definition:
    """The definition with its steps, each in its place. Raises `DefinitionError`."""
    _collect(definition)
    _refuse_bad_class(definition)
    _order(definition)
    resolve(definition)
    _settle_pivot(definition)
    _refuse_bad_begin(definition)
    for step in definition.steps.values():
        _refuse_bad_step(definition, step)
    _map_answers(definition)
    _refuse_missing_keys(definition)
    _refuse_missing_state(definition)
    return definition


def _collect(definition: Definition) -> None:
    for name, value in members(definition):
        if isinstance(value, Step):
            # A class that is derived from this one has the same object.
            reverse = value.reverse and replace(value.reverse)
            definition.steps[name] = replace(value, takes=dict(value.takes), reverse=reverse)
        elif isinstance(value, FreeForm):
            for cls in value.types:
                if cls in definition.free:
                    other = definition.free[cls]
                    raise _wrong(
                        definition,
                        f"handles {cls.__name__} in {other.name} and in {value.name}: join them",
                    )
                definition.free[cls] = value


def _order(definition: Definition) -> None:
    known: list[str] = []
    for name, step in definition.steps.items():
        if step.given_after is None:
            step.after = tuple(known[-1:])
        else:
            strangers = [s.name for s in step.given_after if s.name not in known]
            if strangers:
                raise _wrong(
                    definition,
                    f"has the step {name} after {strangers[0]}, which is no step that stands above "
                    "it in this class",
                )
            step.after = tuple(s.name for s in step.given_after)
        known.append(name)


def _settle_pivot(definition: Definition) -> None:
    """Find what stands after the point of no return, and how often each step is sent."""
    pivots = [step for step in definition.steps.values() if step.pivot]
    if len(pivots) > 1:
        names = " and ".join(step.name for step in pivots)
        raise _wrong(definition, f"has several points of no return, {names}: choose one")
    if pivots:
        definition.pivot = pivots[0]
        before = definition.before(pivots[0].name)
        after = {n for n in definition.steps if pivots[0].name in definition.before(n)}
        aside = [n for n in definition.steps if n not in before | after | {pivots[0].name}]
        if aside:
            raise _wrong(
                definition,
                f"has the step {aside[0]} beside its point of no return, {pivots[0].name}: nobody "
                "could say whether it is to be undone. Let one of them wait for the other with "
                "after=",
            )
        definition.after_pivot = frozenset(after)
    for step in definition.steps.values():
        forward = step.pivot or step.name in definition.after_pivot
        step.retries = step.given_retries or (Retries() if forward else ONCE)


# --- the class -------------------------------------------------------------------------


def _refuse_bad_class(definition: Definition) -> None:
    cls = definition.cls
    if not definition.starts_on:
        raise _wrong(definition, "is started by nothing: write starts_on=OrderPlaced")
    if definition.key not in cls.model_fields:
        fields = ", ".join(cls.model_fields) or "none"
        raise _wrong(
            definition,
            f"has the key {definition.key!r}, which is not a field of it: its fields are {fields}",
        )
    if not definition.steps:
        raise _wrong(definition, "has no steps: write @step(done=…) above the methods that are")
    if not isinstance(definition.version, int) or definition.version < 1:
        raise _wrong(
            definition, f"has the version {definition.version!r}: versions are numbers from 1"
        )
    if definition.deadline is not None and definition.deadline.total_seconds() <= 0:
        raise _wrong(definition, "has a deadline that is over before it begins")


def _refuse_bad_begin(definition: Definition) -> None:
    begin = getattr(definition.cls, "begin", None)
    names = " | ".join(cls.__name__ for cls in definition.starts_on)
    if begin is None or not callable(begin):
        raise _wrong(
            definition,
            f"does not say with which state it begins: write a class method begin(cls, event: "
            f"{names}) -> {definition.cls.__name__}",
        )
    for cls in definition.starts_on:
        contract_of(cls)
        ensure_buildable(cls)
        if cls in definition.free:
            raise _wrong(definition, f"both begins with {cls.__name__} and handles it: choose one")


# --- steps -----------------------------------------------------------------------------


def _refuse_bad_step(definition: Definition, step: Step) -> None:
    _refuse_dead_end(definition, step)
    if step.answers and not step.sends:
        raise _wrong(
            definition, f"waits in {step.name} for an answer to nothing: return the command"
        )
    if step.local and step.timeout is not None:
        raise _wrong(
            definition,
            f"gives {step.name} a timeout, and it sends nothing: leave timeout out",
        )
    if step.waits and not step.failed and step.timeout is None:
        raise _wrong(
            definition,
            f"has a step that cannot fail: {step.name} would wait for ever when no answer comes. "
            "Name what says that it failed, failed=…, or how long it may take, timeout=…",
        )
    if step.waits and step.timeout is None and (step.pivot or step.name in definition.after_pivot):
        raise _wrong(
            definition,
            f"would not send {step.name} again after the point of no return, as it has no timeout: "
            "write timeout=…",
        )
    if step.reverse is not None and step.nothing_to_undo:
        raise _wrong(
            definition,
            f"undoes {step.name} by {step.reverse.name}, and says that there is nothing to undo: "
            "leave one of the two out",
        )
    if step.reverse is not None and step.name in definition.after_pivot:
        raise _wrong(
            definition,
            f"undoes {step.name} by {step.reverse.name}, which stands after the point of no "
            "return: what is there is never undone. Leave the undo out, or move the step",
        )
    _refuse_strange_takes(definition, step)


def _refuse_dead_end(definition: Definition, step: Step) -> None:
    if not step.answers or step.done:
        return
    behind = [s.name for s in definition.steps.values() if step.name in s.after]
    what = f", so {behind[0]} is never reached" if behind else ", so the saga would never end"
    raise _wrong(
        definition,
        f"has a step that is never done: {step.name} names no done={what}. Name what says that it "
        "is done",
    )


def _refuse_strange_takes(definition: Definition, step: Step) -> None:
    known: set[type] = {*step.answers, TimedOut}
    if step.reverse is not None:
        known |= {*step.reverse.done, *step.reverse.failed}
    for answer, function in step.takes.items():
        if answer not in known:
            raise _wrong(
                definition,
                f"takes {answer.__name__} in {function.__name__}, and nothing maps it: name it in "
                f"done=, failed= or again= of the step {step.name}",
            )
        if answer is TimedOut and step.timeout is None:
            raise _wrong(
                definition,
                f"has {function.__name__} for the time when {step.name} is not answered, and the "
                "step has no timeout: write timeout=…",
            )


def _map_answers(definition: Definition) -> None:
    for step in definition.steps.values():
        for cls in step.answers:
            _map(definition, cls, step, None)
        if step.reverse is not None:
            for cls in (*step.reverse.done, *step.reverse.failed):
                _map(definition, cls, step, step.reverse)


def _map(definition: Definition, cls: MessageType, step: Step, undo: Undo | None) -> None:
    name = undo.name if undo else step.name
    known = definition.answers.get(cls)
    if known is not None:
        other = known[1].name if known[1] else known[0].name
        raise _wrong(
            definition,
            f"maps {cls.__name__} twice, in {other} and in {name}: when it comes, nobody could say "
            "which of them it answers. Give them answers of their own",
        )
    if cls in definition.starts_on or cls in definition.free:
        raise _wrong(
            definition,
            f"maps {cls.__name__} in {name}, and also begins with it or handles it: choose one",
        )
    definition.answers[cls] = (step, undo)


# --- state -----------------------------------------------------------------------------


def _refuse_missing_keys(definition: Definition) -> None:
    for cls in definition.takes:
        ensure_buildable(cls)
        field = definition.keys.get(cls, definition.key)
        if field not in cls.model_fields:
            raise _wrong(
                definition,
                f"cannot tell which saga {cls.__name__} is for, as it has no field {field!r}: add "
                f'the field, or write keys={{{cls.__name__}: "…"}} with the one that says it',
            )
    strangers = [cls.__name__ for cls in definition.keys if cls not in definition.takes]
    if strangers:
        raise _wrong(definition, f"names a key for {strangers[0]}, which it does not take")


def _refuse_missing_state(definition: Definition) -> None:
    """What a method wants of the state has to be a field, and what an undo wants has to get a
    value somewhere."""
    cls = definition.cls
    written = {name for f in _functions(definition) for name in _attributes(f, "STORE_ATTR")}
    for function in _functions(definition):
        for name in _attributes(function, "LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"):
            if name not in cls.model_fields and not hasattr(cls, name):
                raise _wrong(
                    definition,
                    f"uses self.{name} in {function.__name__}, and the state holds no such field: "
                    f"its fields are {', '.join(cls.model_fields)}",
                )
    begun = _set_at_begin(definition)
    for step in definition.steps.values():
        if step.reverse is None:
            continue
        for name in _attributes(step.reverse.function, "LOAD_ATTR"):
            info = cls.model_fields.get(name)
            empty = info is not None and info.default is None and not info.is_required()
            if empty and name not in written and (begun is not None and name not in begun):
                raise _wrong(
                    definition,
                    f"needs self.{name} in {step.reverse.name}, and nothing ever gives it a value: "
                    f"take it from an answer with @{step.name}.on(…), or set it in begin",
                )


def _functions(definition: Definition) -> Iterator[Callable[..., Any]]:
    for step in definition.steps.values():
        yield step.function
        yield from step.takes.values()
        if step.reverse is not None:
            yield step.reverse.function
    for free in definition.free.values():
        yield free.function


def _attributes(function: Callable[..., Any], *operations: str) -> list[str]:
    """The attributes of its first parameter that a function uses, in order."""
    code = getattr(function, "__code__", None)
    if code is None or not code.co_varnames:
        return []
    this, found, before = code.co_varnames[0], list[str](), ""
    for instruction in dis.get_instructions(code):
        if before == this and instruction.opname in operations:
            found.append(str(instruction.argval))
        loads = instruction.opname.startswith(("LOAD_FAST", "LOAD_DEREF"))
        last = instruction.argval
        before = str(last[-1] if isinstance(last, tuple) else last) if loads else ""
    return list(dict.fromkeys(found))


def _set_at_begin(definition: Definition) -> set[str] | None:
    """The keywords that `begin` gives to its class; `None` where that cannot be read."""
    begin = getattr(definition.cls, "begin", None)
    code = getattr(getattr(begin, "__func__", begin), "__code__", None)
    if code is None:
        return None
    if any(each.opname == "CALL_FUNCTION_EX" for each in dis.get_instructions(code)):
        return None
    tuples = [constant for constant in code.co_consts if isinstance(constant, tuple)]
    names = {name for constant in tuples for name in constant if isinstance(name, str)}
    return names or None


def _wrong(definition: Definition, what: str) -> DefinitionError:
    return DefinitionError(f"The saga {definition.cls.__name__} {what}.")
