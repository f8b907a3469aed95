"""Many deliveries at once: bounded, in order within a group, for as long as each may stay."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import TypeAlias

from headrace.cancelling import is_cancelled
from headrace.context import bind_delivery
from headrace.errors import HandlerEnded
from headrace.observer import Guarded, Observer
from headrace.outcome import Outcome, Retry
from headrace.ports import Delivery
from headrace.turns import Turns

logger = logging.getLogger(__name__)

Consume: TypeAlias = Callable[[Delivery], Awaitable[Outcome]]
Settle: TypeAlias = Callable[[Delivery, Outcome], Awaitable[Outcome]]
Stay: TypeAlias = Callable[[Delivery], AbstractAsyncContextManager[None]]
"""For how long a delivery may be handled: cancels what is in the block, and raises `CutShort`."""


class CutShort(Exception):
    """A delivery may not be handled any longer, and its message comes again: after `delay`, or when
    its visibility ends."""

    def __init__(self, reason: str, delay: timedelta | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.delay = delay


class Lane:
    """What is handled one after the other: the messages of one group of a FIFO queue as they were
    received together, or a single delivery. `left` are those that are not settled yet."""

    def __init__(self, deliveries: Iterable[Delivery]) -> None:
        self.left = deque(deliveries)


class Batch:
    """Runs deliveries through `consume` and `settle`, in turns; what was not handled counts as
    failed.

    `stay` bounds how long each may be handled. Once `closing` says so, nothing more is started:
    what is left is handed back at once.
    """

    def __init__(
        self,
        service: str,
        consume: Consume,
        settle: Settle,
        *,
        turns: Turns,
        observer: Observer,
        stay: Stay = lambda delivery: nullcontext(),
        closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._service = service
        self._consume = consume
        self._settle = settle
        self._turns = turns
        self._stay = stay
        self._observer = Guarded(observer)
        self._closing = closing

    async def run(self, deliveries: Sequence[Delivery]) -> dict[str, Outcome]:
        """The outcomes by message id. Raises nothing, but may be cancelled."""
        outcomes: dict[str, Outcome] = {}
        await self.run_lanes(in_lanes(deliveries), outcomes)
        return outcomes

    async def run_lanes(self, lanes: Iterable[Lane], outcomes: dict[str, Outcome]) -> None:
        """Note the outcomes by message id, as they come; a delivery without one counts as failed.
        Lanes are taken as there is room for them."""
        room = asyncio.Semaphore(self._turns.lookahead)
        async with asyncio.TaskGroup() as begun:
            for lane in lanes:
                await room.acquire()
                task = begun.create_task(self.run_lane(lane, outcomes))
                task.add_done_callback(lambda _: room.release())

    async def run_lane(self, lane: Lane, outcomes: dict[str, Outcome] | None = None) -> None:
        """A failed message holds back those behind it, so that they are not handled before it."""
        held_back = False
        while lane.left:
            delivery = lane.left[0]
            outcome = await self._handled(delivery, held_back=held_back)
            lane.left.popleft()
            if outcomes is not None:
                outcomes[delivery.message_id] = outcome
            held_back = held_back or isinstance(outcome, Retry)

    async def _handled(self, delivery: Delivery, *, held_back: bool) -> Outcome:
        if held_back:
            return await self._settled(delivery, _HELD_BACK)
        async with self._turns.of(delivery):
            if self._closing():
                return await self._settled(delivery, _CLOSING)
            with bind_delivery(self._service, delivery):
                return await self._carry(delivery)

    async def _carry(self, delivery: Delivery) -> Outcome:
        """Whoever is told of the delivery is told of its end, also when it is cut short."""
        self._observer.received(self._service, delivery)
        try:
            outcome = await self._fate(delivery)
        except asyncio.CancelledError:
            self._observer.settled(self._service, delivery, _CUT_SHORT)
            raise
        self._observer.settled(self._service, delivery, outcome)
        return outcome

    async def _fate(self, delivery: Delivery) -> Outcome:
        try:
            async with self._stay(delivery):
                outcome = await self._consume(delivery)
        except CutShort as cut:
            outcome = Retry(cut.reason, cut.delay)
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            # Nobody asked this delivery to stop: a call that it waited for was cancelled.
            outcome = _unexpected(delivery, HandlerEnded(f"It was cancelled by nobody: {error!r}."))
        except Exception as error:
            outcome = _unexpected(delivery, error)
        return await self._settled(delivery, outcome)

    async def _settled(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        try:
            return await self._settle(delivery, outcome)
        except Exception as error:
            return _unexpected(delivery, error)


def _unexpected(delivery: Delivery, error: Exception) -> Retry:
    # Nothing should raise. If something does, the others of the batch must not suffer.
    logger.error("Message %s could not be settled.", delivery.message_id, exc_info=error)
    return Retry(f"{type(error).__name__}: {error}", error=error)


_CUT_SHORT = Retry("It was cut short; its host hands it back.", timedelta(0))
_CLOSING = Retry("Nothing more is started here; another host takes it.", timedelta(0))
_HELD_BACK = Retry("A message before it in its group comes again first.", timedelta(0))


def in_lanes(deliveries: Sequence[Delivery]) -> list[Lane]:
    """What must run one after the other, together; what need not, apart."""
    lanes: dict[tuple[str, str], list[Delivery]] = {}
    for delivery in deliveries:
        ordered = delivery.fifo and delivery.group_id is not None
        name = ("group", delivery.group_id or "") if ordered else ("message", delivery.message_id)
        lanes.setdefault(name, []).append(delivery)
    return [Lane(lane) for lane in lanes.values()]


def one_by_one(deliveries: Iterable[Delivery]) -> Iterator[Lane]:
    """Deliveries of a standard queue, none of which waits for another; taken as they are needed."""
    return (Lane([delivery]) for delivery in deliveries)
