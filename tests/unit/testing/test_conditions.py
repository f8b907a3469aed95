"""Condition expressions: how they are read, and what items meet them."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import Refused
from headrace.ports import Item
from headrace.testing.expressions import Symbols, holds, parse_condition

ITEM: Item = {
    "a": {"N": "1"},
    "b": {"N": "2"},
    "c": {"N": "3"},
    "label": {"S": "hello"},
    "octets": {"B": b"\x00\x01"},
    "flag": {"BOOL": True},
    "nil": {"NULL": True},
    "steps": {"L": [{"N": "1.0"}, {"M": {"x": {"L": [{"S": "deep"}]}}}]},
    "bag": {"M": {"x": {"N": "1"}, "a.b": {"S": "dotted"}}},
    "tags": {"SS": ["x", "y"]},
    "sums": {"NS": ["1", "2.5"]},
    "blobs": {"BS": [b"1", b"2"]},
}
NAMES = {"#a": "a", "#ab": "a.b", "#bag": "bag"}
VALUES: dict[str, Any] = {
    ":0": {"N": "0"},
    ":1": {"N": "1"},
    ":1e0": {"N": "10E-1"},
    ":2": {"N": "2"},
    ":5": {"N": "5"},
    ":25": {"N": "2.50"},
    ":big": {"N": "10"},
    ":s1": {"S": "1"},
    ":hello": {"S": "hello"},
    ":he": {"S": "he"},
    ":x": {"S": "x"},
    ":blob": {"B": b"\x00"},
    ":blob1": {"B": b"1"},
    ":true": {"BOOL": True},
    ":null": {"NULL": True},
    ":yx": {"SS": ["y", "x"]},
    ":sums": {"NS": ["2.50", "1.0"]},
    ":bag": {"M": {"a.b": {"S": "dotted"}, "x": {"N": "1.0"}}},
    ":map": {"M": {"x": {"L": [{"S": "deep"}]}}},
    ":tS": {"S": "S"},
    ":tN": {"S": "N"},
    ":tSS": {"S": "SS"},
    ":tX": {"S": "X"},
}


def meets(expression: str, item: Item = ITEM) -> bool:
    return holds(parse_condition(expression, Symbols(NAMES, VALUES)), item)


@pytest.mark.parametrize(
    "expression",
    [
        # equality: numbers by worth, sets and maps in any order
        "a = :1e0",
        "a <> :s1",
        "tags = :yx",
        "sums = :sums",
        "bag = :bag",
        "steps[1] = :map",
        "flag = :true AND nil = :null",
        # order: numbers as numbers, text by its bytes
        "b < :big",
        "b > :1 AND b >= :2 AND b <= :2",
        ":1 < b",
        "label > :he",
        "octets > :blob",
        # ranges and choices
        "b BETWEEN a AND c",
        "b BETWEEN :2 AND :2",
        "label IN (:x, :1, :hello)",
        # what is absent is unequal to everything
        "z <> :1",
        "z <> y",
        "NOT z = :1",
        # precedence: NOT, then AND, then OR
        "a = :1 OR a = :2 AND a = :5",
        "NOT a = :2 AND a = :1",
        "NOT (a = :2 AND b = :2)",
        "NOT NOT a = :1",
        "(a = :2 OR b = :2) AND c <> :5",
        "(a = :1) AND (b = :2)",
        "a=:1 and(b=:2)or not a=:1",
        "a BETWEEN :0 AND :1 AND b = :2",
        # functions
        "attribute_exists(a)",
        "attribute_exists(steps[1].x[0])",
        "attribute_not_exists(steps[1].x[1])",
        "attribute_not_exists(a.b)",
        "attribute_not_exists(label[0])",
        "attribute_type(label, :tS)",
        "attribute_type(tags, :tSS)",
        "attribute_type(:1, :tN)",
        "begins_with(label, :he)",
        "begins_with(octets, :blob)",
        "contains(label, :he)",
        "contains(octets, :blob)",
        "contains(tags, :x)",
        "contains(sums, :25)",
        "contains(blobs, :blob1)",
        "contains(steps, :1)",
        "contains(steps, :map)",
        "size(label) = :5",
        "size(octets) = b",
        "size(tags) BETWEEN :1 AND :2",
        "size(bag) = size(steps)",
        # paths
        "#a = :1",
        "#bag.x = :1",
        "bag.#ab <> :x AND attribute_exists(bag.#ab)",
        "steps[0] = :1",
        "steps [ 0 ] = :1",
    ],
)
def test_a_condition_that_holds(expression: str) -> None:
    assert meets(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "a = :s1",
        "a <> :1e0",
        "tags <> :yx",
        "label < :he",
        "b < :1",
        "b > :big",
        "a < :s1",
        "a > :s1",
        "flag < a",
        "steps < a",
        "b BETWEEN c AND a",
        "b BETWEEN :0 AND :1",
        "a IN (:x, :2)",
        "z = :1",
        "z = y",
        "z < :1",
        "z >= y",
        "z BETWEEN :0 AND :1",
        "z IN (:0, :1)",
        "NOT z <> :1",
        "(a = :1 OR a = :2) AND a = :5",
        "NOT (a = :1 OR a = :2)",
        "attribute_exists(z)",
        "attribute_exists(steps[2])",
        "attribute_exists(a.x)",
        "attribute_not_exists(bag.x)",
        "attribute_type(label, :tN)",
        "attribute_type(z, :tS)",
        "begins_with(label, :x)",
        "begins_with(a, :he)",
        "begins_with(z, :he)",
        "contains(label, :x)",
        "contains(label, :1)",
        "contains(tags, :1)",
        "contains(a, :1)",
        "contains(z, :1)",
        "contains(bag, :x)",
        "size(a) = :1",
        "size(flag) <= :5",
        "size(z) >= :0",
        "#ab = :1",
    ],
)
def test_a_condition_that_fails(expression: str) -> None:
    assert not meets(expression)


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a", "comparator"),
        ("a = ", "attribute name"),
        ("a = = :1", "attribute name"),
        ("a == :1", "attribute name"),
        ("a != :1", "!="),
        ("a = :1 b = :2", "the end"),
        ("(a = :1", r"'\)'"),
        ("a = :1)", "the end"),
        ("((a = :1))", "redundant parentheses"),
        ("((a = :1 OR b = :2)) AND c = :1", "redundant parentheses"),
        ("a = :1 AND", "attribute name"),
        ("a BETWEEN :1", "'AND'"),
        ("a BETWEEN :2 AND :1", "reversed"),
        ("a BETWEEN :1 AND :x", "differ in type"),
        ("a BETWEEN :null AND :1", "BETWEEN"),
        ("a IN :1", r"'\('"),
        ("a IN ()", "attribute name"),
        ("a IN (:1", r"'\)'"),
        (f"a IN ({', '.join([':1'] * 101)})", "at most 100"),
        ("a < :true", "BOOL"),
        ("a = :nope", ":nope is not defined"),
        ("#nope = :1", "#nope is not defined"),
        ("size = :1", "reserved word"),
        ("bag.Name = :1", "reserved word"),
        ("a = a", "distinct"),
        ("a BETWEEN :0 AND a", "distinct"),
        ("contains(label, label)", "distinct"),
        ("attribute_exists(:1)", "document path"),
        ("attribute_exists(a, b)", "takes 1"),
        ("attribute_type(a, b)", "type S"),
        ("attribute_type(a, :1)", "type S"),
        ("attribute_type(a, :tX)", "no attribute type"),
        ("begins_with(label, :1)", "begins_with"),
        ("contains(label)", "takes 2"),
        ("size(label)", "comparator"),
        ("size(size(label)) = :1", "another size"),
        ("Size(label) = :1", "Size"),
        ("nonsense(a)", "nonsense"),
        ("attribute_exists(a) = :true", "the end"),
        ("a = if_not_exists(a, :1)", "if_not_exists"),
        ("steps[] = :1", "index"),
        ("steps[-1] = :1", "index"),
        ("steps[:1] = :1", "index"),
        ("bag. = :1", "attribute name"),
        ("_a = :1", "_a"),
        ("a = 1", "attribute name"),
        ("a = 'x'", "'x'"),
        ("a" * 4097, "4096 bytes"),
    ],
)
def test_a_condition_that_is_refused(expression: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence) as caught:
        meets(expression)

    assert caught.value.code == "ValidationException"


def test_an_absent_item_is_an_empty_one() -> None:
    assert meets("attribute_not_exists(a) AND a <> :1", {})
    assert not meets("attribute_exists(a) OR a = :1", {})


def test_symbols_that_nothing_used_are_refused_by_name() -> None:
    symbols = Symbols({"#a": "a", "#b": "b"}, {":1": {"N": "1"}, ":2": {"N": "2"}})
    parse_condition("#a = :1", symbols)

    with pytest.raises(Refused, match="#b, :2"):
        symbols.require_all_used()


def test_symbols_that_were_all_used_are_not() -> None:
    symbols = Symbols({"#a": "a"}, {":1": {"N": "1"}})
    parse_condition("#a = :1 OR #a < :1", symbols)

    symbols.require_all_used()
