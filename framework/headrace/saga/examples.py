"""Messages to try a saga with: what its users give, and otherwise what its types allow.

    class Checkout(Saga, …):
        @classmethod
        def examples(cls) -> Iterable[Message]:
            yield OrderPlaced(order_id="o", total=0)       # a branch
            yield OrderPlaced(order_id="o", total=100)     # another

A saga class may have such a class method; `headrace.saga.explore` finds it by its name. What is
among its messages is used in place of what would be made of the type, each message of a type
being another branch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from math import ceil, floor
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from headrace.errors import DefinitionError
from headrace.events import Message, MessageType
from headrace.saga.definition import Definition

_DEEPEST: Final = 6
"""Models in models; what is deeper is left empty where it may be."""

_FORMATS: Final[Mapping[str, str]] = {
    "binary": "YQ==",
    "base64": "YQ==",
    "base64url": "YQ==",
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "duration": "PT1M",
    "email": "a@example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "json-string": "null",
    "time": "00:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000001",
}

_TEXTS: Final = (
    *("a", "A", "1", "aa", "AA", "11", "aaa", "AAA", "111", "1111", "11111", "a1", "A1", "a-1"),
    *("A-1", "a_1", "a.b", "a/b", "0.01", "1.00", "+10000000000", "#a", "#000000"),
    *_FORMATS.values(),
)
"""What is tried where a pattern is given, and no example."""

_USUAL: Final = (1, 0)
_UNUSUAL: Final = (1000, -1)
"""Numbers for a field: the usual ones, then its bounds, then the others."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What begins a saga, and what comes to it later, by its type. `made` are the types of which
    the examples were made here, so that others may be made in their place."""

    starts: tuple[Message, ...]
    replies: Mapping[MessageType, tuple[Message, ...]]
    made: frozenset[MessageType]


def examples_of(
    definition: Definition,
    starts: Iterable[Message] | None = None,
    replies: Iterable[Message] | None = None,
) -> Examples:
    """One example at least of every message that a saga takes, all with the key of the first.

    Those that are given here come before those of `examples()` of the class, and these before
    what is made of the type. Raises `DefinitionError` for what can be made of no type.
    """
    given = _given(definition, starts, replies)
    begun = [m for cls in definition.starts_on for m in given.get(cls, ())]
    if not begun:
        begun = [example(cls) for cls in definition.starts_on]
    key = definition.key_of(begun[0])
    later = [cls for cls in definition.takes if cls not in definition.starts_on]
    found = {cls: given.get(cls) or (example(cls, definition, key),) for cls in later}
    return Examples(
        starts=tuple(with_key(message, definition, key) for message in begun),
        replies={c: tuple(with_key(m, definition, key) for m in ms) for c, ms in found.items()},
        made=frozenset(cls for cls in definition.takes if cls not in given),
    )


def example(
    cls: MessageType, definition: Definition | None = None, key: str | None = None
) -> Message:
    """A message of this type, made of what its fields allow, with the key of a saga.

    A field's first `examples`, else its default, else something of its type. Raises
    `DefinitionError` if what comes out is no such message.
    """
    return next(variants(cls, definition, key))


def variants(
    cls: MessageType, definition: Definition | None = None, key: str | None = None
) -> Iterator[Message]:
    """The example of a type, and then others, that differ from it in one field each."""
    schema = cls.model_json_schema(mode="validation")
    maker = _Maker(cls, schema)
    fixed = _fixed(cls, definition, key)
    first = maker.fields(maker.root) | fixed
    yield _validated(cls, first)
    for field, value in maker.others(maker.root):
        if field not in fixed:
            try:
                yield cls.model_validate({**first, field: value})
            except ValidationError:
                continue


def with_key(message: Message, definition: Definition, key: str) -> Message:
    """The same message, for the saga of this key."""
    if definition.key_of(message) == key:
        return message
    field = definition.keys.get(type(message), definition.key)
    return message.model_copy(update={field: _as_key(type(message), field, key)})


def _given(
    definition: Definition, starts: Iterable[Message] | None, replies: Iterable[Message] | None
) -> dict[MessageType, tuple[Message, ...]]:
    own = getattr(definition.cls, "examples", None)
    found = _by_type(definition, own() if callable(own) else ())
    return found | _by_type(definition, chain(starts or (), replies or ()))


def _by_type(
    definition: Definition, messages: Iterable[Message]
) -> dict[MessageType, tuple[Message, ...]]:
    found: dict[MessageType, tuple[Message, ...]] = {}
    for message in messages:
        if type(message) not in definition.takes:
            raise DefinitionError(
                f"The saga {definition.cls.__name__} does not take {type(message).__name__}, so it "
                "is no example for it: leave it out, or have a step name it."
            )
        found[type(message)] = (*found.get(type(message), ()), message)
    return found


def _fixed(cls: MessageType, definition: Definition | None, key: str | None) -> dict[str, Any]:
    if definition is None or key is None:
        return {}
    field = definition.keys.get(cls, definition.key)
    info = cls.model_fields[field]
    # A field is read under its alias, if it has one.
    name = info.validation_alias if isinstance(info.validation_alias, str) else info.alias
    return {name or field: key}


def _as_key(cls: MessageType, field: str, key: str) -> Any:
    info = cls.model_fields[field]
    annotation: Any = info.annotation
    try:
        return TypeAdapter(annotation).validate_python(key)
    except ValidationError:
        raise DefinitionError(
            f"{cls.__name__}.{field} cannot be {key!r}, which is the key of the first example that "
            "begins a saga: give the types of the key the same form, or examples with one key."
        ) from None


def _validated(cls: MessageType, fields: Mapping[str, Any]) -> Message:
    try:
        return cls.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its fields together"
        raise _no_example(cls, where, first["msg"]) from None


def _no_example(cls: MessageType, where: str, why: str) -> DefinitionError:
    return DefinitionError(
        f"No example of {cls.__name__} can be made, because of {where}: {why}. Write "
        f"Field(examples=[…]) there, give a message by starts= or replies=, or return one from the "
        "class method examples() of the saga."
    )


class _Maker:
    """Values for the JSON Schema of one message."""

    def __init__(self, cls: MessageType, schema: Mapping[str, Any]) -> None:
        self._cls = cls
        self._definitions: Mapping[str, Any] = schema.get("$defs", {})
        self.root = self._resolved(schema)

    def fields(self, schema: Mapping[str, Any], path: str = "", depth: int = 0) -> dict[str, Any]:
        """What an object needs, and what its fields have examples for."""
        required = schema.get("required", ())
        return {
            name: self._value(field, f"{path}{name}", depth)
            for name, field in schema.get("properties", {}).items()
            if name in required or field.get("examples")
        }

    def others(self, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """For each field, other values that it may have."""
        for name, field in schema.get("properties", {}).items():
            for value in islice(self._choices(field, name), 8):
                yield name, value

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            rest = {name: value for name, value in schema.items() if name != "$ref"}
            schema = {**self._definitions[schema["$ref"].rpartition("/")[2]], **rest}
        return schema

    def _value(self, given: Mapping[str, Any], path: str, depth: int) -> Any:
        schema = self._resolved(given)
        if schema.get("examples"):
            return schema["examples"][0]
        for name in ("default", "const"):
            if name in schema:
                return schema[name]
        if "enum" in schema:
            return schema["enum"][0]
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._value(self._member(schema[name], depth), path, depth)
        if "allOf" in schema:
            return self._value({k: v for s in schema["allOf"] for k, v in s.items()}, path, depth)
        return self._of_type(schema, path, depth)

    def _member(self, members: Sequence[Mapping[str, Any]], depth: int) -> Mapping[str, Any]:
        """The first of several that says something, or nothing where it would have no end."""
        empty = [member for member in members if member.get("type") == "null"]
        if depth >= _DEEPEST and empty:
            return empty[0]
        return next((member for member in members if member not in empty), members[0])

    def _of_type(self, schema: Mapping[str, Any], path: str, depth: int) -> Any:
        match schema.get("type"):
            case "object":
                return self._object(schema, path, depth)
            case "array":
                return self._array(schema, path, depth)
            case "integer" | "number":
                return next(_numbers(schema), 0)
            case "boolean":
                return False
            case "null":
                return None
            case _:
                return self._text(schema, path)

    def _object(self, schema: Mapping[str, Any], path: str, depth: int) -> Any:
        if depth > 2 * _DEEPEST:
            raise _no_example(self._cls, path, "it holds itself, without an end")
        fields = self.fields(schema, f"{path}.", depth + 1)
        more = schema.get("additionalProperties")
        for number in range(len(fields), schema.get("minProperties", 0)):
            fields[f"key{number}"] = self._value(more or {}, path, depth + 1)
        return fields

    def _array(self, schema: Mapping[str, Any], path: str, depth: int) -> list[Any]:
        found = [self._value(item, path, depth + 1) for item in schema.get("prefixItems", ())]
        items = schema.get("items")
        wanted = schema.get("minItems", 0) - len(found)
        if wanted <= 0 or not isinstance(items, Mapping):
            return found
        if not schema.get("uniqueItems"):
            return found + [self._value(items, path, depth + 1) for _ in range(wanted)]
        first = self._value(items, path, depth + 1)
        others = (value for value in self._choices(items, path) if value != first)
        return [*found, first, *islice(others, wanted - 1)]

    def _text(self, schema: Mapping[str, Any], path: str) -> str:
        for text in self._texts(schema, path):
            return text
        pattern = schema.get("pattern")
        why = f"no text is known that fits the pattern {pattern!r}" if pattern else "its length"
        raise _no_example(self._cls, path, why)

    def _texts(self, schema: Mapping[str, Any], path: str) -> Iterator[str]:
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 1 << 20)
        if "format" in schema:
            yield _FORMATS.get(schema["format"], "a")
            return
        pattern = schema.get("pattern")
        if pattern is None:
            yield path.rpartition(".")[2].ljust(shortest, "a")[:longest] or "a"
            return
        for text in _TEXTS:
            if shortest <= len(text) <= longest and _fits(pattern, text):
                yield text

    def _choices(self, given: Mapping[str, Any], path: str) -> Iterator[Any]:
        """Other values, of which the first may be the one that is used anyway."""
        schema = self._resolved(given)
        yield from schema.get("examples", ())
        yield from schema.get("enum", ())
        for member in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from islice(self._choices(member, path), 4)
        match schema.get("type"):
            case "boolean":
                yield from (True, False)
            case "null":
                yield None
            case "integer" | "number":
                yield from _numbers(schema)
            case "array":
                yield from self._lengths(schema, path)
            case "string" | "object" if "enum" not in schema:
                yield self._value(_undefaulted(schema), path, 0)

    def _lengths(self, schema: Mapping[str, Any], path: str) -> Iterator[list[Any]]:
        for length in (0, 1, 2):
            if schema.get("minItems", 0) <= length <= schema.get("maxItems", 2):
                yield self._array({**schema, "minItems": length}, path, 0)


def _undefaulted(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in schema.items() if name not in ("default", "examples")}


def _numbers(schema: Mapping[str, Any]) -> Iterator[float]:
    """Numbers within the bounds, the most usual one first."""
    step = schema.get("multipleOf", 1 if schema.get("type") == "integer" else 0)
    bounds = [schema[name] for name in ("minimum", "maximum") if name in schema]
    for name, beside in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        if name in schema:
            bounds += [schema[name] + beside, schema[name] + beside / 100]
    for wanted in (*_USUAL, *bounds, *_UNUSUAL):
        for number in dict.fromkeys(_multiples(wanted, step)):
            if _within(number, schema):
                yield number


def _multiples(number: float, step: float) -> tuple[float, ...]:
    return (ceil(number / step) * step, floor(number / step) * step) if step else (number,)


def _within(number: float, schema: Mapping[str, Any]) -> bool:
    return (
        number >= schema.get("minimum", number)
        and number <= schema.get("maximum", number)
        and ("exclusiveMinimum" not in schema or number > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or number < schema["exclusiveMaximum"])
    )


def _fits(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        # A pattern of the validator's own dialect; what comes out is validated anyway.
        return False
