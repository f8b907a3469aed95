"""Every place where a coroutine can be left: found in the source, and made into a site.

`await x`, each step of an `async for`, and the entry and the exit of an `async with` become calls
of `tests.crash.passing`, in the modules that the commit path is made of. Which these are is read
from their imports. So a new await, in a new module or an old one, is a site by itself.

Imports nothing of headrace: `install` has to come before the first import of it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from tests.crash import passing

PACKAGE = "headrace"
ROOTS = ("batch", "settle", "pipeline", "saga.handling")
"""Where the commit path begins; everything these import, directly or not, belongs to it. The
adapters do not, as no module of the path may import them."""

_RUNTIME = "__crash__"


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """One place in the source. `ordinal` counts the sites of a function; `kind` is `await`,
    `next`, `enter` or `exit`."""

    module: str
    line: int
    function: str
    ordinal: int
    kind: str
    text: str

    @property
    def id(self) -> str:
        """The same as long as the function has the same sites, wherever its lines move."""
        return f"{self.module}:{self.function}:{self.ordinal}"

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function}, {self.kind}: {self.text}"


def install() -> None:
    """From now on, this process imports the modules of the path with their sites.

    Raises `RuntimeError` if some of them are imported already: their awaits would be missed.
    """
    sources = path_sources()
    early = sorted(sources.keys() & sys.modules.keys())
    if early:
        raise RuntimeError(f"Imported before their sites could be made: {', '.join(early)}")
    sys.meta_path.insert(0, _Finder(sources))


def has_sites(module: str) -> bool:
    """Whether this process has imported the module with its sites."""
    return hasattr(import_module(module), _RUNTIME)


def sites() -> list[Site]:
    """Every site of the path, in the order of the source."""
    return [
        site
        for module, path in sorted(path_sources().items())
        for site in instrumented(path.read_text(), module)[1]
    ]


@cache
def path_sources() -> Mapping[str, Path]:
    """The modules of the path and their files, from the roots along their imports."""
    files = dict(_modules())
    found: dict[str, Path] = {}
    waiting = [f"{PACKAGE}.{root}" for root in ROOTS]
    while waiting:
        name = waiting.pop()
        if name not in found and name in files:
            found[name] = files[name]
            waiting += _imports(files[name], name)
    return found


def instrumented(source: str, module: str) -> tuple[ast.Module, list[Site]]:
    """The tree of a module with its sites in place, and the sites."""
    instrumenter = _Instrumenter(module)
    tree: ast.Module = ast.fix_missing_locations(instrumenter.visit(ast.parse(source)))
    return tree, instrumenter.sites


def _modules() -> Iterator[tuple[str, Path]]:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{PACKAGE} cannot be found: put its folder on the path.")
    folder = Path(spec.origin).parent
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def _imports(path: Path, module: str) -> Iterator[str]:
    """What a module imports, wherever the import stands."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            target = ".".join([*start, *filter(None, [node.module])])
            yield target
            yield from (f"{target}.{alias.name}" for alias in node.names)


class _Instrumenter(ast.NodeTransformer):
    def __init__(self, module: str) -> None:
        self.sites: list[Site] = []
        self._module = module
        self._scope: list[str] = []
        self._counts: dict[str, int] = {}

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._within(node.name, node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._within(node.name, node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._within(node.name, node)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        site = self._site("await", node.value, node.lineno)
        self.generic_visit(node)
        node.value = _through("awaited", node.value, site)
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        site = self._site("next", node.iter, node.lineno)
        self.generic_visit(node)
        node.iter = _through("Iterated", node.iter, site)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        site = self._site("next", node.iter, node.iter.lineno) if node.is_async else None
        self.generic_visit(node)
        if site is not None:
            node.iter = _through("Iterated", node.iter, site)
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        pairs = [
            [self._site(kind, item.context_expr, item.context_expr.lineno) for kind in _WITH]
            for item in node.items
        ]
        self.generic_visit(node)
        for item, pair in zip(node.items, pairs, strict=True):
            item.context_expr = _through("Entered", item.context_expr, *pair)
        return node

    def _within(self, name: str, node: ast.AST) -> ast.AST:
        self._scope.append(name)
        self.generic_visit(node)
        self._scope.pop()
        return node

    def _site(self, kind: str, expression: ast.expr, line: int) -> Site:
        function = ".".join(self._scope)
        ordinal = self._counts[function] = self._counts.get(function, 0) + 1
        text = ast.unparse(expression)
        site = Site(self._module, line, function, ordinal, kind, text)
        self.sites.append(site)
        return site


_WITH = ("enter", "exit")


def _through(function: str, expression: ast.expr, *sites: Site) -> ast.expr:
    call = ast.Call(
        func=ast.Attribute(ast.Name(_RUNTIME, ast.Load()), function, ast.Load()),
        args=[expression, *(ast.Constant(site.id) for site in sites)],
        keywords=[],
    )
    return ast.copy_location(call, expression)


class _Finder(MetaPathFinder):
    def __init__(self, sources: Mapping[str, Path]) -> None:
        self._sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._sources:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        # Past the cached bytecode, which is that of the module without sites.
        tree, _ = instrumented(Path(self.path).read_text(), fullname)
        code: Any = compile(tree, self.path, "exec", dont_inherit=True)
        assert isinstance(code, CodeType)
        return code

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, _RUNTIME, passing)
        super().exec_module(module)
