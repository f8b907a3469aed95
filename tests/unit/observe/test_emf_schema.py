"""The checker of EMF lines lets pass what the specification shows, and finds what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.unit.observe.emf_schema import UNITS, problems

GOOD: dict[str, Any] = {
    "_aws": {
        "Timestamp": 1_790_000_000_000,
        "CloudWatchMetrics": [
            {
                "Namespace": "functions",
                "Dimensions": [["version"], []],
                "Metrics": [{"Name": "time", "Unit": "Milliseconds", "StorageResolution": 60}],
            }
        ],
    },
    "version": "$LATEST",
    "time": [1, 2.5],
    "request": {"id": "989ffbf8"},
}


def written(document: Any) -> str:
    return json.dumps(document) + "\n"


def test_a_line_as_the_specification_shows_it_has_no_problem() -> None:
    assert problems(written(GOOD)) == []


def test_every_unit_of_cloudwatch_is_known() -> None:
    assert len(UNITS) == 27
    assert {"Kilobytes", "Terabits/Second", "None"} <= UNITS


BROKEN: dict[str, Callable[[Any, Any, Any], object]] = {
    "one metadata": lambda line, of, metric: line.pop("_aws"),
    "more metadata": lambda line, of, metric: line["_aws"].update(LogGroup="x"),
    "seconds": lambda line, of, metric: line["_aws"].update(Timestamp=1_790_000_000),
    "a fraction": lambda line, of, metric: line["_aws"].update(Timestamp=1.5e12),
    "no directive": lambda line, of, metric: line["_aws"].update(CloudWatchMetrics=[]),
    "no namespace": lambda line, of, metric: of.pop("Namespace"),
    "an empty namespace": lambda line, of, metric: of.update(Namespace=""),
    "no dimensions": lambda line, of, metric: of.update(Dimensions=[]),
    "a flat set": lambda line, of, metric: of.update(Dimensions=["version"]),
    "31 dimensions": lambda line, of, metric: of.update(Dimensions=[["version"] * 31]),
    "no dimension target": lambda line, of, metric: line.pop("version"),
    "a number as dimension": lambda line, of, metric: line.update(version=1),
    "a long dimension": lambda line, of, metric: line.update(version="x" * 1025),
    "an umlaut": lambda line, of, metric: line.update(version="ä"),
    "a colon": lambda line, of, metric: line.update(version=":x"),
    "blank": lambda line, of, metric: line.update(version=" "),
    "101 metrics": lambda line, of, metric: of.update(
        Metrics=[{"Name": f"m{n}"} for n in range(101)]
    ),
    "twice": lambda line, of, metric: of.update(Metrics=[metric, metric]),
    "a nameless metric": lambda line, of, metric: metric.pop("Name"),
    "a member too much": lambda line, of, metric: metric.update(Color="red"),
    "a strange unit": lambda line, of, metric: metric.update(Unit="Parsecs"),
    "a strange resolution": lambda line, of, metric: metric.update(StorageResolution=10),
    "no target": lambda line, of, metric: line.pop("time"),
    "an empty target": lambda line, of, metric: line.update(time=[]),
    "101 values": lambda line, of, metric: line.update(time=[1] * 101),
    "text as value": lambda line, of, metric: line.update(time="1"),
    "truth as value": lambda line, of, metric: line.update(time=True),
    "a nested target": lambda line, of, metric: line.update(time={"Values": [1], "Counts": [1]}),
    "1 MB": lambda line, of, metric: line.update(request="x" * 1_000_000),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_line_that_is_broken_has_a_problem(broken: str) -> None:
    line = deepcopy(GOOD)
    directive = line["_aws"]["CloudWatchMetrics"][0]
    BROKEN[broken](line, directive, directive["Metrics"][0])
    assert problems(written(line)) != []


@pytest.mark.parametrize("line", [json.dumps(GOOD), "[]\n", written(GOOD) * 2])
def test_what_is_not_one_object_on_one_line_is_a_problem(line: str) -> None:
    try:
        found = problems(line)
    except json.JSONDecodeError as error:
        found = [str(error)]
    assert found != []
