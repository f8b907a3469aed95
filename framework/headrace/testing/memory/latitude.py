"""What AWS leaves open: in which order, when, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, TypeVar

from headrace.ports import QueueEntry

T = TypeVar("T")


class Latitude:
    """What a standard queue, a bus and an index may do within their contract.

    This one takes no liberties; a simulation overrides what it wants to be less friendly.
    """

    def order(self, queue: str, messages: Sequence[T]) -> Sequence[T]:
        """The order in which a standard queue is looked through; oldest first if it is kept."""
        return messages

    def shows_after(self, queue: str, entry: QueueEntry) -> timedelta:
        """How long after it was sent, and after its own delay, a message can be received."""
        return timedelta(0)

    def hidden_for(
        self,
        queue: str,
        visibility: timedelta,
        entry: QueueEntry,
        *,
        receive_count: int,
        fifo: bool,
    ) -> timedelta:
        """How long a received message stays hidden. Less than its visibility is what a consumer
        sees that was held up for the rest; none at all is a second delivery beside the first,
        which a FIFO queue never makes."""
        return visibility

    def returns_after(
        self, queue: str, entry: QueueEntry, *, receive_count: int
    ) -> timedelta | None:
        """When a deleted message of a standard queue comes back, because a copy of it was out of
        reach; `None` if it stays deleted."""
        return None

    def copies(self, queue: str, entry: QueueEntry) -> int:
        """How often a rule puts one event into a queue: at least once."""
        return 1

    def index_lag(self, table: str, index: str) -> timedelta:
        """How long an index knows nothing of a change of its table."""
        return timedelta(0)


ORDERLY: Final = Latitude()
"""Takes no liberties."""
