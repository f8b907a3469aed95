"""Update expressions: parsing one, and applying it to an item.

update  = clause { clause }, each kind at most once
clause  = SET path "=" sum {","} | REMOVE path {","} | ADD path :value {","}
        | DELETE path :value {","}
sum     = operand [ ("+" | "-") operand ]
operand = path | :value | if_not_exists "(" path "," operand ")"
        | list_append "(" operand "," operand ")"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any, TypeVar

from headrace.errors import Refused
from headrace.ports import AttributeValue, Item
from headrace.testing.expressions.parser import Parser
from headrace.testing.expressions.paths import CannotUpdate, assign, look_up, remove
from headrace.testing.expressions.symbols import Symbols
from headrace.testing.expressions.syntax import (
    AddTo,
    Arithmetic,
    DeleteFrom,
    IfNotExists,
    ListAppend,
    Literal,
    Path,
    Remove,
    SetTo,
    UpdateOperand,
    UpdateStep,
    UpdateTree,
)
from headrace.testing.expressions.values import (
    SETS,
    add,
    copied,
    copied_item,
    identity,
    invalid,
    members,
    type_of,
)

_Step = TypeVar("_Step")


def parse_update(text: str, symbols: Symbols) -> UpdateTree:
    """Read an update expression. Raises `Refused` as DynamoDB's ValidationException."""
    return _UpdateParser(text, symbols).whole()


class _UpdateParser(Parser):
    def whole(self) -> UpdateTree:
        clauses: dict[str, Callable[[], UpdateStep]] = {
            "SET": self._set,
            "REMOVE": lambda: Remove(self.path()),
            "ADD": self._add,
            "DELETE": self._delete,
        }
        steps: list[UpdateStep] = []
        while self.peek().kind != "end":
            steps += self._several(self._clause(clauses))
        _require_apart([step.path for step in steps])
        return UpdateTree(tuple(steps))

    def _clause(self, clauses: dict[str, Callable[[], UpdateStep]]) -> Callable[[], UpdateStep]:
        keyword = self.peek().keyword
        if keyword not in clauses:
            raise self.error(f"expected one of {', '.join(clauses)}, each at most once")
        self.take()
        return clauses.pop(keyword)

    def _several(self, read: Callable[[], _Step]) -> list[_Step]:
        found = [read()]
        while self.accept(","):
            found.append(read())
        return found

    # --- clauses ---

    def _set(self) -> SetTo:
        path = self.path()
        self.expect("=")
        return SetTo(path, self._sum())

    def _add(self) -> AddTo:
        return AddTo(self.path(), self._typed_value("ADD", SETS | {"N"}))

    def _delete(self) -> DeleteFrom:
        return DeleteFrom(self.path(), self._typed_value("DELETE", SETS))

    def _typed_value(self, clause: str, types: frozenset[str]) -> Literal:
        value = self.value()
        _require_type(clause, types, value)
        return value

    # --- operands ---

    def _sum(self) -> UpdateOperand:
        left = self._operand()
        for sign in ("+", "-"):
            if self.accept(sign):
                right = self._operand()
                _require_type(sign, frozenset({"N"}), left, right)
                return Arithmetic(sign, left, right)
        return left

    def _operand(self) -> UpdateOperand:
        if self.peek().kind == "value":
            return self.value()
        return self._function() if self.at_function() else self.path()

    def _function(self) -> UpdateOperand:
        function = self.take().text
        if function not in ("if_not_exists", "list_append"):
            raise invalid(f"The function {function} cannot be used in an update expression.")
        self.expect("(")
        first = self.path() if function == "if_not_exists" else self._operand()
        self.expect(",")
        second = self._operand()
        self.expect(")")
        if function == "if_not_exists" and isinstance(first, Path):
            return IfNotExists(first, second)
        _require_type(function, frozenset({"L"}), first, second)
        return ListAppend(first, second)


# --- what DynamoDB checks before it looks at an item -----------------------------------


