"""What a user writes in DynamoDB's own words, bound to the fields of an entity.

`#field` is an attribute of the entity and `:value` a value handed over beside the expression, so
no name is ever a reserved word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from headrace.attributes import dump
from headrace.entity import TYPE_ATTRIBUTE, VERSION_ATTRIBUTE, Entity
from headrace.errors import HeadraceError
from headrace.ports import AttributeValue, Condition, ItemKey, Update

_CLAUSE: Final = re.compile(r"(?<![#:.\w])(SET|REMOVE|ADD|DELETE)(?=\s)", re.IGNORECASE)
_NAME: Final = re.compile(r"(\.?)#(\w+)")
_SET: Final = re.compile(r"#(\w+)\s*=")
_ADDED: Final = re.compile(r"(?<!\.)#(\w+)\s+:")
_VALUE: Final = re.compile(r":(\w+)")

# Placeholders of our own; no other may begin with an underscore.
_OWN_NAMES: Final = {"#_version": VERSION_ATTRIBUTE, "#_type": TYPE_ATTRIBUTE}


def update_of(
    cls: type[Entity],
    key: ItemKey,
    key_fields: Mapping[str, Any],
    *,
    change: str,
    condition: str | None,
    values: Mapping[str, Any],
    unless_changed: Condition | None,
    first_version: int,
) -> tuple[Update, bool]:
    """The update of one entity, and whether it has a condition besides the version that was read.

    It counts the version up, and leaves a whole entity where there was none, or wants one to be
    there.

    Raises `HeadraceError` for an expression that names a field the entity does not have, or a
    value that was not given, and for a value that DynamoDB cannot hold.
    """
    clauses = _clauses(cls, change)
    both = f"{change} {condition or ''}"
    _refuse_misused(cls, both, change, key_fields, values)
    own = {f"_key_{field}": value for field, value in key_fields.items()}
    keys = [f"#{name} = :{name}" for name in own]
    wanted = _joined(
        _wants_one(cls, clauses, key_fields),
        condition_of(cls, condition, values) if condition is not None else None,
    )
    version = "#_version = if_not_exists(#_version, :_first) + :_one"
    _extend(clauses, "SET", ["#_type = :_type", version, *keys])
    names = {f"#{field}": field for _, field in _NAME.findall(both)}
    update = Update(
        key,
        " ".join(f"{verb} {content}" for verb, content in clauses.items()),
        names={**_used(names, change), **_OWN_NAMES, **{f"#_key_{f}": f for f in key_fields}},
        values={
            **_dumped(cls, {k: v for k, v in values.items() if f":{k}" in _marks(change)}),
            **_dumped(cls, own),
            ":_type": {"S": cls.__name__},
            ":_one": {"N": "1"},
            ":_first": {"N": str(first_version)},
        },
        condition=_joined(unless_changed, wanted),
        return_old=True,
    )
    return update, wanted is not None


_EXISTS: Final = Condition("attribute_exists(#_pk)", {"#_pk": "pk"})


def _wants_one(
    cls: type[Entity], clauses: Mapping[str, str], key_fields: Mapping[str, Any]
) -> Condition | None:
    """The condition that keeps a change of some fields from leaving an entity that nobody can read,
    because it lacks the others."""
    # ADD begins with nothing: it makes a number or a set where there is none.
    added = _ADDED.findall(clauses.get("ADD", ""))
    set_here = {*_SET.findall(clauses.get("SET", "")), *added, *key_fields}
    lacking = [n for n, f in cls.model_fields.items() if f.is_required() and n not in set_here]
    return _EXISTS if lacking else None


def condition_of(cls: type[Entity], condition: str, values: Mapping[str, Any]) -> Condition:
    used = {name: value for name, value in values.items() if f":{name}" in _marks(condition)}
    names = {f"#{field}": field for _, field in _NAME.findall(condition)}
    return Condition(condition, names, _dumped(cls, used))


def _clauses(cls: type[Entity], change: str) -> dict[str, str]:
    """The parts of an update expression by their verb, in order."""
    start, *parts = _CLAUSE.split(change)
    if start.strip() or not parts:
        raise HeadraceError(
            f"The change of {cls.__name__} is {change!r}: begin it with SET, REMOVE, ADD or "
            'DELETE, as in "SET #available = #available - :n".'
        )
    clauses: dict[str, str] = {}
    for verb, content in zip(parts[::2], parts[1::2], strict=True):
        if verb.upper() in clauses:
            raise HeadraceError(
                f"The change of {cls.__name__} says {verb.upper()} twice: DynamoDB takes each verb "
                "once, with its parts after commas."
            )
        if not content.strip():
            raise HeadraceError(
                f"The change of {cls.__name__} says {verb.upper()} and then nothing."
            )
        clauses[verb.upper()] = content.strip()
    return clauses


def _extend(clauses: dict[str, str], verb: str, parts: list[str]) -> None:
    given = [clauses[verb]] if verb in clauses else []
    clauses[verb] = ", ".join([*given, *parts])


def _refuse_misused(
    cls: type[Entity],
    both: str,
    change: str,
    key_fields: Mapping[str, Any],
    values: Mapping[str, Any],
) -> None:
    for nested, field in _NAME.findall(both):
        if not nested and field not in cls.model_fields:
            raise HeadraceError(
                f"{cls.__name__} has no field {field!r}: its fields are "
                f"{', '.join(cls.model_fields)}."
            )
    changed = sorted(key_fields.keys() & {f for nested, f in _NAME.findall(change) if not nested})
    if changed:
        raise HeadraceError(
            f"The change of {cls.__name__} names {changed[0]!r}, which is part of its key: a key "
            "cannot change. Put an entity under the new key and delete this one."
        )
    wanted, given = {mark[1:] for mark in _marks(both)}, set(values)
    own = sorted(n for n in (*wanted, *(f for _, f in _NAME.findall(both))) if n.startswith("_"))
    if own:
        raise HeadraceError(
            f"The name {own[0]!r} in the update of {cls.__name__} begins with an underscore, as "
            "headrace's own do: choose another."
        )
    if wanted != given:
        wrong = sorted(wanted ^ given)[0]
        which = "is not given" if wrong in wanted else "is not used"
        raise HeadraceError(
            f"The value {wrong!r} of the update of {cls.__name__} {which}: write "
            f'values={{"{wrong}": …}} for :{wrong} in the expression.'
        )


def _marks(expression: str) -> set[str]:
    return {f":{name}" for name in _VALUE.findall(expression)}


def _used(names: Mapping[str, str], expression: str) -> dict[str, str]:
    within = {f"#{field}" for _, field in _NAME.findall(expression)}
    return {mark: field for mark, field in names.items() if mark in within}


def _dumped(cls: type[Entity], values: Mapping[str, Any]) -> dict[str, AttributeValue]:
    try:
        return {f":{name}": dump(value) for name, value in values.items()}
    except ValueError as error:
        raise HeadraceError(f"{cls.__name__} cannot be updated: {error}") from error


def _joined(first: Condition | None, second: Condition | None) -> Condition | None:
    if first is None or second is None:
        return first or second
    return Condition(
        f"({first.expression}) AND ({second.expression})",
        {**first.names, **second.names},
        {**first.values, **second.values},
    )
