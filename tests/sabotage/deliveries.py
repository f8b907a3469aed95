"""Taking away what gives each delivery the end that is due to it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from headrace import batch, invoke, pipeline, settle
from headrace.errors import DecodeError, SchemaMismatch, UnsupportedVersion
from headrace.events import Message
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Delivery
from headrace.service import Handler
from tests.sabotage.sabotage import Patch


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


def retry_deletes(patch: Patch) -> None:
    """A message whose handler failed is taken for handled."""
    settled = settle.Settler.settle

    async def lenient(self: settle.Settler, delivery: Delivery, outcome: Outcome) -> Outcome:
        await settled(self, delivery, Ack() if isinstance(outcome, Retry) else outcome)
        return outcome

    patch.setattr(settle.Settler, "settle", lenient)


def bad_input_is_dropped(patch: Patch) -> None:
    """What nobody can read is acknowledged."""
    _acknowledged(patch, DecodeError)


def mismatch_is_dropped(patch: Patch) -> None:
    """What is not as its type is written is acknowledged."""
    _acknowledged(patch, SchemaMismatch)


def future_version_is_dropped(patch: Patch) -> None:
    """What a newer version has written is acknowledged."""
    _acknowledged(patch, UnsupportedVersion)


def _acknowledged(patch: Patch, kind: type[DecodeError]) -> None:
    consume = pipeline.Pipeline.consume

    async def lenient(self: pipeline.Pipeline, delivery: Delivery) -> Outcome:
        outcome = await consume(self, delivery)
        unreadable = isinstance(outcome, DeadLetter) and isinstance(outcome.error, kind)
        return Ack() if unreadable else outcome

    patch.setattr(pipeline.Pipeline, "consume", lenient)


def where_is_not_asked_again(patch: Patch) -> None:
    """A handler gets what another one of its queue has asked for."""

    def by_type(self: Handler, message: Message) -> bool:
        return type(message) in self.takes

    patch.setattr(Handler, "accepts", by_type)


def timeout_is_ignored(patch: Patch) -> None:
    """A handler that never ends is waited for."""

    async def patient(handler: Handler, run: Awaitable[Any]) -> Any:
        return await run

    patch.setattr(invoke, "_in_time", patient)


def group_goes_on_past_a_failure(patch: Patch) -> None:
    """A message of a FIFO queue is handled though the one before it has failed."""

    async def run_lane(
        self: batch.Batch, lane: batch.Lane, outcomes: dict[str, Outcome] | None = None
    ) -> None:
        while lane.left:
            await self._carry(lane.left[0])
            lane.left.popleft()

    patch.setattr(batch.Batch, "run_lane", run_lane)
