"""What the inventory service takes and says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace import Command, Event
from schemas.values import OrderId, Sku


class RestockItem(Command, owner="inventory"):
    """So many pieces of a SKU have come in; a SKU that was unknown is stocked from now on."""

    sku: Sku
    quantity: int = Field(ge=1, le=1_000_000)


class StockReserved(Event, source="shop.inventory"):
    """Every line of the order is reserved."""

    order_id: OrderId


class StockRejected(Event, source="shop.inventory"):
    """Nothing of the order is reserved, because these SKUs are short or unknown."""

    order_id: OrderId
    skus: Annotated[tuple[Sku, ...], Field(min_length=1)]
