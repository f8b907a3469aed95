"""The command line, called in this process, in a project of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from headrace.cli import main

SHOP = """
from headrace import Command, Event, Service

class Bought(Event, source="cli.shop"):
    sku: str
    pieces: int = 1

class Shipped(Event, source="cli.store"):
    sku: str

class Pack(Command, owner="store"):
    sku: str

till = Service("till", bus="shop")
store = Service("store", bus="shop")
opening_hours = "9 to 5"

@till.on(Shipped)
async def thank(event: Shipped) -> Bought | None: ...

@store.on(Bought, Pack)
async def pack(event: Bought | Pack) -> Shipped | None: ...
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str


Headrace: TypeAlias = Callable[..., Ended]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a package `shop` in it; what it imports is forgotten after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "app.py").write_text(SHOP)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {path.stem for path in tmp_path.iterdir()}:
            del sys.modules[name]


@pytest.fixture
def headrace(project: Path, capsys: pytest.CaptureFixture[str]) -> Headrace:
    """`headrace("check", "shop.app:till")`"""
    return calling(capsys)


def calling(capsys: pytest.CaptureFixture[str]) -> Headrace:
    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ended(code, captured.out, captured.err)

    return call