def _require_apart(paths: Iterable[Path]) -> None:
    for one, other in combinations(paths, 2):
        pairs = list(zip(one.steps, other.steps, strict=False))
        apart = next(((a, b) for a, b in pairs if a != b), None)
        if apart is None:
            raise invalid(f"The document paths {one} and {other} overlap; change each part once.")
        if isinstance(apart[0], str) != isinstance(apart[1], str):
            raise invalid(f"The document paths {one} and {other} conflict: a map or a list?")


def _require_type(name: str, types: frozenset[str], *operands: UpdateOperand) -> None:
    for operand in operands:
        if isinstance(operand, Literal) and operand.type not in types:
            raise invalid(f"The value {operand.name} of type {operand.type} cannot go with {name}.")


# --- application -----------------------------------------------------------------------


def updated(update: UpdateTree, old: Item) -> Item:
    """The item after the update; every operand is read from the item before it.

    Raises `CannotUpdate` when the expression does not go with what the item holds.
    """
    new = copied_item(old)
    values = [(step, _outcome(step, old)) for step in update.steps]
    for step, value in sorted(values, key=lambda pair: _turn(*pair)):
        if value is None:
            remove(new, step.path)
        else:
            assign(new, step.path, copied(value))
    return new


def _turn(step: UpdateStep, value: AttributeValue | None) -> tuple[int, int]:
    # Indexes are those of the old list: append in order first, then remove from the end.
    last = step.path.steps[-1]
    index = last if isinstance(last, int) else 0
    return (1, -index) if value is None else (0, index)


def _outcome(step: UpdateStep, old: Item) -> AttributeValue | None:
    """What the step leaves at its path; None for nothing."""
    match step:
        case SetTo(_, operand):
            return _value(operand, old)
        case Remove():
            return None
        case AddTo(path, literal):
            return _added(look_up(old, path), literal.value)
        case DeleteFrom(path, literal):
            return _without(look_up(old, path), literal.value)


def _value(operand: UpdateOperand, old: Item) -> AttributeValue:
    match operand:
        case Literal():
            return operand.value
        case Path():
            return _existing(operand, old)
        case IfNotExists(path, otherwise):
            found = look_up(old, path)
            return found if found is not None else _value(otherwise, old)
        case ListAppend(first, second):
            return {"L": _typed("L", first, old) + _typed("L", second, old)}
        case Arithmetic(sign, left, right):
            return {"N": _sum(_typed("N", left, old), _typed("N", right, old), sign)}


def _existing(path: Path, old: Item) -> AttributeValue:
    found = look_up(old, path)
    if found is None:
        raise CannotUpdate(f"The update refers to {path}, which the item does not have.")
    return found


def _typed(tag: str, operand: UpdateOperand, old: Item) -> Any:
    """The content of an operand that has to be of type `tag`."""
    value = _value(operand, old)
    if tag not in value:
        raise CannotUpdate(f"An operand of the update is {type_of(value)} and has to be {tag}.")
    return value[tag]


def _sum(left: str, right: str, sign: str) -> str:
    try:
        return add(left, right, sign)
    except Refused as overflow:
        raise CannotUpdate(str(overflow)) from overflow


def _added(old: AttributeValue | None, more: AttributeValue) -> AttributeValue:
    if old is None:
        return more
    tag = _same_type("ADD", old, more)
    if tag == "N":
        return {"N": _sum(old["N"], more["N"], "+")}
    known = {identity(member) for member in members(old)}
    extra = [member for member in members(more) if identity(member) not in known]
    return {tag: [*old[tag], *(member[tag[0]] for member in extra)]}


def _without(old: AttributeValue | None, less: AttributeValue) -> AttributeValue | None:
    if old is None:
        return None
    tag = _same_type("DELETE", old, less)
    gone = {identity(member) for member in members(less)}
    left = [member[tag[0]] for member in members(old) if identity(member) not in gone]
    return {tag: left} if left else None


def _same_type(clause: str, old: AttributeValue, change: AttributeValue) -> str:
    if old.keys() != change.keys():
        raise CannotUpdate(f"{clause} of {type_of(change)} does not go with {type_of(old)}.")
    return type_of(old)
