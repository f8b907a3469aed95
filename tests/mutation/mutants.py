"""Small changes to a module's source, one at a time.

Only what stands in functions is changed: what runs at import (defaults, decorators, constants of a
module) is not. Neither are the words of errors and logs, nor annotations.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final


@dataclass(frozen=True)
class Mutant:
    """One changed function. `function` is its qualified name, and that of the outermost where
    functions are nested; `lines` are those of the changed statement, in the original. `tree` is a
    module with nothing but that function in it."""

    function: str
    lines: range
    change: str
    tree: ast.Module
    path: Path

    @property
    def name(self) -> str:
        """Stays the same as long as the changed text does, wherever its lines move."""
        return f"{self.path.stem}.{self.function}: {self.change}"


def mutants_of(source: str, path: Path) -> list[Mutant]:
    """Every mutant of a module, in the order of its source."""
    return _distinct(
        [
            Mutant(".".join(names), site.lines, site.change, _with(names, function, site), path)
            for names, function in _functions(ast.parse(source))
            for site in _sites(function)
        ]
    )


def _distinct(mutants: Sequence[Mutant]) -> list[Mutant]:
    """Without those that two ways of changing have in common; the same words twice in a function
    are numbered."""
    seen: dict[str, Mutant] = {}
    counts: dict[str, int] = {}
    for mutant in mutants:
        code = ast.unparse(mutant.tree)
        if code in seen:
            continue
        count = counts[mutant.name] = counts.get(mutant.name, 0) + 1
        suffix = f" ({count})" if count > 1 else ""
        seen[code] = replace(mutant, change=mutant.change + suffix)
    return list(seen.values())


def _functions(tree: ast.AST, *scope: str) -> Iterator[tuple[tuple[str, ...], ast.stmt]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, *scope, node.name)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield (*scope, node.name), node


# --- sites -----------------------------------------------------------------------------

Change = Callable[[Any], Any]


@dataclass(frozen=True)
class _Site:
    """A node, by its place in the walk over the tree, and what becomes of it."""

    node: ast.AST
    lines: range
    change: str
    make: Change


def _with(names: Sequence[str], function: ast.stmt, site: _Site) -> ast.Module:
    number = next(n for n, node in enumerate(ast.walk(function)) if node is site.node)
    changed = copy.deepcopy(function)
    target = next(node for n, node in enumerate(ast.walk(changed)) if n == number)
    changed = _Replacing(target, site.make(target)).visit(changed)
    for name in reversed(names[:-1]):
        changed = ast.ClassDef(name, bases=[], keywords=[], body=[changed], decorator_list=[])
    future = ast.parse("from __future__ import annotations").body
    return ast.fix_missing_locations(ast.Module([*future, changed], []))


class _Replacing(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old = old
        self._new = new

    def visit(self, node: ast.AST) -> Any:
        return self._new if node is self._old else self.generic_visit(node)


def _sites(function: ast.AST) -> Iterator[_Site]:
    for node, lines in _walk(function, range(0)):
        for words, make in _changes(node):
            yield _Site(node, lines, words, make)


def _walk(node: ast.AST, lines: range) -> Iterator[tuple[ast.AST, range]]:
    """The nodes that may be changed, with the lines of the statement they are in."""
    if isinstance(node, (ast.stmt, ast.excepthandler)):
        lines = _lines(node)
    yield node, lines
    if isinstance(node, (ast.Raise, ast.JoinedStr)) or _is_log(node):
        return
    for name, value in ast.iter_fields(node):
        if name not in _NOT_RUN or isinstance(node, ast.Call):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_docstring(child):
                    yield from _walk(child, lines)


_NOT_RUN: Final = ("annotation", "returns", "decorator_list", "args")


def _lines(statement: ast.stmt | ast.excepthandler) -> range:
    """Of a compound statement, only those up to its body."""
    body = getattr(statement, "body", None)
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return range(statement.lineno, (statement.end_lineno or 0) + 1)
    if isinstance(body, list):
        return range(statement.lineno, body[0].lineno)
    return range(statement.lineno, (statement.end_lineno or 0) + 1)


def _is_log(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger.")


# --- changes ---------------------------------------------------------------------------


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    for changes in (_operators, _conditions, _constants, _statements, _orders):
        yield from changes(node)


_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def _operators(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            other = _COMPARISONS[type(operator)]
            yield f"{_text(node)} -> {other.__name__}", _set_in("ops", index, other)
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _ARITHMETIC:
        swapped = _ARITHMETIC[type(node.op)]
        yield f"{_text(node)} -> {swapped.__name__}", _set("op", swapped)
    elif isinstance(node, ast.BoolOp):
        connective = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{_text(node)} -> {connective.__name__}", _set("op", connective)
        for index, value in enumerate(node.values):
            yield f"{_text(node)} without {_text(value)}", _without("values", index)


def _conditions(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"{_text(node)} -> without not", lambda n: n.operand
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield f"{_kind(node)} {_text(node.test)} -> not", _negated
    elif isinstance(node, ast.comprehension):
        for index, test in enumerate(node.ifs):
            yield f"for … if {_text(test)} -> always", _dropped("ifs", index)


def _constants(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield f"{value} -> {not value}", lambda n: ast.Constant(not n.value)
        elif isinstance(value, (int, float)):
            yield f"{value} -> {value + 1}", lambda n: ast.Constant(n.value + 1)
        elif isinstance(value, str):
            yield f"{value!r} -> other text", lambda n: ast.Constant(f"x{n.value}")


def _statements(node: ast.AST) -> Iterator[tuple[str, Change]]:
    if isinstance(node, ast.Return) and node.value is not None and not _is_falsy(node.value):
        yield f"{_text(node)} -> None", lambda n: ast.Return(ast.Constant(None))
    if isinstance(node, _REMOVABLE):
        yield f"without {_text(node)}", lambda n: ast.Pass()


_REMOVABLE: Final = (
    ast.Expr,
    ast.Assign,
    ast.AugAssign,
    ast.Delete,
    ast.Raise,
    ast.Return,
    ast.Continue,
    ast.Break,
)


def _orders(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Two statements of which one waits, the other way round."""
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if not isinstance(body, list):
            continue
        for index, (first, second) in enumerate(pairwise(body)):
            if (_waits(first) or _waits(second)) and _is_plain(first) and _is_plain(second):
                yield f"{_text(second)} before {_text(first)}", _swapped(name, index)


