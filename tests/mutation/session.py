"""A pytest session that runs its tests once as they are, and then once for every mutant.

The tests are collected once. Each mutant lives in a fork of the process, where the code of one
function is replaced, and meets only the tests that ran a line of that function's statement.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

import pytest

from tests.mutation.mutants import Mutant

AT_ONCE: Final = os.cpu_count() or 1
SECONDS: Final = 20
"""A mutant that takes longer runs for ever, and counts as killed."""

_KILLED: Final = 1
_BROKEN: Final = 2


class MutationSession:
    """A plugin that has an opinion on `mutants` when pytest is done."""

    def __init__(self, mutants: Mapping[str, Sequence[Mutant]]) -> None:
        self._modules = {name: importlib.import_module(name) for name in mutants}
        self._mutants = [(name, mutant) for name, each in mutants.items() for mutant in each]
        self._failed = False
        self._running: dict[int, Mutant] = {}
        self.count = len(self._mutants)
        self.survivors: list[Mutant] = []
        self.broken: list[Mutant] = []
        self.finished = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        coverage = self._baseline(session.items)
        if self._failed or session.testsfailed:
            return True
        for number, (module, mutant) in enumerate(self._mutants):
            if number % 50 == 0:
                print(f"\n{number} of {self.count}", end="", file=sys.stderr, flush=True)
            items = coverage.get((str(mutant.path), mutant.function), [])
            self._try(module, mutant, [item for item, lines in items if lines & {*mutant.lines}])
        while self._running:
            self._reap()
        self.survivors.sort(key=lambda mutant: (mutant.path.name, mutant.lines.start))
        self.finished = True
        return True

    def _baseline(
        self, items: Sequence[pytest.Item]
    ) -> dict[tuple[str, str], list[tuple[pytest.Item, set[int]]]]:
        """For each function, the tests that run it, and the lines that they run."""
        coverage: dict[tuple[str, str], list[tuple[pytest.Item, set[int]]]] = defaultdict(list)
        files = {str(mutant.path) for _, mutant in self._mutants}
        for item in items:
            tracer = _Tracer(files)
            with tracer:
                _run(item)
            for function, lines in tracer.lines.items():
                coverage[function].append((item, lines))
        return coverage

    def _try(self, module: str, mutant: Mutant, items: Sequence[pytest.Item]) -> None:
        if not items:
            self.survivors.append(mutant)
            return
        while len(self._running) >= AT_ONCE:
            self._reap()
        child = os.fork()
        if child:
            self._running[child] = mutant
            return
        try:
            status = self._live(module, mutant, items)
        except BaseException:
            status = _BROKEN
        os._exit(status)

    def _live(self, module: str, mutant: Mutant, items: Sequence[pytest.Item]) -> int:
        """In a process of its own: whether a test notices."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        items[0].config.pluginmanager.unregister(name="terminalreporter")
        replace(self._modules[module], mutant)
        for item in items:
            _run(item)
            if self._failed:
                return _KILLED
        return 0

    def _reap(self) -> None:
        child, status = os.wait()
        mutant = self._running.pop(child, None)
        if mutant is None:
            return
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _BROKEN:
            self.broken.append(mutant)
        elif status == 0:
            self.survivors.append(mutant)


def _run(item: pytest.Item) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


class _Tracer:
    """Notes which lines of some files run, by their outermost function."""

    def __init__(self, files: set[str]) -> None:
        self._files = files
        self.lines: dict[tuple[str, str], set[int]] = defaultdict(set)

    def __enter__(self) -> None:
        sys.settrace(self._call)

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        function = frame.f_code.co_qualname.partition(".<locals>")[0]
        key = (frame.f_code.co_filename, function)
        self.lines[key].add(frame.f_lineno)
        return functools.partial(self._line, self.lines[key])

    def _line(self, lines: set[int], frame: FrameType, event: str, argument: Any) -> Any:
        lines.add(frame.f_lineno)
        return functools.partial(self._line, lines)


# --- putting a mutant in place ---------------------------------------------------------


def replace(module: Any, mutant: Mutant) -> None:
    """Give the function its changed code, wherever it is known already."""
    whole = compile(mutant.tree, str(mutant.path), "exec", dont_inherit=True)
    codes = {code.co_qualname: code for code in _codes(whole)}
    for function in _functions(module):
        if function.__code__.co_qualname == mutant.function:
            function.__code__ = codes[mutant.function]
            return
    raise LookupError(f"{mutant.function} is not found in {module.__name__}.")


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _functions(module: Any) -> Iterator[FunctionType]:
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__:
            for attribute in vars(value).values():
                yield from _unwrapped(attribute)
        else:
            yield from _unwrapped(value)


def _unwrapped(value: Any) -> Iterator[FunctionType]:
    for name in ("__func__", "fget", "__wrapped__"):
        with contextlib.suppress(AttributeError):
            yield from _unwrapped(getattr(value, name))
    if isinstance(value, FunctionType):
        yield value
