"""What handlers did and when: a file, because their process ends in the middle of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

What: TypeAlias = Literal["started", "finished"]


class Entry(NamedTuple):
    """A handler started with an event, or finished. `at` is in seconds on a clock that all
    processes of this machine share."""

    what: What
    event_id: str
    at: float


class Journal:
    """Entries in the order in which they were written, by any number of processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, what: What, event_id: str) -> None:
        # Appended in one call, so that nothing comes in between and nothing waits in a buffer.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{what} {event_id} {time.monotonic()!r}\n".encode())
        finally:
            os.close(descriptor)

    def entries(self) -> list[Entry]:
        if not self.path.exists():
            return []
        return [_parsed(line) for line in self.path.read_text().splitlines()]


def _parsed(line: str) -> Entry:
    what, event_id, at = line.split()
    return Entry("started" if what == "started" else "finished", event_id, float(at))
