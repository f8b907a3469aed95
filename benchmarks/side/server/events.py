"""EventBridge: every event is taken, and goes nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from benchmarks.side import work
from benchmarks.side.server.counts import Counts, chunks
from benchmarks.side.server.faults import Fault

_ORDER: Final = re.compile(r'"o-(\d{8})"')
_MOST: Final = 10


class EventBridge:
    """The operations, by their names."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self.operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "PutEvents": self._put,
            "DescribeEventBus": _describe,
        }

    def _put(self, request: dict[str, Any]) -> dict[str, Any]:
        entries = request["Entries"]
        if not 1 <= len(entries) <= _MOST:
            raise Fault(
                "ValidationException", f"{len(entries)} entries: a call takes 1 to {_MOST}."
            )
        for entry in entries:
            self._note(entry)
        ids = [{"EventId": f"e-{index}"} for index in range(len(entries))]
        return {"FailedEntryCount": 0, "Entries": ids}

    def _note(self, entry: dict[str, Any]) -> None:
        detail = entry["Detail"]
        size = len(detail) + len(entry["Source"]) + len(entry["DetailType"])
        self._counts.event_chunks += chunks(size)
        found = _ORDER.search(detail)
        if found is not None:
            self._counts.events.note(int(found[1]))


def _describe(request: dict[str, Any]) -> dict[str, Any]:
    name = request.get("Name", "default")
    return {"Name": name, "Arn": f"arn:aws:events:{work.REGION}:{work.ACCOUNT}:event-bus/{name}"}
