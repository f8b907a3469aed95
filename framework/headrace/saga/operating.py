"""Sagas as an operator sees them: those in flight, what happened to one, and helping it on."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

import orjson

from headrace.entity import from_item, key_for
from headrace.entries import answers
from headrace.envelope import queue_body, root_metadata, seal
from headrace.errors import CloudError, ConfigurationError, HeadraceError, NotProvisioned, Refused
from headrace.limits import BATCH_GET_KEYS
from headrace.ports import Item, ItemKey, Ports, QueueEntry
from headrace.record import KEY_PREFIX, RELAY_INDEX, Record
from headrace.retrying import after, retried
from headrace.saga.definition import Definition
from headrace.saga.handling import SagaHandler, sagas_of
from headrace.saga.item import SHARDS, SagaItem, shard, trail_of
from headrace.saga.machine import Action
from headrace.saga.progress import Status
from headrace.service import Service

T = TypeVar("T")

PATIENCE: Final = timedelta(seconds=30)
"""How long a worker may take to do what an operator wants, before nobody waits for it any more."""

_OPEN: Final = ("open", "stuck")
_PAGE: Final = 100
_ATTEMPTS: Final = 4
_FIRST_LOOK: Final = 0.05
_LAST_LOOK: Final = 2.0
"""Seconds between two looks whether a worker has done it, at first and in the end."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one message did to a saga: `changes` in sentences, and the names of what was `sent`.
    `turn` counts what changed it; a message that was `ignored` has the turn of the one before."""

    turn: int
    time: datetime
    event: str
    id: str
    status: Status
    changes: tuple[str, ...]
    sent: tuple[str, ...]
    ignored: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class InFlight:
    """How many sagas of one version are not over, and how many of these are `stuck`. It is not
    `known` if the code has no such version."""

    saga: str
    version: int
    count: int
    stuck: int
    known: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an intervention. Without an `entry`, no worker has taken it yet: it waits in
    the `queue`, under this `message_id`. It is `refused` if it was not to be had as the saga stood
    then, which the entry says."""

    message_id: str
    queue: str
    entry: Entry | None = None
    refused: bool = False


