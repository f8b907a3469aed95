"""Fields that a payload has and its class has not.

Whoever receives an event ignores them, as its sender may be newer. Whoever writes one by hand has
misspelled them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, NamedTuple, TypeAlias, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel
from pydantic.fields import FieldInfo

from headrace.text import did_you_mean

Path: TypeAlias = tuple[str, ...]

_SCALARS: Final = (str, bytes, int, float, NoneType)


class UnknownField(NamedTuple):
    """Where it is in the payload, and the class that has no such field, with those that it has."""

    path: Path
    owner: str
    known: Sequence[str]

    def __str__(self) -> str:
        name = self.path[-1]
        way = f" in {'.'.join(self.path[:-1])}" if self.path[:-1] else ""
        hint = did_you_mean(name, self.known, "It has")
        return f"{self.owner} has no field {name!r}{way}. {hint}"


def unknown_fields(model: type[BaseModel], payload: Mapping[str, Any]) -> list[UnknownField]:
    """The fields of a payload, which is valid, that its class and the models within do not have.

    A model that takes any field has all of them. Where a value may be of several models, those
    count of the one that it fits best.
    """
    return list(_in_model(model, payload, ()))


def _in_model(
    model: type[BaseModel], payload: Mapping[str, Any], path: Path
) -> Iterator[UnknownField]:
    named = dict(_named(model))
    takes_any = model.model_config.get("extra") == "allow"
    for name, value in payload.items():
        if name in named:
            yield from _in_value(named[name].annotation, value, (*path, name))
        elif not takes_any and name not in model.model_computed_fields:
            yield UnknownField((*path, name), model.__name__, list(named))


def _in_value(annotation: Any, value: Any, path: Path) -> list[UnknownField]:
    found = [_in_member(member, value, path) for member in _members(annotation)]
    return min((unknown for unknown in found if unknown is not None), key=len, default=[])


def _in_member(member: Any, value: Any, path: Path) -> list[UnknownField] | None:
    """`None`, if no such value is of this type."""
    if isinstance(member, type) and issubclass(member, RootModel):
        return _in_value(member.model_fields["root"].annotation, value, path)
    if isinstance(member, type) and issubclass(member, BaseModel):
        return list(_in_model(member, value, path)) if isinstance(value, dict) else None
    if isinstance(member, type) and issubclass(member, _SCALARS):
        return None if isinstance(value, (dict, list)) else []
    return _in_collection(member, value, path)


def _in_collection(member: Any, value: Any, path: Path) -> list[UnknownField] | None:
    kind, arguments = get_origin(member), get_args(member)
    if not isinstance(kind, type) or not arguments:
        return []  # whatever it is, it may take anything
    if issubclass(kind, Mapping):
        if not isinstance(value, dict):
            return None
        inner = [_in_value(arguments[-1], each, (*path, name)) for name, each in value.items()]
    else:
        if not isinstance(value, list):
            return None
        inner = [_in_value(arguments[0], each, (*path, str(n))) for n, each in enumerate(value)]
    return [unknown for each in inner for unknown in each]


def _members(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif hasattr(annotation, "__value__"):  # of Python 3.12: type CustomerId = str
        yield from _members(annotation.__value__)
    else:
        yield annotation


def _named(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The fields by every name under which they are read."""
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    for name, field in model.model_fields.items():
        alias = field.validation_alias or field.alias
        if alias is None or by_name:
            yield name, field
        for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            if choice is not None:
                yield str(choice.path[0]) if isinstance(choice, AliasPath) else choice, field
