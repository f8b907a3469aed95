"""`headrace schemas`: the JSON Schemas of events and commands, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from headrace.errors import ConfigurationError
from headrace.text import counted

from .loading import load_package

schemas = typer.Typer(no_args_is_help=True)


@schemas.callback()
def group() -> None:
    """Write and compare JSON Schemas."""


@schemas.command()
def export(
    module: Annotated[
        str, typer.Argument(metavar="MODULE", help="The module or package that defines them.")
    ],
    to: Annotated[Path, typer.Option(help="The directory of the files.", show_default=False)],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if a file would change.")
    ] = False,
) -> None:
    """Write a file for each event and command.

    It is named NAME.vVERSION.json. Files of older versions stay: they describe what is
    still stored somewhere.
    """
    files = _schemas(module)
    changed = [path for path, text in files.items() if _differs(to / path, text)]
    if not check:
        to.mkdir(parents=True, exist_ok=True)
        for path in changed:
            (to / path).write_text(files[path], encoding="utf-8")
    for path in changed:
        print(f"{to / path} {'differs' if check else 'written'}")
    print(
        f"{counted(len(files), 'schema')}, {len(changed)} {'out of date' if check else 'changed'}."
    )
    if check and changed:
        raise typer.Exit(1)


def _schemas(module: str) -> Mapping[str, str]:
    """The text of each schema, by its file."""
    from headrace.events import contract_of, json_schema, registry

    load_package(module)
    found = [cls for cls in registry if f"{cls.__module__}.".startswith(f"{module}.")]
    if not found:
        raise ConfigurationError(f"{module} defines no events and no commands.")
    return {
        f"{contract_of(cls).name.replace('/', '-')}.v{contract_of(cls).version}.json": (
            json.dumps(json_schema(cls), indent=2, ensure_ascii=False) + "\n"
        )
        for cls in found
    }


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text(encoding="utf-8") != text
