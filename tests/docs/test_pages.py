"""What the documentation shows can be run as it stands there."""

from __future__ import annotations

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

from headrace.cli.app import app
from headrace.events import registry
from tests.docs.pages import PAGES, ROOT, Block, blocks, links


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
    if tests:
        run_tests(tests, tmp_path)


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
