"""Event patterns: which events they take."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import Refused
from headrace.testing.patterns import compile_pattern, matches

UNEQUAL_STATE = {"state": [{"anything-but": ["stopped", "failed"]}]}
PEOPLE = {"people": [{"first": "Ada", "last": "Byron"}, {"first": "Alan", "last": "Turing"}]}


@pytest.mark.parametrize(
    ("pattern", "event"),
    [
        # exact values
        ({"a": ["x"]}, {"a": "x", "b": 1}),
        ({"a": ["x", 1, None, True]}, {"a": None}),
        ({"a": [1]}, {"a": 1.0}),
        ({"a": [False]}, {"a": False}),
        ({"a": [""]}, {"a": ""}),
        ({"a": [None]}, {"a": None}),
        # every field, any of its values
        ({"a": [1], "b": [2, 3]}, {"a": 1, "b": 3}),
        # text
        ({"a": [{"prefix": "ab"}]}, {"a": "ab"}),
        ({"a": [{"prefix": {"equals-ignore-case": "AB"}}]}, {"a": "abc"}),
        ({"a": [{"suffix": ".png"}]}, {"a": "x.png"}),
        ({"a": [{"suffix": {"equals-ignore-case": ".PNG"}}]}, {"a": "x.png"}),
        ({"a": [{"equals-ignore-case": "straSSe"}]}, {"a": "STRASSE"}),
        ({"a": [{"wildcard": "dir/*.png"}]}, {"a": "dir/sub/x.png"}),
        ({"a": [{"wildcard": "*"}]}, {"a": ""}),
        ({"a": [{"wildcard": r"a\*b"}]}, {"a": "a*b"}),
        ({"a": [{"wildcard": r"a\\*"}]}, {"a": "a\\bc"}),
        ({"a": [{"wildcard": "a.c"}]}, {"a": "a.c"}),
        ({"a": [{"wildcard": "a*c"}]}, {"a": "a\nc"}),
        # numbers
        ({"a": [{"numeric": ["=", 3.5]}]}, {"a": 3.5}),
        ({"a": [{"numeric": ["=", 3]}]}, {"a": 3.0}),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}),
        ({"a": [{"numeric": ["<", -1]}]}, {"a": -5e9}),
        # presence
        ({"a": [{"exists": True}]}, {"a": None}),
        ({"a": [{"exists": False}]}, {"b": 1}),
        ({"a": [{"exists": False}]}, {"a": []}),
        ({"a": [{"exists": False}]}, {"a": {"b": 1}}),
        ({"a": {"b": [{"exists": False}]}}, {"c": 1}),
        ({"a": {"b": [{"exists": False}]}}, {"a": {"c": 1}}),
        ({"a": [{"exists": False}, "x"]}, {}),
        ({"a": [{"exists": False}, "x"]}, {"a": "x"}),
        # anything but
        (UNEQUAL_STATE, {"state": "running"}),
        (UNEQUAL_STATE, {"state": 5}),
        (UNEQUAL_STATE, {"state": ["stopped", "running"]}),
        ({"a": [{"anything-but": 1}]}, {"a": "1"}),
        ({"a": [{"anything-but": {"prefix": "ab"}}]}, {"a": "ba"}),
        ({"a": [{"anything-but": {"prefix": ["ab", "b"]}}]}, {"a": "c"}),
        ({"a": [{"anything-but": {"suffix": "z"}}]}, {"a": "zy"}),
        ({"a": [{"anything-but": {"equals-ignore-case": ["AB", "CD"]}}]}, {"a": "abc"}),
        ({"a": [{"anything-but": {"wildcard": "*.png"}}]}, {"a": "x.jpg"}),
        # alternatives
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1}),
        ({"c": [3], "$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2, "c": 3}),
        ({"d": {"$or": [{"a": [1]}, {"$or": [{"b": [2]}, {"c": [3]}]}]}}, {"d": {"c": 3}}),
        # nesting and arrays
        ({"a": {"b": {"c": ["x"]}}}, {"a": {"b": {"c": "x", "d": 1}}}),
        ({"a": ["x"]}, {"a": ["w", "x"]}),
        ({"a": ["x"]}, {"a": [["w"], ["x"]]}),
        ({"a": [{"numeric": [">", 5]}]}, {"a": [1, 9]}),
        ({"people": {"first": ["Ada"]}}, PEOPLE),
        ({"people": {"first": ["Ada"], "last": ["Byron"]}}, PEOPLE),
        ({"people": {"first": ["Ada"]}}, {"people": [[PEOPLE["people"][0]]]}),
    ],
)
def test_a_pattern_takes(pattern: dict[str, Any], event: dict[str, Any]) -> None:
    assert matches(pattern, event)


@pytest.mark.parametrize(
    ("pattern", "event"),
    [
        ({"a": ["x"]}, {"a": "X"}),
        ({"a": ["x"]}, {"b": "x"}),
        ({"a": ["x"]}, {"a": {"x": "x"}}),
        ({"a": [1]}, {"a": "1"}),
        ({"a": [1]}, {"a": True}),
        ({"a": [True]}, {"a": 1}),
        ({"a": [False]}, {"a": 0}),
        ({"a": [None]}, {}),
        ({"a": [""]}, {"a": None}),
        ({"a": [1], "b": [2]}, {"a": 1, "b": 3}),
        ({"a": [{"prefix": "ab"}]}, {"a": "cab"}),
        ({"a": [{"prefix": "1"}]}, {"a": 12}),
        ({"a": [{"suffix": "ab"}]}, {"a": "abc"}),
        ({"a": [{"equals-ignore-case": "ab"}]}, {"a": "abc"}),
        ({"a": [{"wildcard": "a*c"}]}, {"a": "abcd"}),
        ({"a": [{"wildcard": r"a\*b"}]}, {"a": "axb"}),
        ({"a": [{"wildcard": "a.c"}]}, {"a": "abc"}),
        ({"a": [{"numeric": ["=", 3]}]}, {"a": "3"}),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 0}),
        ({"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5.5}),
        ({"a": [{"numeric": [">", 0]}]}, {"a": True}),
        ({"a": [{"numeric": [">", 0]}]}, {"a": 6e9}),
        ({"a": [{"numeric": [">", 0]}]}, {}),
        ({"a": [{"exists": True}]}, {"b": 1}),
        ({"a": [{"exists": True}]}, {"a": []}),
        ({"a": [{"exists": True}]}, {"a": {"b": 1}}),
        ({"a": [{"exists": False}]}, {"a": None}),
        ({"a": {"b": [{"exists": False}]}}, {"a": {"b": 1}}),
        (UNEQUAL_STATE, {"state": "failed"}),
        (UNEQUAL_STATE, {"state": ["failed", "stopped"]}),
        (UNEQUAL_STATE, {}),
        ({"a": [{"anything-but": 1}]}, {"a": 1.0}),
        ({"a": [{"anything-but": {"prefix": "ab"}}]}, {"a": "abc"}),
        ({"a": [{"anything-but": {"prefix": ["ab", "b"]}}]}, {"a": "bc"}),
        ({"a": [{"anything-but": {"equals-ignore-case": "AB"}}]}, {"a": "ab"}),
        ({"a": [{"anything-but": {"wildcard": "*.png"}}]}, {"a": "x.png"}),
        ({"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 2, "b": 1}),
        ({"c": [3], "$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1, "c": 4}),
        ({"a": {"b": {"c": ["x"]}}}, {"a": {"c": "x"}}),
        ({"a": {"b": ["x"]}}, {"a": "x"}),
        ({"a": ["x"]}, {"a": []}),
        ({"people": {"first": ["Ada"], "last": ["Turing"]}}, PEOPLE),
    ],
)
def test_a_pattern_leaves(pattern: dict[str, Any], event: dict[str, Any]) -> None:
    assert not matches(pattern, event)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ({}, "empty"),
        ({"a": {}}, "empty"),
        ({"a": []}, "array that is not empty"),
        ({"a": "x"}, "'a' must be"),
        ({"a": [["x"]]}, "array may not hold an array"),
        ({"a": [{}]}, "exactly one operator"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "exactly one operator"),
        ({"a": [{"contains": "x"}]}, "'contains' is not an operator"),
        ({"a": [{"prefix": ""}]}, "prefix takes text"),
        ({"a": [{"suffix": 1}]}, "suffix takes text"),
        ({"a": [{"wildcard": "a**b"}]}, "two \\* in a row"),
        ({"a": [{"wildcard": r"a\b"}]}, "may only stand before"),
        ({"a": [{"wildcard": "a\\"}]}, "may only stand before"),
        ({"a": [{"exists": "yes"}]}, "true or false"),
        ({"a": [{"numeric": [">"]}]}, "pairs"),
        ({"a": [{"numeric": ["!=", 1]}]}, "pairs"),
        ({"a": [{"numeric": [">", "1"]}]}, "pairs"),
        ({"a": [{"numeric": [">", True]}]}, "pairs"),
        ({"a": [{"numeric": [">", 5e10]}]}, "pairs"),
        ({"a": [{"anything-but": []}]}, "array that is not empty"),
        ({"a": [{"anything-but": [None]}]}, "text only or numbers only"),
        ({"a": [{"anything-but": ["x", 1]}]}, "text only or numbers only"),
        ({"a": [{"anything-but": {"numeric": [">", 1]}}]}, "anything-but takes"),
        ({"$or": [{"a": [1]}]}, "at least two"),
        ({"$or": {"a": [1]}}, "at least two"),
        ({"$or": [{"a": [1]}, {}]}, "empty"),
        ({"a": ["x" * 2048]}, "2048 characters"),
    ],
)
def test_a_pattern_that_is_refused(pattern: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence) as caught:
        compile_pattern(pattern)

    assert caught.value.code == "InvalidEventPatternException"
