"""Each kind of alarm has its page, and what the pages say to run can be run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from awscli.clidriver import create_clidriver  # type: ignore[import-untyped]  # ships no types
from typer.main import get_command

from headrace.cdk.alarm_kinds import KINDS, RUNBOOKS
from headrace.cli.app import app
from tests.docs.pages import ROOT, links

FOLDER = ROOT / RUNBOOKS
INDEX = FOLDER / "index.md"
PAGES = sorted(set(FOLDER.glob("*.md")) - {INDEX})
SECTIONS = ["Look", "Do", "Over when"]

PROGRAMS = ("headrace", "aws")
_FENCE = re.compile(r"^ *```bash\n(.*?)^ *```$", re.M | re.S)
_INLINE = re.compile(rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`")
_WITHIN = re.compile(r"\$\(([^()]*)\)")
_BETWEEN = {"|", ";", "&&", "do", "done"}


def named(page: Path) -> str:
    return page.stem


def commands(page: Path) -> list[list[str]]:
    """Every call of a program of ours or of AWS, as its words; also one within another."""
    text = page.read_text()
    lines = [line for block in _FENCE.findall(text) for line in block.splitlines()]
    return [
        words
        for line in [*lines, *_INLINE.findall(_FENCE.sub("", text))]
        for words in _calls(line)
        if words and words[0] in PROGRAMS
    ]


def _calls(line: str) -> Iterator[list[str]]:
    for within in _WITHIN.findall(line):
        yield from _calls(within)
    lexer = shlex.shlex(_WITHIN.sub("x", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word in _BETWEEN:
            yield words
            words = []
        else:
            words.append(word)
    yield words[: words.index(">")] if ">" in words else words


def test_each_kind_of_alarm_has_a_page_and_each_page_a_kind() -> None:
    assert [page.stem for page in PAGES] == sorted(kind.name for kind in KINDS)
    assert all((ROOT / kind.page).exists() for kind in KINDS)


def test_the_index_leads_to_every_page() -> None:
    assert {link for link in links(INDEX) if "/" not in link} == {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_is_short_and_says_what_one_needs_to_know(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n\n**It means** ")
    assert "\n**How urgent:** " in text
    assert re.findall(r"^## (.*)$", text, re.M) == SECTIONS
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize("page", [INDEX, *PAGES], ids=named)
def test_every_command_of_a_runbook_can_be_given_as_it_stands_there(page: Path) -> None:
    found = commands(page)
    assert found
    for program, *words in found:
        if program == "headrace":
            parse(words)
        else:
            parse_aws(words)


def parse(words: Sequence[str]) -> None:
    """Raises `click.UsageError` for what our command line would not take. A text may name a group
    of commands alone."""
    command: Any = get_command(app)
    name, rest = "headrace", list(words)
    while rest and hasattr(command, "commands"):
        name, *rest = rest
        command = command.commands[name]
    if not hasattr(command, "commands"):
        command.make_context(name, rest).close()


def parse_aws(words: Sequence[str]) -> None:
    """That AWS's command line has it, with these options, and misses none. A text may name a
    service alone."""
    service, *further = words
    known_operations = operations(service)
    if not further:
        return
    operation, *rest = further
    command = known_operations[operation]
    options = {word for word in rest if word.startswith("--")}
    known = {f"--{name}": argument for name, argument in command.arg_table.items()}
    assert options <= known.keys() | everywhere(), f"aws {service} {operation}"
    required = {option for option, argument in known.items() if argument.required}
    assert required <= options, f"aws {service} {operation}"


@cache
def services() -> Any:
    return create_clidriver().create_help_command()


@cache
def operations(service: str) -> Any:
    return services().command_table[service].create_help_command().command_table


@cache
def everywhere() -> frozenset[str]:
    """The options of every command, and those that page through answers."""
    paging = ("max-items", "page-size", "starting-token")
    return frozenset(f"--{name}" for name in (*services().arg_table, *paging))
