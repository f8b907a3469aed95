"""Whose turn it is: so many deliveries at a time, and so many of one tenant."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.ports import Delivery


class Turns:
    """Lets deliveries begin in the order in which they came, at most `limit` at a time (`None`: all
    at once).

    With `per_tenant`, at most so many of one tenant are at work, and those behind them that are of
    another go first. A tenant is the message group of a standard queue; what has none is bounded
    by `limit` alone.
    """

    def __init__(self, limit: int | None = None, *, per_tenant: int | None = None) -> None:
        self.limit = limit
        self._per_tenant = per_tenant
        self._running = 0
        self._of_tenant: Counter[str] = Counter()
        self._waiting: deque[tuple[str | None, asyncio.Future[None]]] = deque()
        self._open = False

    @asynccontextmanager
    async def of(self, delivery: Delivery) -> AsyncIterator[None]:
        """Wait for the turn of a delivery; it is over when the block is."""
        tenant = None if delivery.fifo or self._per_tenant is None else delivery.group_id
        await self._begin(tenant)
        try:
            yield
        finally:
            self._leave(tenant)
            self._call()

    def open(self) -> None:
        """Let in all who wait, and all who come: to be handed back they need no turn."""
        self._open = True
        self._call()

    async def _begin(self, tenant: str | None) -> None:
        if self._may_begin(tenant) and not self._waiting:
            self._enter(tenant)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, turn))
        self._call()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting = deque(entry for entry in self._waiting if entry[1] is not turn)
            else:
                # It was given the turn, and was cancelled before it could take it.
                self._leave(tenant)
                self._call()
            raise

    def _call(self) -> None:
        """Give a turn to all that may begin."""
        passed: list[tuple[str | None, asyncio.Future[None]]] = []
        while self._waiting and (self._open or not self.is_full):
            tenant, turn = self._waiting.popleft()
            if turn.done():
                continue
            if self._may_begin(tenant):
                self._enter(tenant)
                turn.set_result(None)
            else:
                passed.append((tenant, turn))
        self._waiting.extendleft(reversed(passed))

    @property
    def is_full(self) -> bool:
        """Whether as many are at work as may be."""
        return self.limit is not None and self._running >= self.limit

    def _may_begin(self, tenant: str | None) -> bool:
        if self._open:
            return True
        if self.is_full:
            return False
        if tenant is None or self._per_tenant is None:
            return True
        return self._of_tenant[tenant] < self._per_tenant

    def _enter(self, tenant: str | None) -> None:
        self._running += 1
        if tenant is not None:
            self._of_tenant[tenant] += 1

    def _leave(self, tenant: str | None) -> None:
        self._running -= 1
        if tenant is not None:
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]
