"""What becomes of letters that were sent back.

It is done when every handler's inbox record says so. It has failed when it is in the dead-letter
queue again, with a note that names the run. Where no record is kept, it counts as done when the
queue has been empty for a while and it has not come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

from headrace.dlq.holding import Holding
from headrace.dlq.letters import Letter
from headrace.dlq.reading import Reader
from headrace.dlq.records import Standing
from headrace.errors import CloudError
from headrace.ports import Delivery, Queues
from headrace.text import counted

PATIENCE: Final = timedelta(seconds=30)
"""How long the queue must have been empty before what was not seen again counts as handled."""

LIMIT: Final = timedelta(minutes=15)
"""How long one step is waited for."""

_LAG: Final = 3
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_BETWEEN_LOOKS: Final = 1.0
"""Seconds between two looks into a FIFO queue, each of which takes up and gives back all of it."""
_PATIENT: Final = 10.0
"""Seconds without anything new before whoever watches is told what is waited for."""


class Verdict(Enum):
    """What is known of a letter that was sent back."""

    DONE = "done"
    ASSUMED = "not seen again"
    FAILED = "failed again"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a letter; `why` is a sentence unless it is done."""

    letter: Letter
    verdict: Verdict
    why: str = ""

    @property
    def is_good(self) -> bool:
        return self.verdict in (Verdict.DONE, Verdict.ASSUMED)


class Fates:
    """Waits for the letters of one run."""

    def __init__(
        self,
        reader: Reader,
        queues: Queues,
        holding: Holding,
        source: str,
        run: str,
        *,
        patience: timedelta = PATIENCE,
        limit: timedelta = LIMIT,
        say: Callable[[str], None] = lambda text: None,
        settled: Callable[[Fate], None] = lambda fate: None,
    ) -> None:
        self._reader = reader
        self._queues = queues
        self._holding = holding
        self._source = source
        self._run = run
        self._patience = patience.total_seconds()
        self._limit = limit.total_seconds()
        self._say = say
        self._settled = settled
        self._next_look = 0.0
        self._unread: list[Delivery] = []

    async def of(self, sent: Sequence[Letter]) -> list[Fate]:
        """Wait until the fate of each is known, or cannot be. Raises `CloudError` for what AWS does
        not only refuse for now."""
        waiting = {letter.original_id: letter for letter in sent}
        fates: list[Fate] = []
        watch = _Watch()
        while waiting:
            await watch.pause()
            try:
                known = await self._look(waiting, watch)
            except CloudError as error:
                if not error.retryable or watch.elapsed >= self._limit:
                    raise
                # What was learned of the others must not be lost.
                self._tell(watch, f"It cannot be seen what became of them for now: {error}")
                continue
            for fate in known:
                del waiting[fate.letter.original_id]
                self._settled(fate)
            fates += known
        return fates

    async def _look(self, waiting: dict[str, Letter], watch: _Watch) -> list[Fate]:
        known = await self._known(waiting)
        watch.noticed(known)
        return known or await self._overdue(waiting, watch)

    def _tell(self, watch: _Watch, text: str) -> None:
        if watch.is_long():
            self._say(text)

    async def _known(self, waiting: dict[str, Letter]) -> list[Fate]:
        # Before the look: what is done cannot come back after it, and what came back is not done.
        standings = await self._reader.records.of(list(waiting.values()))
        failed = await self._failed(waiting)
        done = [
            Fate(letter, Verdict.DONE)
            for name, letter in waiting.items()
            if name not in failed and standings[letter.id].done
        ]
        return [*failed.values(), *done]

    async def _failed(self, waiting: dict[str, Letter]) -> dict[str, Fate]:
        # Held from now on, they are not seen again if they cannot be read this time.
        self._unread += await self._came_back()
        letters = await self._reader.read(self._unread)
        self._unread = []
        return {
            letter.original_id: Fate(waiting[letter.original_id], Verdict.FAILED, letter.reason)
            for letter in letters
            if letter.note.redrive == self._run and letter.original_id in waiting
        }

    async def _came_back(self) -> list[Delivery]:
        if not self._source.endswith(".fifo"):
            return await self._holding.look()
        time = asyncio.get_running_loop().time
        if (began := time()) < self._next_look:
            return []
        came = await self._holding.look()
        # While one is held, those behind it in its group are not to be seen.
        await self._holding.give_back(came)
        self._next_look = time() + max(_BETWEEN_LOOKS, 5 * (time() - began))
        return came

    async def _overdue(self, waiting: dict[str, Letter], watch: _Watch) -> list[Fate]:
        depth = await self._queues.depth(self._source)
        there = depth.visible + depth.in_flight + depth.delayed
        watch.saw(there)
        if watch.quiet >= self._patience:
            fates = await self._guessed(waiting.values())
            # SQS's counts lag behind by up to a minute: what must have a record gets more time.
            overdue = watch.quiet >= _LAG * self._patience
            return [fate for fate in fates if overdue or fate.is_good]
        if watch.elapsed >= self._limit:
            return [Fate(letter, Verdict.UNKNOWN, _late(there)) for letter in waiting.values()]
        if watch.has_failed and watch.silent >= self._patience:
            # A worker whose messages all fail receives them one at a time, after long pauses.
            return [Fate(letter, Verdict.UNKNOWN, _UNDER_WAY) for letter in waiting.values()]
        holds = f"{self._source} holds {counted(there, 'message')}"
        self._tell(watch, f"{len(waiting):,} to wait for; {holds}.")
        return []

    async def _guessed(self, waiting: Iterable[Letter]) -> list[Fate]:
        letters = list(waiting)
        standings = await self._reader.records.of(letters)
        return [_guessed(letter, standings[letter.id]) for letter in letters]


