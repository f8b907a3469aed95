"""DynamoDB's attribute values: how they are equal, ordered, measured and checked."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from decimal import Context, Decimal, localcontext
from typing import Any, Final

from headrace.errors import Refused
from headrace.ports import AttributeValue, Item

TYPES: Final = frozenset({"S", "N", "B", "SS", "NS", "BS", "BOOL", "NULL", "L", "M"})
ORDERED: Final = frozenset({"S", "N", "B"})
SETS: Final = frozenset({"SS", "NS", "BS"})

NUMBER_DIGITS: Final = 38
"""Significant digits of a number; its exponent runs from -130 to 125."""
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_SMALLEST: Final = Decimal("1E-130")
_LARGEST: Final = Decimal("9.9999999999999999999999999999999999999E+125")
_EXACT: Final = Context(prec=400, Emax=999_999, Emin=-999_999)


def invalid(message: str) -> Refused:
    """DynamoDB's answer to a request it cannot make sense of."""
    return Refused(message, code="ValidationException")


def type_of(value: AttributeValue) -> str:
    """The one type tag of a value. Raises `Refused` when there is not exactly one."""
    if len(value) != 1 or next(iter(value)) not in TYPES:
        raise invalid(
            f"The attribute value {value!r} must be an object with one type tag of "
            f"{', '.join(sorted(TYPES))}."
        )
    return next(iter(value))


# --- equality and order ----------------------------------------------------------------


def identity(value: AttributeValue) -> Hashable:
    """Something equal for equal values: numbers by worth, sets and maps in any order."""
    ((tag, content),) = value.items()
    match tag:
        case "N":
            return tag, Decimal(content)
        case "NS":
            return tag, frozenset(map(Decimal, content))
        case "SS" | "BS":
            return tag, frozenset(content)
        case "L":
            return tag, tuple(map(identity, content))
        case "M":
            return tag, frozenset((key, identity(inner)) for key, inner in content.items())
        case _:
            return tag, content


def order(value: AttributeValue) -> Any:
    """A sort key among values of one ordered type: text and bytes by their bytes."""
    ((tag, content),) = value.items()
    if tag == "N":
        return Decimal(content)
    return content.encode() if tag == "S" else content


def members(value: AttributeValue) -> list[AttributeValue]:
    """The elements of a list or set, as values."""
    ((tag, content),) = value.items()
    return list(content) if tag == "L" else [{tag[0]: element} for element in content]


# --- numbers ---------------------------------------------------------------------------


def number(text: str) -> str:
    """A number as DynamoDB writes it back: no exponent, no trailing zeros. Raises `Refused`
    when it has more than 38 digits or is out of range."""
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise invalid(f"The value {text!r} is not a number written as text.")
    return _written(Decimal(text))


def _written(parsed: Decimal) -> str:
    if not parsed:
        return "0"
    plain = parsed.normalize(_EXACT)
    if len(plain.as_tuple().digits) > NUMBER_DIGITS:
        raise invalid(f"A number has at most {NUMBER_DIGITS} significant digits.")
    if not _SMALLEST <= abs(plain) <= _LARGEST:
        raise invalid(f"The number {plain} is out of the range of 1E-130 to 9.99E+125.")
    return format(plain, "f")


def add(left: str, right: str, sign: str = "+") -> str:
    """The exact sum or difference of two numbers."""
    with localcontext(_EXACT):
        a, b = Decimal(left), Decimal(right)
        return _written(a + b if sign == "+" else a - b)


# --- what may be stored ----------------------------------------------------------------


def stored(value: AttributeValue) -> AttributeValue:
    """A copy of the value as DynamoDB keeps it. Raises `Refused` when it cannot be kept."""
    tag = type_of(value)
    content = value[tag]
    match tag:
        case "S" if isinstance(content, str):
            return {"S": content}
        case "N":
            return {"N": number(content)}
        case "B" if isinstance(content, bytes | bytearray):
            return {"B": bytes(content)}
        case "BOOL" if isinstance(content, bool):
            return {"BOOL": content}
        case "NULL" if content is True:
            return {"NULL": True}
        case "L" if isinstance(content, list | tuple):
            return {"L": [stored(element) for element in content]}
        case "M" if isinstance(content, Mapping):
            return {"M": {key: stored(inner) for key, inner in content.items()}}
        case "SS" | "NS" | "BS" if isinstance(content, list | tuple | set | frozenset):
            return {tag: _stored_set(tag, content)}
    raise invalid(f"The content {content!r} does not go with the type {tag}.")


def _stored_set(tag: str, content: Iterable[Any]) -> list[Any]:
    elements = [stored({tag[0]: element})[tag[0]] for element in content]
    if not elements:
        raise invalid("A set must have at least one element.")
    if len(set(elements)) != len(elements):
        raise invalid("A set must not have the same element twice.")
    return elements


def copied(value: AttributeValue) -> AttributeValue:
    """A copy that shares nothing that can be changed."""
    ((tag, content),) = value.items()
    if tag == "L":
        return {tag: [copied(element) for element in content]}
    if tag == "M":
        return {tag: {key: copied(inner) for key, inner in content.items()}}
    return {tag: list(content) if tag in SETS else content}


def copied_item(item: Item) -> Item:
    return {name: copied(value) for name, value in item.items()}


# --- size ------------------------------------------------------------------------------


def item_bytes(item: Item) -> int:
    """The size of an item: attribute names and values, UTF-8, by DynamoDB's rules."""
    return sum(len(name.encode()) + value_bytes(value) for name, value in item.items())


def value_bytes(value: AttributeValue) -> int:
    """The size of one value: a number takes a byte for two digits and one more, a list or
    map three bytes and one for each element."""
    ((tag, content),) = value.items()
    match tag:
        case "S":
            return len(content.encode())
        case "B":
            return len(content)
        case "N":
            return (len(content.strip("-").replace(".", "").strip("0")) + 1) // 2 + 1
        case "BOOL" | "NULL":
            return 1
        case "M":
            return 3 + len(content) + item_bytes(content)
        case "L":
            return 3 + len(content) + sum(map(value_bytes, content))
        case _:
            return sum(map(value_bytes, members(value)))
