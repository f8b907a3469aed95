"""What the body of a message says, for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from headrace.ports import Action, Check, Delete, Item, ItemKey, Put, Update
from headrace.record import KEY_PREFIX
from headrace.testing.letters import name_of


def ids_in(body: str) -> tuple[str, ...]:
    """The event id, and those of its cause and of the beginning, as far as there are any."""
    wire = _wire(body)
    detail = wire.get("detail") if isinstance(wire, dict) else None
    metadata = detail.get("metadata") if isinstance(detail, dict) else None
    if not isinstance(metadata, dict):
        return ()
    return ids_of(metadata)


def ids_of(metadata: dict[str, Any]) -> tuple[str, ...]:
    found = (metadata.get(name) for name in ("id", "causation_id", "correlation_id"))
    return tuple(dict.fromkeys(id for id in found if isinstance(id, str)))


def detail_body(detail: str) -> str:
    """The detail of an event as it stands in the body of a message."""
    return f'{{"detail":{detail}}}'


def ids_in_key(pk: str) -> tuple[str, ...]:
    """The event id in the key of an inbox record."""
    return (pk.rpartition("#")[2],) if pk.startswith(KEY_PREFIX) else ()


def described(action: Action) -> str:
    """What an action does to which item."""
    key = action.key
    name = key.pk if key.sk == "-" else f"{key.pk}/{key.sk}"
    if key.pk.startswith(KEY_PREFIX):
        return _record(action, key.pk)
    if isinstance(action, Put):
        return f"{name}{_fields(action.item)}"
    verb = {Update: "an update of", Delete: "the end of", Check: "a check of"}[type(action)]
    return f"{verb} {name}"


def _record(action: Action, pk: str) -> str:
    consumer = pk.removeprefix(KEY_PREFIX).rpartition("#")[0]
    if isinstance(action, Put):
        return f"the record of {consumer} ({action.item.get('status', {}).get('S', '')})"
    if isinstance(action, Update):
        taking = any(name.endswith("holder") for name in action.values)
        giving = action.values.get(":free") is not None
        what = "a lease" if taking else "the return of the lease" if giving else "a longer lease"
        return f"{what} of {consumer}"
    return f"the end of the record of {consumer}"


def subject_of_bodies(bodies: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """What a call about these messages is about."""
    found = list(bodies)
    about = dict.fromkeys(id for body in found for id in ids_in(body)[:1])
    return ", ".join(map(name_of, found)), tuple(about)


def subject_of_actions(actions: Iterable[Action]) -> tuple[str, tuple[str, ...]]:
    """What a call that writes is about."""
    found = list(actions)
    about = dict.fromkeys(id for action in found for id in ids_in_key(action.key.pk))
    return ", ".join(map(described, found)), tuple(about)


def read_as(key: ItemKey, item: Item | None) -> str:
    """What was found at a key."""
    if key.pk.startswith(KEY_PREFIX):
        status = "none" if item is None else item.get("status", {}).get("S", "")
        return f"the record of {key.pk.removeprefix(KEY_PREFIX).rpartition('#')[0]} ({status})"
    name = key.pk if key.sk == "-" else f"{key.pk}/{key.sk}"
    return f"{name} (nothing)" if item is None else f"{name}{_fields(item)}"


def _fields(item: Item) -> str:
    shown = [
        f"{name}={next(iter(value.values()))}"
        for name, value in item.items()
        if name not in ("pk", "sk") and not name.startswith("_") and value.keys() <= _PLAIN
    ]
    return f" ({', '.join(shown)})" if shown else ""


_PLAIN: Final = frozenset({"S", "N", "BOOL"})


def ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    teens = 10 < number % 100 < 20
    return f"{number}{'th' if teens else endings.get(number % 10, 'th')}"


def _wire(body: str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
