"""Who may import whom. A module imports lower layers, and its own package, and nothing else.

The layers are the whole plan of the house: a new module is named here first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "framework" / "headrace"

LAYERS = (
    ("errors", "outcome", "limits", "text"),
    ("events", "fields", "ports", "trace"),
    (
        *("envelope", "system", "attributes", "cancelling", "coalesce", "entries", "retrying"),
        "schedules",
        *("topology.model", "testing.expressions", "testing.patterns"),
    ),
    (
        *("aws", "dead_letter", "context", "policy", "filters", "observer", "tracing", "entity"),
        *("testing.memory", "testing.deliveries", "testing.runtime_api"),
    ),
    ("observe", "codec", "expressions", "record"),
    ("transaction",),
    ("reads", "group"),
    ("parking",),
    ("yard",),
    ("commit",),
    ("middleware",),
    ("service",),
    ("saga",),
    ("inbox", "outbox", "invoke", "topology"),
    ("lease",),
    ("pipeline",),
    ("client", "connection", "relay"),
    ("turns",),
    ("batch", "settle", "dlq"),
    ("hosts",),
    ("testing.letters",),
    ("testing.harness", "testing.simulation"),
    ("cost",),
    ("", "cli", "testing"),
    ("cdk",),
)
"""From the ground up. A name covers the package of that name; `""` is `headrace` itself."""

CALLS_AWS = "aws"
AWS_LIBRARIES = {"aiobotocore", "botocore", "boto3", "localstack_client"}


def modules(folder: Path, package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        yield f"{package}.{name}".rstrip("."), path


def imports(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Every module that a source imports, wherever the import stands; relative ones resolved."""
    base = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = base[: len(base) - node.level + 1] if node.level else []
            target = ".".join([*start, *filter(None, [node.module])])
            yield target
            yield from (f"{target}.{alias.name}" for alias in node.names)


def place(name: str) -> tuple[int, str] | None:
    """The layer of a module and the entry that covers it; the longest entry wins."""
    entries = ((level, entry) for level, layer in enumerate(LAYERS) for entry in layer)
    covering = [
        (level, entry) for level, entry in entries if name == entry or name.startswith(f"{entry}.")
    ]
    return max(covering, key=lambda found: len(found[1]), default=None)


def violations(importer: str, imported: Iterable[str]) -> list[str]:
    """What a library module imports against the plan; names without the leading `headrace.`."""
    here = place(importer)
    if here is None:
        return [f"{importer} has no layer: name it in LAYERS"]
    found = []
    for name in imported:
        there = place(name)
        if there is None or there[1] == here[1]:
            continue
        if there[0] >= here[0]:
            found.append(f"{importer} (layer {here[0]}) imports {name} (layer {there[0]})")
    return found


def library_imports() -> dict[str, set[str]]:
    """The imports within the library, by module, without the leading `headrace.`."""
    known = {name.removeprefix("headrace").lstrip(".") for name, _ in modules(LIBRARY, "headrace")}
    found = {}
    for name, path in modules(LIBRARY, "headrace"):
        source, package = path.read_text(), path.name == "__init__.py"
        inner = {
            target.removeprefix("headrace").lstrip(".")
            for target in imports(source, name, is_package=package)
            if target == "headrace" or target.startswith("headrace.")
        }
        found[name.removeprefix("headrace").lstrip(".")] = (inner & known) - {""}
    return found


def test_no_module_of_the_library_imports_upwards() -> None:
    found = [v for name, targets in library_imports().items() for v in violations(name, targets)]
    assert found == []


def test_every_layer_names_only_modules_that_exist() -> None:
    known = set(library_imports())
    assert {entry for layer in LAYERS for entry in layer} <= known


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("ports", "pipeline"), ("codec", "service"), ("aws.sqs", "pipeline"), ("pipeline", "hosts")],
)
def test_an_upward_import_is_a_violation(importer: str, imported: str) -> None:
    assert violations(importer, [imported]) != []


def test_a_module_without_a_layer_is_a_violation() -> None:
    assert violations("utilities", []) == ["utilities has no layer: name it in LAYERS"]


def test_only_the_aws_package_imports_an_aws_library() -> None:
    offenders = [
        name
        for name, path in modules(LIBRARY, "headrace")
        if not name.startswith(f"headrace.{CALLS_AWS}")
        and AWS_LIBRARIES
        & {
            target.split(".")[0]
            for target in imports(path.read_text(), name, is_package=path.name == "__init__.py")
        }
    ]
    assert offenders == []


def test_services_never_import_each_other() -> None:
    services = {"order", "inventory", "notification"}
    offenders = []
    for name, path in modules(ROOT / "services", "services"):
        own = name.split(".")[1] if "." in name else ""
        if own not in services:
            continue
        for target in imports(path.read_text(), name, is_package=path.name == "__init__.py"):
            parts = target.split(".")
            if parts[0] == "services" and len(parts) > 1 and parts[1] in services - {own}:
                offenders.append(f"{name} imports {target}")
    assert offenders == []


def test_contracts_depend_on_nothing_but_the_library() -> None:
    offenders = [
        f"{name} imports {target}"
        for name, path in modules(ROOT / "schemas", "schemas")
        for target in imports(path.read_text(), name, is_package=path.name == "__init__.py")
        if target.split(".")[0] in {"services", "infra", "tests"}
    ]
    assert offenders == []
