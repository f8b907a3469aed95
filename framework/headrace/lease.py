"""Leases: one delivery at a time at work on what a transaction cannot undo.

A mail or a payment happens while the handler runs, before its commit. So a leased handler takes
the inbox record first, in its own name and for a while, and a second delivery of the message waits
or comes again. If the process dies, the lease ends by itself.

    l0  update the record as leased, if none stands there or its lease is over
    ..  the handler runs; the lease is renewed at a third of its time
    t0  the record is committed with its effects, if the lease is still held
    t1  as without a lease (see inbox)

    crash before t0   the lease ends, the message comes again, the handler runs again
    handler fails     the record is released, and counts the failure: a receive that only met a
                      lease, or a process that died, is no attempt
    lease lost        another delivery may be at work: t0 is refused, whoever holds it goes on
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from headrace.errors import CloudError, ConditionFailed, LeaseHeld, LeaseLost
from headrace.inbox import Committed, Inbox
from headrace.ports import Clock, Condition, Item, Randomness, Store, Update
from headrace.record import Record, Status, milliseconds

logger = logging.getLogger(__name__)

_RENEWALS: Final = 3
"""A lease is renewed so many times before it would end: two may fail."""

_FIRST_LOOK: Final = 0.05
"""Seconds until a delivery that waits looks again; they double each time."""

_HELD: Final = "#status = :leased AND holder = :holder"
_STATUS: Final = {"#status": "status"}


class Lease:
    """The lease of one consumer on one event, for one delivery."""

    def __init__(
        self,
        store: Store,
        inbox: Inbox,
        clock: Clock,
        randomness: Randomness,
        *,
        consumer: str,
        event_id: str,
        time: timedelta,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._clock = clock
        self._time = time
        self.holder = str(randomness.uuid())
        self.failures = 1
        """How often the handler has failed for this event, once it has, as far as is known."""
        self._blank = inbox.new_record(consumer, event_id)
        self._until = clock.now()
        self._failing = False

    async def take(self) -> Committed | None:
        """Take the lease; `None` if it is ours now.

        Returns the record that stands if the effects are committed already. Raises `LeaseHeld`,
        with the time that is left, while another delivery holds it, and `CloudError`.
        """
        now = self._clock.now()
        self._until = now + self._time
        try:
            await self._store.change(self._claim(now))
        except ConditionFailed as error:
            if error.item is None:
                raise LeaseHeld(delay=timedelta(0)) from error
            standing = Record.from_item(self._blank.key.table, error.item)
            if standing.status is not Status.LEASED:
                return Committed(self._inbox.as_known(standing), duplicate=True)
            if standing.holder != self.holder:
                left = (standing.held_until or now) - now
                raise LeaseHeld(delay=max(left, timedelta(0))) from error
            # Ours: it was written, and the answer was lost.
        return None

    async def wait(self) -> Committed | None:
        """Take the lease as soon as whoever holds it is done or gone; raises `LeaseHeld` if it is
        still held after the time that one lease lasts."""
        until = self._clock.now() + self._time
        pause = _FIRST_LOOK
        while True:
            try:
                return await self.take()
            except LeaseHeld as held:
                if self._clock.now() >= until:
                    raise
                left = (held.delay or timedelta(0)).total_seconds()
            # Nothing tells one process that another is done: it has to look again.
            await asyncio.sleep(min(left + 0.01, pause))
            pause = min(2 * pause, self._time.total_seconds() / _RENEWALS)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keeps the lease while the block runs; cancels it and raises `LeaseLost` when it is
        lost."""
        # Between one run and the next, nobody renews it.
        if self._is_due() and not await self._renew():
            raise LeaseLost
        keeping = _Keeping(asyncio.current_task())
        renewals = asyncio.create_task(self._renew_on(keeping))
        try:
            yield
        except BaseException as error:
            if keeping.uncancelled():
                raise LeaseLost from error
            raise
        finally:
            keeping.task = None
            renewals.cancel()
            await asyncio.wait((renewals,))
        if keeping.lost:
            # The handler swallowed its cancellation.
            keeping.uncancelled()
            raise LeaseLost

    async def release(self, *, failed: bool = False, at_work: bool = False) -> None:
        """Let the next delivery in at once, or when the lease ends if something is `at_work` still.
        If the handler `failed`, that is counted in the record; `failures` then says how often."""
        free = "" if at_work else "SET held_until = :free "
        count = " ADD failures :one" if failed else ""
        values: Item = {} if at_work else {":free": {"N": "0"}}
        values |= {":one": {"N": "1"}} if failed else {}
        # Without a holder, a renewal that is still on its way is refused, and so is this if it is
        # sent again: no failure counts twice.
        change = f"{free}REMOVE holder{count}"
        update = Update(self._blank.key, change, values=values, condition=self._held())
        try:
            # Refused if somebody else has it, or it was committed after all.
            with suppress(ConditionFailed):
                await self._store.change(update)
        except CloudError as error:
            logger.warning("The lease %s ends by itself: %s", self._blank.key.pk, error)
            return
        if failed:
            await self._count()

    async def forget(self) -> None:
        """Forget the failures: the message is given up, and begins anew if it is redriven."""
        leased = Condition("#status = :leased", _STATUS, {":leased": {"S": Status.LEASED.value}})
        try:
            with suppress(ConditionFailed):
                await self._store.change(
                    Update(self._blank.key, "REMOVE failures", condition=leased)
                )
        except CloudError as error:
            logger.warning("%s keeps its count of failures: %s", self._blank.key.pk, error)

    async def _count(self) -> None:
        try:
            [record] = await self._inbox.read([self._blank.key])
        except CloudError as error:
            logger.warning("The failures of %s were not counted: %s", self._blank.key.pk, error)
        else:
            if record is not None:
                self.failures = record.failures

    async def _renew_on(self, keeping: _Keeping) -> None:
        while not keeping.lost:
            await asyncio.sleep(self._pause().total_seconds())
            if not await self._renew():
                keeping.lose()

    def _pause(self) -> timedelta:
        """Until the next renewal: a third of the lease; sooner and sooner after one that failed."""
        third, left = self._time / _RENEWALS, self._until - self._clock.now()
        pause = max(left / 2, third / 10) if self._failing else third
        return max(min(pause, left, third), timedelta(0))

    async def _renew(self) -> bool:
        """Whether the lease is still ours, as far as anybody can tell."""
        now = self._clock.now()
        left = self._until - now
        if left <= timedelta(0):
            if self._failing:
                return False
            # The whole process was paused for so long: it may still be ours.
            left = self._time / _RENEWALS
        try:
            async with asyncio.timeout(left.total_seconds()):
                await self._store.change(self._renewal(now + self._time))
        except ConditionFailed as error:
            return self._is_held_longer(error.item)
        except Exception as error:  # whatever it is, nobody waits for this to hear of it
            self._failing = True
            why = str(error) or repr(error)
            logger.warning("The lease %s was not renewed: %s", self._blank.key.pk, why)
            return self._clock.now() < self._until
        self._failing = False
        self._until = now + self._time
        return True

    def _is_held_longer(self, item: Item | None) -> bool:
        """Whether a renewal was refused because the lease is ours for longer: somebody has put our
        clock back."""
        if item is None:
            return False
        standing = Record.from_item(self._blank.key.table, item)
        if standing.status is not Status.LEASED or standing.holder != self.holder:
            return False
        self._until = standing.held_until or self._until
        self._failing = False
        return True

    def _is_due(self) -> bool:
        return self._clock.now() >= self._until - self._time + self._time / _RENEWALS

    def _claim(self, now: datetime) -> Update:
        free = Condition(
            "attribute_not_exists(pk) OR expires_at < :now OR "
            "(#status = :leased AND held_until < :now_ms)",
            _STATUS,
            {
                ":now": {"N": str(int(now.timestamp()))},
                ":now_ms": {"N": milliseconds(now)},
                ":leased": {"S": Status.LEASED.value},
            },
        )
        record = replace(
            self._blank, status=Status.LEASED, holder=self.holder, held_until=self._until
        )
        # An update, because the count of failures stays; what an expired record has to send does
        # not, and it holds nothing else that a lease does not set.
        item = {name: v for name, v in record.as_item().items() if name not in ("pk", "sk")}
        return Update(
            record.key,
            f"SET {', '.join(f'#{name} = :new_{name}' for name in item)} REMOVE outgoing",
            {f"#{name}": name for name in item},
            {f":new_{name}": value for name, value in item.items()},
            condition=free,
            return_old=True,
        )

    def _renewal(self, until: datetime) -> Update:
        held = self._held()
        # One that was stuck on its way must not take back what later ones have added.
        forward = replace(held, expression=f"{held.expression} AND held_until <= :until")
        return Update(
            self._blank.key,
            "SET held_until = :until",
            values={":until": {"N": milliseconds(until)}},
            condition=forward,
            return_old=True,
        )

    def _held(self) -> Condition:
        return Condition(
            _HELD,
            _STATUS,
            {":leased": {"S": Status.LEASED.value}, ":holder": {"S": self.holder}},
        )


class _Keeping:
    """Who is to be cancelled when the lease is lost."""

    def __init__(self, task: asyncio.Task[object] | None) -> None:
        self.task = task
        self._cancelled: asyncio.Task[object] | None = None
        self.lost = False

    def lose(self) -> None:
        self.lost = True
        if self.task is not None:
            self.task.cancel()
            self._cancelled = self.task

    def uncancelled(self) -> bool:
        """Take the cancellation back; whether nobody else asked for one too."""
        return self._cancelled is not None and self._cancelled.uncancel() == 0
