"""A service on an account in memory, for tests of what a handler may write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeAlias

from headrace import Entity, Event, Service, Transaction
from headrace.entity import WRITES, version_of
from headrace.errors import CloudError, HeadraceError
from headrace.outcome import Outcome
from headrace.pipeline import Pipeline, running
from headrace.ports import Action, BusEntry, Clock, Delivery, EntryFailure, Item, ItemKey
from headrace.testing import delivery_of
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.topology import model


class CrateMoved(Event, source="depot.floor"):
    sku: str = "a"
    count: int = 1


class CrateSeen(Event, source="depot.office"):
    sku: str = "a"
    note: str = ""


class Shelf(Entity, pk="shelf#{sku}"):
    sku: str
    count: int = 0
    note: str = ""


class Parcel(Entity, pk="order#{order}", sk="parcel#{number}"):
    order: str
    number: int
    label: str = ""


Act: TypeAlias = Callable[[Transaction], Awaitable[CrateSeen | None]]


@dataclass
class Depot:
    """The account, and a service under the name of its table."""

    cloud: MemoryCloud[Any]
    service: Service
    transactions: int = 0

    async def run(self, act: Act, **ports: Any) -> Outcome:
        """The outcome of a delivery that nothing was heard of, to a handler that does `act`."""
        self.transactions += 1
        service = Service("depot", bus="yard")

        @service.on(CrateMoved)
        async def act_on(event: CrateMoved, tx: Transaction) -> CrateSeen | None:
            return await act(tx)

        async with running(service, replace(self.cloud.ports, **ports)) as pipeline:
            return await pipeline.consume(self.delivery(id=f"run-{self.transactions}"))

    async def refusal(self, act: Act) -> HeadraceError:
        """What `act` is refused with, and nothing written."""
        before = self.items()
        outcome = await self.run(act)
        error = getattr(outcome, "error", None)
        assert isinstance(error, HeadraceError), outcome
        assert not isinstance(error, CloudError), "DynamoDB was asked"
        assert self.items() == before
        return error

    def delivery(
        self, event: CrateMoved | None = None, *, id: str = "e-1", receive_count: int = 1
    ) -> Delivery:
        return delivery_of(
            event or CrateMoved(), self.service.name, id=id, receive_count=receive_count
        )

    def of(self, event: Event, id: str) -> Delivery:
        return delivery_of(event, self.service.name, id=id)

    @asynccontextmanager
    async def pipeline(self, **ports: Any) -> AsyncIterator[Pipeline]:
        async with running(self.service, replace(self.cloud.ports, **ports)) as pipeline:
            yield pipeline

    def advance(self, seconds: float) -> None:
        self.cloud.clock.advance(timedelta(seconds=seconds))

    def key(self, pk: str) -> ItemKey:
        return ItemKey("depot", pk, "-")

    async def item(self, pk: str, sk: str = "-", table: str = "depot") -> Item | None:
        (item,) = await self.cloud.store.get([ItemKey(table, pk, sk)])
        return item

    async def shelf(self, sku: str = "a") -> int | None:
        """What stands on a shelf; `None` if there is no such shelf."""
        item = await self.item(f"shelf#{sku}")
        return None if item is None else int(item["count"]["N"])

    async def writes(self, pk: str = "shelf#a") -> int:
        """How often an item was written since it was made, as its version says."""
        item = await self.item(pk)
        assert item is not None
        return version_of(item) % WRITES

    async def record(self, id: str = "e-1", handler: str = "move") -> Item | None:
        return await self.item(f"inbox#{self.service.name}.{handler}#{id}")

    def items(self) -> list[Item]:
        """Everything in the table but records."""
        items = self.cloud.store.items("depot")
        return [item for item in items if not item["pk"]["S"].startswith("inbox#")]


class Through:
    """The store of an account, for a test to override a method of."""

    def __init__(self, depot: Depot) -> None:
        self.store = depot.cloud.store
        self.transacts: list[Sequence[Action]] = []
        self.tokens: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        self.transacts.append(actions)
        self.tokens.append(token)
        await self.store.transact(actions, token=token)

    @property
    def keys(self) -> list[set[str]]:
        """The partition keys of each TransactWriteItems."""
        return [{action.key.pk for action in actions} for actions in self.transacts]


class Bus:
    """The bus, remembering what it was given, and down when it is told so."""

    def __init__(self, *, down: bool = False) -> None:
        self.details: list[str] = []
        self.down = down

    async def require(self, bus: str) -> None: ...

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        if self.down:
            return [EntryFailure(n, "Down", retryable=False) for n in range(len(entries))]
        self.details += [entry.detail for entry in entries]
        return []

    @property
    def notes(self) -> list[str]:
        return [json.loads(detail)["data"]["note"] for detail in self.details]

    @property
    def ids(self) -> list[str]:
        return [json.loads(detail)["metadata"]["id"] for detail in self.details]


def open_depot(clock: Clock | None = None) -> Depot:
    cloud: MemoryCloud[Any] = memory_ports(clock=clock or ManualClock())
    cloud.provision(
        model.Topology(
            buses=(model.Bus("yard"),), tables=(model.Table("depot"), model.Table("elsewhere"))
        )
    )
    return Depot(cloud, Service("depot", bus="yard"))
