"""The metrics of a worker come to what its ports did."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest

from headrace import Entity, Event, PoisonMessage, Service, Transaction
from headrace.client import send
from headrace.entity import VERSION_ATTRIBUTE
from headrace.errors import TransactionCanceled
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import run_worker
from headrace.observe.emf import EmfMetrics
from headrace.observer import SagaChange
from headrace.ports import (
    Action,
    BusEntry,
    Delivery,
    EntryFailure,
    ItemKey,
    Ports,
    Put,
    QueueEntry,
)
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from tests.crash.skipping import LoopClock
from tests.unit.observe.emf_schema import problems
from tests.unit.observe.test_emf import values_of
from tests.unit.saga import removal
from tests.unit.timeless import timeless

ORDERS: Final = 300
NOT_JSON: Final = 12
QUEUE: Final = "till"
LETTERS: Final = "till-dlq"


class BasketPaid(Event, source="shop.sums"):
    number: int


class ReceiptWritten(Event, source="shop.sums"):
    number: int


class Basket(Entity, pk="basket#{number}"):
    number: int
    paid: int = 0


def is_twice(number: int) -> bool:
    return number % 10 == 5


def fails_once(number: int) -> bool:
    return number % 10 == 3


def is_poison(number: int) -> bool:
    return number % 10 == 7


def is_contended(number: int) -> bool:
    return number % 10 == 1


def a_till(*, together: bool) -> Service:
    till = Service(QUEUE, bus="shop", group_commit=together)
    seen: Counter[int] = Counter()

    @till.on(BasketPaid)
    async def count(event: BasketPaid, tx: Transaction) -> None:
        basket = await tx.get(Basket, event.number) or Basket(number=event.number)
        await asyncio.sleep(0.001)
        basket.paid += 1
        tx.put(basket)
        seen[event.number] += 1
        if fails_once(event.number) and seen[event.number] == 1:
            raise ValueError("The till is stuck.")

    @till.on(BasketPaid)
    async def print_receipt(event: BasketPaid) -> ReceiptWritten:
        if is_poison(event.number):
            raise PoisonMessage("There is no paper for it.")
        return ReceiptWritten(number=event.number)

    return till


class Counting:
    """Ports that count what went through them, and get in the way of it here and there."""

    def __init__(self, cloud: MemoryCloud[Any]) -> None:
        self.cloud = cloud
        self.counts: Counter[str] = Counter()
        self._letters_fail = 2
        self._contended: set[ItemKey] = set()

    @property
    def ports(self) -> Ports:
        here: Any = self  # it has the methods of three ports, and leaves the rest to the cloud
        return replace(self.cloud.ports, queues=here, bus=here, store=here)

    def __getattr__(self, name: str) -> Any:
        owner = self.cloud.bus if name == "require" else self.cloud.store
        return getattr(self.cloud.queues if name == "depth" else owner, name)

    async def receive(self, queue: str, **options: Any) -> list[Delivery]:
        found = await self.cloud.queues.receive(queue, **options)
        self.counts["received"] += len(found)
        return found

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        self.counts["deleted"] += len(receipts)
        return await self.cloud.queues.delete(queue, receipts)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        self.counts["hidden"] += len(changes)
        return await self.cloud.queues.change_visibility(queue, changes)

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
        assert queue == LETTERS
        if self._letters_fail > 0:
            self._letters_fail -= 1
            self.counts["kept"] += len(entries)
            return [EntryFailure(n, "AccessDenied", retryable=False) for n in range(len(entries))]
        self.counts["buried"] += len(entries)
        return await self.cloud.queues.send(queue, entries)

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        self.counts["put"] += len(entries)
        return await self.cloud.bus.put(bus, entries)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        await self._interfere(actions)
        try:
            await self.cloud.store.transact(actions, token=token)
        except TransactionCanceled as canceled:
            self._count_conflicts(actions, canceled)
            raise
        self.counts["transactions"] += 1
        self.counts["in transactions"] += sum(a.key.pk.startswith("inbox#") for a in actions)

    def _count_conflicts(self, actions: Sequence[Action], canceled: TransactionCanceled) -> None:
        """Entities that were not as they were read. One whose record, which stands before it, was
        there already is of a duplicate."""
        is_known = False
        for action, reason in zip(actions, canceled.reasons, strict=True):
            failed = reason is not None and reason.code != "None"
            if action.key.pk.startswith("inbox#"):
                is_known = failed
            else:
                self.counts["conflicts"] += failed and not is_known

    async def change(self, action: Put) -> None:
        # A record that nothing goes with.
        assert action.key.pk.startswith("inbox#")
        await self.cloud.store.change(action)
        self.counts["alone"] += 1

    async def _interfere(self, actions: Sequence[Action]) -> None:
        """Another writer is faster, for once."""
        for action in actions:
            if not isinstance(action, Put) or action.key in self._contended:
                continue
            number = action.item.get("number", {}).get("N")
            if number is not None and is_contended(int(number)):
                self._contended.add(action.key)
                newer = {**action.item, VERSION_ATTRIBUTE: {"N": "7"}}
                await self.cloud.store.change(Put(action.table, newer))


async def filled(cloud: MemoryCloud[Any]) -> None:
    numbers = [n for n in range(ORDERS) for _ in range(2 if is_twice(n) else 1)]
    await send(
        cloud.ports,
        [BasketPaid(number=n) for n in numbers],
        bus="shop",
        ids=[f"order-{n}" for n in numbers],
    )
    for n in range(NOT_JSON):
        cloud.queues.deliver(QUEUE, QueueEntry(f"<order>{n}</order>"))


def when_empty(cloud: MemoryCloud[Any], queue: str) -> asyncio.Event:
    empty = asyncio.Event()

    def look() -> None:
        if cloud.queues.is_empty(queue):
            empty.set()

    cloud.queues.watch(queue, look)
    return empty


def handed_to(till: Service, metrics: EmfMetrics, port: Counting, empty: asyncio.Event) -> Any:
    settings = WorkerSettings(concurrency=20, prefetch=10, health=None)
    return run_worker([till], port.ports, settings=settings, observer=metrics, stop=empty)


@pytest.mark.parametrize("together", [True, False], ids=["together", "apart"])
@timeless
async def test_the_sums_of_the_metrics_are_what_the_ports_did(together: bool) -> None:
    till = a_till(together=together)
    cloud = memory_ports(clock=LoopClock())
    cloud.provision(topology(till))
    await filled(cloud)
    port, lines = Counting(cloud), list[str]()
    metrics = EmfMetrics(write=lines.append, clock=cloud.clock)

    await handed_to(till, metrics, port, when_empty(cloud, QUEUE))

    assert [problem for line in lines for problem in problems(line)] == []
    values = values_of(map(json.loads, lines))
    of_service = values[QUEUE,]
    did = port.counts
    sums = {name: sum(found) for name, found in of_service.items()}

    # The messages, as SQS has them.
    assert sums["Received"] == did["received"]
    assert sums["Retried"] == did["hidden"] + did["kept"]
    assert sums["DeadLettered"] == did["buried"]
    assert sums["Received"] - sums["Retried"] == did["deleted"]
    # What was written and sent.
    assert sums["Handled"] == did["in transactions"] + did["alone"]
    assert sums["Conflicts"] == did["conflicts"]
    assert len(of_service["GroupCommitSize"]) == did["transactions"]
    assert sums["GroupCommitSize"] == did["in transactions"]
    assert len(of_service["OutboxLag"]) == did["put"]

    # And all of it did happen.
    assert sums["Handled"] == 2 * ORDERS - ORDERS // 10
    assert sums["Conflicts"] == ORDERS // 10
    assert sums["DeadLettered"] == NOT_JSON + ORDERS // 10
    assert sums["Duplicates"] >= 2 * ORDERS // 10
    assert did["kept"] > 0
    assert did["hidden"] >= ORDERS // 10
    assert (did["transactions"] < did["in transactions"]) is together
    assert of_service["InFlight"][-2] == 0
    assert max(of_service["InFlight"]) > 1

    # By handler there is the same.
    by_handler = {name: found for name, found in values.items() if len(name) == 3}
    assert by_handler.keys() == {
        (QUEUE, "count", "BasketPaid"),
        (QUEUE, "print_receipt", "BasketPaid"),
    }
    for name in ("Handled", "Duplicates", "Conflicts", "HandlingTime", "MessageAge"):
        parts = [sum(found.get(name, [])) for found in by_handler.values()]
        assert sum(parts) == pytest.approx(sums[name])
    of_printing = by_handler[QUEUE, "print_receipt", "BasketPaid"]
    assert sum(of_printing["DeadLettered"]) == ORDERS // 10


# --- sagas -----------------------------------------------------------------------------

PIANOS: Final = 40


class UntilAllAreOver(EmfMetrics):
    """Metrics of so many sagas; `over` is set when all have ended or wait for an operator."""

    def __init__(self, sagas: int, **options: Any) -> None:
        super().__init__(**options)
        self.over = asyncio.Event()
        self._left = sagas

    def saga(self, service: str, change: SagaChange) -> None:
        super().saga(service, change)
        if change.status in ("completed", "compensated", "stuck"):
            self._left -= 1
        if self._left == 0:
            self.over.set()


@timeless
async def test_the_sums_of_sagas_are_what_stands_in_the_table() -> None:
    cloud = memory_ports(clock=LoopClock())
    cloud.provision(topology(removal.movers, removal.cranes))
    pianos = [f"P{number}" for number in range(PIANOS)]
    lines: list[str] = []
    metrics = UntilAllAreOver(PIANOS, write=lines.append, clock=cloud.clock)
    with removal.trouble():
        removal.heavy.update(pianos[::2])
        removal.jammed.update(pianos[::4])
        # Each comes twice, so that its saga begins once.
        await send(
            cloud.ports,
            [removal.PianoSold(piano=piano) for piano in pianos * 2],
            bus="stage",
            ids=pianos * 2,
        )
        await run_worker(
            [removal.movers, removal.cranes],
            cloud.ports,
            settings=WorkerSettings(health=None),
            observer=metrics,
            stop=metrics.over,
        )

    assert [problem for line in lines for problem in problems(line)] == []
    values = values_of(map(json.loads, lines))
    sums = {name: sum(found) for name, found in values["movers", "removal"].items()}
    stand = Counter(
        item["status"]["S"] for item in cloud.store.items("movers") if "consumer" in item
    )
    assert sums == {
        "SagasStarted": PIANOS,
        "SagasCompleted": stand["completed"],
        "SagasCompensated": stand["compensated"],
        "SagasStuck": stand["stuck"],
    }
    assert stand == {"completed": 20, "compensated": 10, "stuck": 10}
    of_service = values["movers",]
    assert {name: sum(of_service[name]) for name in sums} == sums
