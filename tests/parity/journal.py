"""What happens inside of a host: handlers that run, faults that bite, waits that were asked for.

In the Lambda function's process it is a file that the suite reads, because that process may be
killed at any moment; where the suite itself runs, it is kept in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

VARIABLE: Final = "PARITY_JOURNAL"
"""Names the file."""

What: TypeAlias = Literal["ran", "hangs", "bit", "hid"]


class Entry(NamedTuple):
    """`ran`: the handler `by` began with the event `about`, and `hangs`: it does not end. `bit`: a
    fault `by` met `about`, the name that bears its mark. `hid`: the message with the id `about` was
    hidden for `seconds`."""

    what: What
    about: str
    by: str = ""
    seconds: float = 0


class Journal:
    """Entries in the order in which they were noted, on any thread."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._kept: list[Entry] = []
        self.listeners: set[Callable[[], None]] = set()

    def note(self, entry: Entry) -> None:
        if self._path is not None:
            append(self._path, f"{json.dumps(entry)}\n")
            return
        self._kept.append(entry)
        for listener in list(self.listeners):
            listener()

    @property
    def entries(self) -> list[Entry]:
        if self._path is None:
            return list(self._kept)
        if not self._path.exists():
            return []
        return [Entry(*json.loads(line)) for line in self._path.read_text().splitlines()]


def append(path: Path, text: str) -> None:
    """In one call, so that no other thread comes in between."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def of_this_process() -> Journal:
    path = os.environ.get(VARIABLE)
    return Journal(Path(path) if path else None)


JOURNAL: Final = of_this_process()
