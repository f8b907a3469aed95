"""What is on the shelf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import Field

from headrace import Entity
from schemas.order import OrderLine
from schemas.values import Sku


class Stock(Entity, pk="stock#{sku}"):
    """The pieces of one SKU that nobody has reserved."""

    sku: Sku
    available: int = Field(ge=0)


def wanted(lines: Iterable[OrderLine]) -> dict[str, int]:
    """Pieces by SKU; several lines may name one SKU."""
    pieces: Counter[str] = Counter()
    for line in lines:
        pieces[line.sku] += line.quantity
    return dict(pieces)
