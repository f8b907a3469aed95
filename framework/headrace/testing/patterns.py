"""EventBridge's event patterns: whether a rule would take an event.

Source: "Comparison operators for use in event patterns", EventBridge User Guide. An event
field that is an array matches when one of its elements does; in an array of objects, all of
the pattern has to be met by the same object.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from headrace.errors import Refused
from headrace.limits import EVENT_PATTERN_CHARACTERS

Predicate: TypeAlias = Callable[[Any], bool]
"""Whether an event, or the value of one of its fields, is as wanted."""

NUMERIC_RANGE: Final = 5e9
_ABSENT: Final = object()
_NUMERIC: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matches(pattern: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether the pattern takes the event. Raises `Refused` for an invalid pattern."""
    return compile_pattern(pattern)(event)


def compile_pattern(pattern: Mapping[str, Any]) -> Predicate:
    """A predicate over whole events. Raises `Refused` where PutRule would."""
    if len(json.dumps(pattern, separators=(",", ":"))) > EVENT_PATTERN_CHARACTERS:
        raise _invalid(f"it has more than {EVENT_PATTERN_CHARACTERS} characters")
    return _fields(pattern)


def _invalid(why: str) -> Refused:
    return Refused(
        f"The event pattern is not valid: {why}.",
        operation="PutRule",
        code="InvalidEventPatternException",
    )


# --- objects ---------------------------------------------------------------------------


def _fields(pattern: Any) -> Predicate:
    """All fields of an object pattern, which may also hold one `$or` of such patterns."""
    if not isinstance(pattern, Mapping) or not pattern:
        raise _invalid("an object in it is empty, or something that has to be an object is not")
    return _all([_field(name, wanted) for name, wanted in pattern.items()])


def _field(name: str, wanted: Any) -> Predicate:
    if name == "$or":
        return _alternatives(wanted)
    if isinstance(wanted, Mapping):
        inner = _fields(wanted)
        return lambda event: any(map(inner, _objects(event.get(name))))
    anyhow = _any([_leaf(name, option) for option in _listed(name, wanted)])
    return lambda event: any(map(anyhow, _leaves(event.get(name, _ABSENT))))


