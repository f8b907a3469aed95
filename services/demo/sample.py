"""What is ordered and what is on the shelf: `orders.jsonl`, one order a line, and `stock.json`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from headrace.errors import ConfigurationError
from schemas.checkout import CheckoutCompleted
from schemas.order import PlaceOrder
from schemas.values import Currency, Customer, OrderId, OrderLines

ORDERS = Path(__file__).parent / "orders.jsonl"
STOCK = Path(__file__).parent / "stock.json"


class DemoOrder(BaseModel):
    """One order, and whether it comes as a command or through the storefront."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    order_id: OrderId
    via: Literal["command", "storefront"] = "command"
    customer: Customer
    lines: OrderLines
    currency: Currency = "EUR"

    def as_command(self) -> PlaceOrder:
        return PlaceOrder(**self._content())

    def as_checkout(self) -> CheckoutCompleted:
        return CheckoutCompleted(**self._content())

    def _content(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in PlaceOrder.model_fields}


@dataclass(frozen=True, slots=True)
class Sample:
    """The orders of one run, and pieces by SKU on the shelf before it."""

    orders: tuple[DemoOrder, ...]
    stock: Mapping[str, int]


def load(count: int, orders: Path = ORDERS, stock: Path = STOCK) -> Sample:
    """The first `count` orders of the file. After its last one it begins again, with a number
    behind each id, and with as many more pieces on the shelf.

    Raises `ConfigurationError` for a file that does not hold orders.
    """
    written = [_order(orders, number, line) for number, line in enumerate(_lines(orders), start=1)]
    if not written:
        raise ConfigurationError(f"{orders} is empty: write one order a line.")
    rounds = -(-count // len(written))
    chosen = [_again(order, turn) for turn in range(rounds) for order in written][:count]
    _refuse_twice(orders, chosen)
    shelf: dict[str, int] = json.loads(stock.read_text(encoding="utf-8"))
    return Sample(tuple(chosen), {sku: pieces * rounds for sku, pieces in shelf.items()})


def _again(order: DemoOrder, turn: int) -> DemoOrder:
    if turn == 0:
        return order
    return order.model_copy(update={"order_id": f"{order.order_id}-{turn + 1}"})


def _refuse_twice(file: Path, orders: Sequence[DemoOrder]) -> None:
    id, times = Counter(order.order_id for order in orders).most_common(1)[0]
    if times > 1:
        raise ConfigurationError(f"{file} gives the order id {id} twice: give each its own.")


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.") from error


def _order(file: Path, number: int, line: str) -> DemoOrder:
    try:
        return DemoOrder.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        raise ConfigurationError(
            f"Line {number} of {file} is no order: {where}: {first['msg']}."
        ) from error
