"""What the specification of the embedded metric format allows on a line, and nothing else.

Source: "Specification: Embedded metric format" and its JSON schema, Amazon CloudWatch User Guide,
CloudWatch_Embedded_Metric_Format_Specification.html, read in November 2026. Where the text is
stricter than the schema (100 values, no further members, targets that exist), the text holds; for
the value of a dimension, the API reference of CloudWatch's Dimension does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

_SCALES: Final = ("", "Kilo", "Mega", "Giga", "Tera")
_SIZES: Final = [f"{scale}{unit}".capitalize() for unit in ("bytes", "bits") for scale in _SCALES]
UNITS: Final = frozenset(
    [
        *("Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "Count/Second", "None"),
        *_SIZES,
        *(f"{size}/Second" for size in _SIZES),
    ]
)
MOST_BYTES: Final = 1_000_000
MOST_METRICS: Final = 100
MOST_VALUES: Final = 100
MOST_DIMENSIONS: Final = 30

_DIRECTIVE: Final = {"Namespace", "Dimensions", "Metrics"}
_DEFINITION: Final = {"Name", "Unit", "StorageResolution"}


def problems(line: str) -> list[str]:
    """Everything that is wrong with a line as it was written."""
    return list(_of_line(line))


def _of_line(line: str) -> Iterator[str]:
    if not line.endswith("\n") or len(line.splitlines()) != 1:
        yield "it is not one line"
    if len(line.encode()) > MOST_BYTES:
        yield "it has more than 1 MB"
    document = json.loads(line)
    if not isinstance(document, dict):
        yield "it is no object"
        return
    metadata = document.get("_aws")
    if not isinstance(metadata, dict) or metadata.keys() != {"Timestamp", "CloudWatchMetrics"}:
        yield "_aws has not just a Timestamp and CloudWatchMetrics"
        return
    yield from _of_timestamp(metadata["Timestamp"])
    directives = metadata["CloudWatchMetrics"]
    if not isinstance(directives, list) or not directives:
        yield "CloudWatchMetrics is no list, or has nothing"
        return
    for directive in directives:
        yield from _of_directive(directive, document)


def _of_timestamp(timestamp: object) -> Iterator[str]:
    # In seconds it would be in January 1970.
    if type(timestamp) is not int or not 10**12 <= timestamp < 10**13:
        yield f"the Timestamp {timestamp!r} is no time in milliseconds"


def _of_directive(directive: Any, document: dict[str, Any]) -> Iterator[str]:
    if not isinstance(directive, dict) or directive.keys() != _DIRECTIVE:
        yield "a directive has not just a Namespace, Dimensions and Metrics"
        return
    if not _is_text(directive["Namespace"], 1024):
        yield "the Namespace is not text of 1 to 1024 characters"
    sets, metrics = directive["Dimensions"], directive["Metrics"]
    if not isinstance(sets, list) or not sets:
        yield "there is no DimensionSet"
    for dimensions in sets:
        yield from _of_dimensions(dimensions, document)
    if not isinstance(metrics, list) or len(metrics) > MOST_METRICS:
        yield "Metrics is no list, or has more than 100"
        return
    names = [metric.get("Name") for metric in metrics]
    if len(set(names)) != len(names):
        yield "a metric is defined twice"
    for metric in metrics:
        yield from _of_metric(metric, document)


def _of_dimensions(dimensions: Any, document: dict[str, Any]) -> Iterator[str]:
    if not isinstance(dimensions, list) or len(dimensions) > MOST_DIMENSIONS:
        yield "a DimensionSet is no list, or has more than 30"
        return
    for name in dimensions:
        if not _is_text(name, 250):
            yield f"the dimension {name!r} is not named by 1 to 250 characters"
        value: Any = document.get(name)
        if not _is_text(value, 1024) or not value.isascii() or not value.isprintable():
            yield f"the value of the dimension {name} is not text of 1 to 1024 ASCII characters"
        elif not value.strip() or value.startswith(":"):
            yield f"the value of the dimension {name} is blank, or begins with a colon"


def _of_metric(metric: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    name: Any = metric.get("Name")
    if not _is_text(name, 1024):
        yield f"the metric {name!r} is not named by 1 to 1024 characters"
    if not metric.keys() <= _DEFINITION:
        yield f"the definition of {name} has other members"
    if metric.get("Unit", "None") not in UNITS:
        yield f"the unit of {name} is none of CloudWatch"
    if metric.get("StorageResolution", 60) not in (1, 60):
        yield f"the resolution of {name} is neither 1 nor 60"
    target = document.get(name)
    values = target if isinstance(target, list) else [target]
    if not 1 <= len(values) <= MOST_VALUES:
        yield f"{name} has {len(values)} values"
    if not all(_is_number(value) for value in values):
        yield f"{name} is not of numbers"


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and re.fullmatch(rf".{{1,{most}}}", value) is not None


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]  # a number