class _Watch:
    """How long has been waited, and for how long the queue has been empty."""

    def __init__(self) -> None:
        self._time = asyncio.get_running_loop().time
        self._began = self._told = self._news = self._time()
        self.has_failed = False
        self._empty_since: float | None = None
        self._pause = _FIRST_PAUSE

    async def pause(self) -> None:
        await asyncio.sleep(self._pause)
        self._pause = min(1.5 * self._pause, _LONGEST_PAUSE)

    def noticed(self, fates: Sequence[Fate]) -> None:
        if fates:
            self._pause, self._empty_since = _FIRST_PAUSE, None
            self._told = self._news = self._time()
            self.has_failed |= not all(fate.is_good for fate in fates)

    def saw(self, messages: int) -> None:
        if messages:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = self._time()

    def is_long(self) -> bool:
        """Whether it is time to say something; then it is not for a while."""
        if self._time() - self._told < _PATIENT:
            return False
        self._told = self._time()
        return True

    @property
    def elapsed(self) -> float:
        return self._time() - self._began

    @property
    def silent(self) -> float:
        """Seconds since anything became known."""
        return self._time() - self._news

    @property
    def quiet(self) -> float:
        """Seconds for which the queue has been empty."""
        return 0.0 if self._empty_since is None else self._time() - self._empty_since


_UNDER_WAY: Final = (
    "It is under way, and others have failed: it will be done, or be a dead letter again."
)


def _guessed(letter: Letter, standing: Standing) -> Fate:
    """What is to be thought of a letter that is neither in its queue any more nor back."""
    if standing.done:
        return Fate(letter, Verdict.DONE)
    if standing.stands:
        why = "Its effects stand, and its queue is empty; that its messages are out was not noted."
        return Fate(letter, Verdict.ASSUMED, why)
    if not standing.provable:
        why = "Not every handler keeps a record of it; its queue is empty and it did not come back."
        return Fate(letter, Verdict.ASSUMED, why)
    return Fate(
        letter,
        Verdict.UNKNOWN,
        "Its queue is empty, it was not seen to come back, and no inbox record says that it is "
        "done: what is deployed may have other handlers than the code here, or it came back behind "
        "more letters of its message group than SQS shows.",
    )


def _late(there: int) -> str:
    return (
        f"It was not handled in time, and its queue holds {counted(there, 'message')}: see whether "
        "a worker runs, and redrive again."
    )
