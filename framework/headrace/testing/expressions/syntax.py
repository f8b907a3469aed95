"""What a condition or update expression says, as a tree.

Names and values are already looked up: a `Path` holds attribute names, a `Literal` a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headrace.ports import AttributeValue


@dataclass(frozen=True, slots=True)
class Path:
    """A document path: an attribute name, then map keys (text) and list indexes (int)."""

    steps: tuple[str | int, ...]

    def __str__(self) -> str:
        text = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in self.steps)
        return text.removeprefix(".")


@dataclass(frozen=True, slots=True)
class Literal:
    """A `:value` of the request."""

    name: str
    value: AttributeValue

    @property
    def type(self) -> str:
        return next(iter(self.value))


@dataclass(frozen=True, slots=True)
class Size:
    """`size(operand)`: a number, or missing when the operand has no size."""

    of: Path | Literal


ConditionOperand: TypeAlias = Path | Literal | Size


# --- conditions ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator right` for `=`, `<>`, `<`, `<=`, `>`, `>=`."""

    operator: str
    left: ConditionOperand
    right: ConditionOperand


@dataclass(frozen=True, slots=True)
class Between:
    """`value BETWEEN low AND high`, both bounds included."""

    value: ConditionOperand
    low: ConditionOperand
    high: ConditionOperand


@dataclass(frozen=True, slots=True)
class In:
    """`value IN (option, …)`."""

    value: ConditionOperand
    options: tuple[ConditionOperand, ...]


@dataclass(frozen=True, slots=True)
class Exists:
    """`attribute_exists(path)`."""

    path: Path


@dataclass(frozen=True, slots=True)
class HasType:
    """`attribute_type(operand, :type)`."""

    operand: ConditionOperand
    type: str


@dataclass(frozen=True, slots=True)
class BeginsWith:
    """`begins_with(operand, prefix)`."""

    operand: ConditionOperand
    prefix: ConditionOperand


@dataclass(frozen=True, slots=True)
class Contains:
    """`contains(operand, part)`: a substring, or a member of a set or list."""

    operand: ConditionOperand
    part: ConditionOperand


@dataclass(frozen=True, slots=True)
class Both:
    """`left AND right`."""

    left: ConditionTree
    right: ConditionTree


@dataclass(frozen=True, slots=True)
class Either:
    """`left OR right`."""

    left: ConditionTree
    right: ConditionTree


@dataclass(frozen=True, slots=True)
class Not:
    """`NOT condition`."""

    condition: ConditionTree


ConditionTree: TypeAlias = (
    Comparison | Between | In | Exists | HasType | BeginsWith | Contains | Both | Either | Not
)


# --- updates ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IfNotExists:
    """`if_not_exists(path, otherwise)`."""

    path: Path
    otherwise: UpdateOperand


@dataclass(frozen=True, slots=True)
class ListAppend:
    """`list_append(first, second)`."""

    first: UpdateOperand
    second: UpdateOperand


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left + right` or `left - right`, on numbers."""

    sign: str
    left: UpdateOperand
    right: UpdateOperand


UpdateOperand: TypeAlias = Path | Literal | IfNotExists | ListAppend | Arithmetic


@dataclass(frozen=True, slots=True)
class SetTo:
    """`SET path = value`."""

    path: Path
    value: UpdateOperand


@dataclass(frozen=True, slots=True)
class Remove:
    """`REMOVE path`."""

    path: Path


@dataclass(frozen=True, slots=True)
class AddTo:
    """`ADD path :value`, a number to a number or a set to a set."""

    path: Path
    value: Literal


@dataclass(frozen=True, slots=True)
class DeleteFrom:
    """`DELETE path :value`, the members of one set from another."""

    path: Path
    value: Literal


UpdateStep: TypeAlias = SetTo | Remove | AddTo | DeleteFrom


@dataclass(frozen=True, slots=True)
class UpdateTree:
    """The steps of an update expression, in the order written. All of them see the item as
    it was before the update."""

    steps: tuple[UpdateStep, ...]

    @property
    def only_takes_away(self) -> bool:
        """Such an update makes no item where there is none."""
        return all(isinstance(step, Remove | DeleteFrom) for step in self.steps)
