"""What is not to be shown: the fields of a message that its class marks as sensitive.

    class OrderPlaced(Event, source="shop.order"):
        order_id: str
        email: Annotated[str, Sensitive]

`redacted(event)` is `{"order_id": "W1", "email": "***"}`. Where it is not certain what a value is,
it is not shown: a name that the class does not know, a shape that the field does not have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    ForwardRef,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)
from weakref import WeakKeyDictionary

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict  # knows those that pydantic wants before Python 3.12

HIDDEN: Final = "***"
"""What stands in place of a sensitive value."""


class Sensitive:
    """Marks what is not to be shown, in logs or on a terminal: `Annotated[str, Sensitive]`.

    It may mark a field, or a part of one: `list[Annotated[str, Sensitive]]` shows how many there
    are, and `Annotated[list[str], Sensitive]` does not. A marked key of a dict hides the dict.
    What is sent is not changed by it. pydantic's `SecretStr` needs no mark.
    """


def redacted(message: BaseModel) -> dict[str, Any]:
    """What a message says, as JSON has it, with `***` in place of what its class marks."""
    payload = message.model_dump(mode="json", by_alias=True, warnings="none")
    return redacted_payload(type(message), payload)


def redacted_payload(cls: type[BaseModel], payload: Any) -> dict[str, Any]:
    """The same for what came as JSON and may not be valid. If the class marks anything, what the
    class does not know is hidden too: it may be a sensitive field of another version."""
    shown = _plan_of(cls).hide(payload)
    return shown if isinstance(shown, dict) else {"payload": shown}


# --- plans -------------------------------------------------------------------------------


class _Plan:
    """What of a JSON value is hidden. One of this very class hides nothing."""

    def parts(self) -> Iterable[_Plan]:
        return ()

    def fits(self, value: Any) -> bool:
        return True

    def apply(self, value: Any) -> Any:
        """`value`, which fits, without what is hidden."""
        return value

    def hide(self, value: Any) -> Any:
        if self.fits(value):
            return self.apply(value)
        return HIDDEN if self.hides() else value

    def hides(self) -> bool:
        """Whether anything is hidden by it or its parts."""
        seen: set[int] = set()
        waiting: list[_Plan] = [self]
        while waiting:
            plan = waiting.pop()
            if isinstance(plan, _Whole):
                return True
            if id(plan) not in seen:
                seen.add(id(plan))
                waiting += plan.parts()
        return False


class _Whole(_Plan):
    def apply(self, value: Any) -> Any:
        return HIDDEN


class _Object(_Plan):
    """The fields of a model, under every name that they are written or read by."""

    def __init__(self) -> None:
        self.fields: dict[str, list[_Plan]] = {}
        self.hides_unknown = False

    def parts(self) -> Iterable[_Plan]:
        return (plan for plans in self.fields.values() for plan in plans)

    def fits(self, value: Any) -> bool:
        return isinstance(value, dict)

    def apply(self, value: Any) -> Any:
        return _fields_hidden(value, [self])


class _Values(_Plan):
    """The values of a dict."""

    def __init__(self, inner: _Plan) -> None:
        self._inner = inner

    def parts(self) -> Iterable[_Plan]:
        return (self._inner,)

    def fits(self, value: Any) -> bool:
        return isinstance(value, dict)

    def apply(self, value: Any) -> Any:
        return {name: self._inner.hide(part) for name, part in value.items()}


class _Items(_Plan):
    """The items of a list: by their places, and behind those all alike."""

    def __init__(self, places: Sequence[_Plan], rest: _Plan) -> None:
        self._places = places
        self._rest = rest

    def parts(self) -> Iterable[_Plan]:
        return (*self._places, self._rest)

    def fits(self, value: Any) -> bool:
        return isinstance(value, (list, tuple))

    def apply(self, value: Any) -> Any:
        return [
            (self._places[place] if place < len(self._places) else self._rest).hide(part)
            for place, part in enumerate(value)
        ]


class _Link(_Plan):
    """A type that has a name of its own, and may be a part of itself."""

    def __init__(self) -> None:
        self.target: _Plan = _SHOWN

    def parts(self) -> Iterable[_Plan]:
        return (self.target,)

    def fits(self, value: Any) -> bool:
        return self.target.fits(value)

    def apply(self, value: Any) -> Any:
        return self.target.apply(value)


class _Either(_Plan):
    """One of several, nobody knows which: what any of them hides in a value of its shape."""

    def __init__(self, members: Sequence[_Plan], *, optional: bool) -> None:
        self._members = members
        self._optional = optional
        self._plain = any(type(member) is _Plan for member in members)

    def parts(self) -> Iterable[_Plan]:
        return self._members

    def apply(self, value: Any) -> Any:
        if value is None and self._optional:
            return None
        fitting = [m for m in self._members if type(m) is not _Plan and m.fits(value)]
        if not fitting:
            return HIDDEN if self.hides() and not self._plain else value
        objects = [member for member in fitting if isinstance(member, _Object)]
        if objects:
            value = _fields_hidden(value, objects)
        for member in fitting:
            if not isinstance(member, _Object):
                value = member.hide(value)
        return value


def _fields_hidden(value: dict[str, Any], objects: Sequence[_Object]) -> dict[str, Any]:
    hides_unknown = any(found.hides_unknown for found in objects)
    shown = {}
    for name, part in value.items():
        plans = [plan for found in objects for plan in found.fields.get(name, ())]
        if not plans and hides_unknown:
            part = HIDDEN
        for plan in plans:
            part = plan.hide(part)
        shown[name] = part
    return shown


_SHOWN: Final = _Plan()
_WHOLE: Final = _Whole()
_SECRETS: Final = (Secret, SecretStr, SecretBytes)


# --- from classes to plans ---------------------------------------------------------------

_plans: WeakKeyDictionary[type[BaseModel], _Plan] = WeakKeyDictionary()


def _plan_of(cls: type[BaseModel]) -> _Plan:
    plan = _plans.get(cls)
    if plan is None:
        compiler = _Compiler()
        plan = compiler.plan(cls)
        compiler.finish()
        _plans[cls] = plan
    return plan


class _Compiler:
    """Reads annotations. A class that contains itself has one plan, which contains itself."""

    def __init__(self) -> None:
        self._objects: dict[Any, _Object] = {}
        self._links: dict[Any, _Link] = {}

    def finish(self) -> None:
        for found in self._objects.values():
            found.hides_unknown = found.hides()

    def plan(self, annotation: Any) -> _Plan:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return _WHOLE if _is_marked(arguments[1:]) else self.plan(arguments[0])
        if origin in (Union, UnionType):
            members = [self.plan(argument) for argument in arguments if argument is not NoneType]
            return _Either(members, optional=NoneType in arguments)
        if isinstance(annotation, (str, ForwardRef)):
            return _WHOLE  # a name that nobody looked up
        if origin is Literal:
            return _SHOWN
        if hasattr(annotation, "__value__"):  # of Python 3.12: type Mail = Annotated[…]
            return self._link(annotation, lambda: self.plan(annotation.__value__))
        if hasattr(annotation, "__supertype__"):
            return self.plan(annotation.__supertype__)
        kind = annotation if origin is None else origin
        if isinstance(kind, type):
            return self._of_class(kind, arguments)
        # NotRequired[…] and the like say nothing of the value.
        return self.plan(arguments[0]) if len(arguments) == 1 else self._unknown(arguments)

    def _of_class(self, kind: type, arguments: tuple[Any, ...]) -> _Plan:
        if issubclass(kind, _SECRETS):
            return _WHOLE
        if issubclass(kind, RootModel):
            return self._link(kind, lambda: self._field(_built(kind).model_fields["root"]))
        if issubclass(kind, tuple):
            return self._tuple(kind, arguments)
        if _has_fields(kind):
            # What a generic class makes of its arguments is not known.
            return _WHOLE if self._unknown(arguments).hides() else self._object(kind)
        if issubclass(kind, Mapping) and len(arguments) == 2:
            key, value = arguments
            return _WHOLE if self.plan(key).hides() else _Values(self.plan(value))
        if issubclass(kind, Iterable) and len(arguments) == 1:
            return _Items((), self.plan(arguments[0]))
        return self._unknown(arguments)

    def _unknown(self, arguments: tuple[Any, ...]) -> _Plan:
        return _WHOLE if any(self.plan(argument).hides() for argument in arguments) else _SHOWN

    def _link(self, named: Any, target: Callable[[], _Plan]) -> _Plan:
        link = self._links.get(named)
        if link is None:
            link = self._links[named] = _Link()
            link.target = target()
        return link

    def _tuple(self, kind: type, arguments: tuple[Any, ...]) -> _Plan:
        if hasattr(kind, "_fields"):
            hints = get_type_hints(kind, include_extras=True)
            return _Items([self.plan(hints.get(name)) for name in kind._fields], _SHOWN)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _Items((), self.plan(arguments[0]))
        places = [self.plan(argument) for argument in arguments]
        # What is behind the last place should not be there.
        rest = _WHOLE if any(place.hides() for place in places) else _SHOWN
        return _Items(places, rest)

    def _object(self, kind: type) -> _Plan:
        known = self._objects.get(kind)
        if known is None:
            known = self._objects[kind] = _Object()
            for name, plan in self._fields(kind):
                known.fields.setdefault(name, []).append(plan)
        return known

    def _fields(self, kind: type) -> Iterator[tuple[str, _Plan]]:
        if not issubclass(kind, BaseModel):
            for name, hint in get_type_hints(kind, include_extras=True).items():
                yield name, self.plan(hint)
            return
        for name, field in _built(kind).model_fields.items():
            plan = self._field(field)
            for written in _names(name, field):
                yield written, plan
        for name, computed in kind.model_computed_fields.items():
            yield computed.alias or name, self.plan(computed.return_type)

    def _field(self, field: FieldInfo) -> _Plan:
        return _WHOLE if _is_marked(field.metadata) else self.plan(field.annotation)


def _built(cls: type[BaseModel]) -> type[BaseModel]:
    """The class, with the types of its fields known."""
    cls.model_rebuild()
    return cls


def _has_fields(kind: type) -> bool:
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind) or is_typeddict(kind)


def _is_marked(metadata: Iterable[Any]) -> bool:
    return any(mark is Sensitive or isinstance(mark, Sensitive) for mark in metadata)


def _names(name: str, field: FieldInfo) -> Iterator[str]:
    """Every name at the top of the payload under which a field may be found."""
    aliases = [field.alias, field.serialization_alias, field.validation_alias]
    found = {name}
    while aliases:
        alias = aliases.pop()
        if isinstance(alias, AliasChoices):
            aliases += alias.choices
        elif isinstance(alias, AliasPath):
            found.add(str(alias.path[0]))
        elif alias is not None:
            found.add(alias)
    yield from sorted(found)
