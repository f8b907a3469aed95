"""The whole shop on AWS in memory: messages go in, and are carried until nothing is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

from headrace.client import read, send
from headrace.envelope import Outgoing
from headrace.events import Message
from headrace.observe.tally import Tally
from headrace.outcome import Outcome
from headrace.pipeline import Pipeline, running
from headrace.ports import Delivery, QueueEntry
from headrace.service import Service
from headrace.settle import Settler
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.topology.derive import topology
from schemas.inventory import RestockItem
from schemas.order import Customer, OrderLine, PlaceOrder
from services.inventory.app import inventory
from services.inventory.model import Stock
from services.notification.app import notification
from services.order.app import order
from services.order.model import Order

SERVICES = (order, inventory, notification)
CUSTOMER = Customer(name="Chiara Lombardi", email="chiara@example.com")


def line(sku: str, quantity: int = 1, price: str = "14.00") -> OrderLine:
    return OrderLine(sku=sku, quantity=quantity, unit_price=Decimal(price))


def place(order_id: str = "W1", *lines: OrderLine, **changes: Any) -> PlaceOrder:
    return PlaceOrder(
        order_id=order_id,
        customer=changes.get("customer", CUSTOMER),
        lines=lines or (line("MUG"),),
        currency=changes.get("currency", "EUR"),
    )


class Sent(Tally):
    """Remembers what the services have sent."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Outgoing] = []

    def sent(self, service: str, outgoing: Outgoing) -> None:
        self.messages.append(outgoing)


@dataclass
class Shop:
    cloud: MemoryCloud[ManualClock]
    pipelines: Sequence[Pipeline]
    observed: Sent
    outcomes: list[Outcome] = field(default_factory=list)

    async def send(self, *messages: Message, ids: Sequence[str] | None = None) -> None:
        """Send messages, and handle them and all that follows from them."""
        await send(self.cloud.ports, messages, bus="shop", ids=ids)
        await self.run()

    async def restock(self, **pieces: int) -> None:
        await self.send(
            *(RestockItem(sku=sku, quantity=quantity) for sku, quantity in pieces.items())
        )

    async def run(self) -> None:
        """Handle what is there, one message after the other, until no queue has any."""
        while await self._round():
            pass

    async def _round(self) -> bool:
        handled = False
        for pipeline in self.pipelines:
            for queue in pipeline.service.queues:
                for delivery in await self.receive(queue):
                    handled = True
                    await self._handle(pipeline, delivery)
        return handled

    async def _handle(self, pipeline: Pipeline, delivery: Delivery) -> None:
        settler = Settler(self.cloud.queues, self.cloud.clock, self.cloud.randomness, deletes=True)
        outcome = await pipeline.consume(delivery)
        self.outcomes.append(await settler.settle(delivery, outcome))
        await settler.flush()

    async def receive(self, queue: str) -> list[Delivery]:
        return await self.cloud.queues.receive(queue, limit=10, wait=timedelta(0))

    def pipeline(self, service: Service) -> Pipeline:
        return next(pipeline for pipeline in self.pipelines if pipeline.service is service)

    async def order(self, order_id: str) -> Order | None:
        [found] = await read(self.cloud.ports, Order, [order_id], table="order")
        return found

    async def available(self, sku: str) -> int | None:
        [found] = await read(self.cloud.ports, Stock, [sku], table="inventory")
        return None if found is None else found.available

    def sent(self) -> list[str]:
        """The names of what the services have sent, in order, without the timers of sagas."""
        names = (message.detail_type for message in self.observed.messages)
        return [name for name in names if not name.startswith("SagaTimer.")]

    def dead_letters(self, service: Service) -> list[QueueEntry]:
        return self.cloud.queues.peek(f"{service.name}-dlq")


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    cloud = memory_ports()
    cloud.provision(topology(*SERVICES))
    observed = Sent()
    async with AsyncExitStack() as stack:
        pipelines = [
            await stack.enter_async_context(running(service, cloud.ports, observed))
            for service in SERVICES
        ]
        yield Shop(cloud, pipelines, observed)
