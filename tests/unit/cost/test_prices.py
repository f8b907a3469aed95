"""The file of prices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.cost.prices import PRICES, load_prices
from headrace.errors import ConfigurationError


def written(folder: Path, **changes: Any) -> Path:
    file = folder / "own.json"
    file.write_text(json.dumps({**json.loads(PRICES.read_text()), **changes}))
    return file


def test_every_price_says_on_which_page_it_stands() -> None:
    prices = load_prices()
    assert (prices.region, prices.date) == ("us-east-1", "2026-11")
    assert all(price.page for _, price in prices.prices)


def test_a_price_is_read_as_it_is_said() -> None:
    prices = load_prices().prices
    assert str(prices.sqs_standard) == "$0.4/M requests"
    assert str(prices.lambda_duration) == "$1.33334e-05/GB-s"


def test_own_prices_are_taken_for_their_region(tmp_path: Path) -> None:
    file = written(tmp_path, region="eu-north-1")
    assert load_prices(file, region="eu-north-1").region == "eu-north-1"


def test_prices_of_another_region_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has the prices of us-east-1, and .* eu-west-1"):
        load_prices(region="eu-west-1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prices": {}}, "prices.sqs_standard: Field required"),
        ({"date": "today"}, "date: "),
        ({"currency": "EUR"}, "currency: "),
    ],
)
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"is no file of prices: {says}"):
        load_prices(written(tmp_path, **changes))


def test_a_negative_price_is_refused(tmp_path: Path) -> None:
    prices = json.loads(PRICES.read_text())["prices"]
    prices["logs"]["usd"] = -1
    with pytest.raises(ConfigurationError, match=r"prices\.logs\.usd"):
        load_prices(written(tmp_path, prices=prices))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be read"):
        load_prices(tmp_path / "none.json")
