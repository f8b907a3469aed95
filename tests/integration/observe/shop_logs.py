"""The sample shop, talkative: every handler logs, in threads and tasks too, some fail, and an
auditor beside it does what handlers must not be confused by."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import pytest

from headrace import Delivery, Invocation, PoisonMessage, Service, Transaction
from headrace.client import send
from headrace.hosts.settings import ObserveSettings, WorkerSettings
from headrace.hosts.worker import run_worker
from headrace.middleware import Call
from headrace.observe.logs import configure
from headrace.ports import Ports, QueueEntry
from headrace.saga.messages import SagaTimer
from headrace.system import SystemClock
from headrace.testing.memory import MemoryCloud, SeededRandomness, memory_ports
from headrace.topology.derive import topology
from schemas.inventory import RestockItem
from schemas.order import OrderCancelled, OrderConfirmed, OrderPlaced, PlaceOrder
from services.inventory.app import inventory
from services.notification.app import notification
from services.notification.mail import Mail
from services.order.app import order
from tests.unit.services.shop import line, place

ORDERS: Final = 120
PATIENCE: Final = 30

ORDER_ID: Final = re.compile(r"order-(\d{4})")
NUMBER: Final = re.compile(r"(?:order|corr)-(\d{4})")

handlers = logging.getLogger("shop.handlers")
wire = logging.getLogger("botocore.endpoint")


def number_of(text: str) -> int:
    found = NUMBER.search(text)
    assert found is not None, text
    return int(found[1])


def fails_first(number: int) -> bool:
    return number % 7 == 3


def is_poison(number: int) -> bool:
    return number % 10 == 4


def is_short(number: int) -> bool:
    return number % 6 == 5


def is_changed(number: int) -> bool:
    """It comes a second time, with other content: refused by the shop, into its dead letters."""
    return number % 12 == 0


# --- who logs ----------------------------------------------------------------------------


async def talking(invocation: Invocation, call_next: Call) -> Any:
    """Around every handler of the shop."""
    order_id = getattr(invocation.envelope.message, "order_id", None)
    if order_id is None:
        return await call_next(invocation)
    handlers.info("%s begins with %s", invocation.handler, order_id)
    try:
        return await call_next(invocation)
    finally:
        handlers.info("%s is done", order_id, extra={"order": order_id})


class Mailer:
    """Hands mail to a thread, which fails the first time for some orders."""

    def __init__(self) -> None:
        self._failed: set[int] = set()

    async def send(self, mail: Mail, *, idempotency_key: str) -> None:
        await asyncio.to_thread(self._hand_in, mail)

    def _hand_in(self, mail: Mail) -> None:
        handlers.info("Handing in: %s", mail.subject)
        number = number_of(mail.order_id)
        if fails_first(number) and number not in self._failed:
            self._failed.add(number)
            raise ConnectionError(f"No mail server for {mail.order_id}")


def an_auditor() -> tuple[Service, set[asyncio.Task[None]]]:
    """A service that listens to everything, and the tasks that its handlers left behind."""
    auditor = Service("auditor", bus="shop")
    tasks: set[asyncio.Task[None]] = set()
    failed: set[int] = set()

    @auditor.on(OrderPlaced)
    def in_a_thread(event: OrderPlaced, tx: Transaction) -> None:
        handlers.info("audit of %s begins", event.order_id)
        time.sleep(0)  # so that another thread has its turn
        number = number_of(event.order_id)
        if is_poison(number):
            raise PoisonMessage(f"{event.order_id} is not to be audited")
        if fails_first(number) and number not in failed:
            failed.add(number)
            raise ValueError(f"no pencil for {event.order_id}")
        handlers.info("audit of %s ends", event.order_id)

    @auditor.on(OrderConfirmed, OrderCancelled)
    async def with_tasks(event: OrderConfirmed | OrderCancelled) -> None:
        async def later() -> None:
            await asyncio.sleep(0.005)
            handlers.info("%s later", event.order_id)
            await asyncio.to_thread(handlers.info, "%s in a thread of a task", event.order_id)

        left = asyncio.create_task(later())
        tasks.add(left)
        left.add_done_callback(tasks.discard)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(handlers.debug, "%s in a group", event.order_id))

    return auditor, tasks


class Wire:
    """Ports whose batched calls are logged as botocore logs a request: with all that is in it."""

    def __init__(self, cloud: MemoryCloud[Any]) -> None:
        self._cloud = cloud
        self.owners: dict[str, int] = {}

    @property
    def ports(self) -> Ports:
        here: Any = self  # the methods of three ports; the others are the cloud's
        return replace(self._cloud.ports, queues=here, bus=here, store=here)

    def __getattr__(self, name: str) -> Any:
        for owner in (self._cloud.queues, self._cloud.bus, self._cloud.store):
            if hasattr(owner, name):
                return getattr(owner, name)
        raise AttributeError(name)

    async def receive(self, queue: str, **options: Any) -> list[Delivery]:
        found = await self._cloud.queues.receive(queue, **options)
        for delivery in found:
            if ORDER_ID.search(delivery.body):
                self.owners[delivery.message_id] = number_of(delivery.body)
        return found

    async def delete(self, queue: str, receipts: Sequence[str]) -> Any:
        wire.debug("DeleteMessageBatch %s", self._cloud.queues.bodies(queue, receipts))
        return await self._cloud.queues.delete(queue, receipts)

    async def change_visibility(self, queue: str, changes: Sequence[Any]) -> Any:
        receipts = [receipt for receipt, _ in changes]
        wire.debug("ChangeVisibilityBatch %s", self._cloud.queues.bodies(queue, receipts))
        return await self._cloud.queues.change_visibility(queue, changes)

    async def send(self, queue: str, entries: Sequence[QueueEntry]) -> Any:
        wire.debug("SendMessageBatch %s", entries)
        return await self._cloud.queues.send(queue, entries)

    async def put(self, bus: str, entries: Sequence[Any]) -> Any:
        wire.debug("PutEvents %s", entries)
        return await self._cloud.bus.put(bus, entries)

    async def transact(self, actions: Sequence[Any], *, token: str) -> None:
        wire.debug("TransactWriteItems %s", actions)
        await self._cloud.store.transact(actions, token=token)

    async def write(self, actions: Sequence[Any]) -> Any:
        wire.debug("BatchWriteItem %s", actions)
        return await self._cloud.store.write(actions)


class AtOnce(SeededRandomness):
    """Whoever waits for a random time does not wait."""

    def uniform(self, low: float, high: float) -> float:
        return low


# --- a day of the shop -------------------------------------------------------------------


@contextmanager
def json_lines() -> Iterator[io.StringIO]:
    """All that is logged in this block, as a worker writes it to stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        with redirect_stderr(io.StringIO()) as stderr:
            configure(ObserveSettings(logs="json", log_level="DEBUG"))
            yield stderr
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def orders() -> tuple[list[PlaceOrder], list[str]]:
    """What is ordered, and the id that is each order's correlation id as well."""
    placed, ids = [], []
    for number in range(ORDERS):
        sku = "SHORT" if is_short(number) else f"SKU{number % 5}"
        placed.append(place(f"order-{number:04}", line(sku)))
        ids.append(f"corr-{number:04}")
        if is_changed(number):
            placed.append(place(f"order-{number:04}", line(sku, 2)))
            ids.append(f"corr-{number:04}-again")
    return placed, ids


