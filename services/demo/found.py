"""What there is after a run: read from tables, queues, the bank's book and mail, and not from what
was observed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from email import message_from_bytes
from enum import StrEnum
from pathlib import Path
from typing import Final

from headrace.client import read
from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.entity import from_item, key_for
from headrace.limits import BATCH_GET_KEYS, SQS_BATCH_ENTRIES
from headrace.ports import Delivery, Ports, QueueDepth
from headrace.saga.handling import sagas_of
from headrace.saga.item import SagaItem
from headrace.saga.progress import Status
from headrace.service import Service
from headrace.topology.model import dead_letter_queue
from services.demo.environment import MAIL, PAYMENTS
from services.demo.sample import Sample
from services.inventory.app import inventory
from services.inventory.model import Reservation, ReservationStatus, Stock
from services.notification.mail import ORDER_HEADER
from services.order.app import order as order_service
from services.order.local_gateway import FolderBook, Payment, PaymentStatus
from services.order.model import Order, OrderStatus
from services.order.payments import payment_key

CHECKOUT: Final = sagas_of(order_service)["checkout"]
_UNDER_WAY: Final = (Status.RUNNING, Status.COMPENSATING)
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in a dead-letter queue, and what its note says."""

    queue: str
    reason: str
    error: str
    body: str


