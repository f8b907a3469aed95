"""A handler's filter: the condition it recorded, and the pattern it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from headrace.errors import FilterError
from headrace.events import Message, MessageType, contract_of, ensure_buildable

from .conditions import Condition
from .fields import Field
from .patterns import Pattern, pattern_of
from .trace import RecordedModel, condition_of

StepT = TypeVar("StepT")


class Filter:
    """What a handler's `where=` says, of each type of event that the handler takes.

    The pattern matches an event exactly when `matches` says so. It matches more only for
    events of other producers that leave out a field whose default cannot be known; those are
    sorted out on receipt.
    """

    def __init__(
        self, conditions: Mapping[MessageType, Condition], patterns: Mapping[MessageType, Pattern]
    ) -> None:
        self._conditions = dict(conditions)
        self._patterns = dict(patterns)

    @classmethod
    def of(cls, types: Sequence[type[Message]], where: Callable[[Any], object]) -> Filter:
        """Record what `where` asks of each type; raises `FilterError` with a sentence for what
        a pattern cannot say."""
        conditions = {event: _recorded(event, where) for event in types}
        patterns = {
            event: _explained(event, where, partial(pattern_of, condition))
            for event, condition in conditions.items()
        }
        return cls(conditions, patterns)

    def matches(self, message: Message) -> bool:
        """Whether the event is one for the handler."""
        return self._conditions[self._listed(type(message))].holds(message)

    def pattern_for(self, event: MessageType) -> Pattern:
        """The pattern for one of the handler's types, relative to its payload."""
        return self._patterns[self._listed(event)]

    @property
    def pattern(self) -> Pattern:
        """The pattern, relative to the payload; that of all types together."""
        distinct = list({repr(pattern): pattern for pattern in self._patterns.values()}.values())
        return distinct[0] if len(distinct) == 1 else {"$or": distinct}

    def _listed(self, event: MessageType) -> MessageType:
        return next(cls for cls in event.__mro__ if cls in self._conditions)

    def __str__(self) -> str:
        sentences = dict.fromkeys(str(condition) for condition in self._conditions.values())
        return "; or ".join(sentences)

    def __repr__(self) -> str:
        return f"Filter({self})"


def _recorded(event: MessageType, where: Callable[[Any], object]) -> Condition:
    ensure_buildable(event)
    root = RecordedModel(Field(event=contract_of(event).name, type=event))
    return _explained(event, where, lambda: condition_of(where(root)))


def _explained(
    event: MessageType, where: Callable[[Any], object], step: Callable[[], StepT]
) -> StepT:
    """Run one step; whatever fails is said with the place of the filter."""
    try:
        return step()
    except FilterError as error:
        raise FilterError(f"{_place(event, where)} {error}") from error
    except Exception as error:
        raise FilterError(
            f"{_place(event, where)} cannot be recorded ({type(error).__name__}: {error}). It is "
            "called once, at import, with a stand-in for the event: let it only compare the "
            "event's fields."
        ) from error


def _place(event: MessageType, where: Callable[[Any], object]) -> str:
    code = getattr(where, "__code__", None)
    line = f", line {code.co_firstlineno}" if code else ""
    module = getattr(where, "__module__", None) or "an unknown module"
    return f"The filter where= on {contract_of(event).name} ({module}{line}):"
