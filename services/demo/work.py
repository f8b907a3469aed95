"""What `headrace cost` does to see what an order costs: the orders of the demo, one a unit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from headrace.cost import Account, work
from services.demo.sample import load
from services.inventory.app import inventory
from services.inventory.model import Stock
from services.notification.app import notification
from services.notification.mail import Mail, Mailer
from services.order.app import order
from services.order.local_gateway import LocalGateway, MemoryBook
from services.order.payments import Gateway


class SilentMailer:
    """Takes mail, and sends none."""

    async def send(self, mail: Mail, *, idempotency_key: str) -> None:
        return None


@asynccontextmanager
async def open_silent_mailer() -> AsyncIterator[Mailer]:
    yield SilentMailer()


_book: Final = MemoryBook()
"""Of the bank: one for all that call it, as every environment of a function opens its own way."""


@asynccontextmanager
async def open_gateway() -> AsyncIterator[Gateway]:
    """A bank that decides as the demo's does."""
    yield LocalGateway(_book)


@work(resources={notification: open_silent_mailer, order: open_gateway})
async def orders(aws: Account) -> None:
    """Orders as they come in the demo, by command or through the storefront, on full shelves."""
    _book.payments.clear()
    sample = load(aws.times)
    shelf = (Stock(sku=sku, available=pieces) for sku, pieces in sample.stock.items())
    await aws.put(*shelf, service=inventory)
    async for number in aws.units():
        taken = sample.orders[number]
        if taken.via == "command":
            await aws.send(taken.as_command())
        else:
            await aws.publish(taken.as_checkout())
