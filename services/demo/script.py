"""What the demo sends: stock, orders, one order twice, and two messages that are bad."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from headrace.client import send
from headrace.errors import Refused
from headrace.ports import Ports, QueueEntry
from schemas.inventory import RestockItem
from schemas.values import Customer
from services.demo.sample import DemoOrder, Sample
from services.demo.watch import Watch
from services.order.app import order as order_service

BUS = order_service.bus
BAD_MESSAGES = 2
NOT_JSON = "order: 2 espresso cups, please\n-- \nsent from my phone"
ON_THEIR_WAY: Final = 12
"""Orders that have not ended, at a time: an answer that waits in a long queue is not in time."""
_BATCH: Final = 5
SOMEBODY_ELSE = Customer(name="Somebody Else", email="somebody.else@example.com")


@dataclass(frozen=True, slots=True)
class Script:
    """One run. The first order is the one that is sent twice, the last of the commands the one
    whose id is used again."""

    sample: Sample

    @property
    def order_ids(self) -> list[str]:
        return [order.order_id for order in self.sample.orders]

    @property
    def commands(self) -> Sequence[DemoOrder]:
        return [order for order in self.sample.orders if self.is_command(order)]

    @property
    def checkouts(self) -> Sequence[DemoOrder]:
        return [order for order in self.sample.orders if not self.is_command(order)]

    def is_command(self, order: DemoOrder) -> bool:
        """Whether it does not come through the storefront; the first order never does."""
        return order.via == "command" or order is self.sample.orders[0]

    @property
    def doubled_id(self) -> str:
        """The id of the command that is sent twice."""
        return command_id(self.commands[0])

    @property
    def reused(self) -> DemoOrder:
        """The order whose id is used again, with other content."""
        return self.commands[-1]


def command_id(order: DemoOrder) -> str:
    return f"place-{order.order_id}"


async def restock(ports: Ports, sample: Sample) -> None:
    stock = [RestockItem(sku=sku, quantity=pieces) for sku, pieces in sample.stock.items()]
    await send(ports, stock, bus=BUS)


async def place_orders(ports: Ports, script: Script, watch: Watch) -> None:
    """Every order, by command or through the storefront, as fast as orders end; the first command
    twice; and one message that is no JSON among them."""
    orders = script.sample.orders
    for start in range(0, len(orders), _BATCH):
        await watch.until(partial(_has_room, watch, start))
        await _place(ports, script, orders[start : start + _BATCH])


def _has_room(watch: Watch, sent: int) -> bool:
    return sent + _BATCH - len(watch.ended) <= ON_THEIR_WAY


async def _place(ports: Ports, script: Script, orders: Sequence[DemoOrder]) -> None:
    commands = [order for order in orders if script.is_command(order)]
    checkouts = [order for order in orders if not script.is_command(order)]
    begins = script.sample.orders[0] in orders
    if begins:
        commands.append(commands[0])
    await asyncio.gather(
        *([_send_text(ports, NOT_JSON)] if begins else []),
        send(ports, [order.as_checkout() for order in checkouts], bus=BUS),
        send(
            ports,
            [order.as_command() for order in commands],
            bus=BUS,
            ids=[command_id(order) for order in commands],
        ),
    )


async def reuse_an_order_id(ports: Ports, script: Script) -> None:
    """A command of somebody else under the id of an order that was placed."""
    order = script.reused.model_copy(update={"customer": SOMEBODY_ELSE})
    await send(ports, [order.as_command()], bus=BUS)


async def _send_text(ports: Ports, text: str) -> None:
    for failure in await ports.queues.send(order_service.name, [QueueEntry(text)]):
        raise Refused(f"The message that is no JSON was refused: {failure.message}")
