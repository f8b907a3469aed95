"""What a commit refuses before it calls, and what a refusal of DynamoDB means."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from headrace.entity import VERSION_ATTRIBUTE as VERSION
from headrace.errors import (
    CancellationReason,
    Conflict,
    Throttled,
    TooLarge,
    TransactionCanceled,
)
from headrace.group import Overtaken, bytes_of
from headrace.limits import DYNAMODB_ITEM_BYTES, TRANSACTION_ACTIONS, TRANSACTION_BYTES
from headrace.ports import Action, ItemKey, Put
from headrace.record import KEY_PREFIX
from headrace.transaction import MUST_NOT_EXIST, Refusal, rests_on_version

_THROTTLES: Final = frozenset({"ThrottlingError", "ProvisionedThroughputExceeded"})


class NextInLine(Conflict):
    """Another delivery of this process came first; whoever tries again now makes progress."""


class Unmet(Conflict):
    """A condition that the handler itself set does not hold."""

    def __init__(self, message: str, refused: Sequence[Refusal]) -> None:
        super().__init__(message)
        self.refused = refused


def size_for_commit(actions: Sequence[Action]) -> int:
    """The bytes of a transaction; raises `TooLarge`, with the numbers, for what DynamoDB would
    refuse."""
    if len(actions) > TRANSACTION_ACTIONS:
        raise TooLarge(
            f"The handler writes {len(actions):,} items with its inbox record: one transaction "
            f"takes {TRANSACTION_ACTIONS}. Write fewer items, or "
            "split the work with commands.",
            size=len(actions),
            limit=TRANSACTION_ACTIONS,
        )
    total = 0
    for action in actions:
        size = bytes_of(action)
        if size > DYNAMODB_ITEM_BYTES and isinstance(action, Put):
            raise _too_large_item(action.key, size)
        total += size
    if total > TRANSACTION_BYTES:
        raise TooLarge(
            f"The handler writes {total:,} bytes: one transaction takes "
            f"{TRANSACTION_BYTES:,}. Write less, or split the work with commands.",
            size=total,
            limit=TRANSACTION_BYTES,
        )
    return total


def _too_large_item(key: ItemKey, size: int) -> TooLarge:
    is_record = key.pk.startswith(KEY_PREFIX)
    what = "The inbox record with its outgoing messages" if is_record else f"{key.table}/{key.pk}"
    return TooLarge(
        f"{what} has {size:,} bytes: a DynamoDB item holds {DYNAMODB_ITEM_BYTES:,}. Publish or "
        "write less, or put the bulk into S3 and keep where it is.",
        size=size,
        limit=DYNAMODB_ITEM_BYTES,
    )


def cause_of(
    canceled: TransactionCanceled, actions: Sequence[Action], conditional: Collection[ItemKey]
) -> Exception:
    """What a cancellation means when no inbox record stood in the way.

    `conditional` are the items whose condition is the handler's own.
    """
    failed = [
        (action, reason)
        for action, reason in zip(actions, canceled.reasons, strict=False)
        if reason is not None and reason.code != "None"
    ]
    codes = {reason.code for _, reason in failed}
    if codes & _THROTTLES:
        return Throttled(str(canceled), operation=canceled.operation, code=canceled.code)
    if not failed or not codes <= {"ConditionalCheckFailed", "TransactionConflict"}:
        return canceled
    refused = [
        Refusal(action, reason.item)
        for action, reason in failed
        if action.key in conditional and _is_refused(action, reason)
    ]
    if refused:
        key = refused[0].action.key
        return Unmet(f"The condition of the write to {key.table}/{key.pk} does not hold.", refused)
    kind = NextInLine if isinstance(canceled, Overtaken) else Conflict
    return kind(_conflict(*failed[0]))


def _is_refused(action: Action, reason: CancellationReason) -> bool:
    """Whether the handler's condition failed, and not the version it goes with."""
    if reason.code != "ConditionalCheckFailed" or action.condition is None:
        return False
    if action.condition.expression.startswith(f"({MUST_NOT_EXIST.expression}) AND"):
        return reason.item is None
    if not rests_on_version(action):
        return True
    wanted = action.condition.values.get(":_v")
    return reason.item is not None and reason.item.get(VERSION) == wanted


def _conflict(action: Action, reason: CancellationReason) -> str:
    name = f"{action.key.table}/{action.key.pk}"
    condition = action.condition.expression if action.condition else ""
    if reason.code == "ConditionalCheckFailed" and condition == MUST_NOT_EXIST.expression:
        return f"{name} exists already, but was put as new: read it with tx.get before tx.put."
    return f"{name} was changed by another writer between the handler's read and its commit."
