"""Group commit: the transactions of deliveries that end together, in one call.

What several deliveries want written goes into one TransactWriteItems, as long as no item is
named twice. DynamoDB says for each action why it failed; so when a group is cancelled, those
that failed leave it, and the others go again without them.

    1..10  ten deliveries, ten claims and their writes   one call
    3      its item was changed meanwhile                the call is cancelled, 3 is told why
    1..10  without 3                                     one call
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.attributes import size_of
from headrace.coalesce import Coalescer
from headrace.errors import (
    CancellationReason,
    CloudError,
    NotProvisioned,
    Refused,
    TransactionCanceled,
)
from headrace.limits import TRANSACTION_ACTIONS, TRANSACTION_BYTES
from headrace.ports import Action, Check, Delete, ItemKey, Put, Randomness, Store, Update
from headrace.text import text_size
from headrace.transaction import MUST_NOT_EXIST, rests_on_version

_BYTES_PER_ACTION: Final = TRANSACTION_BYTES // TRANSACTION_ACTIONS


class Overtaken(TransactionCanceled):
    """Another transaction of this process has just written what this one read; nobody was asked."""


@dataclass(eq=False, slots=True)
class _Unit:
    """What one delivery wants written, all of it or nothing."""

    actions: Sequence[Action]
    token: str
    size: int
    items: Sequence[ItemKey]
    settled: asyncio.Event
    left: bool = False
    written: bool = False

    def weight(self) -> int:
        """Of a group's room: what it takes by bytes or by actions, whichever is more."""
        return max(self.size, len(self.actions) * _BYTES_PER_ACTION)


class GroupCommit:
    """Joins transactions that are handed over within a few milliseconds.

    `together=False` sends each by itself. `committed` is told how many each call wrote.
    """

    def __init__(
        self,
        store: Store,
        randomness: Randomness,
        *,
        together: bool = True,
        committed: Callable[[int], None] = lambda transactions: None,
    ) -> None:
        self._store = store
        self._randomness = randomness
        self._together = together
        self._committed = committed
        self._at_work: dict[ItemKey, _Unit] = {}
        self._groups: Coalescer[_Unit, None] = Coalescer(
            self._commit,
            # One unit too heavy for a group leaves as a group of its own.
            max_entries=TRANSACTION_ACTIONS,
            max_weight=TRANSACTION_BYTES,
            weigh=_Unit.weight,
            withdraws=True,
        )

    async def transact(
        self, actions: Sequence[Action], *, token: str, size: int | None = None
    ) -> None:
        """Write these actions, all or none; `size` is what `bytes_of` them adds up to, where known.

        Raises as `Store.transact` does, with a reason for each of them when they were cancelled.
        Whoever is cancelled before the group has left writes nothing.
        """
        if not self._together:
            await self._store.transact(actions, token=token)
            self._committed(1)
            return
        items = [action.key for action in actions]
        if size is None:
            size = sum(map(bytes_of, actions))
        unit = _Unit(actions, token, size, items, asyncio.Event())
        await self._turn(unit)
        self._at_work |= dict.fromkeys(unit.items, unit)
        try:
            await self._groups.add(unit)
        finally:
            # One that has left goes on without its caller, and keeps its items until it ends.
            if not unit.left:
                self._end(unit)

    async def flush(self) -> None:
        await self._groups.flush()

    async def _turn(self, unit: _Unit) -> None:
        """Wait until no other transaction here is writing an item of this one.

        Two transactions on one item would cancel each other. Raises at once, without a call,
        if one of those that were waited for has changed what this one read.
        """
        while ahead := dict.fromkeys(self._at_work[k] for k in unit.items if k in self._at_work):
            for other in ahead:
                await other.settled.wait()
                if other.written and (late := _overtaken(unit, other)):
                    raise Overtaken(late)

    def _end(self, unit: _Unit) -> None:
        for key in unit.items:
            if self._at_work.get(key) is unit:
                del self._at_work[key]
        unit.settled.set()

    async def _commit(self, units: Sequence[_Unit]) -> list[Exception | None]:
        for unit in units:
            unit.left = True
        try:
            answers = await self._answers(units)
        finally:
            for unit in units:
                self._end(unit)
        return [answers[unit] for unit in units]

    async def _answers(self, units: Sequence[_Unit]) -> dict[_Unit, Exception | None]:
        """One call for all; as long as it is cancelled, one for those that had nothing against
        them."""
        answers: dict[_Unit, Exception | None] = {}
        left = list(units)
        while left:
            try:
                await self._transact(left)
            except (TransactionCanceled, Refused, NotProvisioned) as error:
                failed = _shared_out(error, left)
                if not failed:
                    # For the fault of one, perhaps: each answers for itself.
                    alone = len(left) == 1
                    return answers | ({left[0]: error} if alone else await self._singly(left))
                answers |= failed
                left = [unit for unit in left if unit not in failed]
            except CloudError as error:
                return answers | dict.fromkeys(left, error)
            else:
                return answers | dict.fromkeys(left)
        return answers

    async def _singly(self, units: Sequence[_Unit]) -> dict[_Unit, Exception | None]:
        answers = await asyncio.gather(*map(self._alone, units))
        return dict(zip(units, answers, strict=True))

    async def _alone(self, unit: _Unit) -> Exception | None:
        try:
            await self._transact([unit])
        except CloudError as error:
            return error
        return None

    async def _transact(self, units: Sequence[_Unit]) -> None:
        # A group that goes again without some is another request, and so is one with others in it:
        # under one token DynamoDB would refuse it.
        token = units[0].token if len(units) == 1 else str(self._randomness.uuid())
        actions = [action for unit in units for action in unit.actions]
        await self._store.transact(actions, token=token)
        for unit in units:
            unit.written = True
        self._committed(len(units))


def bytes_of(action: Action) -> int:
    """Roughly what DynamoDB counts of an action towards the 4 MB of a transaction."""
    if isinstance(action, Put):
        return size_of(action.item)
    changed = size_of(dict(action.values)) if isinstance(action, Update) else 0
    return changed + text_size(action.key.pk) + text_size(action.key.sk)


def _overtaken(unit: _Unit, other: _Unit) -> list[CancellationReason | None] | None:
    """What DynamoDB would answer, if all that they share are items that `other` wrote and `unit`
    wants as it has read them. A record that both claim is not among these: it has more to tell."""
    ahead = {action.key: action for action in other.actions}
    shared = [action for action in unit.actions if action.key in ahead]
    if not all(_fails_after(action, ahead[action.key]) for action in shared):
        return None
    failed = CancellationReason("ConditionalCheckFailed", "It was written here a moment ago.")
    return [failed if action.key in ahead else None for action in unit.actions]


def _fails_after(action: Action, ahead: Action) -> bool:
    if isinstance(ahead, Check):
        return False
    # The very condition of a transaction that found nothing; one that a handler wrote itself is
    # answered with the item that stood in the way.
    found_nothing = action.condition is MUST_NOT_EXIST and not isinstance(ahead, Delete)
    return found_nothing or rests_on_version(action)


def _shared_out(error: CloudError, units: Sequence[_Unit]) -> dict[_Unit, Exception]:
    """The units that failed, each with the reasons for its own actions; none, if nothing says
    which they are."""
    failed: dict[_Unit, Exception] = {}
    if not isinstance(error, TransactionCanceled):
        return failed
    start = 0
    for unit in units:
        reasons = error.reasons[start : start + len(unit.actions)]
        start += len(unit.actions)
        if any(reason is not None and reason.code != "None" for reason in reasons):
            failed[unit] = TransactionCanceled(reasons, operation=error.operation)
    return failed
