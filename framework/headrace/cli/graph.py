"""`headrace graph`: who says what to whom."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from headrace.errors import ConfigurationError

from .loading import Services, load_services


class Format(StrEnum):
    """How the graph is written."""

    MERMAID = "mermaid"
    SVG = "svg"


FormatOption: TypeAlias = Annotated[
    Format | None, typer.Option("--format", help="By default what --output ends in, or mermaid.")
]
OutputOption: TypeAlias = Annotated[
    Path | None, typer.Option(help="The file to write, instead of the terminal.")
]


def graph(
    services: Services,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Draw who emits what and who takes it."""
    from headrace.topology import graph as drawing

    chosen = form or format_of(output)
    draw = drawing.svg if chosen is Format.SVG else drawing.mermaid
    hand_out(draw(drawing.graph(*load_services(services))), output)


def hand_out(drawn: str, output: Path | None) -> None:
    """Into the file, or onto the terminal without one."""
    if output is None:
        print(drawn, end="")
    else:
        output.write_text(drawn, encoding="utf-8")
        print(f"Wrote {output}.")


def format_of(output: Path | None) -> Format:
    """What the name of the file says. Raises `ConfigurationError` for one that says nothing."""
    if output is None:
        return Format.MERMAID
    try:
        return _ENDINGS[output.suffix.lower()]
    except KeyError:
        raise ConfigurationError(
            f"{output} does not say how the graph is to be written: name a file that ends in .svg, "
            "or in .mmd for Mermaid, or choose with --format."
        ) from None


_ENDINGS: Final = {".svg": Format.SVG, ".mmd": Format.MERMAID, ".mermaid": Format.MERMAID}
