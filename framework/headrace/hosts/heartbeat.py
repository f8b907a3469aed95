"""The heartbeat: keeps the messages that a worker holds hidden from everybody else.

receive        hidden until now + visibility
a third later  ChangeMessageVisibility, ten to a call: until then + visibility
...            again and again, for 12 hours at most, which is SQS's limit
refused, or the visibility ended before SQS answered
               somebody else may have the message: what handles it is cancelled, so that it
               commits nothing, and nothing is told SQS about it
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final

from headrace.batch import CutShort
from headrace.cancelling import is_cancelled
from headrace.limits import SQS_BATCH_ENTRIES, SQS_MAX_VISIBILITY
from headrace.ports import Delivery, EntryFailure, Queues

logger = logging.getLogger(__name__)

_BEATS: Final = 3
"""A message is kept hidden so many times before it would show: two may fail."""

_CAP: Final = (SQS_MAX_VISIBILITY - timedelta(minutes=1)).total_seconds()
"""SQS counts its 12 hours from when it handed the message out, which is before it is here, and
refuses to hide it for longer."""

_TOGETHER: Final = 0.1
"""Share of the time between two beats by which one is made sooner, to go with another's."""

_ON_ITS_WAY: Final = 1.0
_LONG: Final = timedelta(minutes=10)


@dataclass(slots=True, eq=False)
class _Hold:
    """One message that is held. Times are the event loop's; it is hidden `until` then, as far as
    anybody can tell, and `lost` says why it is not ours any more."""

    delivery: Delivery
    received: float
    until: float
    next: float
    failing: bool = False
    lost: str | None = None
    began: float | None = None
    limit: asyncio.Timeout | None = None
    beat: asyncio.Task[None] | None = None
    leaving: bool = False
    told: bool = False
    handled_in: Context | None = None

    def lose(self, why: str) -> None:
        self.lost = why
        self.warn("Message %s is not held any more: %s", self.delivery.message_id, why)
        if self.limit is not None:
            self.limit.reschedule(asyncio.get_running_loop().time())

    def warn(self, message: str, *args: object) -> None:
        """In the log of the delivery, as far as that is being handled."""
        if self.handled_in is not None:
            self.handled_in.run(logger.warning, message, *args)
            return
        fields = {"queue": self.delivery.queue, "message_id": self.delivery.message_id}
        logger.warning(message, *args, extra={**fields, "attempt": self.delivery.receive_count})


class _Stay(AbstractAsyncContextManager[None]):
    __slots__ = ("_hold", "_limit")

    def __init__(self, hold: _Hold) -> None:
        self._hold = hold
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        hold = self._hold
        if hold.lost is not None:
            raise CutShort(hold.lost)
        hold.began, hold.limit = asyncio.get_running_loop().time(), self._limit
        hold.handled_in = copy_context()
        await self._limit.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        hold = self._hold
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise CutShort(str(hold.lost)) from None
        else:
            # One that made another error of its cancellation.
            if isinstance(error, TimeoutError) and self._limit.expired():
                raise CutShort(str(hold.lost)) from None
        finally:
            hold.began = hold.limit = hold.handled_in = None


