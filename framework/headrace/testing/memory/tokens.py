"""Client request tokens: which transactions were committed under which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from headrace.errors import Refused
from headrace.ports import Action, Clock, Put
from headrace.testing.expressions.values import copied_item

TOKEN_LIFE: Final = timedelta(minutes=10)
TOKEN_CHARACTERS: Final = 36


@dataclass(frozen=True, slots=True)
class _Committed:
    at: datetime
    actions: Sequence[Action]


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
        if known is not None and list(known.actions) != list(actions):
            raise _refused(
                "This token was used for other actions within ten minutes; take a new one.",
                "IdempotentParameterMismatchException",
            )
        return known is None

    def remember(self, token: str, actions: Sequence[Action]) -> None:
        """Only now that it was committed: whoever cancels one may use its token again."""
        self._committed[token] = _Committed(self._clock.now(), [_copied(a) for a in actions])

    def _forget(self) -> None:
        oldest = self._clock.now() - TOKEN_LIFE
        while self._committed:
            token, first = next(iter(self._committed.items()))
            if first.at > oldest:
                return
            del self._committed[token]


def _copied(action: Action) -> Action:
    """Safe from whoever changes the item that he has put."""
    return replace(action, item=copied_item(action.item)) if isinstance(action, Put) else action


def _refused(message: str, code: str) -> Refused:
    return Refused(message, operation="TransactWriteItems", code=code)
