"""AWS at its least friendly: everything that its contract allows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Final, TypeVar

from headrace.ports import QueueEntry
from headrace.testing.letters import name_of
from headrace.testing.memory.latitude import Latitude
from headrace.testing.simulation.chance import Chance
from headrace.testing.simulation.trace import Kind, Trace
from headrace.testing.simulation.wording import ids_in

T = TypeVar("T")

AWS: Final = "AWS"
"""The lane of what happens inside of AWS."""

_LATEST: Final = timedelta(seconds=15)
_STALEST: Final = timedelta(seconds=20)
_COPIES_WITHIN: Final = timedelta(seconds=20)
_BRIEFEST: Final = timedelta(seconds=5)
_RECEIVES: Final = 3
"""After so many receives a message comes again for good reason only: else a redrive policy would
give up messages that nothing is wrong with, and rightly so."""


class Liberties(Latitude):
    """Takes the liberties that chance decides."""

    def __init__(self, chance: Chance, trace: Trace) -> None:
        self._chance = chance
        self._trace = trace

    def order(self, queue: str, messages: Sequence[T]) -> Sequence[T]:
        if len(messages) < 2:
            return messages
        hard = self._chance.strikes("reorder")
        if hard is None:
            return messages
        self._trace.note(AWS, Kind.FAULT, f"{queue} is looked through in another order")
        shuffled = list(messages)
        Random(int(hard * 2**53)).shuffle(shuffled)
        return shuffled

    def shows_after(self, queue: str, entry: QueueEntry) -> timedelta:
        hard = self._chance.strikes("delay")
        if hard is None:
            return timedelta(0)
        late = hard * _LATEST
        self._fault(entry, queue, "shows", f"{_seconds(late)} late")
        return late

    def hidden_for(
        self,
        queue: str,
        visibility: timedelta,
        entry: QueueEntry,
        *,
        receive_count: int,
        fifo: bool,
    ) -> timedelta:
        if receive_count > _RECEIVES:
            return visibility
        if not fifo and self._chance.strikes("duplicate") is not None:
            self._fault(entry, queue, "gives away", "and can give it away again at once")
            return timedelta(0)
        hard = self._chance.strikes("expiry")
        if hard is None:
            return visibility
        brief = min(hard * _BRIEFEST, visibility)
        self._fault(entry, queue, "hides", f"for {_seconds(brief)} only")
        return brief

    def returns_after(
        self, queue: str, entry: QueueEntry, *, receive_count: int
    ) -> timedelta | None:
        if receive_count > _RECEIVES:
            return None
        hard = self._chance.strikes("duplicate")
        if hard is None:
            return None
        back = hard * _COPIES_WITHIN
        self._fault(entry, queue, "brings back", f"{_seconds(back)} after it was deleted")
        return back

    def copies(self, queue: str, entry: QueueEntry) -> int:
        if self._chance.strikes("duplicate") is None:
            return 1
        self._fault(entry, queue, "is given", "twice by its rule")
        return 2

    def index_lag(self, table: str, index: str) -> timedelta:
        hard = self._chance.strikes("stale_index")
        if hard is None:
            return timedelta(0)
        lag = hard * _STALEST
        text = f"{table} does not know of a change in its index {index} for {_seconds(lag)}"
        self._trace.note(AWS, Kind.FAULT, text)
        return lag

    def _fault(self, entry: QueueEntry, queue: str, verb: str, how: str) -> None:
        if self._trace.on:
            text = f"{queue} {verb} {name_of(entry.body)} {how}"
            self._trace.note(AWS, Kind.FAULT, text, ids_in(entry.body)[:1])


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():.1f} s"
