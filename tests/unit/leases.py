"""What a lease writes, told apart by what it does to the record."""

from __future__ import annotations

from headrace.ports import Action, Update


def claims(action: Action) -> bool:
    """Whether a lease is taken by this."""
    return isinstance(action, Update) and "holder" in action.names.values()


def renews(action: Action) -> bool:
    return isinstance(action, Update) and action.expression == "SET held_until = :until"


def releases(action: Action) -> bool:
    """Whether a lease is let go, or its handler's failure counted."""
    changes = ("held_until = :free", "REMOVE holder", "ADD failures")
    return isinstance(action, Update) and any(each in action.expression for each in changes)
