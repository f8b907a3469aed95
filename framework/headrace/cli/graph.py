"""`headrace graph`: who says what to whom."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .loading import Services, load_services


class Format(StrEnum):
    """How the graph is written."""

    MERMAID = "mermaid"
    SVG = "svg"


def graph(
    services: Services,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="By default what --output ends in, or mermaid."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The file to write, instead of the terminal.")
    ] = None,
) -> None:
    """Draw who emits what and who takes it."""
    from headrace.topology import graph as drawing

    by_name = Format.SVG if output is not None and output.suffix == ".svg" else Format.MERMAID
    draw = drawing.svg if (form or by_name) is Format.SVG else drawing.mermaid
    drawn = draw(drawing.graph(*load_services(services)))
    if output is None:
        print(drawn, end="")
    else:
        output.write_text(drawn, encoding="utf-8")
        print(f"Wrote {output}.")
