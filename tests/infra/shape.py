"""Lets parliament look at policies: reads `{name: policy}` as JSON, and writes `{name: findings}`.

A process of its own, because parliament imports setuptools' `pkg_resources`, which warns where it
is still there. All it asks of that is where its own files are.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


def _resource_filename(package: str, name: str) -> str:
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).with_name(name))


def _about(detail: Any) -> list[str]:
    """The actions that a finding is about, or whatever else it says."""
    if isinstance(detail, list):
        return [str(each.get("action", each)) for each in detail]
    return [str(detail)]


def main() -> None:
    stand_in = ModuleType("pkg_resources")
    stand_in.resource_filename = _resource_filename  # type: ignore[attr-defined]  # it is one
    sys.modules["pkg_resources"] = stand_in
    parliament = import_module("parliament")
    found = {}
    for name, policy in json.load(sys.stdin).items():
        findings = parliament.analyze_policy_string(json.dumps(policy)).findings
        found[name] = [[each.issue, about] for each in findings for about in _about(each.detail)]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