def _alternatives(wanted: Any) -> Predicate:
    if not isinstance(wanted, list | tuple) or len(wanted) < 2:
        raise _invalid("$or needs an array of at least two objects")
    return _any([_fields(option) for option in wanted])


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects that a nested pattern may look into. Where there is none it sees an empty
    one, in which `exists: false` holds."""
    values = _flat(value) if isinstance(value, list) else [value]
    return [element for element in values if isinstance(element, Mapping)] or [{}]


def _leaves(value: Any) -> list[Any]:
    """The plain values of a field. An object or an empty array holds none, and counts as
    absent."""
    values = _flat(value) if isinstance(value, list) else [value]
    return [element for element in values if not isinstance(element, Mapping)] or [_ABSENT]


def _flat(values: Sequence[Any]) -> list[Any]:
    parts = [_flat(value) if isinstance(value, list) else [value] for value in values]
    return [element for part in parts for element in part]


def _listed(name: str, wanted: Any) -> Sequence[Any]:
    if not isinstance(wanted, list | tuple) or not wanted:
        raise _invalid(f"{name!r} must be an object or an array that is not empty")
    return wanted


def _all(predicates: Sequence[Predicate]) -> Predicate:
    return lambda value: all(predicate(value) for predicate in predicates)


def _any(predicates: Sequence[Predicate]) -> Predicate:
    return lambda value: any(predicate(value) for predicate in predicates)


# --- values ----------------------------------------------------------------------------


def _leaf(name: str, wanted: Any) -> Predicate:
    if not isinstance(wanted, Mapping):
        return _exactly(wanted)
    if len(wanted) != 1:
        raise _invalid(f"a matcher of {name!r} must have exactly one operator")
    ((word, operand),) = wanted.items()
    if word not in _OPERATORS:
        raise _invalid(f"{word!r} is not an operator known here ({', '.join(sorted(_OPERATORS))})")
    return _OPERATORS[word](operand)


def _exactly(wanted: Any) -> Predicate:
    if isinstance(wanted, list | tuple):
        raise _invalid("an array may not hold an array")
    return lambda value: _same(value, wanted)


def _same(value: Any, wanted: Any) -> bool:
    # Python's True is 1; JSON's is not.
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)


def _exists(operand: Any) -> Predicate:
    if not isinstance(operand, bool):
        raise _invalid("exists takes true or false")
    return lambda value: (value is not _ABSENT) == operand


def _affix(word: str, test: Callable[[str, str], bool]) -> Callable[[Any], Predicate]:
    def build(operand: Any) -> Predicate:
        if isinstance(operand, Mapping) and operand.keys() == {"equals-ignore-case"}:
            lower = _text(word, operand["equals-ignore-case"]).lower()
            return lambda value: isinstance(value, str) and test(value.lower(), lower)
        text = _text(word, operand)
        return lambda value: isinstance(value, str) and test(value, text)

    return build


def _ignore_case(operand: Any) -> Predicate:
    lower = _text("equals-ignore-case", operand).lower()
    return lambda value: isinstance(value, str) and value.lower() == lower


def _wildcard(operand: Any) -> Predicate:
    text = _text("wildcard", operand)
    parts = re.findall(r"\\[*\\]|\\.?|\*+|[^*\\]+", text, re.DOTALL)
    if any(part.startswith("**") for part in parts):
        raise _invalid("a wildcard may not have two * in a row")
    if any(part.startswith("\\") and part not in (r"\*", r"\\") for part in parts):
        raise _invalid(r"in a wildcard, \ may only stand before * or \ ")
    expression = "".join(
        ".*" if part == "*" else re.escape(part.removeprefix("\\")) for part in parts
    )
    compiled = re.compile(expression, re.DOTALL)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _text(word: str, operand: Any) -> str:
    if not isinstance(operand, str) or not operand:
        raise _invalid(f"{word} takes text that is not empty")
    return operand


def _numeric(operand: Any) -> Predicate:
    if not isinstance(operand, list | tuple) or len(operand) not in (2, 4):
        raise _invalid("numeric takes one or two pairs of a comparison and a number")
    pairs = list(zip(operand[::2], operand[1::2], strict=True))
    return _all([_number_test(sign, bound) for sign, bound in pairs])


def _number_test(sign: Any, bound: Any) -> Predicate:
    if sign not in _NUMERIC or not _is_number(bound):
        raise _invalid(f"numeric takes pairs such as ['>', 0], not [{sign!r}, {bound!r}]")
    compare = _NUMERIC[sign]
    return lambda value: _is_number(value) and compare(value, bound)


def _is_number(value: Any) -> bool:
    """Whether `numeric` sees it as one: EventBridge does not look beyond ±5e9."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= NUMERIC_RANGE


def _anything_but(operand: Any) -> Predicate:
    excluded = _excluded(operand)
    return lambda value: value is not _ABSENT and not excluded(value)


def _excluded(operand: Any) -> Predicate:
    if not isinstance(operand, Mapping):
        options = operand if isinstance(operand, list | tuple) else [operand]
        return _any(_of_one_kind(_listed("anything-but", options)))
    if len(operand) != 1 or not operand.keys() <= _EXCLUDABLE:
        raise _invalid(f"anything-but takes values or one of {', '.join(sorted(_EXCLUDABLE))}")
    ((word, inner),) = operand.items()
    options = inner if isinstance(inner, list | tuple) else [inner]
    return _any([_OPERATORS[word](option) for option in _listed(word, options)])


def _of_one_kind(options: Sequence[Any]) -> list[Predicate]:
    texts = all(isinstance(option, str) for option in options)
    if not texts and not all(map(_is_number, options)):
        raise _invalid("anything-but takes text only or numbers only")
    return [_exactly(option) for option in options]


_EXCLUDABLE: Final = frozenset({"prefix", "suffix", "equals-ignore-case", "wildcard"})
_OPERATORS: Final[Mapping[str, Callable[[Any], Predicate]]] = {
    "anything-but": _anything_but,
    "equals-ignore-case": _ignore_case,
    "exists": _exists,
    "numeric": _numeric,
    "prefix": _affix("prefix", str.startswith),
    "suffix": _affix("suffix", str.endswith),
    "wildcard": _wildcard,
}