class Why(StrEnum):
    """Why an order was cancelled."""

    OUT_OF_STOCK = "out of stock"
    DECLINED = "declined by the bank"
    LATE = "not in time"


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in the tables, the queues, the book and the mail folder after a run. `payments`
    are by their keys. `left` is what the queues held when the services ended, if it was not over
    then."""

    orders: Mapping[str, Order | None]
    checkouts: Mapping[str, SagaItem | None]
    payments: Mapping[str, Payment]
    stock: Mapping[str, Stock | None]
    reservations: Mapping[str, Reservation | None]
    mails: Counter[str]
    letters: Sequence[Letter]
    left: Mapping[str, QueueDepth]

    @property
    def lost(self) -> list[str]:
        """The orders that are not there, or have not ended."""
        return [id for id, order in self.orders.items() if order is None or not order.has_ended]

    def with_status(self, status: OrderStatus) -> list[Order]:
        return [order for order in self.orders.values() if order and order.status is status]

    @property
    def pieces(self) -> int:
        """What is in stock now."""
        return sum(item.available for item in self.stock.values() if item)

    @property
    def taken(self) -> int:
        """The pieces that were taken for orders."""
        return sum(
            sum(reservation.pieces.values())
            for reservation in self.reservations.values()
            if reservation and reservation.status is ReservationStatus.TAKEN
        )

    def paid(self, status: PaymentStatus) -> int:
        """How many payments came to this."""
        return sum(payment.status is status for payment in self.payments.values())

    def cancelled(self, why: Why) -> int:
        """How many orders were cancelled because of this."""
        orders = self.with_status(OrderStatus.CANCELLED)
        return sum(self._why(order.order_id) is why for order in orders)

    def _why(self, id: str) -> Why:
        """By what others than the order service know of it."""
        reservation, payment = self.reservations[id], self.payments.get(payment_key(id))
        if reservation is not None and reservation.short:
            return Why.OUT_OF_STOCK
        if payment is not None and payment.status is PaymentStatus.DECLINED:
            return Why.DECLINED
        return Why.LATE


async def look(
    ports: Ports, sample: Sample, services: Sequence[Service], folder: Path, *, over: bool
) -> Found:
    """Read everything that a verdict on these orders is made from, after the services ended. `over`
    says that `until_over` has returned before: only timers have come since then, and some of them
    were handed back."""
    ids, skus = [order.order_id for order in sample.orders], list(sample.stock)
    orders = await read(ports, Order, ids, table=order_service.name)
    stock = await read(ports, Stock, skus, table=inventory.name)
    reservations = await read(ports, Reservation, ids, table=inventory.name)
    queues = [queue for service in services for queue in service.queues]
    letters = await asyncio.gather(*(_letters(ports, dead_letter_queue(q)) for q in queues))
    return Found(
        orders=dict(zip(ids, orders, strict=True)),
        checkouts=await _checkouts(ports, ids),
        payments=FolderBook(folder / PAYMENTS).payments,
        stock=dict(zip(skus, stock, strict=True)),
        reservations=dict(zip(ids, reservations, strict=True)),
        mails=_mails(folder / MAIL),
        letters=[letter for some in letters for letter in some],
        left={} if over else await _depths(ports, queues),
    )


# --- while it is going on ----------------------------------------------------------------


async def until_over(ports: Ports, sample: Sample, queues: Sequence[str]) -> None:
    """Wait until no checkout is under way, and these queues hold nothing: a bank is asked again
    when nobody waits for its answer any more, and a duplicate that came while the first delivery
    was at work comes again."""
    ids = [order.order_id for order in sample.orders]
    while True:
        if not any(await held(ports, queues)) and not await _under_way(ports, ids):
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def held(ports: Ports, queues: Sequence[str]) -> list[int]:
    """How many messages each queue holds, whether waiting or being handled."""
    depths = await _depths(ports, queues)
    return [depth.visible + depth.in_flight + depth.delayed for depth in depths.values()]


async def _depths(ports: Ports, queues: Sequence[str]) -> dict[str, QueueDepth]:
    """What queues hold, without timers that are not due. That of a checkout that has ended cannot
    be called off: it stays there until it is due, and does nothing then."""
    found = await asyncio.gather(*(ports.queues.depth(queue) for queue in queues))
    depths = dict(zip(queues, found, strict=True))
    if order_service.name in depths:
        depths[order_service.name] = replace(depths[order_service.name], delayed=0)
    return depths


async def _under_way(ports: Ports, ids: Sequence[str]) -> bool:
    checkouts = await _checkouts(ports, ids)
    return any(item is None or item.status in _UNDER_WAY for item in checkouts.values())


# --- the table ---------------------------------------------------------------------------


async def _checkouts(ports: Ports, ids: Sequence[str]) -> dict[str, SagaItem | None]:
    found: dict[str, SagaItem | None] = {}
    for start in range(0, len(ids), BATCH_GET_KEYS):
        some = ids[start : start + BATCH_GET_KEYS]
        keys = [key_for(SagaItem, order_service.name, (CHECKOUT.consumer, id), {}) for id in some]
        items = await ports.store.get(keys)
        found |= {
            id: None if item is None else from_item(SagaItem, item)
            for id, item in zip(some, items, strict=True)
        }
    return found


# --- queues and mail ---------------------------------------------------------------------


async def _letters(ports: Ports, queue: str) -> list[Letter]:
    return [_letter(delivery) for delivery in await _everything(ports, queue)]


async def _everything(ports: Ports, queue: str) -> list[Delivery]:
    """All that is visible in a queue, which stays there."""
    found: dict[str, Delivery] = {}
    while deliveries := await ports.queues.receive(
        queue,
        limit=SQS_BATCH_ENTRIES,
        wait=timedelta(seconds=1),
        visibility=timedelta(minutes=5),
    ):
        found |= {delivery.message_id: delivery for delivery in deliveries}
    return list(found.values())


def _letter(delivery: Delivery) -> Letter:
    attribute = delivery.attributes.get(NOTE_ATTRIBUTE)
    note = json.loads(attribute.value) if attribute else {}
    reason = note.get("reason") or "SQS moved it here: it was received too often."
    return Letter(delivery.queue, reason, note.get("error") or "none", delivery.body)


def _mails(folder: Path) -> Counter[str]:
    """Mails by order id."""
    files = sorted(folder.glob("*.eml"))
    return Counter(message_from_bytes(file.read_bytes())[ORDER_HEADER] for file in files)
