"""The relay: sending what was committed and is not out, where no message brings it up again.

A handler's events are sent by whoever receives its message again. A transaction that an HTTP
request or a schedule began has nobody like that: if the process dies between its commit and its
dispatch, the record stands in an index until the relay has sent what it holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from headrace.errors import CloudError, DispatchError, HeadraceError, NoTable
from headrace.group import GroupCommit
from headrace.inbox import Inbox, Pending
from headrace.observer import Guarded, Observer, Unobserved
from headrace.outbox import Outbox
from headrace.ports import Item, ItemKey, Ports
from headrace.reads import SharedReads
from headrace.record import Record, Status
from headrace.service import Service

logger = logging.getLogger(__name__)

GRACE: Final = timedelta(seconds=5)
"""How long whoever committed a record has for sending it, before the relay does."""

INTERVAL: Final = timedelta(seconds=20)
"""Time between two looks at the index. Each is as many queries as there are shards, so a worker
makes as many of them as it makes long polls while nothing happens, and not many times more."""


class Unreadable(HeadraceError):
    """A record is not as this version of headrace writes it."""


class _Fate(Enum):
    SENT = "sent"
    PASSED_OVER = "passed over"
    UNREADABLE = "unreadable"
    LEFT = "left"


@dataclass(slots=True)
class _Seen:
    """A record that the index shows, and what came of it; until then it is left."""

    since: datetime
    fate: _Fate = _Fate.LEFT

    @property
    def is_left(self) -> bool:
        return self.fate in (_Fate.LEFT, _Fate.UNREADABLE)


class Relay:
    """Sends what the transactions of one service left behind.

    Several may run at once: what two of them send twice has one id. Raises `NoTable` for a
    service that cannot have left anything.
    """

    def __init__(self, service: Service, ports: Ports, observer: Observer | None = None) -> None:
        if service.table is None:
            raise NoTable(
                f"The service {service.name!r} has no table, so nothing can be left in it to send."
            )
        self._service = service
        self._table = service.table
        self._ports = ports
        self._reads = SharedReads(ports.store)
        self._observer = Guarded(observer or Unobserved())
        self._outbox = Outbox(service.name, service.bus, ports, self._observer)
        self._inbox = Inbox(
            ports.store,
            GroupCommit(ports.store, ports.randomness),
            ports.clock,
            ports.randomness,
            table=service.table,
            keep=service.redelivery_horizon,
        )

    async def sweep(self, *, grace: timedelta = GRACE, limit: timedelta | None = None) -> int:
        """Look through the index once and send what is older than `grace`; returns how many
        records it sent. What fails is logged, and stays for the next time, and so does what is
        not done within `limit`. Observers are told how old the oldest is that stays, if all has
        been looked through or something stays. Raises `CloudError` when the index cannot be read.
        """
        seen: list[_Seen] = []
        time = asyncio.timeout(None if limit is None else limit.total_seconds())
        try:
            async with time:
                await self._look_through(self._ports.clock.now() - grace, seen)
        except TimeoutError:
            if not time.expired():
                raise
            logger.warning(
                "There was no time to look through all that %s may have left to send: the next "
                "sweep goes on.",
                self._service.name,
            )
        finally:
            await self.flush()
        self._tell(seen, looked_through=not time.expired())
        return sum(each.fate is _Fate.SENT for each in seen)

    async def run(self, *, interval: timedelta = INTERVAL) -> None:
        """Sweep for ever, at random times about `interval` apart, so that many workers do not
        look all at once."""
        while True:
            pause = interval.total_seconds() * self._ports.randomness.uniform(0.5, 1.5)
            await asyncio.sleep(pause)
            try:
                await self.sweep()
            except CloudError as error:
                logger.error("What %s has left to send is not seen: %s", self._service.name, error)
            except Exception:
                # Nothing should raise. If something does, the worker beside it goes on.
                logger.exception("What %s has left to send was not sent.", self._service.name)

    async def send_image(self, item: Item) -> bool:
        """Send what a record holds, as a stream of the table shows it; `False` if that failed and
        is to be tried again.

        What is no such record is passed over without a call. So is one that cannot be read, with
        an error in the log: to be shown it again would not help, and it would hold up those
        behind it. It stays in the index, where every sweep says so until one can read it.
        """
        if not is_relayed(item, self._service.name):
            return True
        key = ItemKey(self._table, item["pk"]["S"], item["sk"]["S"])
        return await self._try(key) is not _Fate.LEFT

    async def flush(self) -> None:
        """Note what was sent, now: a host that may be frozen after its answer does so before."""
        await self._inbox.flush()

    async def _look_through(self, before: datetime, seen: list[_Seen]) -> None:
        async def follow(pending: Pending) -> None:
            each = _Seen(pending.since)
            seen.append(each)
            each.fate = await self._try(pending.key)

        async for page in self._inbox.pending(self._service.name, before):
            await asyncio.gather(*map(follow, dict.fromkeys(page)))

    def _tell(self, seen: Sequence[_Seen], *, looked_through: bool) -> None:
        left = [each.since for each in seen if each.is_left]
        if left or looked_through:
            oldest = self._ports.clock.now() - min(left) if left else None
            self._observer.swept(self._service.name, oldest)

    async def _try(self, key: ItemKey) -> _Fate:
        try:
            return await self._send(key)
        except Unreadable as error:
            logger.error("%s is passed over: %s", key.pk, error)
            return _Fate.UNREADABLE
        except (CloudError, DispatchError) as error:
            logger.error("%s is not out yet: %s", key.pk, error)
            return _Fate.LEFT

    async def _send(self, key: ItemKey) -> _Fate:
        # An index and a stream lag behind. What the table says is so.
        item = await self._reads.item(key)
        record = None if item is None else _record(self._table, item)
        if record is None or record.status is not Status.PENDING:
            return _Fate.PASSED_OVER
        await self._outbox.dispatch(record.outgoing)
        self._inbox.mark_done(record)
        return _Fate.SENT


def is_relayed(item: Item, service: str) -> bool:
    """Whether an item is a record that the relay of this service looks after."""
    index = item.get("relay_pk")
    return index is not None and str(index.get("S", "")).rpartition("#")[0] == service


def _record(table: str, item: Item) -> Record:
    try:
        return Record.from_item(table, item)
    except (KeyError, ValueError) as error:
        raise Unreadable(
            f"The record is not as this version of headrace writes it ({error!r}). If a newer one "
            "wrote it, deploy that; if it was changed by hand, mend it or delete it."
        ) from error