def _waits(node: ast.AST) -> bool:
    return any(isinstance(n, (ast.Await, ast.AsyncFor, ast.AsyncWith)) for n in ast.walk(node))


def _is_plain(node: ast.AST) -> bool:
    return not isinstance(node, (ast.Return, ast.Raise, ast.Continue, ast.Break)) and (
        not _is_docstring(node)
    )


# --- how a node is changed -------------------------------------------------------------


def _set(name: str, operator: type[ast.AST]) -> Change:
    def make(node: ast.AST) -> ast.AST:
        setattr(node, name, operator())
        return node

    return make


def _set_in(name: str, index: int, operator: type[ast.AST]) -> Change:
    def make(node: ast.AST) -> ast.AST:
        getattr(node, name)[index] = operator()
        return node

    return make


def _dropped(name: str, index: int) -> Change:
    def make(node: ast.AST) -> ast.AST:
        del getattr(node, name)[index]
        return node

    return make


def _without(name: str, index: int) -> Change:
    def make(node: ast.AST) -> ast.AST:
        values = getattr(node, name)
        del values[index]
        remaining: ast.AST = values[0] if len(values) == 1 else node
        return remaining

    return make


def _negated(node: ast.AST) -> ast.AST:
    assert isinstance(node, (ast.If, ast.While, ast.IfExp))
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return node


def _swapped(name: str, index: int) -> Change:
    def make(node: ast.AST) -> ast.AST:
        body = getattr(node, name)
        body[index], body[index + 1] = body[index + 1], body[index]
        return node

    return make


def _kind(node: ast.AST) -> str:
    return "while" if isinstance(node, ast.While) else "if"


def _is_falsy(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not node.value


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else f"{text[:67]}…"
