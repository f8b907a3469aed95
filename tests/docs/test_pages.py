"""What the documentation shows can be run as it stands there."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import headrace_pytest
from headrace import testing
from headrace.cli.app import app
from headrace.events import registry
from headrace.testing import Faults, Harness, Letter, Report, World, simulate
from tests.docs.pages import PAGES, ROOT, Block, blocks, links
from tests.sabotage.sabotages import SABOTAGES

DONE_ELSEWHERE = ROOT / "docs" / "break-your-service.md"
"""Its first version is wrong on purpose: `test_break_your_service` runs its tests."""


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def of(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@pytest.fixture
def modules() -> Iterator[None]:
    """What a page imports or defines as modules is forgotten after it."""
    before = dict(sys.modules)
    with registry.scratch(empty=True):
        yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))], ids=named
)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = types.ModuleType("page")
    sys.modules["page"] = module
    tests = []
    for block in blocks(page):
        if block.language != "python":
            continue
        if block.title:
            (tmp_path / block.title).write_text(block.code)
            tests += [block.title] if block.title.startswith("test_") else []
        code = compile(block.code, str(block), "exec", dont_inherit=True)
        if block.title:
            module = types.ModuleType(block.title.removesuffix(".py"))
            sys.modules[module.__name__] = module
        exec(code, module.__dict__)
    if tests and page != DONE_ELSEWHERE:
        run_tests(tests, tmp_path)


SEEDS = 25
"""Runs of a simulation on a page that says nothing of them: what it shows is that it can be run."""


def run_tests(files: list[str], folder: Path) -> None:
    """Run the test files of a page as a reader would, with nothing of this project's settings."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--asyncio-mode=auto",
        "-p",
        "no:cacheprovider",
        "-p",
        "headrace_pytest",
        f"--headrace-seeds={SEEDS}",
    ]
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'framework'}"}
    done = subprocess.run(
        [*command, *files], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_the_json_of_a_page_is_json(block: Block) -> None:
    assert json.loads(block.code)


COMMANDS = re.compile(r"^\s*(headrace|make)\s+([\w-]+)(.*)$", re.M)


@pytest.mark.parametrize("block", of("bash"), ids=str)
def test_every_command_of_a_page_exists_with_its_options(block: Block) -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]  # a group, as it has many
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for program, name, rest in COMMANDS.findall(block.code):
        if program == "make":
            assert name in targets
            continue
        assert name in known
        options = {o for parameter in known[name].params for o in parameter.opts}
        subcommands = getattr(known[name], "commands", {})
        options |= {o for c in subcommands.values() for p in c.params for o in p.opts}
        given = re.findall(r"(?<=\s)--[a-z][\w-]*", rest.split("#")[0].split("'")[0])
        assert set(given) <= options | {"--help"}


def test_the_reference_names_every_command_and_every_option() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    known = get_command(app).commands  # type: ignore[attr-defined]  # a group, as it has many
    assert set(sections) == set(known)
    for name, command in known.items():
        commands = [command, *getattr(command, "commands", {}).values()]
        options = {o for c in commands for p in c.params for o in p.opts if o.startswith("--")}
        assert [o for o in sorted(options - {"--help"}) if o not in sections[name]] == []


def test_the_reference_of_testing_names_all_that_is_public() -> None:
    page = (ROOT / "docs" / "reference" / "testing.md").read_text()
    options = re.findall(r'"(--headrace-\w+)"', Path(headrace_pytest.__file__).read_text())
    assert [name for name in (*testing.__all__, *options) if f"`{name}" not in page] == []
    for cls in (Harness, World, Report, Letter):
        public = [name for name in dir(cls) if not name.startswith("_")]
        assert [name for name in public if not re.search(rf"[`( ]{name}[`(]", page)] == []
    arguments = inspect.signature(simulate).parameters
    assert [name for name in arguments if f"\n| `{name}` |" not in page] == []


def test_the_table_of_faults_has_every_kind_with_its_rate() -> None:
    page = (ROOT / "docs" / "how-to" / "simulate.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", page, re.M)
    assert {kind: float(rate) for kind, rate in told} == Faults().rates()


def test_the_page_on_exactly_once_names_every_sabotage() -> None:
    page = (ROOT / "docs" / "explanation" / "exactly-once.md").read_text()
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", page.partition("## How we know")[2], re.M
    )
    assert rows[1:] == [sabotage.name for sabotage in SABOTAGES]
