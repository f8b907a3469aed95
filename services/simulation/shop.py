"""Some orders, as a shop gets them: over HTTP, as commands and through its storefront; some twice,
some for more than there is, some that the bank declines or says nothing about, one under an id that
is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from typing import Final

from headrace.connection import Connection
from headrace.testing import World
from schemas.checkout import CheckoutCompleted
from schemas.inventory import RestockItem
from schemas.order import PlaceOrder
from schemas.values import Customer, OrderLine
from services.inventory.app import inventory
from services.inventory.model import Stock
from services.notification.app import notification
from services.notification.mail import Mail, Mailer
from services.order.app import order
from services.order.http import placed
from services.order.local_gateway import Change, LocalGateway, Payment
from services.order.model import OrderIdReused
from services.order.payments import Gateway

SERVICES: Final = (order, inventory, notification)
SHELF: Final = {"MUG": 3, "TEA": 2}
"""Pieces before the first order."""

MAILS: Final = "mails"
PLACED: Final = "placed orders"
PAYMENTS: Final = "payments"
_PRICE: Final = Decimal("3.00")
_FREE: Final = Decimal("0.00")
_ODD: Final = tuple(map(Decimal, ("3.13", "3.66", "3.77", "3.88")))
"""What the bank makes difficulties about, one way or another."""
_OFTEN_ENOUGH: Final = 3.0


async def orders(aws: World) -> None:
    """Fill the shelf, and order."""
    random = aws.random
    await aws.put(
        *(Stock(sku=sku, available=pieces) for sku, pieces in SHELF.items()), service=inventory
    )
    for number in range(2 + int(2 * random.random())):
        await asyncio.sleep(_OFTEN_ENOUGH * random.random())
        await _order(aws, f"order-{number}")
        if random.random() < 0.2:
            await aws.send(RestockItem(sku="MUG", quantity=1))
    if random.random() < 0.2:
        await _reuse(aws, "order-0")


async def _order(aws: World, order_id: str) -> None:
    command = _command(aws, order_id)
    if await _taken(aws, command):
        aws.ledger(PLACED).append(command)
        if aws.random.random() < 0.2:
            # The customer has pressed the button again: another command for the same order.
            await aws.send(command)


async def _taken(aws: World, command: PlaceOrder) -> bool:
    """Whether the order was sent: a smaller run leaves out some of them."""
    way = aws.random.random()
    if way < 0.3:
        key = command.order_id if aws.random.random() < 0.5 else None
        return bool(await aws.request(order, partial(_post, command, key)))
    if way < 0.5:
        return bool(await aws.publish(CheckoutCompleted(**dict(command))))
    return bool(await aws.send(command))


async def _post(command: PlaceOrder, key: str | None, service: Connection) -> bool:
    await placed(service, command, key)
    return True


async def _reuse(aws: World, order_id: str) -> None:
    """An order under an id that is taken, and surely comes later: it is poisonous."""
    await aws.settled()
    stranger = Customer(name="Somebody Else", email="else@example.com")
    line = OrderLine(sku="TEA", quantity=1, unit_price=_PRICE)
    await aws.send(PlaceOrder(order_id=order_id, customer=stranger, lines=(line,)))


def _command(aws: World, order_id: str) -> PlaceOrder:
    is_free = aws.random.random() < 0.1
    lines = [
        OrderLine(
            sku=sku,
            quantity=1 + int(2 * aws.random.random()),
            unit_price=_FREE if is_free else _PRICE,
        )
        for sku in SHELF
        if aws.random.random() < 0.7
    ]
    if not lines or aws.random.random() < 0.3:
        lines[-1:] = [OrderLine(sku="MUG", quantity=1, unit_price=aws.random.choice(_ODD))]
    return PlaceOrder(
        order_id=order_id,
        customer=Customer(name="A Customer", email=f"{order_id}@example.com"),
        lines=tuple(lines),
    )


def is_reused(reason: str) -> bool:
    """Whether a dead letter is the order under an id that was taken."""
    return reason.startswith(OrderIdReused.__name__) or "exists already" in reason


@asynccontextmanager
async def open_mailer(aws: World) -> AsyncIterator[Mailer]:
    """A mail server that does not lose its mind when a process does."""
    yield SimulatedMailer(aws)


class SimulatedMailer:
    """Hands mail to a server over a network that fails. What the server has taken is in the
    ledger, with the idempotency key of each."""

    def __init__(self, aws: World) -> None:
        self._aws = aws

    async def send(self, mail: Mail, *, idempotency_key: str) -> None:
        sent = self._aws.ledger(MAILS)
        await self._aws.outside("mail", partial(sent.append, (idempotency_key, mail)))


@asynccontextmanager
async def open_gateway(aws: World) -> AsyncIterator[Gateway]:
    """A payment gateway that does not lose its mind when a process does."""
    yield LocalGateway(SimulatedBook(aws))


class SimulatedBook:
    """The book of a gateway behind a network that fails. Every change is in the ledger, in order:
    of each key, the last one says how the payment stands."""

    def __init__(self, aws: World) -> None:
        self._aws = aws

    async def __call__(self, key: str, change: Change) -> Payment:
        return await self._aws.outside("gateway", partial(self._changed, key, change))

    def _changed(self, key: str, change: Change) -> Payment:
        ledger = self._aws.ledger(PAYMENTS)
        payment = change(dict(ledger).get(key))
        ledger.append((key, payment))
        return payment


RESOURCES: Final = {notification: open_mailer, order: open_gateway}
