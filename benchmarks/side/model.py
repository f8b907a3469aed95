"""The order as pydantic validates it, for contenders that validate with pydantic."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Customer(Frozen):
    name: str
    email: str


class Line(Frozen):
    sku: str
    quantity: int = Field(gt=0)
    unit_price: int = Field(ge=0)
    """Cents."""


class Address(Frozen):
    street: str
    postcode: str
    city: str
    country: str = Field(min_length=2, max_length=2)


class OrderPlaced(Frozen):
    """`detail.data` of what comes."""

    order_id: str = Field(pattern=r"o-\d{8}")
    customer: Customer
    lines: tuple[Line, ...] = Field(min_length=1)
    ship_to: Address
    currency: str = Field(min_length=3, max_length=3)
    note: str = ""

    @property
    def total(self) -> int:
        """Cents."""
        return sum(line.quantity * line.unit_price for line in self.lines)