class Sagas:
    """The sagas of one service. Raises `ConfigurationError` if it has none.

    What looks for sagas raises `CloudError`, and `NotProvisioned` where the table or its index is
    not there.
    """

    def __init__(self, service: Service, ports: Ports) -> None:
        self._service = service
        self._ports = ports
        self._store = ports.store
        self.by_name = sagas_of(service)
        if service.table is None or not self.by_name:
            raise ConfigurationError(
                f"{service.name} has no sagas: write class …(Saga, service={service.name}, …), and "
                "import the modules that hold them where the service is named."
            )
        self._table = service.table

    def named(self, saga: str | None = None) -> SagaHandler:
        """One saga by its name, with or without its service, which can be left out if there is only
        one. Raises `ConfigurationError`."""
        names = ", ".join(sorted(self.by_name))
        if saga is None and len(self.by_name) == 1:
            return next(iter(self.by_name.values()))
        if saga is None:
            raise ConfigurationError(
                f"{self._service.name} has several sagas: name one of {names} with --saga."
            )
        found = self.by_name.get(saga.removeprefix(f"{self._service.name}."))
        if found is None:
            raise ConfigurationError(f"{self._service.name} has no saga {saga!r}: it has {names}.")
        return found

    def definition_of(self, item: SagaItem) -> Definition | None:
        """The version that a saga was begun by; `None` if the code does not have it."""
        saga = self.by_name.get(item.consumer.removeprefix(f"{self._service.name}."))
        return None if saga is None else saga.versions.get(item.version)

    # --- looking ---

    async def open(self, saga: str, *, stuck: bool = False) -> AsyncGenerator[SagaItem, None]:
        """The sagas that are not over, or only those that are stuck, as they stand now: version by
        version, the oldest first. One that began a moment ago may not be among them."""
        handler, kinds = self.named(saga), _OPEN[1:] if stuck else _OPEN
        version, found = 1, False
        # One that the code does not have yet may be in flight, after a step back.
        while found or version <= handler.newest.version + 1:
            found = False
            async for keys in _chunks(self._oldest_first(handler, version, kinds)):
                found = True
                for item in await self._read(keys):
                    if item is not None and _is_open(item, stuck=stuck):
                        yield item
            version += 1

    async def find(self, saga: str, key: str) -> SagaItem | None:
        """One saga as it stands now; `None` if there is none, or it has expired."""
        consumer = self.named(saga).consumer
        (found,) = await self._read([key_for(SagaItem, self._table, (consumer, key), {})])
        return found

    async def get(self, saga: str, key: str) -> SagaItem:
        """One saga as it stands now. Raises `HeadraceError` if there is none."""
        found, handler = await self.find(saga, key), self.named(saga)
        if found is None:
            raise HeadraceError(
                f"There is no saga {handler.consumer} {key!r}: `headrace saga list` shows those "
                "that are not over. One that is can be seen for "
                f"{handler.newest.retention.days} days."
            )
        return found

    async def history(self, saga: str, key: str) -> list[Entry]:
        """What happened to a saga, in order. The last of it may be missing for a moment."""
        trail = trail_of(self.named(saga).consumer, key)
        found: list[Entry] = []
        async for keys in _chunks(self._partition(trail)):
            found += [entry for item in await self._store.get(keys) if (entry := self._entry(item))]
        return sorted(found, key=lambda entry: (entry.turn, entry.ignored, entry.time))

    async def in_flight(self) -> list[InFlight]:
        """How many sagas of each version are not over, as far as the index knows: of every version
        that the code has, and of those it does not have that are there."""
        counts = [c for name in self.by_name for c in await self._counted(self.by_name[name])]
        return sorted(counts, key=lambda each: (each.saga, each.version))

    # --- helping on ---

    async def intervene(
        self,
        saga: str,
        key: str,
        action: Action,
        *,
        by: str,
        why: str = "",
        step: str | None = None,
        patience: timedelta = PATIENCE,
    ) -> Answer:
        """Have a worker do something with a saga, and wait for as long as `patience` until it has.

        Raises `HeadraceError` for a saga that is not there, and `CloudError`.
        """
        handler = self.named(saga)
        seen = await self.get(saga, key)
        # It may be stuck at another step by the time that this is read.
        id = await self._send(handler, key, action, by, why, step or seen.stuck)
        entry = await self._done(handler, id, patience)
        refused = entry is not None and entry.ignored
        return Answer(id, self._service.name, entry, refused)

    async def _send(
        self,
        handler: SagaHandler,
        key: str,
        action: Action,
        by: str,
        why: str,
        step: str | None,
    ) -> str:
        """Send the command to the service itself; its id."""
        id = str(self._ports.randomness.uuid())
        command = handler.signals.intervention(
            saga=handler.name, key=key, action=action, by=by, why=why, step=step
        )
        sealed = seal(command, root_metadata(command, id=id, now=self._ports.clock.now()))
        send = partial(self._ports.queues.send, self._service.name)

        async def once() -> None:
            (error,) = await answers([QueueEntry(queue_body(sealed))], send)
            if error is not None:
                raise error

        # Under one id, so that one which arrived twice is done once.
        await self._lasting(once)
        return id

    async def _done(self, handler: SagaHandler, id: str, patience: timedelta) -> Entry | None:
        """What the record of this message says, which is read as it is, and not by the index."""
        key = ItemKey(self._table, f"{KEY_PREFIX}{handler.consumer}#{id}", "-")
        pause, left = _FIRST_LOOK, patience.total_seconds()
        while True:
            (item,) = await self._lasting(partial(self._store.get, [key]))
            if item is not None or left <= 0:
                return self._entry(item)
            await asyncio.sleep(min(pause, left))
            left -= pause
            pause = min(2 * pause, _LAST_LOOK)

    # --- the table ---

    async def _counted(self, handler: SagaHandler) -> list[InFlight]:
        found: list[InFlight] = []
        version, count = 1, 0
        while count or version <= handler.newest.version + 1:
            opened, stuck = [await self._count(handler, version, kind) for kind in _OPEN]
            count, known = opened + stuck, version in handler.versions
            if known or count:
                found.append(InFlight(handler.name, version, count, stuck, known))
            version += 1
        return found

    async def _count(self, handler: SagaHandler, version: int, kind: str) -> int:
        shards = [shard(handler.consumer, version, kind, n) for n in range(SHARDS)]
        return sum(await asyncio.gather(*map(self._length, shards)))

    async def _length(self, pk: str) -> int:
        return sum([1 async for _ in self._partition(pk, page=None)])

    async def _oldest_first(
        self, handler: SagaHandler, version: int, kinds: Sequence[str]
    ) -> AsyncIterator[tuple[str, ItemKey]]:
        """The sagas of all shards in one order. One that has just moved from one partition of the
        index to another may be in both, and is named once."""
        streams = [
            self._partition(shard(handler.consumer, version, kind, n))
            for kind in kinds
            for n in range(SHARDS)
        ]
        heads = await asyncio.gather(*map(_next, streams))
        heap = [(*head, n) for n, head in enumerate(heads) if head is not None]
        heapq.heapify(heap)
        before: ItemKey | None = None
        while heap:
            place, key, n = heap[0]
            if key != before:
                yield place, key
            before, head = key, await _next(streams[n])
            if head is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (*head, n))

    async def _partition(
        self, pk: str, *, page: int | None = _PAGE
    ) -> AsyncIterator[tuple[str, ItemKey]]:
        """What the index has under a key: where it stands in it, and which item it is."""
        start: Item | None = None
        while True:
            with _no_index_told(self._table):
                found = await self._store.query(
                    self._table, pk, index=RELAY_INDEX, limit=page, start=start
                )
            for item in found.items:
                key = ItemKey(self._table, item["pk"]["S"], item["sk"]["S"])
                yield item[f"{RELAY_INDEX}_sk"]["S"], key
            if found.next is None:
                return
            start = found.next

    async def _read(self, keys: Sequence[ItemKey]) -> list[SagaItem | None]:
        items = await self._store.get(keys)
        return [None if item is None else from_item(SagaItem, item) for item in items]

    def _entry(self, item: Item | None) -> Entry | None:
        """What a record tells; one that was deleted meanwhile tells nothing."""
        trail = None if item is None else Record.from_item(self._table, item).trail
        if trail is None:
            return None
        note = orjson.loads(trail.note)
        return Entry(
            turn=note["turn"],
            time=datetime.fromisoformat(note["time"]),
            event=note["event"],
            id=note["id"],
            status=Status(note["status"]),
            changes=tuple(note["changes"]),
            sent=tuple(note["sent"]),
            ignored=note["ignored"],
        )

    async def _lasting(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that may be made again, until AWS no longer refuses it for now."""
        return await retried(call, again=_is_passing, stop=after(_ATTEMPTS), wait=self._pause)

    def _pause(self, attempt: int, error: BaseException | None) -> float:
        return self._ports.randomness.uniform(0, 0.1 * 2**attempt)


def _is_open(item: SagaItem, *, stuck: bool) -> bool:
    if stuck:
        return item.status is Status.STUCK
    return item.status not in (Status.COMPLETED, Status.COMPENSATED)


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, CloudError) and error.retryable


@contextmanager
def _no_index_told(table: str) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        # A ValidationException, which only its words tell from others.
        if "does not have the" not in str(error) or "index" not in str(error):
            raise
        raise NotProvisioned(
            f"The table {table!r} has no index {RELAY_INDEX!r}, in which sagas are found: run "
            "`headrace provision` or deploy the stack, which adds it.",
            operation=error.operation,
            code=error.code,
        ) from error


async def _next(
    stream: AsyncIterator[tuple[str, ItemKey]],
) -> tuple[str, ItemKey] | None:
    return await anext(stream, None)


async def _chunks(
    found: AsyncIterator[tuple[str, ItemKey]],
) -> AsyncIterator[list[ItemKey]]:
    """As many as one call reads."""
    keys: list[ItemKey] = []
    async for _, key in found:
        keys.append(key)
        if len(keys) == BATCH_GET_KEYS:
            yield keys
            keys = []
    if keys:
        yield keys
