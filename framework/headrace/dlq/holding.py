"""Keeping the letters of a queue hidden while somebody looks at them.

SQS has no way to look at messages and leave them where they are. They are received, which hides
them from others; the time of that is renewed for as long as they are looked at; and in the end they
are given back. If the process dies, they come back by themselves when the time is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias

from headrace.entries import answers
from headrace.errors import CloudError, Throttled
from headrace.limits import SQS_BATCH_ENTRIES
from headrace.ports import Delivery, EntryFailure, Queues

logger = logging.getLogger(__name__)

_Call: TypeAlias = Callable[[Sequence[Delivery]], Awaitable[None]]

VISIBILITY: Final = timedelta(seconds=60)
"""How long letters stay hidden after a process that held them was killed."""

MOST: Final = 10_000
"""Letters held at a time: they are in memory, and each is renewed three times in its time."""

_WAIT: Final = timedelta(seconds=1)
"""A receive that waits asks all of SQS's servers; one that does not asks some, and may see nothing
where there is something."""

_CALLS: Final = 8


class Holding:
    """The letters of one dead-letter queue that are held here, by their message ids.

    `full` says that there may be more than are held, and `elsewhere` how many others were hidden by
    somebody else when this began, as far as SQS's counts are right. On a FIFO queue `behind` are
    those that wait behind letters of their message groups which are held.
    """

    def __init__(
        self,
        queues: Queues,
        queue: str,
        *,
        visibility: timedelta = VISIBILITY,
        most: int = MOST,
        read: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.queue = queue
        self.held: dict[str, Delivery] = {}
        self.full = False
        self.elsewhere = 0
        self.behind = 0
        self._queues = queues
        self._visibility = visibility
        self._most = most
        self._read = read
        self._calls = asyncio.Semaphore(_CALLS)
        self._renewal: asyncio.Future[None] | None = None

    async def fill(self) -> list[Delivery]:
        """Receive what there is, up to so many letters in all; returns what is held now. On a FIFO
        queue that may be not all, and ten of a message group at most: SQS gives no more of a group
        while some of it are held. Raises `CloudError`."""
        depth = await self._queues.depth(self.queue)
        self.elsewhere = max(0, depth.in_flight + depth.delayed - len(self.held))
        expected = depth.visible + len(self.held)
        self.full = len(self.held) >= self._most
        while not self.full:
            if not await self._receive(_WAIT):
                break
            self.full = len(self.held) >= self._most
            self._read(len(self.held))
        if self.queue.endswith(".fifo"):
            self.behind = max(0, expected - len(self.held))
        return list(self.held.values())

    async def look(self) -> list[Delivery]:
        """What has come since, as far as it can be seen without waiting. It is held too. Raises
        `CloudError`."""
        found: list[Delivery] = []
        try:
            while some := await self._receive(timedelta(0)):
                found += some
        except CloudError:
            # What was received is held, and would not be seen a second time.
            if not found:
                raise
        return found

    async def delete(self, deliveries: Sequence[Delivery]) -> list[str]:
        """Delete letters that are held; returns the message ids of those that SQS has not deleted,
        which come back by themselves."""
        left: list[str] = []

        async def call(some: Sequence[Delivery]) -> None:
            for delivery, error in zip(some, await self._deleted(some), strict=True):
                if error is not None:
                    logger.warning("Letter %s was not deleted: %s", delivery.message_id, error)
                    left.append(delivery.message_id)

        for delivery in deliveries:
            self.held.pop(delivery.message_id, None)
        await self._in_batches(deliveries, call)
        return left

    async def give_back(self, deliveries: Iterable[Delivery] | None = None) -> None:
        """Let others see letters again, by default all. What cannot be given back comes back by
        itself."""
        given = list(self.held.values() if deliveries is None else deliveries)
        for delivery in given:
            self.held.pop(delivery.message_id, None)
        if self._renewal is not None:
            # A renewal that came after this would hide them again.
            await asyncio.wait((self._renewal,))
        await self._hide(given, timedelta(0))

    async def keep(self) -> None:
        """Renew the time of all that is held, for ever. What could not be renewed is tried again
        when its time comes next."""
        while True:
            await asyncio.sleep(self._visibility.total_seconds() / 3)
            self._renewal = asyncio.ensure_future(self._renew())
            # Not cancelled with this: what is on its way to SQS cannot be called back.
            await asyncio.wait((self._renewal,))

    async def _renew(self) -> None:
        await self._hide(list(self.held.values()), self._visibility, only_held=True)

    async def _receive(self, wait: timedelta) -> list[Delivery]:
        try:
            received = await self._queues.receive(
                self.queue, limit=SQS_BATCH_ENTRIES, wait=wait, visibility=self._visibility
            )
        except Throttled:
            # SQS lets so many messages be hidden in one queue, by all together, and no more.
            self.full = True
            return []
        self.held |= {delivery.message_id: delivery for delivery in received}
        return received

    async def _deleted(self, some: Sequence[Delivery]) -> list[Exception | None]:
        try:
            return await answers(
                [delivery.receipt_handle for delivery in some],
                partial(self._queues.delete, self.queue),
            )
        except CloudError as error:
            return [error] * len(some)

    async def _hide(
        self, deliveries: Sequence[Delivery], time: timedelta, *, only_held: bool = False
    ) -> None:
        async def call(some: Sequence[Delivery]) -> None:
            if only_held:
                some = [each for each in some if self.held.get(each.message_id) is each]
            changes = [(delivery.receipt_handle, time) for delivery in some]
            if not changes:
                return
            try:
                failures = await self._queues.change_visibility(self.queue, changes)
            except CloudError as error:
                logger.warning("Letters of %s keep their visibility: %s", self.queue, error)
            except Exception:
                # The other letters, and the next renewal, must not suffer from it.
                logger.exception("Letters of %s keep their visibility.", self.queue)
            else:
                self._lose(some, failures)

        await self._in_batches(deliveries, call)

    def _lose(self, some: Sequence[Delivery], failures: Sequence[EntryFailure]) -> None:
        """What could not be kept is somebody else's by now, or nobody's."""
        for failure in failures:
            held = self.held.get(some[failure.index].message_id)
            if held is some[failure.index] and not failure.retryable:
                del self.held[held.message_id]

    async def _in_batches(self, deliveries: Sequence[Delivery], call: _Call) -> None:
        async def one(some: Sequence[Delivery]) -> None:
            async with self._calls:
                await call(some)

        starts = range(0, len(deliveries), SQS_BATCH_ENTRIES)
        await asyncio.gather(*(one(deliveries[s : s + SQS_BATCH_ENTRIES]) for s in starts))


@asynccontextmanager
async def holding(
    queues: Queues,
    queue: str,
    *,
    visibility: timedelta = VISIBILITY,
    most: int = MOST,
    read: Callable[[int], None] = lambda count: None,
) -> AsyncIterator[Holding]:
    """Hold letters of a queue within this block; `read` is told how many there are while they are
    received. They are given back at its end, however it comes."""
    held = Holding(queues, queue, visibility=visibility, most=most, read=read)
    keeping = asyncio.create_task(held.keep())
    try:
        yield held
    finally:
        keeping.cancel()
        await asyncio.wait((keeping,))
        await held.give_back()
