"""The relay: sending what was committed and is not out, where no message brings it up again.

A handler's events are sent by whoever receives its message again. A transaction that an HTTP
request or a schedule began has nobody like that: if the process dies between its commit and its
dispatch, the record stands in an index until the relay has sent what it holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from headrace.errors import CloudError, DispatchError, NoTable
from headrace.group import GroupCommit
from headrace.inbox import Inbox
from headrace.observer import Observer, Unobserved
from headrace.outbox import Outbox
from headrace.ports import Item, ItemKey, Ports
from headrace.record import Record, Status
from headrace.service import Service

logger = logging.getLogger(__name__)

GRACE: Final = timedelta(seconds=5)
"""How long whoever committed a record has for sending it, before the relay does."""

INTERVAL: Final = timedelta(seconds=10)
"""Time between two looks at the index. Each is as many queries as there are shards."""


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
        self._ports = ports
        self._outbox = Outbox(
            service.name,
            service.bus,
            ports.bus,
            ports.queues,
            ports.randomness,
            observer or Unobserved(),
        )
        self._inbox = Inbox(
            ports.store,
            GroupCommit(ports.store, ports.randomness),
            ports.clock,
            ports.randomness,
            table=service.table,
            keep=service.redelivery_horizon,
        )

    async def sweep(self, *, grace: timedelta = GRACE) -> int:
        """Look through the index once and send what is older than `grace`; returns how many
        records are done with. What fails is logged, and stays for the next time. Raises
        `CloudError` when the index cannot be read."""
        sent = 0
        before = self._ports.clock.now() - grace
        async for keys in self._inbox.pending(self._service.name, before):
            sent += await self._send_all(keys)
        await self._inbox.flush()
        return sent

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

    async def send_image(self, item: Item) -> bool:
        """Send what a record holds, as a stream of the table shows it; whether it is done with.
        What is no such record is done with from the start."""
        if not is_relayed(item, self._service.name):
            return True
        assert self._service.table is not None
        record = Record.from_item(self._service.table, item)
        # The stream lags behind: it may have been sent by now, and mostly has been.
        sent = await self._send_all([record.key]) == 1
        await self._inbox.flush()
        return sent

    async def _send_all(self, keys: Sequence[ItemKey]) -> int:
        # The index lags behind too. What the table says is so.
        records = [record for record in await self._inbox.read(keys) if record is not None]
        sent = await asyncio.gather(*map(self._send, records))
        return sum(sent) + len(keys) - len(records)

    async def _send(self, record: Record) -> bool:
        if record.status is not Status.PENDING:
            return True
        try:
            await self._outbox.dispatch(record.outgoing)
        except DispatchError as error:
            logger.error("%s is not out yet: %s", record.key.pk, error)
            return False
        self._inbox.mark_done(record)
        return True


def is_relayed(item: Item, service: str) -> bool:
    """Whether an item is a record that the relay of this service looks after."""
    index = item.get("relay_pk")
    return index is not None and str(index.get("S", "")).rpartition("#")[0] == service
