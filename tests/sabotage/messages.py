"""Taking away what gets each message out, and as the same one each time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from headrace import entries, inbox, outbox, pipeline, relay
from headrace.envelope import Metadata, caused_metadata, derived_id
from headrace.events import Message
from headrace.inbox import Committed
from headrace.ports import Action, ItemKey
from headrace.record import Record, Status
from tests.sabotage.sabotage import Patch


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


def done_mark_before_dispatch(patch: Patch) -> None:
    """The record says that everything is out before it is."""
    new_record = inbox.Inbox.new_record

    def done(self: inbox.Inbox, *args: Any, **options: Any) -> Record:
        return replace(new_record(self, *args, **options), status=Status.DONE)

    patch.setattr(inbox.Inbox, "new_record", done)


def failed_entries_are_forgotten(patch: Patch) -> None:
    """A batch that was answered counts as sent, whatever the answer."""

    def all_taken(count: int, failures: Sequence[Any]) -> list[Exception | None]:
        return [None] * count

    patch.setattr(entries, "_aligned", all_taken)


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


def no_relay(patch: Patch) -> None:
    """Nobody sends what an HTTP request committed and did not send."""

    async def nothing(self: relay.Relay, **options: Any) -> int:
        return 0

    patch.setattr(relay.Relay, "sweep", nothing)


def ids_without_their_consumer(patch: Patch) -> None:
    """What two handlers send because of one event has one id."""

    def of_nobody(consumer: str, event_id: str, place: str) -> str:
        return derived_id("", event_id, place)

    patch.setattr(pipeline, "derived_id", of_nobody)


def sent_before_it_is(patch: Patch) -> None:
    """A second delivery takes for sent what the first one is sending."""
    commit = inbox.Inbox.commit

    async def early(self: inbox.Inbox, record: Record, *args: Any, **options: Any) -> Committed:
        committed = await commit(self, record, *args, **options)
        if not committed.record.done:
            self._sent.add(committed.record.key)
        return committed

    patch.setattr(inbox.Inbox, "commit", early)


def what_another_left_is_not_sent(patch: Patch) -> None:
    """Whoever finds the record of another delivery takes its events for sent."""
    commit = inbox.Inbox.commit

    async def content(self: inbox.Inbox, *args: Any, **options: Any) -> Committed:
        committed = await commit(self, *args, **options)
        if not committed.duplicate:
            return committed
        return replace(committed, record=replace(committed.record, outgoing=(), status=Status.DONE))

    patch.setattr(inbox.Inbox, "commit", content)


def correlation_is_lost(patch: Patch) -> None:
    """Every message begins a correlation of its own."""

    def alone(message: Message, *, id: str, **rest: Any) -> Metadata:
        metadata = caused_metadata(message, id=id, **rest)
        return metadata.model_copy(update={"correlation_id": id})

    patch.setattr(pipeline, "caused_metadata", alone)
