"""How tables look that are printed and stay: on a terminal, in a file, for another program."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_MOST: Final = 200
"""Characters of a text in a table."""

_UNBROKEN: Final = 1_000
"""Columns where there is no terminal: a file or another program has no edge."""


def console() -> Console:
    found = Console(highlight=False)
    return found if found.is_terminal else Console(width=_UNBROKEN, highlight=False)


def table(*columns: str, long: Collection[str] = (), numbers: Collection[str] = ()) -> Table:
    """Without rows. Only what is `long`, and can be said in fewer words, gives way where there is
    little room."""
    made = Table(box=SIMPLE_HEAD, header_style="dim")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in numbers else "left"
        made.add_column(column, no_wrap=column not in long, justify=justify)
    return made


def line(text: str) -> Text:
    """On one line, and never read as markup: a sender may have written it."""
    words = " ".join(text.split())
    cut = words if len(words) <= _MOST else f"{words[: _MOST - 1]}…"
    return Text(cut, no_wrap=True, overflow="ellipsis")


def time(moment: datetime | None) -> str:
    """In the time zone of this system, without the year."""
    return "-" if moment is None else moment.astimezone().strftime("%m-%d %H:%M:%S")
