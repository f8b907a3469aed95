"""Taking away what a key of an HTTP request is good for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from headrace.connection import Connection
from headrace.record import Record
from tests.sabotage.sabotage import Patch


def answer_is_not_kept(patch: Patch) -> None:
    """Whoever comes again with a key is told nothing."""
    record = Connection._record

    def silent(self: Connection, *args: Any, answer: Any, **options: Any) -> Record:
        return record(self, *args, answer=None, **options)

    patch.setattr(Connection, "_record", silent)


def content_is_not_compared(patch: Patch) -> None:
    """A key that is used for something else gives the answer to the first."""
    record = Connection._record

    def indifferent(self: Connection, *args: Any, content: str | None, **options: Any) -> Record:
        return record(self, *args, content=None, **options)

    patch.setattr(Connection, "_record", indifferent)


def pending_record_expires(patch: Patch) -> None:
    """What a request committed is forgotten while its events are still to go out."""
    record = Connection._record

    def soon(self: Connection, *args: Any, **options: Any) -> Record:
        expires_at = int((self.ports.clock.now() + timedelta(minutes=1)).timestamp())
        return replace(record(self, *args, **options), expires_at=expires_at)

    patch.setattr(Connection, "_record", soon)
