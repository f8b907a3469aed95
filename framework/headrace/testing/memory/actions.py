"""Writing actions: checked first, then tried on the item that stands there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from headrace.limits import DYNAMODB_ITEM_BYTES, PARTITION_KEY_BYTES, SORT_KEY_BYTES
from headrace.ports import Action, Condition, Item, ItemKey, Put, Update
from headrace.testing.expressions import (
    CannotUpdate,
    ConditionTree,
    Symbols,
    UpdateTree,
    holds,
    parse_condition,
    parse_update,
    updated,
)
from headrace.testing.expressions.values import invalid, item_bytes, stored

KEY_BYTES: Final = {"pk": PARTITION_KEY_BYTES, "sk": SORT_KEY_BYTES}
"""The key attributes of every table, and how long each may be in UTF-8."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """An action with its expressions read."""

    action: Action
    key: ItemKey
    condition: ConditionTree | None
    update: UpdateTree | None = None
    item: Item | None = None

    def allowed(self, old: Item | None) -> bool:
        """Whether the item that stands there, or none, meets the condition."""
        return self.condition is None or holds(self.condition, old or {})

    def applied(self, old: Item | None) -> Item | None:
        """The item afterwards. Raises `CannotUpdate` when the update does not go with it."""
        if self.update is None:
            return self.item
        if old is None and self.update.only_takes_away:
            return None
        new = updated(self.update, old or self.key.attributes())
        if item_bytes(new) > DYNAMODB_ITEM_BYTES:
            raise CannotUpdate("Item size to update has exceeded the maximum allowed size.")
        return new


def prepare(action: Action) -> Prepared:
    """Check an action by itself. Raises `Refused` as DynamoDB's ValidationException."""
    if isinstance(action, Put):
        item = stored_item(action.item)
        return Prepared(action, action.key, _condition_alone(action.condition), item=item)
    require_key(action.key.attributes())
    if isinstance(action, Update):
        return _prepare_update(action)
    return Prepared(action, action.key, _condition_alone(action.condition))


def _prepare_update(action: Update) -> Prepared:
    condition = action.condition or Condition("")
    symbols = Symbols(
        _merged(action.names, condition.names), _merged(action.values, condition.values)
    )
    update = parse_update(action.expression, symbols)
    tree = parse_condition(condition.expression, symbols) if action.condition else None
    symbols.require_all_used()
    for step in update.steps:
        if step.path.steps[0] in KEY_BYTES:
            raise invalid(f"An update cannot change {step.path}, which is part of the key.")
    return Prepared(action, action.key, tree, update=update)


def _condition_alone(condition: Condition | None) -> ConditionTree | None:
    if condition is None:
        return None
    symbols = Symbols(condition.names, condition.values)
    tree = parse_condition(condition.expression, symbols)
    symbols.require_all_used()
    return tree


def _merged(update: Mapping[str, _T], condition: Mapping[str, _T]) -> dict[str, _T]:
    """The request has one set of names and one of values for both expressions."""
    clashing = [name for name in update if condition.get(name, update[name]) != update[name]]
    if clashing:
        raise invalid(
            f"{clashing[0]} means one thing in the update and another in its condition; "
            "give each its own name."
        )
    return {**update, **condition}


def stored_item(item: Item) -> Item:
    """A copy of the item as DynamoDB keeps it. Raises `Refused` when it cannot be kept."""
    require_key(item)
    kept = {name: stored(value) for name, value in item.items()}
    if item_bytes(kept) > DYNAMODB_ITEM_BYTES:
        raise invalid("Item size has exceeded the maximum allowed size.")
    return kept


def require_key(item: Item) -> None:
    """Raises `Refused` unless both parts of the key are there and not too long."""
    for name, most in KEY_BYTES.items():
        text = item.get(name, {}).get("S", "")
        if not 1 <= len(text.encode()) <= most:
            raise invalid(f"The key attribute {name} must be text of 1 to {most} bytes.")
