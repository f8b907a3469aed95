"""Ports that fail at one chosen point, around ports that work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from headrace.errors import Unreachable
from headrace.ports import (
    Action,
    Bus,
    BusEntry,
    Delete,
    Delivery,
    EntryFailure,
    Item,
    ItemKey,
    Page,
    Put,
    QueueDepth,
    QueueEntry,
    Queues,
    Store,
    Update,
)


@dataclass(slots=True)
class FaultyQueues:
    """`on_send` and `on_delete` answer in the place of the call, or raise."""

    inner: Queues
    on_send: Callable[[Sequence[QueueEntry]], list[EntryFailure]] | None = None
    on_delete: Callable[[Sequence[str]], list[EntryFailure]] | None = None

    async def receive(
        self, queue: str, *, limit: int, wait: timedelta, visibility: timedelta | None = None
    ) -> list[Delivery]:
        return await self.inner.receive(queue, limit=limit, wait=wait, visibility=visibility)

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        if self.on_send is not None:
            return self.on_send(entries)
        return await self.inner.send(queue, entries)

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        if self.on_delete is not None:
            return self.on_delete(receipts)
        return await self.inner.delete(queue, receipts)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        return await self.inner.change_visibility(queue, changes)

    async def depth(self, queue: str) -> QueueDepth:
        return await self.inner.depth(queue)


def refuses(entries: Sequence[object]) -> list[EntryFailure]:
    """The call answers, and every entry of it failed."""
    return [EntryFailure(i, "AccessDenied", "not yours", False) for i in range(len(entries))]


def is_unreachable(entries: Sequence[object]) -> list[EntryFailure]:
    raise Unreachable("No answer came back.")


@dataclass(slots=True)
class Gate:
    """A place where a process is lost: who comes here waits until the test has ended it."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self) -> None:
        self.reached.set()
        await self.over.wait()
        raise Unreachable("The process that made this call is gone.")


@dataclass(slots=True)
class LostBus:
    """The process is lost before EventBridge has the entries, or, with `late`, after. `put_before`
    are the details it was given."""

    inner: Bus
    gate: Gate
    late: bool = False
    put_before: list[str] = field(default_factory=list)

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        self.put_before += [entry.detail for entry in entries]
        if self.late:
            await self.inner.put(bus, entries)
        await self.gate.hold()
        return []

    async def require(self, bus: str) -> None:
        await self.inner.require(bus)


@dataclass(slots=True)
class LostAnswers:
    """Transactions and changes take place, and their answers are lost; with `for_good`, nothing is
    answered after the first of them either."""

    inner: Store
    for_good: bool = False
    gone: bool = False

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        if self.gone and self.for_good:
            raise Unreachable("No answer came back.")
        return await self.inner.get(keys)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        await self.inner.transact(actions, token=token)
        self.gone = True
        raise Unreachable("No answer came back.")

    async def change(self, action: Put | Update | Delete) -> None:
        await self.inner.change(action)
        self.gone = True
        raise Unreachable("No answer came back.")

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        return await self.inner.write(actions)

    async def query(self, *args: Any, **kwargs: Any) -> Page:
        return await self.inner.query(*args, **kwargs)
