"""One protection less at a time.

Each of these takes something out of the library that keeps its promises. A simulation that does
not notice proves nothing when it is silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

import pytest

from headrace import batch, inbox, lease, outbox, pipeline, relay, settle, transaction
from headrace.errors import Conflict, DecodeError, TransactionCanceled
from headrace.inbox import Committed
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Action, Condition, Delivery, ItemKey, Put
from headrace.record import Record, Status
from headrace.testing import Faults, World
from services.simulation.shop import MAILS

Patch: TypeAlias = pytest.MonkeyPatch
Invariant: TypeAlias = Callable[[World], None]

ANYTHING: Final = Condition("attribute_exists(pk) OR attribute_not_exists(pk)")


@dataclass(frozen=True)
class Sabotage:
    """Something to take away. Most are found with everything going wrong; `faults` are others,
    and `invariants` what must hold beyond what holds in the shop anyway."""

    name: str
    apply: Callable[[Patch], None]
    faults: Faults = field(default_factory=Faults)
    invariants: tuple[Invariant, ...] = ()


def no_inbox_record(patch: Patch) -> None:
    """Nobody remembers that an event was handled."""
    patch.setattr(pipeline.Pipeline, "_inbox_of", lambda self, handler: self._unrecorded)


def ack_before_dispatch(patch: Patch) -> None:
    """The message is deleted while its events are still on their way."""
    dispatch = outbox.Outbox.dispatch
    under_way: set[asyncio.Task[None]] = set()

    async def soon(self: outbox.Outbox, outgoing: Sequence[Any]) -> None:
        sending = asyncio.create_task(_quietly(dispatch(self, outgoing)))
        under_way.add(sending)
        sending.add_done_callback(under_way.discard)

    patch.setattr(outbox.Outbox, "dispatch", soon)


async def _quietly(sending: Awaitable[None]) -> None:
    await asyncio.gather(sending, return_exceptions=True)


def ids_are_not_derived(patch: Patch) -> None:
    """What is sent again has another id, so that nobody can tell that it is the same."""
    serial = iter(range(1, 1_000_000))

    def another(consumer: str, event_id: str, place: str) -> str:
        return str(UUID(int=next(serial)))

    patch.setattr(pipeline, "derived_id", another)
    committed = inbox.Inbox.commit

    async def later(self: inbox.Inbox, record: Record, *args: Any, **options: Any) -> Committed:
        # As if the events were no part of the record, but made up by whoever goes on.
        found = await committed(self, record, *args, **options)
        if found.duplicate and not found.record.done:
            return replace(found, record=replace(found.record, outgoing=record.outgoing))
        return found

    patch.setattr(inbox.Inbox, "commit", later)


def no_version_check(patch: Patch) -> None:
    """The last one to write wins."""
    patch.setattr(transaction._Slot, "unchanged", lambda self: ANYTHING)


def no_fencing(patch: Patch) -> None:
    """Whoever has lost the lease commits all the same."""

    def unconditional(record: Record, holder: str) -> Put:
        return Put(record.key.table, record.as_item(), return_old=True)

    patch.setattr(inbox, "_completion", unconditional)


def lease_is_not_renewed(patch: Patch) -> None:
    """A handler that takes longer than its lease does not keep it."""

    async def never(self: lease.Lease, keeping: Any) -> None:
        await asyncio.Event().wait()

    patch.setattr(lease.Lease, "_renew_on", never)
    patch.setattr(lease.Lease, "_is_due", lambda self: False)


def done_mark_before_dispatch(patch: Patch) -> None:
    """The record says that everything is out before it is."""
    new_record = inbox.Inbox.new_record

    def done(self: inbox.Inbox, *args: Any, **options: Any) -> Record:
        return replace(new_record(self, *args, **options), status=Status.DONE)

    patch.setattr(inbox.Inbox, "new_record", done)


def delete_before_commit(patch: Patch) -> None:
    """The message is deleted as soon as it is received."""
    carry = batch.Batch._carry

    async def early(self: batch.Batch, delivery: Delivery) -> Outcome:
        await self._settle(delivery, Ack())
        return await carry(self, delivery)

    patch.setattr(batch.Batch, "_carry", early)


def letter_deleted_before_its_copy(patch: Patch) -> None:
    """A dead letter is deleted, and then written to its queue."""
    dead_letter = settle.Settler._dead_letter

    async def early(self: settle.Settler, delivery: Delivery, outcome: DeadLetter) -> Outcome:
        await self._delete(delivery)
        return await dead_letter(self, delivery, outcome)

    patch.setattr(settle.Settler, "_dead_letter", early)


def unconditional_claim(patch: Patch) -> None:
    """A record is written over whatever stands there."""
    claim = inbox.Inbox._claim
    patch.setattr(
        inbox.Inbox, "_claim", lambda self, record: replace(claim(self, record), condition=None)
    )


def bad_input_is_dropped(patch: Patch) -> None:
    """What nobody can read is acknowledged."""
    consume = pipeline.Pipeline.consume

    async def lenient(self: pipeline.Pipeline, delivery: Delivery) -> Outcome:
        outcome = await consume(self, delivery)
        unreadable = isinstance(outcome, DeadLetter) and isinstance(outcome.error, DecodeError)
        return Ack() if unreadable else outcome

    patch.setattr(pipeline.Pipeline, "consume", lenient)


def no_relay(patch: Patch) -> None:
    """Nobody sends what an HTTP request committed and did not send."""

    async def nothing(self: relay.Relay, **options: Any) -> int:
        return 0

    patch.setattr(relay.Relay, "sweep", nothing)


def record_expires_early(patch: Patch) -> None:
    """A record is forgotten while its message can still come again."""

    def soon(self: inbox.Inbox) -> int:
        return int((self._clock.now() + timedelta(seconds=5)).timestamp())

    patch.setattr(inbox.Inbox, "_expiry", soon)


def failed_entries_are_forgotten(patch: Patch) -> None:
    """A batch that was answered counts as sent, whatever the answer."""

    def all_sent(entries: Sequence[Any], failures: Sequence[Any]) -> list[Exception | None]:
        return [None] * len(entries)

    patch.setattr(outbox, "_answers", all_sent)


def retry_deletes(patch: Patch) -> None:
    """A message whose handler failed is taken for handled."""
    settled = settle.Settler.settle

    async def lenient(self: settle.Settler, delivery: Delivery, outcome: Outcome) -> Outcome:
        await settled(self, delivery, Ack() if isinstance(outcome, Retry) else outcome)
        return outcome

    patch.setattr(settle.Settler, "settle", lenient)


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

    async def apart(self: inbox.Inbox, actions: Sequence[Action], *, token: str) -> None:
        claim, *writes = actions
        await write(self, [claim], token=token)
        if writes:
            await self._group.transact(writes, token=f"w{token[1:]}")

    patch.setattr(inbox.Inbox, "_write", apart)


def dispatch_before_commit(patch: Patch) -> None:
    """Events are published before what they tell of stands."""
    commit = inbox.Inbox.commit
    outboxes: dict[int, outbox.Outbox] = {}
    made = pipeline.Pipeline.__init__

    def noted(self: pipeline.Pipeline, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        outboxes[id(self._inbox)] = self._outbox

    async def early(
        self: inbox.Inbox,
        record: Record,
        actions: Sequence[Action],
        *,
        conditional: Collection[ItemKey] = (),
        holder: str | None = None,
    ) -> Committed:
        if id(self) in outboxes:
            await outboxes[id(self)].dispatch(record.outgoing)
        return await commit(self, record, actions, conditional=conditional, holder=holder)

    patch.setattr(pipeline.Pipeline, "__init__", noted)
    patch.setattr(inbox.Inbox, "commit", early)


def a_mail_is_handed_in_once(aws: World) -> None:
    """Where no process dies or stands still and no call fails, a lease keeps every other delivery
    out while the mail is sent."""
    keys = [key for key, _ in aws.ledger(MAILS)]
    assert len(keys) == len(set(keys)), "two deliveries of one event sent their mail"


SABOTAGES: Final = (
    Sabotage("no inbox record", no_inbox_record),
    Sabotage("ack before dispatch", ack_before_dispatch),
    Sabotage("ids are not derived", ids_are_not_derived),
    Sabotage("no version check", no_version_check),
    Sabotage(
        "no fencing",
        no_fencing,
        Faults.only(pause=0.1, slow_handler=0.3, duplicate=0.3, expiry=0.3),
    ),
    Sabotage(
        "lease is not renewed",
        lease_is_not_renewed,
        Faults.only(slow_handler=0.5, duplicate=0.3),
        (a_mail_is_handed_in_once,),
    ),
    Sabotage("done-mark before dispatch", done_mark_before_dispatch),
    Sabotage("delete before commit", delete_before_commit),
    Sabotage("letter deleted before its copy", letter_deleted_before_its_copy),
    Sabotage("unconditional claim", unconditional_claim),
    Sabotage("bad input is dropped", bad_input_is_dropped),
    Sabotage("no relay", no_relay),
    Sabotage("record expires early", record_expires_early),
    Sabotage("failed entries are forgotten", failed_entries_are_forgotten),
    Sabotage("retry deletes", retry_deletes),
    Sabotage("conflict counts as success", conflict_counts_as_success),
    Sabotage("record apart from writes", record_apart_from_writes),
    Sabotage("dispatch before commit", dispatch_before_commit),
)