class Heartbeat:
    """Keeps the deliveries of one queue hidden for as long as they are held, by `visibility` at a
    time, and cuts short those that are lost."""

    def __init__(self, queues: Queues, queue: str, visibility: timedelta) -> None:
        self._queues = queues
        self._queue = queue
        self._visibility = visibility.total_seconds()
        self._holds: dict[str, _Hold] = {}
        self._changed = asyncio.Event()
        self._sleeps_until: float | None = None
        self._beats: set[asyncio.Task[None]] = set()

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """These were received just now."""
        now = self._now()
        next = now + self._visibility / _BEATS
        for delivery in deliveries:
            self._holds[delivery.receipt_handle] = _Hold(
                delivery, now, now + self._visibility, next
            )
        if self._sleeps_until is None or next < self._sleeps_until:
            self._changed.set()

    def stay(self, delivery: Delivery) -> AbstractAsyncContextManager[None]:
        """Handle a delivery that is held. Cancels what is in the block, and raises `CutShort`, once
        it is lost."""
        return _Stay(self._holds[delivery.receipt_handle])

    def is_lost(self, delivery: Delivery) -> bool:
        """Whether somebody else may have the message by now."""
        hold = self._holds.get(delivery.receipt_handle)
        return hold is None or hold.lost is not None

    async def let_go(self, delivery: Delivery) -> None:
        """Hold it no longer. A beat that is on its way is waited for: if it came after what is told
        SQS next, the message would stay hidden."""
        hold = self._holds.get(delivery.receipt_handle)
        if hold is not None and hold.beat is not None:
            # Not before the wait is over: who is cancelled here has not settled it yet.
            hold.leaving = True
            await asyncio.wait((hold.beat,), timeout=_ON_ITS_WAY)
        self.forget(delivery)

    def forget(self, delivery: Delivery) -> None:
        """Hold it no longer; it shows when its visibility ends."""
        self._holds.pop(delivery.receipt_handle, None)

    def oldest(self) -> timedelta | None:
        """For how long the delivery that began first has been handled; `None` if none is."""
        began = [hold.began for hold in self._holds.values() if hold.began is not None]
        return timedelta(seconds=self._now() - min(began)) if began else None

    async def run(self) -> None:
        """Beat, for ever."""
        try:
            while True:
                self._sleeps_until = self._next()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._sleeps_until):
                        await self._changed.wait()
                self._changed.clear()
                due = self._due()
                for start in range(0, len(due), SQS_BATCH_ENTRIES):
                    self._begin(due[start : start + SQS_BATCH_ENTRIES])
        finally:
            for beat in self._beats:
                beat.cancel()

    def _next(self) -> float | None:
        return min((hold.next for hold in self._waiting()), default=None)

    def _waiting(self) -> list[_Hold]:
        """Those that are still to be kept hidden, and are not about to be."""
        return [
            hold
            for hold in self._holds.values()
            if hold.beat is None and not hold.lost and not hold.leaving
        ]

    def _due(self) -> list[_Hold]:
        """What has to be kept hidden now, and what will have to be soon."""
        now = self._now()
        waiting = self._waiting()
        if not any(hold.next <= now for hold in waiting):
            return []
        soon = now + _TOGETHER * self._visibility / _BEATS
        due = []
        for hold in waiting:
            if hold.next > soon:
                continue
            if self._span(hold, now) > 0:
                due.append(hold)
            elif hold.until <= now:
                hold.lose("SQS hides a message for 12 hours at most, and these are over.")
            else:
                hold.next = hold.until
        return due

    def _span(self, hold: _Hold, now: float) -> float:
        """Seconds by which it can be hidden from now on; 0 if that adds nothing."""
        span = min(self._visibility, hold.received + _CAP - now)
        return span if now + span > hold.until else 0

    def _begin(self, holds: Sequence[_Hold]) -> None:
        beat = asyncio.create_task(self._beat(holds))
        for hold in holds:
            hold.beat = beat
        self._beats.add(beat)
        beat.add_done_callback(self._beats.discard)

    async def _beat(self, holds: Sequence[_Hold]) -> None:
        asked = self._now()
        spans = [self._span(hold, asked) for hold in holds]
        # Where the whole process was paused for so long that the visibility ended, it may still be
        # ours: SQS knows. And a call that is never answered must leave the time for another.
        third = self._visibility / _BEATS
        least = 0 if any(hold.failing for hold in holds) else third
        left = max(min(min(hold.until for hold in holds) - asked, third), least)
        changes = [
            (hold.delivery.receipt_handle, timedelta(seconds=span))
            for hold, span in zip(holds, spans, strict=True)
        ]
        try:
            async with asyncio.timeout(left):
                failures = await self._queues.change_visibility(self._queue, changes)
        except (Exception, asyncio.CancelledError) as error:
            # Whatever it is, nobody waits for this to hear of it.
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            why = str(error) or repr(error)
            failures = [EntryFailure(index, why) for index in range(len(holds))]
        for hold in holds:
            hold.beat = None
        # What was settled meanwhile may be deleted by now, and is nobody's concern.
        refused = {
            failure.index: failure for failure in failures if self._is_held(holds[failure.index])
        }
        if refused:
            logger.warning(
                "Not all messages of %s could be kept hidden (%d failed): %s",
                self._queue,
                len(refused),
                _reason(next(iter(refused.values()))),
            )
        for index, (hold, span) in enumerate(zip(holds, spans, strict=True)):
            if index in refused:
                self._failed(hold, refused[index])
            elif self._is_held(hold):
                self._kept(hold, asked, span)
        self._changed.set()

    def _is_held(self, hold: _Hold) -> bool:
        return self._holds.get(hold.delivery.receipt_handle) is hold

    def _kept(self, hold: _Hold, asked: float, span: float) -> None:
        hold.failing = False
        hold.until = asked + span
        hold.next = asked + self._visibility / _BEATS
        if hold.began is not None and not hold.told:
            running = timedelta(seconds=asked - hold.began)
            if running >= _LONG:
                hold.told = True
                hold.warn(
                    "Message %s has been handled for %d minutes and is kept hidden meanwhile: if "
                    "its handler hangs, give that a timeout=.",
                    hold.delivery.message_id,
                    running.total_seconds() // 60,
                )

    def _failed(self, hold: _Hold, failure: EntryFailure) -> None:
        now = self._now()
        left = hold.until - now
        if not failure.retryable:
            hold.lose(f"SQS does not hide it any longer ({_reason(failure)}).")
        elif left <= 0:
            hold.lose(f"it was not kept hidden in time ({_reason(failure)}).")
        else:
            third = self._visibility / _BEATS
            hold.failing = True
            hold.next = min(now + min(max(left / 2, third / 10), third), hold.until)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _reason(failure: EntryFailure) -> str:
    return f"{failure.code}: {failure.message}" if failure.message else failure.code
