"""What the inventory service does when something happens."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Final

from headrace import Transaction
from schemas.inventory import (
    ExpireReservation,
    ReleaseStock,
    ReserveStock,
    RestockItem,
    StockRejected,
    StockReleased,
    StockReserved,
)
from schemas.order import OrderConfirmed
from services.inventory.model import Oversold, Reservation, ReservationStatus, Stock, wanted
from services.inventory.service import inventory

HOLD: Final = timedelta(hours=2)
"""How long pieces are held for an order of which nothing is heard: longer than a checkout takes."""


@inventory.on(ReserveStock, emits=[ExpireReservation])
async def reserve_stock(command: ReserveStock, tx: Transaction) -> StockReserved | StockRejected:
    found = await tx.get(Reservation, command.order_id) or await _reserved(command, tx)
    if found.status is ReservationStatus.RELEASED:
        skus = found.short or tuple(wanted(command.lines))
        return StockRejected(order_id=command.order_id, skus=skus)
    return StockReserved(order_id=command.order_id)


@inventory.on(ReleaseStock, ExpireReservation)
async def release_stock(
    command: ReleaseStock | ExpireReservation, tx: Transaction
) -> StockReleased | None:
    found = await tx.get(Reservation, command.order_id) or Reservation(order_id=command.order_id)
    if found.status is ReservationStatus.TAKEN:
        return None
    if found.status is ReservationStatus.HELD:
        for stock in await _stock(found.pieces, tx):
            stock.available += found.pieces[stock.sku]
            tx.put(stock)
        tx.unschedule(_expiry(found.order_id))
    found.status = ReservationStatus.RELEASED
    tx.put(found)
    return StockReleased(order_id=command.order_id)


@inventory.on(OrderConfirmed)
async def take_stock(event: OrderConfirmed, tx: Transaction) -> None:
    found = await tx.get(Reservation, event.order_id) or Reservation(order_id=event.order_id)
    if found.status is ReservationStatus.RELEASED:
        # Its time was over before this came. The pieces may be there still.
        found.pieces = wanted(event.lines)
        if short := await _taken_off_the_shelf(found.pieces, tx):
            raise Oversold(
                f"The order {event.order_id} is confirmed and its reservation has expired, and "
                f"there is too little of {', '.join(short)}: restock it, and redrive this message."
            )
    found.status = ReservationStatus.TAKEN
    tx.put(found)
    tx.unschedule(_expiry(found.order_id))


@inventory.on(RestockItem)
async def restock_item(command: RestockItem, tx: Transaction) -> None:
    item = await tx.get(Stock, command.sku) or Stock(sku=command.sku, available=0)
    item.available += command.quantity
    tx.put(item)


async def _reserved(command: ReserveStock, tx: Transaction) -> Reservation:
    """A reservation of all pieces; one that is released from the start if there are too few."""
    found = Reservation(order_id=command.order_id, pieces=wanted(command.lines))
    found.short = await _taken_off_the_shelf(found.pieces, tx)
    if not found.short:
        found.status = ReservationStatus.HELD
        expiry = ExpireReservation(order_id=found.order_id)
        tx.schedule(expiry, at=tx.now + HOLD, name=_expiry(found.order_id))
    tx.put(found)
    return found


async def _taken_off_the_shelf(pieces: Mapping[str, int], tx: Transaction) -> tuple[str, ...]:
    """The SKUs that are short or unknown; if there are none, all pieces are off the shelf."""
    stock = {item.sku: item for item in await _stock(pieces, tx)}
    short = tuple(sku for sku in pieces if sku not in stock or stock[sku].available < pieces[sku])
    if not short:
        for sku, item in stock.items():
            item.available -= pieces[sku]
            tx.put(item)
    return short


async def _stock(pieces: Mapping[str, int], tx: Transaction) -> list[Stock]:
    return [item for item in await tx.get_many(Stock, pieces) if item is not None]


def _expiry(order_id: str) -> str:
    """The name of a schedule, which must be shorter than an order id may be."""
    return f"reservation-{sha256(order_id.encode()).hexdigest()[:24]}"
