"""Which events a rule takes: one rule and one queue for each operator."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from headrace.errors import Refused
from headrace.ports import BusEntry
from headrace.topology.model import Bus, Rule, Topology
from tests.contract.deviations import deviates
from tests.contract.topologies import queue
from tests.contract.world import World


class Case(NamedTuple):
    """A pattern over the detail, one detail it takes and one it leaves."""

    name: str
    pattern: dict[str, Any]
    taken: dict[str, Any]
    left: dict[str, Any]


CASES = (
    Case("exact-text", {"a": ["x", "y"]}, {"a": "y"}, {"a": "z"}),
    Case("exact-number", {"a": [1]}, {"a": 1}, {"a": "1"}),
    Case("exact-boolean", {"a": [True]}, {"a": True}, {"a": False}),
    Case("null", {"a": [None]}, {"a": None}, {"b": 1}),
    Case("prefix", {"a": [{"prefix": "ab"}]}, {"a": "abc"}, {"a": "cab"}),
    Case("suffix", {"a": [{"suffix": "bc"}]}, {"a": "abc"}, {"a": "bca"}),
    Case("anything-but", {"a": [{"anything-but": "x"}]}, {"a": "y"}, {"a": "x"}),
    Case("anything-but-list", {"a": [{"anything-but": ["x", "y"]}]}, {"a": "z"}, {"a": "y"}),
    Case("anything-but-number", {"a": [{"anything-but": [1, 2]}]}, {"a": 3}, {"a": 2}),
    Case(
        "anything-but-prefix", {"a": [{"anything-but": {"prefix": "ab"}}]}, {"a": "b"}, {"a": "abc"}
    ),
    Case("anything-but-absent", {"a": [{"anything-but": "x"}]}, {"a": None}, {"b": "y"}),
    Case("greater", {"a": [{"numeric": [">", 10]}]}, {"a": 10.5}, {"a": 10}),
    Case("at-most", {"a": [{"numeric": ["<=", 10]}]}, {"a": 10}, {"a": 10.5}),
    Case("numeric-equal", {"a": [{"numeric": ["=", 10]}]}, {"a": 10.0}, {"a": "10"}),
    Case("between", {"a": [{"numeric": [">", 0, "<=", 5]}]}, {"a": 5}, {"a": 0}),
    Case("exists", {"a": [{"exists": True}]}, {"a": 0}, {"b": 0}),
    Case("exists-not", {"a": [{"exists": False}]}, {"b": 0}, {"a": None}),
    Case("ignore-case", {"a": [{"equals-ignore-case": "AbC"}]}, {"a": "aBc"}, {"a": "abcd"}),
    Case("wildcard", {"a": [{"wildcard": "a*c*e"}]}, {"a": "abcde"}, {"a": "abcd"}),
    Case("or", {"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 0, "b": 2}, {"a": 2, "b": 1}),
    Case("or-and", {"c": [3], "$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1, "c": 3}, {"a": 1}),
    Case("nested", {"a": {"b": {"c": ["x"]}}}, {"a": {"b": {"c": "x"}}}, {"a": {"c": "x"}}),
    Case("all-fields", {"a": [1], "b": [2]}, {"a": 1, "b": 2}, {"a": 1, "b": 3}),
    Case("any-operator", {"a": ["x", {"numeric": [">", 1]}]}, {"a": 2}, {"a": 1}),
    Case("array", {"a": ["x"]}, {"a": ["w", "x"]}, {"a": ["w", ["y"]]}),
    Case(
        "array-of-objects",
        {"a": {"b": ["x"]}},
        {"a": [{"b": "w"}, {"b": "x"}]},
        {"a": [{"b": "w"}]},
    ),
)


def entry(case: Case, detail: dict[str, Any]) -> BusEntry:
    return BusEntry(case.name, "Case", json.dumps(detail))


async def assert_taken_and_left(world: World, cases: tuple[Case, ...]) -> None:
    rules = tuple(
        Rule(case.name, "shop", {"source": [case.name], "detail": case.pattern}, "orders")
        for case in cases
    )
    await world.provision(Topology(buses=(Bus("shop"),), queues=(queue(),), rules=rules))

    for case in cases:
        entries = [entry(case, case.left), entry(case, case.taken)]
        assert await world.ports.bus.put("shop", entries) == []

    assert await everything(world) == {case.name: [case.taken] for case in cases}


async def everything(world: World) -> dict[str, list[Any]]:
    """The details that arrived, by source."""
    found: dict[str, list[Any]] = {}
    while True:
        some = await world.receive_within("orders", timedelta(seconds=1))
        if not some:
            return found
        for body in (json.loads(delivery.body) for delivery in some):
            found.setdefault(body["source"], []).append(body["detail"])


async def test_a_rule_takes_what_its_pattern_says(world: World) -> None:
    await assert_taken_and_left(world, CASES)


@deviates("true-equals-one")
async def test_true_is_not_one(world: World) -> None:
    await assert_taken_and_left(world, (Case("true", {"a": [True]}, {"a": True}, {"a": 1}),))


@deviates("invalid-patterns-accepted")
async def test_an_invalid_pattern_makes_no_rule(world: World) -> None:
    bad = Rule("bad", "shop", {"detail": {"a": "not a list"}}, "orders")

    with pytest.raises(Refused):
        await world.provision(Topology(buses=(Bus("shop"),), queues=(queue(),), rules=(bad,)))
