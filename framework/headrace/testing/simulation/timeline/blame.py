"""Where in the user's own code an assertion failed."""

from __future__ import annotations

import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import headrace

_LIBRARY: Final = Path(headrace.__file__).parent
_STANDARD: Final = Path(sysconfig.get_paths()["stdlib"])
_DEEPEST: Final = 3
"""How many frames are shown: the check itself, and what it was called by."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of code: `where` is its file and number, relative to the current folder if within."""

    where: str
    function: str
    code: str


def blamed(error: BaseException | None) -> list[Place]:
    """The lines that an error came from, the innermost last: those in code that is neither of
    headrace, nor of Python, nor installed. Where there are none, the line that raised it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = [] if error is None else traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(Path(frame.filename))]
    return [_place(frame) for frame in own[-_DEEPEST:] or frames[-1:]]


def _is_own(path: Path) -> bool:
    if "site-packages" in path.parts or path.name.startswith("<"):
        return False
    return not path.is_relative_to(_LIBRARY) and not path.is_relative_to(_STANDARD)


def _place(frame: traceback.FrameSummary) -> Place:
    path, here = Path(frame.filename), Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return Place(f"{shown}:{frame.lineno}", frame.name, (frame.line or "").strip())
