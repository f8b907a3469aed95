"""Where handlers and faults of one process wait for each other, or for nothing at all."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from typing import Final


class Stage:
    """Bells by name, rung once and for all. A case's names begin with its own token."""

    def __init__(self) -> None:
        self._bells: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._plain_bells: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        self._came: Counter[str] = Counter()

    async def heard(self, name: str) -> None:
        await self._bells[name].wait()

    def heard_plainly(self, name: str) -> None:
        """The same in a thread."""
        self._plain_bells[name].wait()

    def ring(self, name: str) -> None:
        self._bells[name].set()

    async def meet(self, place: str, others: int) -> None:
        """Wait until so many have come; whoever comes later finds the place open."""
        self._came[place] += 1
        if self._came[place] >= others:
            self.ring(place)
        await self.heard(place)

    def end(self, token: str) -> None:
        """Let everybody go whose bell has a name that begins with the token."""
        for name, bell in list(self._bells.items()):
            if name.startswith(token):
                bell.set()
        for name, plain_bell in list(self._plain_bells.items()):
            if name.startswith(token):
                plain_bell.set()


STAGE: Final = Stage()
