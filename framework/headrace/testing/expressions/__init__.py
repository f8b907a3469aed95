"""DynamoDB's condition and update expressions, for the in-memory store."""

from __future__ import annotations

from headrace.testing.expressions.condition import holds, parse_condition
from headrace.testing.expressions.paths import CannotUpdate
from headrace.testing.expressions.symbols import Symbols
from headrace.testing.expressions.syntax import ConditionTree, UpdateTree
from headrace.testing.expressions.update import parse_update, updated

__all__ = [
    "CannotUpdate",
    "ConditionTree",
    "Symbols",
    "UpdateTree",
    "holds",
    "parse_condition",
    "parse_update",
    "updated",
]
