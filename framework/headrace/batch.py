"""Many deliveries at once: bounded, in order within a message group, within the deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, TypeAlias

from headrace.observer import Guarded, Observer
from headrace.outcome import Outcome, Retry
from headrace.ports import Clock, Delivery

logger = logging.getLogger(__name__)

Consume: TypeAlias = Callable[[Delivery], Awaitable[Outcome]]
Settle: TypeAlias = Callable[[Delivery, Outcome], Awaitable[Outcome]]

MARGIN = timedelta(milliseconds=500)
"""Time kept free before a deadline for settling and answering."""


class Batch:
    """Runs deliveries through `consume` and `settle`; what was not started counts as failed.

    `limiter` bounds how many are handled at a time: a semaphore, or `nullcontext()` where the
    host bounds it already. Once `closing` says so, nothing more is started: what is left is
    handed back at once.
    """

    def __init__(
        self,
        service: str,
        consume: Consume,
        settle: Settle,
        *,
        limiter: AbstractAsyncContextManager[Any],
        clock: Clock,
        observer: Observer,
        closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._service = service
        self._consume = consume
        self._settle = settle
        self._limiter = limiter
        self._clock = clock
        self._observer = Guarded(observer)
        self._closing = closing

    async def run(self, deliveries: Sequence[Delivery]) -> dict[str, Outcome]:
        """The outcomes by message id; a delivery without one counts as failed. Never raises but
        when cancelled."""
        outcomes: dict[str, Outcome] = {}
        async with asyncio.TaskGroup() as lanes:
            for lane in in_lanes(deliveries):
                lanes.create_task(self.run_lane(lane, outcomes))
        return outcomes

    async def run_lane(self, lane: Sequence[Delivery], outcomes: dict[str, Outcome]) -> None:
        """One message group of a FIFO queue, in order; or a single delivery.

        A failed message holds back those behind it, so that they are not handled before it.
        """
        held_back = False
        for delivery in lane:
            if held_back or self._closing():
                reason = _HELD_BACK if held_back else _CLOSING
                outcome = await self._settled(delivery, reason)
            else:
                async with self._limiter:
                    outcome = await self._carry(delivery)
            outcomes[delivery.message_id] = outcome
            held_back = held_back or isinstance(outcome, Retry)

    async def _carry(self, delivery: Delivery) -> Outcome:
        try:
            self._observer.received(self._service, delivery)
            outcome = await self._consume_in_time(delivery)
        except Exception as error:
            outcome = _unexpected(delivery, error)
        outcome = await self._settled(delivery, outcome)
        self._observer.settled(self._service, delivery, outcome)
        return outcome

    async def _settled(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        try:
            return await self._settle(delivery, outcome)
        except Exception as error:
            return _unexpected(delivery, error)

    async def _consume_in_time(self, delivery: Delivery) -> Outcome:
        if delivery.deadline is None:
            return await self._consume(delivery)
        left = (delivery.deadline - MARGIN - self._clock.now()).total_seconds()
        if left <= 0:
            return Retry("There was no time left to start it.", timedelta(0))
        limit = asyncio.timeout(left)
        try:
            async with limit:
                return await self._consume(delivery)
        except TimeoutError:
            if not limit.expired():
                raise
            return Retry("It was not done by the deadline and was stopped.", timedelta(0))


def _unexpected(delivery: Delivery, error: Exception) -> Retry:
    # Nothing should raise. If something does, the others of the batch must not suffer.
    logger.error("Message %s could not be settled.", delivery.message_id, exc_info=error)
    return Retry(f"{type(error).__name__}: {error}", error=error)


_CLOSING = Retry("Nothing more is started here; another host takes it.", timedelta(0))
_HELD_BACK = Retry("A message before it in its group comes again first.", timedelta(0))


def in_lanes(deliveries: Iterable[Delivery]) -> list[list[Delivery]]:
    """What must run one after the other, together; what need not, apart."""
    lanes: dict[tuple[str, str], list[Delivery]] = {}
    for delivery in deliveries:
        ordered = delivery.fifo and delivery.group_id is not None
        name = ("group", delivery.group_id or "") if ordered else ("message", delivery.message_id)
        lanes.setdefault(name, []).append(delivery)
    return list(lanes.values())
