"""What annotations say of the methods of a saga."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Any, Final

from headrace.errors import DefinitionError
from headrace.events import Message, MessageType, contract_of, ensure_buildable

_COLLECTIONS: Final = (list, tuple, Sequence)


def hints_of(function: Callable[..., Any], scope: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations of a function, resolved with the names around its class.

    Raises `DefinitionError` for a name that is not there at run time.
    """
    try:
        return typing.get_type_hints(function, localns=dict(scope))
    except NameError as error:
        raise DefinitionError(
            f"{function.__qualname__} has an annotation that cannot be resolved ({error}): import "
            "the name at the top of the module, not under TYPE_CHECKING."
        ) from error


def messages_in(hint: Any, spot: str, *others: type) -> tuple[tuple[MessageType, ...], bool]:
    """The messages that a return annotation names, and whether it names `None`; `others` are
    allowed beside them. Raises `DefinitionError` for anything else."""
    found: list[MessageType] = []
    nothing = False
    for member in _members(hint, spot):
        if member is type(None):
            nothing = True
        elif member not in others:
            found.append(_message(member, spot))
    return tuple(dict.fromkeys(found)), nothing


def snake(name: str) -> str:
    """`OrderCheckout` as `order_checkout`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _message(member: Any, spot: str) -> MessageType:
    if not (isinstance(member, type) and issubclass(member, Message)):
        raise DefinitionError(
            f"{spot} returns {getattr(member, '__name__', member)}, which is neither an event nor "
            "a command: annotate it with the message that it returns, and | None if it may return "
            "nothing."
        )
    contract_of(member)
    ensure_buildable(member)
    return member


def _members(hint: Any, spot: str) -> Iterator[Any]:
    """The classes in a union, or in a list or tuple of them."""
    if hint is Parameter.empty:
        raise DefinitionError(
            f"{spot} does not say what it returns: annotate it with the message that it sends, or "
            "with None."
        )
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for member in typing.get_args(hint):
            yield from _members(member, spot)
    elif origin in _COLLECTIONS:
        for member in typing.get_args(hint):
            if member is not Ellipsis:
                yield from _members(member, spot)
    else:
        yield hint
