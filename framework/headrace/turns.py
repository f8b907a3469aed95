"""Whose turn it is: so many deliveries at a time, and so many of one tenant."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Final

from headrace.limits import LAMBDA_SQS_RECORDS
from headrace.ports import Delivery

_AHEAD: Final = 100


@dataclass(frozen=True, slots=True, order=True)
class _Waiting:
    """Who waits, in the order of their coming."""

    number: int
    tenant: str | None
    turn: asyncio.Future[None]


class Turns:
    """Lets deliveries begin in the order in which they came, at most `limit` at a time (`None`: all
    at once).

    With `per_tenant`, at most so many of one tenant are at work, and those behind them that are of
    another go first. A tenant is the message group of a standard queue; what has none is bounded
    by `limit` alone.
    """

    def __init__(self, limit: int | None = None, *, per_tenant: int | None = None) -> None:
        self._limit = limit
        self._per_tenant = per_tenant
        self._running = 0
        self._of_tenant: Counter[str | None] = Counter()
        self._numbers = count()
        # Those whose tenant may have one more at work, as far as is known, the first on top; and
        # by tenant those who have to wait until one of theirs is done. So each turn that ends
        # looks at those who may follow it, and not at all who wait.
        self._next: list[_Waiting] = []
        self._held_up: defaultdict[str | None, deque[_Waiting]] = defaultdict(deque)
        self._open = False

    def of(self, delivery: Delivery) -> AbstractAsyncContextManager[None]:
        """Wait for the turn of a delivery; it is over when the block is."""
        tenant = None if delivery.fifo or self._per_tenant is None else delivery.group_id
        return _Turn(self, tenant)

    def open(self) -> None:
        """Let in all who wait, and all who come: to be handed back they need no turn."""
        self._open = True
        for held_up in self._held_up.values():
            for waiting in held_up:
                heappush(self._next, waiting)
        self._held_up.clear()
        self._call()

    @property
    def is_full(self) -> bool:
        """Whether as many are at work as may be."""
        return self._limit is not None and self._running >= self._limit

    @property
    def lookahead(self) -> int:
        """How many of a large batch should wait for their turn or have it, so that none who may
        begin is missing: behind those of one tenant, the next of another may be the last."""
        if self._limit is None or self._per_tenant is not None:
            return LAMBDA_SQS_RECORDS
        return self._limit + _AHEAD

    async def begin(self, tenant: str | None) -> None:
        """Wait for a turn. Whoever got one must `end` it."""
        if not self._next and (self._open or not self.is_full) and not self._has_enough(tenant):
            # Nobody waits who might go first: one that is held up is of a tenant that has enough.
            self._running += 1
            self._of_tenant[tenant] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._next, _Waiting(next(self._numbers), tenant, turn))
        self._call()
        try:
            if not turn.done():
                await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # It was given the turn, and was cancelled before it could take it.
                self.end(tenant)
            raise

    def _call(self) -> None:
        """Give a turn to all that may begin."""
        while self._next and (self._open or not self.is_full):
            waiting = heappop(self._next)
            if waiting.turn.done():
                self._release(waiting.tenant)
            elif self._open or not self._has_enough(waiting.tenant):
                self._running += 1
                self._of_tenant[waiting.tenant] += 1
                waiting.turn.set_result(None)
            else:
                self._held_up[waiting.tenant].append(waiting)

    def end(self, tenant: str | None) -> None:
        """A turn is over."""
        self._running -= 1
        self._of_tenant[tenant] -= 1
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant]
        self._release(tenant)
        self._call()

    def _release(self, tenant: str | None) -> None:
        """Let the first of those that a tenant holds up be looked at again."""
        held_up = self._held_up.get(tenant)
        if held_up:
            heappush(self._next, held_up.popleft())
            if not held_up:
                del self._held_up[tenant]

    def _has_enough(self, tenant: str | None) -> bool:
        if tenant is None or self._per_tenant is None:
            return False
        return self._of_tenant[tenant] >= self._per_tenant


class _Turn(AbstractAsyncContextManager[None]):
    __slots__ = ("_tenant", "_turns")

    def __init__(self, turns: Turns, tenant: str | None) -> None:
        self._turns = turns
        self._tenant = tenant

    async def __aenter__(self) -> None:
        await self._turns.begin(self._tenant)

    async def __aexit__(self, *raised: object) -> None:
        self._turns.end(self._tenant)
