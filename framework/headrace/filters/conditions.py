"""What a filter's lambda said, as a tree that can be asked about an event."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from .fields import Field, Scalar


class Operator(Enum):
    """How a field is tested; the value says it in a sentence."""

    IS = "is"
    BELOW = "is less than"
    AT_MOST = "is at most"
    ABOVE = "is more than"
    AT_LEAST = "is at least"
    STARTS = "starts with"
    ENDS = "ends with"


@dataclass(frozen=True, slots=True)
class Test:
    """One field against constants: `IS` holds if it is any of them, `None` among them. What is
    not there (`None`) is neither less nor more than anything, and starts with nothing."""

    field: Field
    operator: Operator
    constants: tuple[Scalar | None, ...]

    def holds(self, message: object) -> bool:
        value = self.field.value(message)
        if self.operator is Operator.IS:
            return value in self.constants
        return value is not None and _COMPARISONS[self.operator](value, self.constants[0])

    def __str__(self) -> str:
        if self.constants == (None,):
            return f"{self.field.name} is missing"
        return f"{self.field.name} {self.operator.value} {_listed(self.constants)}"


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    condition: Condition

    def holds(self, message: object) -> bool:
        return not self.condition.holds(message)

    def __str__(self) -> str:
        inner = self.condition
        if isinstance(inner, Test) and inner.constants == (None,):
            return f"{inner.field.name} is there"
        if isinstance(inner, Test) and inner.operator is Operator.IS:
            return f"{inner.field.name} is not {_listed(inner.constants)}"
        if isinstance(inner, Test) and inner.operator in (Operator.STARTS, Operator.ENDS):
            verb = inner.operator.value.replace("s ", " ", 1)
            return f"{inner.field.name} does not {verb} {_listed(inner.constants)}"
        return f"not ({inner})"


@dataclass(frozen=True, slots=True)
class And:
    """Both conditions hold."""

    left: Condition
    right: Condition

    def holds(self, message: object) -> bool:
        return self.left.holds(message) and self.right.holds(message)

    def __str__(self) -> str:
        return f"{_within_and(self.left)} and {_within_and(self.right)}"


@dataclass(frozen=True, slots=True)
class Or:
    """One of the conditions holds, or both."""

    left: Condition
    right: Condition

    def holds(self, message: object) -> bool:
        return self.left.holds(message) or self.right.holds(message)

    def __str__(self) -> str:
        return f"{self.left} or {self.right}"


Condition: TypeAlias = Test | Not | And | Or


_COMPARISONS: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.BELOW: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.ABOVE: operator.gt,
    Operator.AT_LEAST: operator.ge,
    Operator.STARTS: str.startswith,
    Operator.ENDS: str.endswith,
}


def _within_and(condition: Condition) -> str:
    return f"({condition})" if isinstance(condition, Or) else str(condition)


def _listed(constants: tuple[Scalar | None, ...]) -> str:
    words = [_word(constant) for constant in constants]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _word(constant: Scalar | None) -> str:
    if constant is None:
        return "missing"
    return repr(constant).lower() if isinstance(constant, bool) else repr(constant)
