"""The contracts of the shop: what is published, what old events become, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from headrace.codec import Codec
from headrace.envelope import root_metadata, seal
from headrace.errors import SchemaMismatch
from headrace.events import MessageType, contract_of
from headrace.ports import Delivery
from headrace.testing.memory import ManualClock
from schemas.checkout import CheckoutCompleted
from schemas.export import FOLDER, contracts, file_of, text_of
from schemas.order import OrderPlaced, PlaceOrder

CONTRACTS = list(contracts())

ORDER: dict[str, Any] = {
    "order_id": "W1",
    "customer": {"name": "Chiara Lombardi", "email": "chiara@example.com"},
    "lines": [{"sku": "MUG", "quantity": 2, "unit_price": "14.00"}],
}


def delivery_of(body: dict[str, Any]) -> Delivery:
    return Delivery("m1", "r1", json.dumps(body), "queue")


def placed(version: int, data: dict[str, Any]) -> Delivery:
    metadata = {
        "id": "e1",
        "type": "OrderPlaced",
        "version": version,
        "time": "2026-11-21T12:00:00Z",
        "correlation_id": "e1",
    }
    detail = {"metadata": metadata, "data": data}
    return delivery_of({"detail-type": "OrderPlaced", "source": "shop.order", "detail": detail})


@pytest.mark.parametrize("cls", CONTRACTS, ids=lambda cls: contract_of(cls).name)
def test_the_published_schema_is_the_one_in_the_code(cls: MessageType) -> None:
    assert file_of(cls).read_text(encoding="utf-8") == text_of(cls), (
        "the contract changed: give it a new version with an upcaster, "
        "then run python -m schemas.export"
    )


@pytest.mark.parametrize("cls", CONTRACTS, ids=lambda cls: contract_of(cls).name)
def test_every_version_that_can_be_read_is_published(cls: MessageType) -> None:
    contract = contract_of(cls)
    for version in range(contract.oldest_readable(), contract.version + 1):
        assert (FOLDER / f"{contract.name}.v{version}.json").exists()


def test_every_published_schema_belongs_to_a_contract() -> None:
    names = {contract_of(cls).name for cls in CONTRACTS}
    assert {file.name.split(".")[0] for file in FOLDER.iterdir()} == names


def test_an_order_placed_of_version_1_was_in_euros() -> None:
    old = Codec([OrderPlaced]).decode(placed(1, {**ORDER, "total": "28.00"}))
    new = Codec([OrderPlaced]).decode(placed(2, {**ORDER, "total": "28.00", "currency": "EUR"}))
    assert old.message == new.message


def test_the_currency_is_required_since_version_2() -> None:
    with pytest.raises(SchemaMismatch, match="currency"):
        Codec([OrderPlaced]).decode(placed(2, {**ORDER, "total": "28.00"}))


def test_a_checkout_comes_without_any_envelope_of_headrace() -> None:
    event = {
        "detail-type": "CheckoutCompleted",
        "source": "shop.checkout",
        "id": "b5a8",
        "time": "2026-11-21T12:00:00Z",
        "detail": ORDER,
    }
    envelope = Codec([CheckoutCompleted]).decode(delivery_of(event))
    assert isinstance(envelope.message, CheckoutCompleted)
    assert (envelope.message.order_id, envelope.metadata.id) == ("W1", "b5a8")


def test_prices_survive_the_wire_to_the_cent() -> None:
    lines = [{"sku": "MUG", "quantity": 1, "unit_price": "0.10"}]
    command = PlaceOrder.model_validate({**ORDER, "lines": lines})
    sealed = seal(command, root_metadata(command, id="c1", now=ManualClock().now()))
    assert json.loads(sealed.detail)["data"]["lines"][0]["unit_price"] == "0.10"


@pytest.mark.parametrize(
    "change",
    [
        {"lines": []},
        {"lines": [{"sku": "MUG", "quantity": 0, "unit_price": "1.00"}]},
        {"lines": [{"sku": "MUG", "quantity": 1, "unit_price": "-1.00"}]},
        {"lines": [{"sku": "MUG", "quantity": 1, "unit_price": "1.005"}]},
        {"lines": [{"sku": "MUG", "quantity": 1, "unit_price": "1.00"}] * 51},
        {"order_id": "../W1"},
        {"order_id": "W1\n"},
        {"currency": "euro"},
        {"customer": {"name": "Eve\r\nBcc: all@example.com", "email": "eve@example.com"}},
        {"customer": {"name": "Eve", "email": "eve@example.com, all@example.com"}},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_what_is_no_order_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PlaceOrder.model_validate({**ORDER, **change})
