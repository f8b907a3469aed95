"""From a condition to EventBridge's event pattern.

A pattern joins different fields by *and*, the values of one field by *or*, and whole
alternatives by `$or`. So the condition becomes alternatives, each a set of values by field;
alternatives that differ in one field are joined, and what all have in common is said once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final, TypeAlias

import orjson

from headrace.errors import FilterError
from headrace.limits import EVENT_PATTERN_CHARACTERS

from .conditions import And, Condition, Not, Or, Test
from .values import Values

Pattern: TypeAlias = dict[str, Any]

Alternative: TypeAlias = Mapping[tuple[str, ...], Values]
"""What one alternative asks, by the path of the field."""

MOST_ALTERNATIVES: Final = 1_000
"""EventBridge refuses a pattern that `$or` expands to more."""

RESERVED_IN_OR: Final = frozenset(
    (
        *("exactly", "prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but"),
        *("exists", "numeric", "cidr", "regex", "=", "<", "<=", ">", ">=", "$or"),
        *("not-wildcard", "not-equals-ignore-case", "ip-address-in-range"),
        *("ip-address-not-in-range", "date-after", "date-on-or-after", "date-before"),
        *("date-on-or-before", "in-date-range"),
    )
)
"""Field names that Event Ruler (the open source of EventBridge's matching) takes for operators
within `$or`."""


def pattern_of(condition: Condition) -> Pattern:
    """The pattern, relative to the payload; raises `FilterError`."""
    alternatives = _joined(list(_alternatives(condition, inverted=False)))
    if not alternatives:
        raise FilterError("can never be true: no event would reach the handler. Correct it.")
    if any(not alternative for alternative in alternatives):
        raise FilterError("is always true: leave where= out.")
    pattern = _written(alternatives)
    if length_of(pattern) > EVENT_PATTERN_CHARACTERS:
        raise FilterError(
            f"makes a pattern of {length_of(pattern):,} characters, and EventBridge takes "
            f"{EVENT_PATTERN_CHARACTERS:,}: compare fewer values, or filter in the handler."
        )
    return pattern


def length_of(pattern: Mapping[str, Any]) -> int:
    """How many characters the pattern has where it counts: written without spaces."""
    return len(orjson.dumps(pattern).decode())


def _alternatives(condition: Condition, *, inverted: bool) -> Iterator[Alternative]:
    """The alternatives of the condition or, by De Morgan, of its opposite."""
    if isinstance(condition, Not):
        yield from _alternatives(condition.condition, inverted=not inverted)
    elif isinstance(condition, Test):
        values = Values.of(condition, inverted=inverted)
        if not values.is_empty:
            yield {} if values.is_all else {values.field.path: values}
    elif isinstance(condition, Or) != inverted:
        yield from _alternatives(condition.left, inverted=inverted)
        yield from _alternatives(condition.right, inverted=inverted)
    else:
        yield from _both(condition, inverted=inverted)


def _both(condition: And | Or, *, inverted: bool) -> Iterator[Alternative]:
    left = _joined(list(_alternatives(condition.left, inverted=inverted)))
    right = _joined(list(_alternatives(condition.right, inverted=inverted)))
    if len(left) * len(right) > MOST_ALTERNATIVES:
        raise FilterError(
            f"has more than {MOST_ALTERNATIVES:,} alternatives, which EventBridge refuses: test "
            "less here and the rest in the handler."
        )
    for one in left:
        for other in right:
            met = _met(one, other)
            if met is not None:
                yield met


def _met(one: Alternative, other: Alternative) -> Alternative | None:
    met = {**one, **other, **{path: one[path] & other[path] for path in one.keys() & other.keys()}}
    return None if any(values.is_empty for values in met.values()) else met


def _joined(alternatives: list[Alternative]) -> list[Alternative]:
    """The same, with alternatives that differ in one field made one."""
    found: list[Alternative] | None = alternatives
    while found is not None:
        alternatives, found = found, _joined_once(found)
    return alternatives


def _joined_once(alternatives: list[Alternative]) -> list[Alternative] | None:
    for one, other in combinations(alternatives, 2):
        union = _union(one, other)
        if union is not None:
            return [union, *(a for a in alternatives if a is not one and a is not other)]
    return None


def _union(one: Alternative, other: Alternative) -> Alternative | None:
    if one.keys() != other.keys():
        return _wider(one, other)
    different = [path for path in one if one[path] != other[path]]
    if len(different) > 1:
        return None
    union = {**one, **{path: one[path] | other[path] for path in different}}
    return {path: values for path, values in union.items() if not values.is_all}


def _wider(one: Alternative, other: Alternative) -> Alternative | None:
    """The alternative that asks less, if the other asks the same and more."""
    narrow, wide = (one, other) if len(one) > len(other) else (other, one)
    return wide if all(narrow.get(path) == values for path, values in wide.items()) else None


def _written(alternatives: list[Alternative]) -> Pattern:
    if len(alternatives) == 1:
        return _nested(alternatives[0])
    first = alternatives[0]
    common = {
        path: values
        for path, values in first.items()
        if all(alternative.get(path) == values for alternative in alternatives)
    }
    branches = [
        {path: values for path, values in alternative.items() if path not in common}
        for alternative in alternatives
    ]
    _refuse_reserved(branches)
    return {**_nested(common), "$or": [_nested(branch) for branch in branches]}


def _nested(alternative: Alternative) -> Pattern:
    pattern: Pattern = {}
    for path, values in sorted(alternative.items(), key=lambda item: item[0]):
        node = pattern
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = values.matchers()
    return pattern


def _refuse_reserved(branches: list[dict[tuple[str, ...], Values]]) -> None:
    taken = {step for branch in branches for path in branch for step in path} & RESERVED_IN_OR
    if taken:
        raise FilterError(
            f"has the field {min(taken)!r} within `|`, where EventBridge takes that name for an "
            "operator: give the field another name in JSON, by an alias."
        )
