"""What the inventory service takes and says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace import Command, Event
from schemas.values import OrderId, OrderLines, Sku


class RestockItem(Command, owner="inventory"):
    """So many pieces of a SKU have come in; a SKU that was unknown is stocked from now on."""

    sku: Sku
    quantity: int = Field(ge=1, le=1_000_000)


class ReserveStock(Command, owner="inventory"):
    """Hold every line of an order, or nothing of it. Asked again, the answer is the same."""

    order_id: OrderId
    lines: OrderLines


class StockReserved(Event, source="shop.inventory"):
    """Every line of the order is reserved."""

    order_id: OrderId


class StockRejected(Event, source="shop.inventory"):
    """Nothing of the order is reserved, because these SKUs are short or unknown."""

    order_id: OrderId
    skus: Annotated[tuple[Sku, ...], Field(min_length=1)]


class ReleaseStock(Command, owner="inventory"):
    """Give back what is held for an order, and hold nothing for it from now on."""

    order_id: OrderId


class ExpireReservation(Command, owner="inventory"):
    """Nobody has taken or released what is held for an order: give it back."""

    order_id: OrderId


class StockReleased(Event, source="shop.inventory"):
    """Nothing is held for the order, and nothing will be."""

    order_id: OrderId
