"""What the inventory service does when something happens."""

from __future__ import annotations

import asyncio

from headrace import Transaction
from schemas.inventory import RestockItem, StockRejected, StockReserved
from schemas.order import OrderPlaced
from services.inventory.model import Stock, wanted
from services.inventory.service import inventory


@inventory.on(OrderPlaced)
async def reserve_stock(event: OrderPlaced, tx: Transaction) -> StockReserved | StockRejected:
    pieces = wanted(event.lines)
    # At once, so that the reads of all lines are one call.
    found = await asyncio.gather(*(tx.get(Stock, sku) for sku in pieces))
    stock = {item.sku: item for item in found if item is not None}
    short = [sku for sku in pieces if sku not in stock or stock[sku].available < pieces[sku]]
    if short:
        return StockRejected(order_id=event.order_id, skus=tuple(short))
    for sku, item in stock.items():
        item.available -= pieces[sku]
        tx.put(item)
    return StockReserved(order_id=event.order_id)


@inventory.on(RestockItem)
async def restock_item(command: RestockItem, tx: Transaction) -> None:
    item = await tx.get(Stock, command.sku) or Stock(sku=command.sku, available=0)
    item.available += command.quantity
    tx.put(item)
