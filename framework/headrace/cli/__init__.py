"""The command line: `headrace --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Ends the process with one of the exit codes that `--help` lists."""
    try:
        import rich  # noqa: F401 - looked for here, used by the commands
        import typer  # noqa: F401
    except ModuleNotFoundError:
        sys.stderr.write("The command line needs typer and rich: install headrace[cli].\n")
        sys.exit(2)
    from .app import app

    app(arguments, prog_name="headrace")
