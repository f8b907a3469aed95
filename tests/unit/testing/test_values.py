"""Attribute values: what can be stored, in which form, and how large it is."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import Refused
from headrace.testing.expressions.values import item_bytes, number, stored


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("1", "1"),
        ("+01.50", "1.5"),
        ("-0", "0"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1E3", "1000"),
        ("1e-3", "0.001"),
        ("100", "100"),
        ("9" * 38, "9" * 38),
        ("1" + "0" * 50, "1" + "0" * 50),
    ],
)
def test_a_number_is_kept_in_one_form(written: str, kept: str) -> None:
    assert number(written) == kept


@pytest.mark.parametrize(
    "written",
    [
        "",
        "x",
        "1x",
        " 1",
        "1_000",
        "NaN",
        "Infinity",
        "0x10",
        "1,5",
        "9" * 39,
        "1E126",
        "1E-131",
        1,
    ],
)
def test_what_is_not_a_number_or_out_of_range_is_refused(written: Any) -> None:
    with pytest.raises(Refused):
        number(written)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"S": "a", "N": "1"},
        {"X": "a"},
        {"S": 1},
        {"N": 1},
        {"B": "text"},
        {"BOOL": "true"},
        {"NULL": False},
        {"L": {"S": "a"}},
        {"M": []},
        {"SS": []},
        {"SS": "ab"},
        {"SS": ["a", "a"]},
        {"NS": ["1", "1.0"]},
        {"SS": [1]},
        {"L": [{"N": "x"}]},
        {"M": {"a": {"SS": []}}},
    ],
)
def test_a_value_that_cannot_be_stored_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        stored(value)


def test_a_stored_value_shares_nothing_with_the_given_one() -> None:
    given: dict[str, Any] = {"M": {"l": {"L": [{"N": "1.0"}]}, "s": {"SS": ["a"]}}}
    kept = stored(given)
    given["M"]["l"]["L"].append({"N": "2"})
    given["M"]["s"]["SS"].append("b")

    assert kept == {"M": {"l": {"L": [{"N": "1"}]}, "s": {"SS": ["a"]}}}


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({"ab": {"S": "ü"}}, 4),
        ({"a": {"B": b"123"}}, 4),
        ({"a": {"N": "1234"}}, 4),
        ({"a": {"N": "-0.005"}}, 3),
        ({"a": {"BOOL": True}, "b": {"NULL": True}}, 4),
        ({"a": {"L": [{"S": "x"}, {"S": "y"}]}}, 8),
        ({"a": {"M": {"k": {"S": "v"}}}}, 7),
        ({"a": {"SS": ["x", "yz"]}}, 4),
    ],
)
def test_the_size_of_an_item_counts_names_and_values(item: dict[str, Any], size: int) -> None:
    assert item_bytes(item) == size
