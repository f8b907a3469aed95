"""The sample shop: every way that an order can end, and what happens besides."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from functools import cache, partial
from typing import Final

from headrace.connection import Connection
from headrace.testing import World
from headrace.topology.access import Host
from schemas.checkout import CheckoutCompleted
from schemas.inventory import ReserveStock, RestockItem
from schemas.order import PlaceOrder
from schemas.values import Customer, OrderLine
from services.inventory.app import inventory
from services.inventory.model import Reservation, Stock
from services.order.app import order
from services.order.http import placed
from services.order.model import Order
from services.simulation.shop import RESOURCES, SERVICES
from tests.infra.edges import edges_of_order
from tests.infra.playing import CALM, FAULTS, Needs, play

ENDS: Final = {
    "confirmed",
    "cancelled: We do not have enough of MUG.",
    "cancelled: Your payment was declined.",
    "cancelled: Your bank did not answer in time.",
    "cancelled: Your payment could not be taken in time.",
}
_ANNA: Final = Customer(name="Anna Fischer", email="anna@example.com")


async def every_end(aws: World) -> None:
    """One order for each way, by each way in."""
    await aws.put(Stock(sku="MUG", available=50), service=inventory)
    await aws.send(RestockItem(sku="TEA", quantity=5))
    await aws.send(
        _order("good"),
        _order("scarce", quantity=99),
        _order("declined", price="3.13"),
        _order("silent", price="3.66"),
        _order("forgetful", price="3.77"),
        _order("greedy", price="3.88"),
        _order("free", price="0.00"),
    )
    await aws.publish(CheckoutCompleted(**dict(_order("checked-out"))))
    await aws.request(order, partial(_post, _order("posted"), "a-key"))
    await aws.request(order, partial(_post, _order("posted"), "a-key"))
    await aws.request(order, partial(_post, _order("posted-again"), None))
    # Nobody ever confirms this one: its reservation expires.
    await aws.send(ReserveStock(order_id="forgotten", lines=_order("forgotten").lines))
    for service in SERVICES:
        await aws.put_message(service.name, "This is no JSON.")
    await aws.settled()


async def _post(command: PlaceOrder, key: str | None, service: Connection) -> bool:
    """Take an order, and ask how it stands."""
    await placed(service, command, key)
    return await service.get(Order, command.order_id) is not None


def _order(order_id: str, price: str = "3.00", quantity: int = 1) -> PlaceOrder:
    line = OrderLine(sku="MUG", quantity=quantity, unit_price=Decimal(price))
    return PlaceOrder(order_id=order_id, customer=_ANNA, lines=(line,))


class Seen:
    """What came of it all, over all runs."""

    def __init__(self) -> None:
        self.orders: Counter[str] = Counter()
        self.reservations: Counter[str] = Counter()
        self.consumers: set[str] = set()
        self.letters: Counter[str] = Counter()

    def look(self, aws: World) -> None:
        for found in aws.all(Order, order):
            self.orders[": ".join(filter(None, (found.status, found.reason)))] += 1
        for held in aws.all(Reservation, inventory):
            self.reservations[f"{held.order_id} {held.status}"] += 1
        for service in SERVICES:
            keys = [item["pk"]["S"].split("#") for item in aws.items(service)]
            self.consumers |= {key[1] for key in keys if key[0] == "inbox"}
            self.letters[service.name] += len(aws.dead_letters(service))


@cache
def shop(host: Host) -> tuple[Needs, Seen]:
    """What the services of the shop need on a host, and what they did there: once as all goes
    well, and once as it does not."""
    seen = Seen()
    needs = play(host, SERVICES, every_end, resources=RESOURCES, faults=CALM, look=seen.look)
    troubled = play(host, SERVICES, every_end, resources=RESOURCES, faults=FAULTS)
    for service, calls in troubled.calls.items():
        needs.calls[service] |= calls
    if host is Host.LAMBDA:
        needs.calls[order.name] |= edges_of_order()
    return needs, seen