@dataclass(frozen=True, slots=True)
class Day:
    """Every line that was logged while the shop handled all orders, until no queue had any, and
    which message was about which order."""

    lines: list[dict[str, Any]]
    owners: dict[str, int]


async def a_day(monkeypatch: pytest.MonkeyPatch) -> Day:
    auditor, tasks = an_auditor()
    services = (order, inventory, notification, auditor)
    mailer = Mailer()

    @asynccontextmanager
    async def open_mailer() -> AsyncIterator[Mailer]:
        yield mailer

    monkeypatch.setattr(notification, "resources", open_mailer)
    for service in services[:-1]:
        monkeypatch.setattr(service, "middleware", (talking,))
    cloud = memory_ports(clock=SystemClock(), randomness=AtOnce())
    cloud.provision(topology(*services))
    await stocked(cloud)
    await opened(cloud)
    wires = Wire(cloud)
    with json_lines() as stderr:
        await worked(services, wires.ports, when_empty(cloud, services))
        while tasks:
            await asyncio.wait(tasks)
    return Day([json.loads(text) for text in stderr.getvalue().splitlines()], wires.owners)


async def stocked(cloud: MemoryCloud[Any]) -> None:
    stock = [RestockItem(sku=f"SKU{number}", quantity=1000) for number in range(5)]
    await send(cloud.ports, stock, bus="shop")
    cloud.queues.deliver("inventory", QueueEntry("this is no message"))


async def opened(cloud: MemoryCloud[Any]) -> None:
    placed, ids = orders()
    await send(cloud.ports, placed, bus="shop", ids=ids)


def when_empty(cloud: MemoryCloud[Any], services: Sequence[Service]) -> asyncio.Event:
    """A message is deleted after what it caused is in the next queue, so once all are empty there
    is nothing left to come but the timers of checkouts, which are over long before."""
    empty, queues = asyncio.Event(), [queue for s in services for queue in s.queues]

    def look() -> None:
        # The newest first, as they are the least likely to be timers.
        left = (entry for queue in queues for entry in reversed(cloud.queues.peek(queue)))
        if not any(map(is_awaited, left)):
            empty.set()

    for queue in queues:
        cloud.queues.watch(queue, look)
    return empty


def is_awaited(entry: QueueEntry) -> bool:
    return SagaTimer.__name__ not in entry.body


async def worked(services: Sequence[Service], ports: Ports, stop: asyncio.Event) -> None:
    settings = WorkerSettings(concurrency=50, wait=timedelta(seconds=1))
    async with asyncio.timeout(PATIENCE):
        await run_worker(services, ports, settings=settings, stop=stop)
