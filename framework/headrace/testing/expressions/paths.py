"""Finding and changing what a document path points at."""

from __future__ import annotations

from typing import Any

from headrace.errors import HeadraceError
from headrace.ports import AttributeValue, Item
from headrace.testing.expressions.syntax import Path


class CannotUpdate(HeadraceError):
    """The update does not go with the item as it stands (DynamoDB's ValidationError)."""


def look_up(item: Item, path: Path) -> AttributeValue | None:
    """The value at the path, or None."""
    found: AttributeValue | None = {"M": item}
    for step in path.steps:
        found = _step(found, step) if found is not None else None
    return found


def _step(value: AttributeValue, step: str | int) -> AttributeValue | None:
    if isinstance(step, str):
        inner: AttributeValue | None = value.get("M", {}).get(step)
        return inner
    elements: list[AttributeValue] = value.get("L", [])
    return elements[step] if step < len(elements) else None


def assign(item: Item, path: Path, value: AttributeValue) -> None:
    """Put the value at the path; past the end of a list it is appended."""
    parent, last = _parent(item, path)
    if isinstance(parent, list) and isinstance(last, int) and last >= len(parent):
        parent.append(value)
    else:
        parent[last] = value


def remove(item: Item, path: Path) -> None:
    """Take away what is at the path, if something is."""
    parent, last = _parent(item, path)
    if isinstance(parent, dict):
        parent.pop(last, None)
    elif last < len(parent):
        del parent[last]


def _parent(item: Item, path: Path) -> tuple[Any, Any]:
    """The map or list that holds the last step. Raises `CannotUpdate` without one."""
    *before, last = path.steps
    holder = look_up(item, Path(tuple(before))) or {}
    container = holder.get("M" if isinstance(last, str) else "L")
    if container is None:
        raise CannotUpdate(f"The document path {path} in the update is invalid for this item.")
    return container, last
