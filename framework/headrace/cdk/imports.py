"""Which modules a program may import, read from its sources without running them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.text import did_you_mean


@dataclass(frozen=True, slots=True)
class Program:
    """What a program is made of.

    `modules` are files of the sources by module name. `foreign` are packages of others that are
    imported as soon as the program is, each with one module that imports it.
    """

    modules: Mapping[str, Path]
    foreign: Mapping[str, str]


def program(entry_points: Sequence[str], sources: Sequence[Path], library: Path) -> Program:
    """Everything that may be imported by these modules, in functions too.

    `sources` are folders that would be on `sys.path`, in that order; of other folders only
    `library` is looked into, the folder of one package. What is imported for types only is left
    out, and so is what is imported by a name that is put together at run time; a name in quotes
    (`import_module("shop.mail")`) is seen. Raises `ConfigurationError` for an entry point, or a
    module of the sources, that is not there.
    """
    shelf = _Shelf(sources, library)
    for name in entry_points:
        if shelf.file(name) is None:
            raise ConfigurationError(_no_entry_point(name, shelf))
    reader = _Reader(shelf)
    at_once = reader.closure(entry_points, at_once=True)
    return Program(
        modules=dict(sorted(reader.closure(entry_points, at_once=False).items())),
        foreign=dict(reader.foreign(at_once)),
    )


class _Shelf:
    """Where modules lie."""

    def __init__(self, sources: Sequence[Path], library: Path) -> None:
        self.sources = sources
        self._library = library
        self._places: dict[str, Path | None] = {}

    def place(self, name: str) -> Path | None:
        """The file of a module, or the folder of a package that has no file."""
        if name not in self._places:
            self._places[name] = self._found(name)
        return self._places[name]

    def _found(self, name: str) -> Path | None:
        for root in self._roots(name):
            bare = root.joinpath(*name.split("."))
            for path in (bare / "__init__.py", bare.parent / f"{bare.name}.py", bare):
                if path.is_file() or (path == bare and path.is_dir()):
                    return path
        return None

    def file(self, name: str) -> Path | None:
        path = self.place(name)
        return path if path is not None and path.suffix == ".py" else None

    def names(self) -> Iterator[str]:
        """Of the modules that are in packages, for an error sentence."""
        for root in self.sources:
            for path in root.glob("[a-z]*/**/*.py"):
                yield ".".join(path.relative_to(root).with_suffix("").parts)

    def _roots(self, name: str) -> Iterable[Path]:
        if _top(name) == self._library.name:
            return (self._library.parent,)
        return self.sources


@dataclass(frozen=True, slots=True)
class _Import:
    """`targets` are modules; `perhaps` are modules, or names in one."""

    targets: tuple[str, ...]
    perhaps: tuple[str, ...]
    at_once: bool


class _Reader:
    def __init__(self, shelf: _Shelf) -> None:
        self._shelf = shelf
        self._read: dict[str, tuple[_Import, ...]] = {}

    def closure(self, names: Iterable[str], *, at_once: bool) -> dict[str, Path]:
        found: dict[str, Path] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            for each in _with_parents(name):
                path = self._shelf.file(each)
                if path is None or each in found:
                    continue
                found[each] = path
                waiting += self._imported(each, path, at_once=at_once)
        return found

    def foreign(self, modules: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
        """Packages that are neither of the sources nor of Python; each may come several times."""
        for name, path in modules.items():
            for one in self._imports(name, path):
                for target in one.targets if one.at_once else ():
                    top = _top(target)
                    if self._shelf.place(top) is None and top not in sys.stdlib_module_names:
                        yield top, name

    def _imported(self, name: str, path: Path, *, at_once: bool) -> Iterator[str]:
        for one in self._imports(name, path):
            if one.at_once or not at_once:
                yield from one.targets
                yield from one.perhaps

    def _imports(self, name: str, path: Path) -> tuple[_Import, ...]:
        if name not in self._read:
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            visitor = _Visitor(package)
            visitor.visit(ast.parse(path.read_bytes(), str(path)))
            self._require(name, visitor.found)
            self._read[name] = tuple(visitor.found)
        return self._read[name]

    def _require(self, importer: str, imports: Iterable[_Import]) -> None:
        for one in imports:
            for target in one.targets if one.at_once else ():
                if self._shelf.place(target) is None and self._shelf.file(_top(target)):
                    raise ConfigurationError(
                        f"{importer} imports {target}, which is not there. Correct the import, or "
                        "name the folder that has it among the sources."
                    )


class _Visitor(ast.NodeVisitor):
    """Finds imports, and knows which run as soon as the module does."""

    def __init__(self, package: str) -> None:
        self.found: list[_Import] = []
        self._package = package
        self._at_once = True

    def visit_Import(self, node: ast.Import) -> None:
        self._add(*(alias.name for alias in node.names))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self._absolute(node)
        self._add(module, perhaps=[f"{module}.{alias.name}" for alias in node.names])

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        first = node.args[0] if node.args else None
        if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
            self.found.append(_Import((), (str(first.value),), at_once=False))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._perhaps(*(() if _is_for_types(node.test) else node.body), *node.orelse)

    def visit_Try(self, node: ast.Try) -> None:
        # Who catches something can do without.
        self._perhaps(*node.body, *node.handlers, *node.orelse, *node.finalbody)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._perhaps(*ast.iter_child_nodes(node))

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._perhaps(*ast.iter_child_nodes(node))

    def _perhaps(self, *nodes: ast.AST) -> None:
        before, self._at_once = self._at_once, False
        for node in nodes:
            self.visit(node)
        self._at_once = before

    def _add(self, *targets: str, perhaps: Iterable[str] = ()) -> None:
        self.found.append(_Import(targets, tuple(perhaps), self._at_once))

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        above = self._package.split(".")
        above = above[: len(above) - node.level + 1]
        return ".".join([*above, *filter(None, [node.module])])


def _is_for_types(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def _top(name: str) -> str:
    return name.partition(".")[0]


def _no_entry_point(name: str, shelf: _Shelf) -> str:
    where = ", ".join(str(root) for root in shelf.sources)
    return f"There is no module {name} in {where}. {did_you_mean(name, shelf.names())}"
