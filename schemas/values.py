"""Values that several contracts are made of."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from headrace import Sensitive

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What can stand in a URL as it is."""

OrderId: TypeAlias = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Chosen by whoever orders."""

Sku: TypeAlias = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]

Currency: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
"""ISO 4217."""


def _with_cents(amount: Decimal) -> Decimal:
    # A table keeps 14 of 14.00, and a customer should read 14.00 again.
    return amount.quantize(Decimal("0.01"))


Money: TypeAlias = Annotated[
    Decimal, Field(ge=0, max_digits=18, decimal_places=2), AfterValidator(_with_cents)
]
"""An amount in the currency that stands beside it; text in JSON, as JSON has no decimals."""

Price: TypeAlias = Annotated[
    Decimal, Field(ge=0, max_digits=10, decimal_places=2), AfterValidator(_with_cents)
]
"""Money for one piece. Small enough that the total of the largest order is still `Money`."""

PersonName: TypeAlias = Annotated[
    # No control characters: the name becomes part of a mail's header.
    str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)
]

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9-]+"
MailAddress: TypeAlias = Annotated[
    str,
    StringConstraints(pattern=rf"^{_ATOM}(\.{_ATOM})*@{_LABEL}(\.{_LABEL})*$", max_length=254),
]


class Customer(BaseModel):
    """Who ordered, and where to tell them how it went."""

    model_config = ConfigDict(frozen=True)

    name: PersonName
    email: Annotated[MailAddress, Sensitive]


class OrderLine(BaseModel):
    """So many pieces of one SKU. Several lines of an order may name one SKU."""

    model_config = ConfigDict(frozen=True)

    sku: Sku
    quantity: int = Field(ge=1, le=10_000)
    unit_price: Price


OrderLines: TypeAlias = Annotated[tuple[OrderLine, ...], Field(min_length=1, max_length=50)]
"""At most 50: a reservation writes one item per SKU in one transaction, which takes 100."""


def total_of(lines: tuple[OrderLine, ...]) -> Decimal:
    return sum((line.quantity * line.unit_price for line in lines), Decimal(0))
