"""All commands in one application, and what their errors come to."""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from headrace.errors import (
    CloudError,
    ConfigurationError,
    DefinitionError,
    HeadraceError,
)

from . import check, cost, dev, dlq, graph, provision, publish, saga, schemas, topology, worker

FAILED: Final = 1
WRONGLY_USED: Final = 2
NO_AWS: Final = 3

EXIT_CODES: Final = (
    "Exit codes: 0 done; 1 something was found or failed; 2 used or defined wrongly; "
    "3 AWS cannot be reached, refuses, or lacks something that `headrace provision` makes."
)


def exit_code(error: HeadraceError) -> int:
    if isinstance(error, CloudError):
        return NO_AWS
    return WRONGLY_USED if isinstance(error, (DefinitionError, ConfigurationError)) else FAILED


class _Commands(TyperGroup):
    """Says what headrace itself refuses in one sentence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            if ctx.params.get("show_traceback"):
                traceback.print_exc()
            else:
                print(f"headrace: {error}", file=sys.stderr)
            sys.exit(exit_code(error))


app = typer.Typer(
    cls=_Commands,
    help="Run and look after event-driven services on SQS, EventBridge and DynamoDB.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "from a checkout, not installed"


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"headrace {_version()}")
        raise typer.Exit


@app.callback()
def options(
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from.")
    ] = False,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options that stand before the command."""


app.command()(worker.worker)
app.command()(dev.dev)
app.command()(publish.publish)
app.command()(provision.provision)
app.command()(topology.topology)
app.command()(graph.graph)
app.command()(check.check)
app.command()(cost.cost)
app.add_typer(schemas.schemas, name="schemas")
app.add_typer(dlq.dlq, name="dlq")
app.add_typer(saga.saga, name="saga")
