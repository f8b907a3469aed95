"""Condition expressions: parsing one, and asking whether an item meets it.

or     = and { OR and }
and    = not { AND not }
not    = NOT not | "(" or ")" | function | test
test   = operand ( comparator operand | BETWEEN operand AND operand | IN "(" operands ")" )
operand = path | :value | size "(" operand ")"
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from headrace.ports import AttributeValue, Item
from headrace.testing.expressions.parser import Parser, require_distinct
from headrace.testing.expressions.paths import look_up
from headrace.testing.expressions.symbols import Symbols
from headrace.testing.expressions.syntax import (
    BeginsWith,
    Between,
    Both,
    Comparison,
    ConditionOperand,
    ConditionTree,
    Contains,
    Either,
    Exists,
    HasType,
    In,
    Literal,
    Not,
    Path,
    Size,
)
from headrace.testing.expressions.values import (
    ORDERED,
    SETS,
    TYPES,
    identity,
    invalid,
    members,
    order,
    type_of,
)

_ORDERINGS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARATORS: Final = frozenset({"=", "<>", *_ORDERINGS})
_FUNCTIONS: Final = (
    "attribute_exists, attribute_not_exists, attribute_type, begins_with, contains, size"
)
IN_OPTIONS: Final = 100


def parse_condition(text: str, symbols: Symbols) -> ConditionTree:
    """Read a condition expression. Raises `Refused` as DynamoDB's ValidationException."""
    return _ConditionParser(text, symbols).whole()


class _ConditionParser(Parser):
    def whole(self) -> ConditionTree:
        condition = self._or()
        self.expect_end()
        return condition

    def _or(self) -> ConditionTree:
        condition = self._and()
        while self.accept("OR"):
            condition = Either(condition, self._and())
        return condition

    def _and(self) -> ConditionTree:
        condition = self._not()
        while self.accept("AND"):
            condition = Both(condition, self._not())
        return condition

    def _not(self) -> ConditionTree:
        if self.accept("NOT"):
            return Not(self._not())
        if self.accept("("):
            return self._group()
        return self._function() if self._at_boolean_function() else self._test()

    def _group(self) -> ConditionTree:
        inner = self._at
        condition = self._or()
        if self._tokens[inner].text == "(" and self._closes(inner) == self._at - 1:
            raise invalid("The expression has redundant parentheses; take one pair away.")
        self.expect(")")
        return condition

    def _closes(self, opened: int) -> int:
        depth = 0
        for at in range(opened, len(self._tokens)):
            depth += {"(": 1, ")": -1}.get(self._tokens[at].text, 0)
            if depth == 0:
                return at
        return -1

    # --- tests ---

    def _test(self) -> ConditionTree:
        left = self._operand()
        if self.peek().text in _COMPARATORS:
            return _comparison(self.take().text, left, self._operand())
        if self.accept("BETWEEN"):
            low = self._operand()
            self.expect("AND")
            return _between(left, low, self._operand())
        if self.accept("IN"):
            return _in(left, self._arguments())
        raise self.error("expected a comparator, BETWEEN or IN")

    def _operand(self) -> ConditionOperand:
        if self.peek().kind == "value":
            return self.value()
        return self._size() if self.at_function() else self.path()

    def _size(self) -> Size:
        function = self.take().text
        if function != "size":
            raise invalid(f"The function {function} cannot be used as an operand of a condition.")
        (operand,) = self._counted(function, 1)
        if isinstance(operand, Size):
            raise invalid("The operand of size() must be an attribute, not another size().")
        return Size(operand)

    # --- functions ---

    def _at_boolean_function(self) -> bool:
        return self.at_function() and self.peek().text != "size"

    def _function(self) -> ConditionTree:
        function = self.take().text
        match function:
            case "attribute_exists":
                return Exists(self._only_path(function))
            case "attribute_not_exists":
                return Not(Exists(self._only_path(function)))
            case "attribute_type":
                return _has_type(*self._counted(function, 2))
            case "begins_with":
                return _begins_with(*self._counted(function, 2))
            case "contains":
                return _contains(*self._counted(function, 2))
            case _:
                raise invalid(f"{function}() is not one of a condition's functions: {_FUNCTIONS}.")

    def _only_path(self, function: str) -> Path:
        (operand,) = self._counted(function, 1)
        if not isinstance(operand, Path):
            raise invalid(f"The operand of {function}() must be a document path.")
        return operand

    def _counted(self, function: str, count: int) -> tuple[ConditionOperand, ...]:
        operands = self._arguments()
        if len(operands) != count:
            raise invalid(f"{function}() takes {count} operands, not {len(operands)}.")
        return operands

    def _arguments(self) -> tuple[ConditionOperand, ...]:
        self.expect("(")
        operands = [self._operand()]
        while self.accept(","):
            operands.append(self._operand())
        self.expect(")")
        return tuple(operands)


# --- what DynamoDB checks before it looks at an item -----------------------------------


