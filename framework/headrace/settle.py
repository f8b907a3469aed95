"""Carrying out an outcome: delete, hide for a while, or copy to the dead-letter queue."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from headrace.coalesce import Coalescer
from headrace.dead_letter import NOTE_ATTRIBUTE, note
from headrace.errors import CloudError, HeadraceError, Refused, Throttled
from headrace.limits import SQS_ATTRIBUTES, SQS_BATCH_ENTRIES, SQS_MAX_VISIBILITY, SQS_MESSAGE_BYTES
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Attribute, Clock, Delivery, EntryFailure, QueueEntry, Queues
from headrace.text import shown
from headrace.topology.model import dead_letter_queue

logger = logging.getLogger(__name__)

Entry = TypeVar("Entry")

_LONGEST_DELAY = SQS_MAX_VISIBILITY - timedelta(minutes=30)
"""The 12 hours run from the receive, and asking for more than is left of them is an error: this
leaves room for a batch window and a slow handler."""


class Settler:
    """Settles the deliveries of one service.

    `deletes` is off on Lambda, which deletes by itself what is not reported as failed.
    """

    def __init__(self, queues: Queues, clock: Clock, *, deletes: bool) -> None:
        self._queues = queues
        self._clock = clock
        self._deletes = deletes
        self._deleting: dict[str, Coalescer[str, None]] = {}
        self._hiding: dict[str, Coalescer[tuple[str, timedelta], None]] = {}

    async def settle(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """Carry out an outcome and return the one that holds in the end: a dead letter whose
        copy could not be written is a `Retry`."""
        match outcome:
            case Ack():
                await self._delete(delivery)
            case Retry():
                _log(delivery, outcome)
                await self._hide(delivery, outcome)
            case DeadLetter():
                _log(delivery, outcome)
                return await self._dead_letter(delivery, outcome)
        return outcome

    async def flush(self) -> None:
        for deleting in list(self._deleting.values()):
            await deleting.flush()
        for hiding in list(self._hiding.values()):
            await hiding.flush()

    async def _delete(self, delivery: Delivery) -> None:
        if not self._deletes:
            return
        coalescer = self._deleting.get(delivery.queue)
        if coalescer is None:
            coalescer = self._deleting[delivery.queue] = self._coalesced(
                delivery.queue, self._queues.delete
            )
        try:
            await coalescer.add(delivery.receipt_handle)
        except CloudError as error:
            # The effect stands; the message comes again and its inbox record answers it.
            logger.warning("Message %s was not deleted: %s", delivery.message_id, error)

    async def _hide(self, delivery: Delivery, outcome: Retry) -> None:
        if outcome.delay is None:
            return
        coalescer = self._hiding.get(delivery.queue)
        if coalescer is None:
            coalescer = self._hiding[delivery.queue] = self._coalesced(
                delivery.queue, self._queues.change_visibility
            )
        delay = min(max(outcome.delay, timedelta(0)), _LONGEST_DELAY)
        try:
            await coalescer.add((delivery.receipt_handle, delay))
        except CloudError as error:
            # It comes again when its visibility ends, only not at the time that was wanted.
            logger.warning("Message %s keeps its visibility: %s", delivery.message_id, error)

    async def _dead_letter(self, delivery: Delivery, outcome: DeadLetter) -> Outcome:
        entry = self._letter(delivery, outcome)
        try:
            failures = await self._queues.send(dead_letter_queue(delivery.queue), [entry])
        except CloudError as error:
            return await self._kept(delivery, outcome, str(error))
        if failures:
            return await self._kept(delivery, outcome, failures[0].message or failures[0].code)
        # Deleted only now that the copy stands: a crash in between makes two letters, not none.
        await self._delete(delivery)
        return outcome

    async def _kept(self, delivery: Delivery, outcome: DeadLetter, why: str) -> Retry:
        reason = f"It is a dead letter ({outcome.reason}), but its copy was not written: {why}"
        retry = Retry(reason, handler=outcome.handler, error=outcome.error)
        _log(delivery, retry)
        return retry

    def _letter(self, delivery: Delivery, outcome: DeadLetter) -> QueueEntry:
        """The message as it came, with one more attribute that says why it is here."""
        reason = note(delivery, outcome, self._clock.now())
        attributes = {**delivery.attributes, NOTE_ATTRIBUTE: reason}
        size = len(delivery.body.encode()) + sum(map(_attribute_size, attributes.items()))
        if len(attributes) > SQS_ATTRIBUTES or size > SQS_MESSAGE_BYTES:
            # No room beside the message: it is kept whole, and its reason stands in the log.
            attributes = dict(delivery.attributes)
        return QueueEntry(
            body=delivery.body,
            group_id=delivery.group_id,
            deduplication_id=delivery.message_id if delivery.fifo else None,
            trace_header=delivery.trace_header,
            attributes=attributes,
        )

    def _coalesced(
        self,
        queue: str,
        call: Callable[[str, Sequence[Entry]], Awaitable[list[EntryFailure]]],
    ) -> Coalescer[Entry, None]:
        async def settle(entries: Sequence[Entry]) -> list[Exception | None]:
            answers: list[Exception | None] = [None] * len(entries)
            for failure in await call(queue, entries):
                kind = Throttled if failure.retryable else Refused
                answers[failure.index] = kind(f"{failure.code}: {failure.message}")
            return answers

        return Coalescer(settle, max_entries=SQS_BATCH_ENTRIES)


def _attribute_size(named: tuple[str, Attribute]) -> int:
    name, attribute = named
    value = attribute.value.encode() if isinstance(attribute.value, str) else attribute.value
    return len(name.encode()) + len(attribute.type.encode()) + len(value)


def _log(delivery: Delivery, outcome: Retry | DeadLetter) -> None:
    fate = "comes again" if isinstance(outcome, Retry) else "goes to the dead-letter queue"
    logger.warning(
        "Message %s on %s %s (attempt %d, handler %s): %s",
        delivery.message_id,
        delivery.queue,
        fate,
        delivery.receive_count,
        outcome.handler or "-",
        shown(outcome.reason),
        exc_info=_worth_showing(delivery, outcome),
    )


def _worth_showing(delivery: Delivery, outcome: Retry | DeadLetter) -> BaseException | None:
    """The exception of a handler, with where it was raised: the first time, and when it is the
    end. What headrace itself raises says everything in its sentence."""
    if isinstance(outcome.error, HeadraceError):
        return None
    first_or_last = delivery.receive_count == 1 or isinstance(outcome, DeadLetter)
    return outcome.error if first_or_last else None
