"""The emulator matches every kind of pattern that headrace writes, so that tests may rely on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.ports import BusEntry, Ports
from tests.integration.aws import topologies

pytestmark = pytest.mark.emulator

CASES: Mapping[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "one of several values": ({"a": ["x", "y"]}, {"a": "y"}, {"a": "z"}),
    "any value of an array": ({"a": ["x"]}, {"a": ["q", "x"]}, {"a": ["q"]}),
    "a nested field": ({"d": {"a": [True]}}, {"d": {"a": True}}, {"a": True}),
    "null": ({"a": [None]}, {"a": None}, {"a": 0}),
    "prefix": ({"a": [{"prefix": "ab"}]}, {"a": "abc"}, {"a": "xab"}),
    "suffix": ({"a": [{"suffix": "bc"}]}, {"a": "abc"}, {"a": "bcx"}),
    "ignoring case": ({"a": [{"equals-ignore-case": "AbC"}]}, {"a": "abc"}, {"a": "abcd"}),
    "wildcard": ({"a": [{"wildcard": "a*c"}]}, {"a": "abbc"}, {"a": "abbd"}),
    "anything but a list": ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "z"}, {"a": "x"}),
    "anything but, when missing": ({"a": [{"anything-but": "x"}]}, {"a": "z"}, {}),
    "anything but a prefix": ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "y"}, {"a": "xy"}),
    "more than": ({"a": [{"numeric": [">", 100]}]}, {"a": 100.5}, {"a": 100}),
    "a range": ({"a": [{"numeric": [">=", 0, "<", 5]}]}, {"a": 0}, {"a": 5}),
    "a number, not its text": ({"a": [{"numeric": ["=", 5]}]}, {"a": 5.0}, {"a": "5"}),
    "exists": ({"a": [{"exists": True}]}, {"a": 1}, {"b": 1}),
    "does not exist": ({"a": [{"exists": False}]}, {"b": 1}, {"a": 1}),
    "or": (
        {"$or": [{"a": ["x"]}, {"b": [{"numeric": [">", 3]}]}]},
        {"a": "q", "b": 4},
        {"a": "q", "b": 3},
    ),
    "or beside and": (
        {"c": ["k"], "$or": [{"a": ["x"]}, {"b": ["y"]}]},
        {"c": "k", "b": "y"},
        {"c": "z", "b": "y"},
    ),
    "or in a nested field": ({"d": {"$or": [{"a": [1]}, {"b": [2]}]}}, {"d": {"b": 2}}, {"b": 2}),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_pattern_takes_what_it_means_and_nothing_else(
    case: str, config: AwsConfig, ports: Ports
) -> None:
    pattern, matching, other = CASES[case]
    await provision(topologies.shop({"source": ["shop"], "detail": pattern}), config)

    entries = [BusEntry("shop", "Event", json.dumps(detail)) for detail in (other, matching)]
    await ports.bus.put("shop", entries)
    deliveries = await ports.queues.receive("inventory", limit=10, wait=timedelta(seconds=2))

    assert [json.loads(delivery.body)["detail"] for delivery in deliveries] == [matching]
