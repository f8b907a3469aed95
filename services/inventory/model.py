"""What is on the shelf, and for whom some of it is held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from pydantic import Field

from headrace import Entity
from schemas.order import OrderLine
from schemas.values import OrderId, Sku


class Oversold(Exception):
    """An order was confirmed whose pieces somebody else has by now."""


class Stock(Entity, pk="stock#{sku}"):
    """The pieces of one SKU that nobody has reserved."""

    sku: Sku
    available: int = Field(ge=0)


class ReservationStatus(StrEnum):
    HELD = "held"
    TAKEN = "taken"
    RELEASED = "released"


class Reservation(Entity, pk="reservation#{order_id}"):
    """The claim of one order: its pieces are off the shelf while it is held, and for good once it
    is taken.

    One that was released stays, so that an order whose ReserveStock arrives late, after its
    ReleaseStock, holds nothing. `short` is what there was too little of.
    """

    order_id: OrderId
    pieces: dict[Sku, int] = Field(default_factory=dict)
    status: ReservationStatus = ReservationStatus.RELEASED
    short: tuple[Sku, ...] = ()


def wanted(lines: Iterable[OrderLine]) -> dict[str, int]:
    """Pieces by SKU; several lines may name one SKU."""
    pieces: Counter[str] = Counter()
    for line in lines:
        pieces[line.sku] += line.quantity
    return dict(pieces)
