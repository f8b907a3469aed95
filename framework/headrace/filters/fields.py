"""The fields of an event that a filter may name: where they stand in its JSON, what they hold."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Literal, NewType, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel, PlainSerializer, RootModel, WrapSerializer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from headrace.errors import FilterError

Scalar: TypeAlias = str | int | float | bool
"""A value as it stands in the JSON of an event."""


class Kind(Enum):
    """How a pattern can test a field."""

    TEXT = "text"
    NUMBER = "a number"
    FLAG = "true or false"
    SEALED = "text that only JSON gives its form"
    """Decimal, datetime and their like: a pattern can say whether there is one, nothing else."""
    MODEL = "an object"


@dataclass(frozen=True, slots=True)
class Field:
    """One field, perhaps of a nested model.

    `attributes` leads to it in Python and `path` in JSON. `nullable` says that `null` may
    stand there; `optional`, that its value in Python may be `None`, also because a model on
    the way is. `missing` are the values a typed event may have where the JSON has no such
    field, `None` among them; `any_missing` says that they cannot be known. `choices` are the
    only values there are, where the type says so.
    """

    event: str
    attributes: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    kind: Kind = Kind.MODEL
    type: Any = None
    nullable: bool = False
    optional: bool = False
    missing: tuple[Scalar | None, ...] = ()
    any_missing: bool = False
    choices: tuple[Scalar, ...] = ()

    @property
    def name(self) -> str:
        return ".".join(self.attributes)

    def value(self, message: object) -> Scalar | None:
        """The field's value in a typed event as it stands in its JSON; `None` where a model on
        the way is `None`."""
        for attribute in self.attributes:
            if message is None:
                return None
            message = getattr(message, attribute)
        value: Scalar | None = as_scalar(message)
        return value

    def refusal(self, what: str) -> FilterError:
        return FilterError(f"{self.name or self.event} {what}")


def as_scalar(value: Any) -> Any:
    """What JSON holds for a value that a pattern can test."""
    if isinstance(value, Enum):
        return as_scalar(value.value)
    return str(value) if isinstance(value, UUID) else value


def field_of(parent: Field, attribute: str) -> Field:
    """A field of the event, or of a nested model; raises `FilterError` for one that a filter
    cannot name."""
    model: type[BaseModel] = parent.type
    info = model.model_fields.get(attribute)
    if info is None:
        raise parent.refusal(f"has no field {attribute!r}: it has {', '.join(model.model_fields)}.")
    found = replace(parent, attributes=(*parent.attributes, attribute))
    _refuse_own_form(found, model, info)
    core, nullable = _core(found, info.annotation)
    kind, choices = _kind(found, core)
    missing = {None} if parent.optional else set[Any]()
    return replace(
        found,
        path=(*parent.path, info.serialization_alias or info.alias or attribute),
        kind=kind,
        type=core,
        nullable=nullable,
        optional=parent.optional or nullable,
        missing=tuple(missing | _default(info, kind)),
        any_missing=parent.any_missing or _has_unknown_default(info, kind),
        choices=choices,
    )


def presence_of(field: Field) -> Field:
    """A field that is in the JSON exactly when `field` is not `None`.

    For a nested model it is one of its own that is always there, because EventBridge sees
    only the leaves of an event.
    """
    if field.kind is not Kind.MODEL:
        return field
    for attribute, info in field.type.model_fields.items():
        if info.is_required():
            inner = _scalar_or_none(field, attribute)
            if inner is not None and not inner.nullable:
                return inner
    raise field.refusal(
        "is a model without a required plain field, so a pattern cannot tell whether it is there: "
        "test one of its fields."
    )


def _scalar_or_none(parent: Field, attribute: str) -> Field | None:
    try:
        found = field_of(parent, attribute)
    except FilterError:
        return None
    return found if found.kind is not Kind.MODEL else None


def _refuse_own_form(field: Field, model: type[BaseModel], info: FieldInfo) -> None:
    """Refuse a field whose JSON is not the plain form of its value."""
    if info.exclude or getattr(info, "exclude_if", None) is not None:
        raise field.refusal("is excluded from the JSON of the event, so a pattern cannot see it.")
    decorators = model.__pydantic_decorators__
    named = {name for d in decorators.field_serializers.values() for name in d.info.fields}
    own = any(isinstance(item, (PlainSerializer, WrapSerializer)) for item in info.metadata)
    if own or decorators.model_serializers or named & {field.attributes[-1], "*"}:
        raise field.refusal(
            "has a serializer of its own, so its JSON is not known before it is written: filter on "
            "another field, or in the handler."
        )


_NoneType: Final = type(None)
_UNIONS: Final = (typing.Union, types.UnionType)


def _core(field: Field, annotation: Any) -> tuple[Any, bool]:
    """The one type of a field beside `None`, and whether `None` is there."""
    members = list(_members(field, annotation))
    core = tuple(dict.fromkeys(member for member in members if member is not _NoneType))
    nullable = _NoneType in members
    if len(core) == 1:
        return core[0], nullable
    if set(core) == {int, float}:
        return float, nullable
    raise field.refusal(
        "may hold values of several types, which a pattern tests differently: filter in the "
        "handler."
    )


def _members(field: Field, annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = typing.get_args(annotation)
        if any(isinstance(item, (PlainSerializer, WrapSerializer)) for item in metadata):
            raise field.refusal("has a serializer of its own: filter on another field.")
        yield from _members(field, inner)
    elif origin in _UNIONS:
        for member in typing.get_args(annotation):
            yield from _members(field, member)
    elif origin is Literal:
        values = typing.get_args(annotation)
        yield Literal[tuple(value for value in values if value is not None)]
        yield from (_NoneType for value in values if value is None)
    elif hasattr(annotation, "__value__"):  # `type Sku = str`, which Python 3.11 has no class for
        yield from _members(field, annotation.__value__)
    elif isinstance(annotation, NewType):
        yield from _members(field, annotation.__supertype__)
    else:
        yield annotation


_SEALED: Final = (Decimal, datetime, date, time, timedelta, bytes)


def _kind(field: Field, core: Any) -> tuple[Kind, tuple[Scalar, ...]]:
    if typing.get_origin(core) is Literal:
        return _choice(field, typing.get_args(core))
    if isinstance(core, TypeVar) or not isinstance(core, type) or typing.get_origin(core):
        raise _untestable(field, core)
    if issubclass(core, Enum):
        return _choice(field, core)
    if issubclass(core, BaseModel) and not issubclass(core, RootModel):
        return Kind.MODEL, ()
    if issubclass(core, _SEALED):
        return Kind.SEALED, ()
    plain = {str: Kind.TEXT, UUID: Kind.TEXT, bool: Kind.FLAG, int: Kind.NUMBER, float: Kind.NUMBER}
    if core not in plain:
        raise _untestable(field, core)
    return plain[core], ()


def _choice(field: Field, values: Any) -> tuple[Kind, tuple[Scalar, ...]]:
    """The kind of an enum or a literal: that of its values, which must be of one kind."""
    choices = tuple(as_scalar(value) for value in values)
    for kind, scalar in ((Kind.FLAG, bool), (Kind.TEXT, str), (Kind.NUMBER, (int, float))):
        if choices and all(isinstance(choice, scalar) for choice in choices):
            return kind, choices
    raise field.refusal(
        "has choices that are neither all text nor all numbers: filter in the handler."
    )


def _untestable(field: Field, core: Any) -> FilterError:
    shown = core.__name__ if isinstance(core, type) else str(core).replace("typing.", "")
    origin = typing.get_origin(core) or core
    if isinstance(origin, type) and issubclass(origin, (list, tuple, set, frozenset, dict)):
        return field.refusal(
            f"is a {origin.__name__}, and a pattern cannot say which of its elements is meant: "
            "filter on another field, or in the handler."
        )
    return field.refusal(
        f"is of the type {shown}, which a pattern cannot test: filter in the handler."
    )


def _default(info: FieldInfo, kind: Kind) -> set[Any]:
    """What the field is when it is missing, as far as that is a plain value."""
    if info.is_required() or _has_unknown_default(info, kind):
        return set()
    return {as_scalar(info.default)}


def _has_unknown_default(info: FieldInfo, kind: Kind) -> bool:
    if info.default is PydanticUndefined or info.default is None:
        return info.default_factory is not None
    return kind in (Kind.MODEL, Kind.SEALED)
