"""Values survive the way into DynamoDB and back, or are refused with a sentence."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.attributes import dump, load, size_of


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, {"NULL": True}),
        (True, {"BOOL": True}),
        ("text", {"S": "text"}),
        (7, {"N": "7"}),
        (Decimal("2.50"), {"N": "2.50"}),
        (0.1, {"N": "0.1"}),
        (b"\x00", {"B": b"\x00"}),
        (Colour.RED, {"S": "red"}),
        (date(2026, 11, 21), {"S": "2026-11-21"}),
        (datetime(2026, 11, 21, 12, tzinfo=UTC), {"S": "2026-11-21T12:00:00+00:00"}),
        (timedelta(minutes=1), {"N": "60.0"}),
        (UUID(int=1), {"S": "00000000-0000-0000-0000-000000000001"}),
        ([1, "a"], {"L": [{"N": "1"}, {"S": "a"}]}),
        ({"a": {"b": 1}}, {"M": {"a": {"M": {"b": {"N": "1"}}}}}),
        ({"b", "a"}, {"SS": ["a", "b"]}),
        ({2, 1}, {"NS": ["1", "2"]}),
        (set(), {"L": []}),
    ],
)
def test_a_value_is_stored_as_the_fitting_attribute_type(value: Any, stored: Any) -> None:
    assert dump(value) == stored


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text()
    | st.binary()
    | st.decimals(
        allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_like)
def test_a_value_is_the_same_after_the_way_there_and_back(value: Any) -> None:
    assert load(dump(value)) == value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (float("nan"), "not a number that DynamoDB can hold"),
        (Decimal("Infinity"), "not a number that DynamoDB can hold"),
        (10**38 + 1, "39 significant digits"),
        ({1: "a"}, "key 1 of a map is not text"),
    ],
)
def test_what_dynamodb_cannot_hold_is_refused_with_a_sentence(value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dump(value)


def test_a_huge_power_of_ten_does_not_grow_into_its_digits() -> None:
    assert load({"N": "1E+100"}) == Decimal("1E+100")


def test_the_size_of_an_item_counts_names_and_values_in_utf8_bytes() -> None:
    assert size_of({"pk": {"S": "é"}, "on": {"BOOL": True}}) == 2 + 2 + 2 + 1
    assert size_of({"l": {"L": [{"S": "ab"}]}}) == 1 + 3 + 1 + 2
