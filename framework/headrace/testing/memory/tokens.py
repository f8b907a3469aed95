"""Client request tokens: which transactions were committed under which."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from headrace.errors import Refused
from headrace.ports import Action, Clock

TOKEN_LIFE: Final = timedelta(minutes=10)
TOKEN_CHARACTERS: Final = 36


@dataclass(frozen=True, slots=True)
class _Committed:
    at: datetime
    actions: str


class Tokens:
    """The tokens of the last ten minutes. Only a transaction that was committed leaves one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._committed: dict[str, _Committed] = {}

    def is_new(self, token: str, actions: Sequence[Action]) -> bool:
        """False when just this was committed under the token before. Raises `Refused` when
        something else was."""
        if not 1 <= len(token) <= TOKEN_CHARACTERS:
            raise _refused(
                f"A token has 1 to {TOKEN_CHARACTERS} characters.", "ValidationException"
            )
        self._forget()
        known = self._committed.get(token)
        if known is not None and known.actions != _digest(actions):
            raise _refused(
                "This token was used for other actions within ten minutes; take a new one.",
                "IdempotentParameterMismatchException",
            )
        return known is None

    def remember(self, token: str, actions: Sequence[Action]) -> None:
        self._committed[token] = _Committed(self._clock.now(), _digest(actions))

    def _forget(self) -> None:
        oldest = self._clock.now() - TOKEN_LIFE
        while self._committed:
            token, first = next(iter(self._committed.items()))
            if first.at > oldest:
                return
            del self._committed[token]


def _refused(message: str, code: str) -> Refused:
    return Refused(message, operation="TransactWriteItems", code=code)


def _digest(actions: Sequence[Action]) -> str:
    return sha256(repr([_frozen(action) for action in actions]).encode()).hexdigest()


def _frozen(value: object) -> Hashable:
    """The same for the same parameters, whatever the order of their mappings."""
    if is_dataclass(value):
        parts = [(part.name, _frozen(getattr(value, part.name))) for part in fields(value)]
        return type(value).__name__, tuple(parts)
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(inner)) for key, inner in value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return repr(value)