def _comparison(sign: str, left: ConditionOperand, right: ConditionOperand) -> Comparison:
    require_distinct(left, right)
    if sign in _ORDERINGS:
        _require_type(sign, ORDERED, left, right)
    return Comparison(sign, left, right)


def _between(value: ConditionOperand, low: ConditionOperand, high: ConditionOperand) -> Between:
    require_distinct(value, low, high)
    _require_type("BETWEEN", ORDERED, value, low, high)
    if isinstance(low, Literal) and isinstance(high, Literal):
        _require_bounds(low, high)
    return Between(value, low, high)


def _require_bounds(low: Literal, high: Literal) -> None:
    if low.type != high.type:
        raise invalid(f"The bounds of BETWEEN, {low.name} and {high.name}, differ in type.")
    if order(low.value) > order(high.value):
        raise invalid(f"The bounds of BETWEEN are reversed: {low.name} is above {high.name}.")


def _in(value: ConditionOperand, options: tuple[ConditionOperand, ...]) -> In:
    require_distinct(value, *options)
    if len(options) > IN_OPTIONS:
        raise invalid(f"IN takes at most {IN_OPTIONS} operands, not {len(options)}.")
    return In(value, options)


def _has_type(operand: ConditionOperand, wanted: ConditionOperand) -> HasType:
    if not isinstance(wanted, Literal) or wanted.type != "S":
        raise invalid("The second operand of attribute_type() must be a :value of type S.")
    if wanted.value["S"] not in TYPES:
        raise invalid(f"There is no attribute type {wanted.value['S']!r}.")
    return HasType(operand, wanted.value["S"])


def _begins_with(operand: ConditionOperand, prefix: ConditionOperand) -> BeginsWith:
    require_distinct(operand, prefix)
    _require_type("begins_with", frozenset({"S", "B"}), operand, prefix)
    return BeginsWith(operand, prefix)


def _contains(operand: ConditionOperand, part: ConditionOperand) -> Contains:
    require_distinct(operand, part)
    return Contains(operand, part)


def _require_type(name: str, types: frozenset[str], *operands: ConditionOperand) -> None:
    for operand in operands:
        if isinstance(operand, Literal) and operand.type not in types:
            raise invalid(f"The value {operand.name} of type {operand.type} cannot go with {name}.")


# --- evaluation ------------------------------------------------------------------------


def holds(condition: ConditionTree, item: Item) -> bool:
    """Whether the item meets the condition. An absent item is an empty one. What is missing
    is unequal to everything and in no order with anything."""
    match condition:
        case Both(left, right):
            return holds(left, item) and holds(right, item)
        case Either(left, right):
            return holds(left, item) or holds(right, item)
        case Not(inner):
            return not holds(inner, item)
        case Comparison(sign, left, right):
            return _compare(sign, _value(left, item), _value(right, item))
        case Between(value, low, high):
            found = _value(value, item)
            return _compare(">=", found, _value(low, item)) and _compare(
                "<=", found, _value(high, item)
            )
        case In(value, options):
            found = _value(value, item)
            return any(_compare("=", found, _value(option, item)) for option in options)
        case Exists(path):
            return look_up(item, path) is not None
        case HasType(operand, wanted):
            found = _value(operand, item)
            return found is not None and wanted in found
        case BeginsWith(operand, prefix):
            return _starts(_value(operand, item), _value(prefix, item))
        case Contains(operand, part):
            return _has(_value(operand, item), _value(part, item))


def _value(operand: ConditionOperand, item: Item) -> AttributeValue | None:
    match operand:
        case Path():
            return look_up(item, operand)
        case Literal():
            return operand.value
        case Size(of):
            return _size(_value(of, item))


def _size(value: AttributeValue | None) -> AttributeValue | None:
    if value is None:
        return None
    ((tag, content),) = value.items()
    if tag in ("N", "BOOL", "NULL"):
        return None
    return {"N": str(len(content.encode() if tag == "S" else content))}


def _compare(sign: str, left: AttributeValue | None, right: AttributeValue | None) -> bool:
    equal = left is not None and right is not None and identity(left) == identity(right)
    if sign in ("=", "<>"):
        return equal == (sign == "=")
    if left is None or right is None or left.keys() != right.keys() or not ORDERED & left.keys():
        return False
    return _ORDERINGS[sign](order(left), order(right))


def _starts(value: AttributeValue | None, prefix: AttributeValue | None) -> bool:
    if value is None or prefix is None or value.keys() != prefix.keys():
        return False
    ((tag, content),) = value.items()
    return tag in ("S", "B") and content.startswith(prefix[tag])


def _has(value: AttributeValue | None, part: AttributeValue | None) -> bool:
    if value is None or part is None:
        return False
    tag = type_of(value)
    if tag in ("S", "B"):
        return tag in part and part[tag] in value[tag]
    if tag != "L" and tag not in SETS:
        return False
    return identity(part) in map(identity, members(value))
