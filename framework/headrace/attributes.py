"""Python values as DynamoDB attribute values, and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from pydantic import AnyUrl, BaseModel

from headrace.ports import AttributeValue, Item
from headrace.text import text_size

MAX_DIGITS = 38
"""DynamoDB keeps numbers exactly up to this many significant digits."""

_ALL_DIGITS: Final = 10**MAX_DIGITS


def dump(value: Any) -> AttributeValue:
    """The attribute value of a Python value.

    `datetime`, `date`, `time` and `UUID` become text, an enum its value, a `timedelta` its
    seconds, a nested model a map. Raises `ValueError` with a sentence for what DynamoDB
    cannot hold: NaN, infinity, more than 38 digits, a map with keys that are not text, a type
    that has no place there.
    """
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case Enum():
            return dump(value.value)
        case str():
            return {"S": value}
        case int() | Decimal() | float():
            return {"N": _number(value)}
        case bytes() | bytearray():
            return {"B": bytes(value)}
        case datetime() | date() | time():
            return {"S": value.isoformat()}
        case timedelta():
            return {"N": _number(Decimal(str(value.total_seconds())))}
        case UUID():
            return {"S": str(value)}
        case BaseModel():
            return {"M": dump_fields(value.model_dump())}
        case Mapping():
            return {"M": dump_fields(value)}
        case set() | frozenset():
            return _dump_set(value)
        case list() | tuple() | deque():
            return {"L": [dump(entry) for entry in value]}
        case PurePath() | AnyUrl() | IPv4Address() | IPv6Address():
            return {"S": str(value)}
        case _:
            raise ValueError(
                f"A {type(value).__name__} has no attribute type in DynamoDB: keep it as text or "
                "as a nested model."
            )


def dump_fields(fields: Mapping[Any, Any]) -> Item:
    for name in fields:
        if not isinstance(name, str):
            raise ValueError(f"The key {name!r} of a map is not text: DynamoDB takes only text.")
    return {name: dump(value) for name, value in fields.items()}


def load(value: AttributeValue) -> Any:
    """The Python value of an attribute value; numbers as `int` where whole, else `Decimal`."""
    ((kind, content),) = value.items()
    match kind:
        case "S" | "BOOL" | "B":
            return content
        case "N":
            return _from_number(content)
        case "NULL":
            return None
        case "M":
            return load_item(content)
        case "L":
            return [load(entry) for entry in content]
        case "SS" | "BS":
            return set(content)
        case "NS":
            return {_from_number(entry) for entry in content}
        case _:
            raise ValueError(f"DynamoDB has no attribute type {kind!r}.")


def load_item(item: Item) -> dict[str, Any]:
    return {name: load(value) for name, value in item.items()}


def size_of(item: Item) -> int:
    """Bytes as DynamoDB counts them towards 400 KB: names plus values, UTF-8
    (developer guide, "DynamoDB item sizes and formats")."""
    # Every item that is written is measured, so what most of it is made of comes first, in line.
    size = 0
    for name, value in item.items():
        size += len(name) if name.isascii() else len(name.encode())
        for kind, content in value.items():
            if kind == "S":
                size += len(content) if content.isascii() else len(content.encode())
            elif kind == "N":
                size += len(content) // 2 + 2
            else:
                size += _value_size(value)
    return size


def _number(value: int | float | Decimal) -> str:
    if type(value) is int and -_ALL_DIGITS < value < _ALL_DIGITS:
        return str(value)
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ValueError(f"{value} is not a number that DynamoDB can hold.")
    # Not `normalize()`, which rounds to the 28 digits of the default context.
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    if number and not -130 <= number.adjusted() <= 125:
        raise ValueError(f"{value} is outside of what DynamoDB holds, 1E-130 to 9.9E+125.")
    if len(digits) > MAX_DIGITS:
        raise ValueError(
            f"{value} has {len(digits)} significant digits: DynamoDB keeps {MAX_DIGITS}. "
            "Round it, or store it as text."
        )
    return str(number)


def _from_number(text: str) -> int | Decimal:
    number = Decimal(text)
    # Only what was written as a whole number: 1E+100 must not grow into a hundred digits.
    return int(text) if text.lstrip("-").isdigit() else number


def _dump_set(values: set[Any] | frozenset[Any]) -> AttributeValue:
    dumped = [dump(value) for value in values]
    kinds = {kind for entry in dumped for kind in entry}
    if len(kinds) == 1 and kinds <= {"S", "N", "B"}:
        kind = kinds.pop()
        return {f"{kind}S": sorted(entry[kind] for entry in dumped)}
    # DynamoDB has no empty set and no mixed one; a list keeps what is there.
    return {"L": dumped}


def _value_size(value: AttributeValue) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return text_size(content)
        case "N":
            return len(content) // 2 + 2
        case "B":
            return len(content)
        case "SS":
            return sum(map(text_size, content))
        case "NS":
            return sum(len(entry) // 2 + 2 for entry in content)
        case "BS":
            return sum(len(entry) for entry in content)
        case "M":
            return 3 + len(content) + size_of(content)
        case "L":
            return 3 + sum(1 + _value_size(entry) for entry in content)
        case _:
            return 1
