"""A worker for a process of its own, which says what happens there and waits for leave to go on.

Run as `python -m tests.integration.hosts.gated` with GATE=host:port, where it says a line, and
GATED, which lists the places where it does: `handler`, `bus`, `stop`. Elsewhere nothing is gated.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace import Service, Transaction
from headrace.aws.client import open_ports
from headrace.hosts.worker import run_worker
from headrace.ports import Bus, BusEntry, EntryFailure
from tests.integration.hosts.app import auditor
from tests.integration.hosts.bank import Account, Credited, Deposited

__all__ = ["auditor", "ledger"]

ledger = Service("ledger", bus="bank")


@ledger.on(Deposited)
async def credit(event: Deposited, tx: Transaction) -> Credited:
    await at_the_gate("handler", event.account)
    account = await tx.get(Account, event.account) or Account(number=event.account)
    account = account.after(event.amount)
    tx.put(account)
    return Credited(account=account.number, balance=account.balance)


@dataclass(frozen=True, slots=True)
class GatedBus:
    inner: Bus

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        await at_the_gate("bus", *(entry.detail for entry in entries))
        return await self.inner.put(bus, entries)

    async def require(self, bus: str) -> None:
        await self.inner.require(bus)


async def at_the_gate(place: str, *what: str) -> None:
    """Say where this is and what happens, and wait for an answer."""
    if place not in os.environ.get("GATED", "").split(","):
        return
    host, _, port = os.environ["GATE"].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{place} {' '.join(what)}\n".encode())
    await reader.readline()
    writer.close()
    await writer.wait_closed()


async def tell_of(stop: asyncio.Event) -> None:
    await stop.wait()
    await at_the_gate("stop")


async def main() -> None:
    stop = asyncio.Event()
    async with open_ports() as ports, asyncio.TaskGroup() as group:
        group.create_task(tell_of(stop))
        await run_worker([ledger], replace(ports, bus=GatedBus(ports.bus)), stop=stop)


if __name__ == "__main__":
    asyncio.run(main())
