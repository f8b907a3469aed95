"""What a filter's lambda is called with: objects that record what is asked of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any, Final, NoReturn, TypeVar
from uuid import UUID

from headrace.errors import FilterError

from .conditions import And, Condition, Not, Operator, Or, Test
from .fields import Field, Kind, Scalar, as_scalar, field_of, presence_of

ValueT = TypeVar("ValueT")

LARGEST_NUMBER: Final = 5_000_000_000
"""EventBridge compares numbers from -5e9 to 5e9, with 15 digits, 6 of them decimals."""
_DIGITS: Final = 15
_DECIMALS: Final = 6


def one_of(field: ValueT, *values: ValueT) -> bool:
    """Whether a field is one of these: `one_of(e.country, "DE", "FR")`. `in` cannot be
    recorded."""
    if isinstance(field, Recorder):
        return field._is(*values)  # type: ignore[return-value]  # a recorded condition stands for it
    return field in values


def none_of(field: ValueT, *values: ValueT) -> bool:
    """Whether a field is none of these; a missing one is none of them."""
    return not_(one_of(field, *values))


def exists(field: object) -> bool:
    """Whether a field, or a nested model, is there and not `None`."""
    return not_(one_of(field, None))


def known(field: ValueT | None) -> ValueT:
    """An optional field as if it were always there, for type checkers: `known(e.discount) > 5`,
    `known(e.shipping).city == "Bonn"`. Where it is missing, neither holds."""
    if field is None:
        raise FilterError("known() got None: it is for where= only, where fields are recorded.")
    return field


def not_(condition: object) -> bool:
    """The opposite of a condition: what `~` says, in a form that type checkers accept."""
    if isinstance(condition, Recorder):
        return condition._inverted()  # type: ignore[return-value]  # as in one_of
    return not condition


class Recorder:
    """Refuses, with a sentence, whatever a recording cannot carry."""

    __slots__ = ()

    def _is(self, *constants: object) -> RecordedCondition:
        raise FilterError("compares a condition with a value: join conditions by &, | and ~.")

    def _condition(self) -> Condition:
        raise FilterError("uses a field as if it were a condition: compare it with a value.")

    def _inverted(self) -> RecordedCondition:
        return RecordedCondition(Not(self._condition()))

    def __eq__(self, other: object) -> Any:
        return self._is(other)

    def __ne__(self, other: object) -> Any:
        return self._is(other)._inverted()

    def __and__(self, other: object) -> RecordedCondition:
        return RecordedCondition(And(self._condition(), condition_of(other)))

    def __or__(self, other: object) -> RecordedCondition:
        return RecordedCondition(Or(self._condition(), condition_of(other)))

    def __rand__(self, other: object) -> RecordedCondition:
        return RecordedCondition(And(condition_of(other), self._condition()))

    def __ror__(self, other: object) -> RecordedCondition:
        return RecordedCondition(Or(condition_of(other), self._condition()))

    def __invert__(self) -> RecordedCondition:
        return self._inverted()

    def __bool__(self) -> bool:
        raise FilterError(
            "uses `and`, `or`, `not`, `in`, `if` or a chained comparison, which Python does not "
            "let be recorded. Write (a) & (b), (a) | (b), not_(a), each in parentheses; "
            "one_of(e.field, …) for `in`; (low <= e.field) & (e.field < high) for a chain."
        )

    def __contains__(self, item: object) -> bool:
        raise FilterError(
            "asks what a field contains, which a pattern cannot: use == or .startswith(…), or "
            "filter in the handler."
        )

    def __hash__(self) -> int:
        raise FilterError("uses `in` with a set, or a dict: write one_of(e.field, …) instead.")


class RecordedCondition(Recorder):
    """A comparison, or several joined by `&`, `|` and `~`."""

    __slots__ = ("_recorded",)

    def __init__(self, recorded: Condition) -> None:
        self._recorded = recorded

    def _condition(self) -> Condition:
        return self._recorded


class RecordedField(Recorder):
    """A field with a value that a pattern can test."""

    __slots__ = ("_field",)

    def __init__(self, field: Field) -> None:
        self._field = field

    def startswith(self, prefix: str) -> Any:
        return self._affix(Operator.STARTS, prefix)

    def endswith(self, suffix: str) -> Any:
        return self._affix(Operator.ENDS, suffix)

    def __lt__(self, other: object) -> Any:
        return self._ordered(Operator.BELOW, other)

    def __le__(self, other: object) -> Any:
        return self._ordered(Operator.AT_MOST, other)

    def __gt__(self, other: object) -> Any:
        return self._ordered(Operator.ABOVE, other)

    def __ge__(self, other: object) -> Any:
        return self._ordered(Operator.AT_LEAST, other)

    def __getattr__(self, name: str) -> NoReturn:
        raise self._field.refusal(
            f"is used with .{name}, which a pattern cannot express: it takes ==, !=, <, <=, >, >=, "
            ".startswith(…) and .endswith(…)."
        )

    def _is(self, *constants: object) -> RecordedCondition:
        given = tuple(_constant(self._field, constant) for constant in constants)
        if not given:
            raise self._field.refusal("is compared with no value at all: name at least one.")
        return RecordedCondition(Test(self._field, Operator.IS, given))

    def _condition(self) -> Condition:
        if self._field.kind is not Kind.FLAG:
            raise self._field.refusal(
                f"is used as a condition, but is {self._field.kind.value}: compare it with a "
                "value, in parentheses, as in (e.total > 100) & (e.paid)."
            )
        return Test(self._field, Operator.IS, (True,))

    def _affix(self, operator: Operator, text: object) -> RecordedCondition:
        if self._field.kind is not Kind.TEXT or self._field.type is UUID:
            raise self._field.refusal(f"is not text, so it {operator.value} nothing.")
        if not isinstance(text, str) or not text:
            raise self._field.refusal(
                f"{operator.value} {text!r}, which is no text: give one string."
            )
        return RecordedCondition(Test(self._field, operator, (text,)))

    def _ordered(self, operator: Operator, other: object) -> RecordedCondition:
        if self._field.kind is Kind.SEALED:
            raise _sealed(self._field)
        if self._field.kind is not Kind.NUMBER:
            raise self._field.refusal(
                f"is {self._field.kind.value}, and EventBridge puts only numbers in order: use == "
                "or one_of(…)."
            )
        constant = _constant(self._field, other)
        if constant is None:
            raise self._field.refusal("is compared with None by <, <=, > or >=: use exists(…).")
        return RecordedCondition(Test(self._field, operator, (constant,)))


class RecordedModel(Recorder):
    """The event, or a model within it: its attributes are recorded fields."""

    __slots__ = ("_field",)

    def __init__(self, field: Field) -> None:
        self._field = field

    def __getattr__(self, name: str) -> Recorder:
        return recorder_of(field_of(self._field, name))

    def _is(self, *constants: object) -> RecordedCondition:
        if not self._field.attributes or constants != (None,):
            raise self._field.refusal("is a model: compare its fields, or use exists(…).")
        _refuse_never_none(self._field)
        return RecordedCondition(Test(presence_of(self._field), Operator.IS, (None,)))

    def _condition(self) -> Condition:
        raise self._field.refusal("is a model, not a condition: compare one of its fields.")


def recorder_of(field: Field) -> Recorder:
    return RecordedModel(field) if field.kind is Kind.MODEL else RecordedField(field)


def condition_of(recorded: object) -> Condition:
    """What was recorded; raises `FilterError` for what was decided instead."""
    if isinstance(recorded, Recorder):
        return recorded._condition()
    raise FilterError(
        f"has {recorded!r} where a condition should be. `is` cannot be recorded: write "
        "exists(e.field). And & and | bind tighter than comparisons: put each comparison in "
        "parentheses."
    )


def _constant(field: Field, constant: object) -> Scalar | None:
    """The constant as it would stand in JSON."""
    if isinstance(constant, Recorder):
        raise field.refusal(
            "is compared with another field, and a pattern knows only constants: filter in the "
            "handler."
        )
    if constant is None:
        _refuse_never_none(field)
        return None
    if field.kind is Kind.SEALED:
        raise _sealed(field)
    if not _fits(field, constant):
        raise field.refusal(
            f"is compared with {constant!r}, which it can never be: {_possible(field)}."
        )
    scalar: Scalar = as_scalar(constant)
    if field.kind is Kind.NUMBER:
        _refuse_unseen_number(field, scalar)
    return scalar


def _fits(field: Field, constant: object) -> bool:
    """Whether Python, too, could find the field equal to the constant."""
    scalar = as_scalar(constant)
    if isinstance(field.type, type) and issubclass(field.type, (Enum, UUID)):
        plain = type(constant) in (str, int, float) and issubclass(field.type, type(constant))
        return isinstance(constant, field.type) or (plain and scalar in field.choices)
    if isinstance(constant, (Enum, UUID)) and not isinstance(constant, (str, int, float)):
        return constant in _literals(field)
    if field.kind is Kind.NUMBER:
        return isinstance(scalar, (int, float)) and not isinstance(scalar, bool)
    expected = bool if field.kind is Kind.FLAG else str
    return isinstance(scalar, expected) and (not field.choices or scalar in field.choices)


def _literals(field: Field) -> tuple[Any, ...]:
    return getattr(field.type, "__args__", ())


def _possible(field: Field) -> str:
    if field.choices:
        return f"it is one of {', '.join(map(repr, field.choices))}"
    return f"it is {field.kind.value}"


def _refuse_never_none(field: Field) -> None:
    if not field.optional:
        raise field.refusal("is never None: leave the comparison out.")


def _sealed(field: Field) -> FilterError:
    return field.refusal(
        f"is a {field.type.__name__}, which travels as text: EventBridge would compare its "
        "characters, not its value. Filter on a plain field (cents as int, a status), or in the "
        "handler."
    )


def _refuse_unseen_number(field: Field, number: Any) -> None:
    if not math.isfinite(number) or abs(number) > LARGEST_NUMBER:
        raise field.refusal(
            f"is compared with {number!r}, but EventBridge compares numbers from -5e9 to 5e9 only: "
            "use a larger unit, or filter in the handler."
        )
    _, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    if isinstance(exponent, int) and (-exponent > _DECIMALS or len(digits) > _DIGITS):
        raise field.refusal(
            f"is compared with {number!r}, but EventBridge compares {_DECIMALS} decimals and "
            f"{_DIGITS} digits: round it, or use a smaller unit."
        )


_BINARY: Final = ("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "matmul")
_BITWISE: Final = ("lshift", "rshift", "xor")
_UNARY: Final = ("neg", "pos", "abs", "round", "int", "float", "index", "trunc", "floor", "ceil")
_OTHER: Final = ("len", "iter", "getitem", "call", "format", "str")


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object) -> NoReturn:
        raise FilterError(
            f"computes with a field (`__{name}__`), and a pattern compares fields as they are: "
            "move the arithmetic to the constant, publish the result as a field, or filter in the "
            "handler."
        )

    return refuse


for _name in (*_BINARY, *_BITWISE):
    setattr(Recorder, f"__r{_name}__", _refusing(_name))
for _name in (*_BINARY, *_BITWISE, *_UNARY, *_OTHER):
    setattr(Recorder, f"__{_name}__", _refusing(_name))
