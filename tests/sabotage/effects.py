"""Taking away what makes an event take effect once, and whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from headrace import group, inbox, pipeline, transaction
from headrace.entity import Entity
from headrace.errors import CloudError, Conflict, TransactionCanceled
from headrace.inbox import Committed
from headrace.ports import Action, Condition, ItemKey
from headrace.record import Record
from tests.sabotage.sabotage import Patch

ANYTHING: Final = Condition("attribute_exists(pk) OR attribute_not_exists(pk)")


def no_inbox_record(patch: Patch) -> None:
    """Nobody remembers that an event was handled."""
    patch.setattr(pipeline.Pipeline, "_inbox_of", lambda self, handler: self._unrecorded)


def no_version_check(patch: Patch) -> None:
    """The last one to write wins."""
    patch.setattr(transaction._Slot, "unchanged", lambda self: ANYTHING)


def unconditional_claim(patch: Patch) -> None:
    """A record is written over whatever stands there."""
    claim = inbox.Inbox._claim
    patch.setattr(
        inbox.Inbox, "_claim", lambda self, record: replace(claim(self, record), condition=None)
    )


def record_expires_early(patch: Patch) -> None:
    """A record is forgotten while its message can still come again."""

    def soon(self: inbox.Inbox, trail: object = None) -> int:
        return int((self._clock.now() + timedelta(seconds=5)).timestamp())

    patch.setattr(inbox.Inbox, "_expiry", soon)


def conflict_counts_as_success(patch: Patch) -> None:
    """A transaction that was cancelled is taken for committed."""
    commit = inbox.Inbox.commit

    async def lenient(
        self: inbox.Inbox, record: Record, actions: Sequence[Action], **options: Any
    ) -> Committed:
        try:
            return await commit(self, record, actions, **options)
        except (Conflict, TransactionCanceled):
            return Committed(record)

    patch.setattr(inbox.Inbox, "commit", lenient)


def record_apart_from_writes(patch: Patch) -> None:
    """The record is written first, and the state in a call of its own."""
    write = inbox.Inbox._write

    async def apart(self: inbox.Inbox, actions: Sequence[Action], *, token: str, size: int) -> None:
        claim, *writes = actions
        await write(self, [claim], token=token, size=size)
        if writes:
            await self._group.transact(writes, token=f"w{token[1:]}")

    patch.setattr(inbox.Inbox, "_write", apart)


def one_record_for_all_handlers(patch: Patch) -> None:
    """The first handler of a service speaks for the others."""
    key = inbox.Inbox.key

    def per_service(self: inbox.Inbox, consumer: str, event_id: str) -> ItemKey:
        return key(self, consumer.partition(".")[0], event_id)

    patch.setattr(inbox.Inbox, "key", per_service)


def reasons_for_the_wrong_ones(patch: Patch) -> None:
    """A group that is cancelled tells each transaction why another one of it was."""
    shared_out = group._shared_out

    def backwards(error: CloudError, units: Sequence[Any]) -> dict[Any, Exception]:
        return shared_out(error, list(reversed(units)))

    patch.setattr(group, "_shared_out", backwards)


def new_item_over_another(patch: Patch) -> None:
    """What was not there when it was looked for is put over what is there now."""
    unchanged = transaction._Slot.unchanged

    def blind(self: transaction._Slot) -> Condition:
        condition = unchanged(self)
        return ANYTHING if condition is transaction.MUST_NOT_EXIST else condition

    patch.setattr(transaction._Slot, "unchanged", blind)


def condition_of_an_update_is_ignored(patch: Patch) -> None:
    """What `tx.update` is to change is changed, whatever it asks for."""
    update = transaction.Transaction.update

    def unconditional(
        self: transaction.Transaction,
        cls: type[Entity],
        *key: Any,
        condition: str | None = None,
        **rest: Any,
    ) -> None:
        update(self, cls, *key, **rest)

    patch.setattr(transaction.Transaction, "update", unconditional)
