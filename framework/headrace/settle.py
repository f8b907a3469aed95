"""Carrying out an outcome: delete, hide for a while, or copy to the dead-letter queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final, Generic, TypeVar

from headrace.coalesce import Coalescer
from headrace.dead_letter import NOTE_ATTRIBUTE, note
from headrace.entries import Call, answers
from headrace.errors import CloudError, HeadraceError
from headrace.limits import SQS_ATTRIBUTES, SQS_BATCH_ENTRIES, SQS_MAX_VISIBILITY, SQS_MESSAGE_BYTES
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Attribute, Clock, Delivery, QueueEntry, Queues, Randomness
from headrace.text import shown
from headrace.topology.model import dead_letter_queue

logger = logging.getLogger(__name__)

Entry = TypeVar("Entry")

LINGER: Final = 0.05
"""Seconds that a delete waits for others, so that one call has many of them. The message is hidden
meanwhile, and nobody waits for it."""

_ATTEMPTS: Final = 3
_PAUSE: Final = 0.2
_MOST_WAITING: Final = 1_000
"""So many deletes may be on their way; when SQS is slower than the handlers, these wait for it."""

_CALLS: Final = 10
"""Of one kind at a time for one queue: each beyond those would open a connection of its own."""

_LONGEST_DELAY = SQS_MAX_VISIBILITY - timedelta(minutes=30)
"""The 12 hours run from the receive, and asking for more than is left of them is an error: this
leaves room for a batch window and a slow handler."""


class Settler:
    """Settles the deliveries of one service.

    Deletes and changes of visibility leave in batches, and are not waited for: `flush` does that.
    An entry that SQS does not take is given again, without those that it took.

    `deletes` is off on Lambda, which deletes by itself what is not reported as failed.
    """

    def __init__(
        self,
        queues: Queues,
        clock: Clock,
        randomness: Randomness,
        *,
        deletes: bool,
        linger: float = LINGER,
    ) -> None:
        self._queues = queues
        self._clock = clock
        self._randomness = randomness
        self._deletes = deletes
        self._linger = linger
        self._deleting: dict[str, _Orders[str]] = {}
        self._hiding: dict[str, _Orders[tuple[str, timedelta]]] = {}
        self._burying: dict[str, Coalescer[QueueEntry, None]] = {}

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
        """Send what waits, and wait until SQS has answered to all of it."""
        await asyncio.gather(
            *(deleting.flush() for deleting in self._deleting.values()),
            *(hiding.flush() for hiding in self._hiding.values()),
        )

    def close(self) -> None:
        """Give nothing again any more: with an old receipt it might be taken for something else."""
        for deleting in self._deleting.values():
            deleting.close()
        for hiding in self._hiding.values():
            hiding.close()

    async def _delete(self, delivery: Delivery) -> None:
        if not self._deletes:
            return
        deleting = self._deleting.get(delivery.queue)
        if deleting is None:
            # The effect stands; the message comes again and its inbox record answers it.
            deleting = self._deleting[delivery.queue] = _Orders(
                partial(self._queues.delete, delivery.queue),
                self._randomness,
                self._linger,
                "Message %s was not deleted: %s",
            )
        await deleting.give(delivery.receipt_handle, delivery)

    async def _hide(self, delivery: Delivery, outcome: Retry) -> None:
        if outcome.delay is None:
            return
        hiding = self._hiding.get(delivery.queue)
        if hiding is None:
            # It comes again when its visibility ends, only not at the time that was wanted.
            hiding = self._hiding[delivery.queue] = _Orders(
                partial(self._queues.change_visibility, delivery.queue),
                self._randomness,
                self._linger,
                "Message %s keeps its visibility: %s",
            )
        delay = min(max(outcome.delay, timedelta(0)), _LONGEST_DELAY)
        await hiding.give((delivery.receipt_handle, delay), delivery)

    async def _dead_letter(self, delivery: Delivery, outcome: DeadLetter) -> Outcome:
        entry = self._letter(delivery, outcome)
        try:
            await self._to(dead_letter_queue(delivery.queue)).add(entry)
        except CloudError as error:
            return self._kept(delivery, outcome, str(error))
        # Deleted only now that the copy stands: a crash in between makes two letters, not none.
        await self._delete(delivery)
        return outcome

    def _to(self, queue: str) -> Coalescer[QueueEntry, None]:
        burying = self._burying.get(queue)
        if burying is None:
            burying = self._burying[queue] = Coalescer(
                lambda entries: answers(entries, partial(self._queues.send, queue)),
                max_entries=SQS_BATCH_ENTRIES,
                max_weight=SQS_MESSAGE_BYTES,
                weigh=_size,
            )
        return burying

    def _kept(self, delivery: Delivery, outcome: DeadLetter, why: str) -> Retry:
        reason = f"It is a dead letter ({outcome.reason}), but its copy was not written: {why}"
        retry = Retry(reason, handler=outcome.handler, error=outcome.error)
        _log(delivery, retry)
        return retry

    def _letter(self, delivery: Delivery, outcome: DeadLetter) -> QueueEntry:
        """The message as it came, with one more attribute that says why it is here."""
        reason = note(delivery, outcome, self._clock.now())
        bare = QueueEntry(
            body=delivery.body,
            group_id=delivery.group_id,
            deduplication_id=delivery.message_id if delivery.fifo else None,
            trace_header=delivery.trace_header,
            attributes=delivery.attributes,
        )
        noted = replace(bare, attributes={**delivery.attributes, NOTE_ATTRIBUTE: reason})
        has_room = len(noted.attributes) <= SQS_ATTRIBUTES and _size(noted) <= SQS_MESSAGE_BYTES
        # Without room beside it the message is kept whole, and its reason stands in the log.
        return noted if has_room else bare


class _Orders(Generic[Entry]):
    """What SQS is to do with the messages of one queue, in batches. What fails is logged in the
    end."""

    def __init__(
        self, call: Call[Entry], randomness: Randomness, linger: float, failed: str
    ) -> None:
        self._call = call
        self._randomness = randomness
        self._failed = failed
        self._calls = asyncio.Semaphore(_CALLS)
        self._batches: Coalescer[Entry, None] = Coalescer(
            self._carry_out, max_entries=SQS_BATCH_ENTRIES, linger=linger
        )
        self._given: set[asyncio.Future[None]] = set()
        self._again: set[asyncio.Task[None]] = set()

    async def _carry_out(self, entries: Sequence[Entry]) -> list[Exception | None]:
        async with self._calls:
            return await answers(entries, self._call)

    async def give(self, entry: Entry, delivery: Delivery) -> None:
        """Hand over one entry, about this delivery; waits only where too many are on their way."""
        given = self._batches.post(entry)
        self._given.add(given)
        given.add_done_callback(partial(self._answered, entry, delivery))
        if len(self._given) + len(self._again) > _MOST_WAITING:
            await asyncio.wait((given,))

    async def flush(self) -> None:
        await self._batches.flush()
        while self._given or self._again:
            await asyncio.wait(self._given | self._again)

    def close(self) -> None:
        for again in self._again:
            again.cancel()

    def _answered(self, entry: Entry, delivery: Delivery, given: asyncio.Future[None]) -> None:
        self._given.discard(given)
        error = None if given.cancelled() else given.exception()
        if error is None:
            return
        if _is_retryable(error):
            again = asyncio.ensure_future(self._repeat(entry, delivery))
            self._again.add(again)
            again.add_done_callback(self._again.discard)
        else:
            self._log(delivery, error)

    async def _repeat(self, entry: Entry, delivery: Delivery) -> None:
        error: BaseException | None = None
        for attempt in range(1, _ATTEMPTS):
            await asyncio.sleep(self._randomness.uniform(0, _PAUSE * 2**attempt))
            (error,) = await asyncio.gather(self._batches.add(entry), return_exceptions=True)
            if error is None or not _is_retryable(error):
                break
        if error is not None:
            self._log(delivery, error)

    def _log(self, delivery: Delivery, error: BaseException) -> None:
        logger.warning(self._failed, delivery.message_id, error, extra=_fields(delivery))


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, CloudError) and error.retryable


def _size(entry: QueueEntry) -> int:
    return len(entry.body.encode()) + sum(map(_attribute_size, entry.attributes.items()))


def _attribute_size(named: tuple[str, Attribute]) -> int:
    name, attribute = named
    value = attribute.value.encode() if isinstance(attribute.value, str) else attribute.value
    return len(name.encode()) + len(attribute.type.encode()) + len(value)


def _log(delivery: Delivery, outcome: Retry | DeadLetter) -> None:
    fate = "comes again" if isinstance(outcome, Retry) else "goes to the dead-letter queue"
    # What no handler had a part in is said once, by whoever cut the batch short.
    of_a_handler = isinstance(outcome, DeadLetter) or outcome.error is not None
    logger.log(
        logging.WARNING if of_a_handler else logging.DEBUG,
        "Message %s on %s %s (attempt %d, handler %s): %s",
        delivery.message_id,
        delivery.queue,
        fate,
        delivery.receive_count,
        outcome.handler or "-",
        shown(outcome.reason),
        exc_info=_worth_showing(delivery, outcome),
        extra={**_fields(delivery), **_fate(outcome)},
    )


def _fields(delivery: Delivery) -> dict[str, object]:
    """What a log line says of itself where no delivery is bound: when a host hands back what it did
    not begin."""
    return {
        "queue": delivery.queue,
        "message_id": delivery.message_id,
        "attempt": delivery.receive_count,
    }


def _fate(outcome: Retry | DeadLetter) -> dict[str, object]:
    fate: dict[str, object] = {"outcome": "retry" if isinstance(outcome, Retry) else "dead_letter"}
    if outcome.handler is not None:
        # As the handler's own lines name it: without its service.
        fate["handler"] = outcome.handler.partition(".")[2]
    return fate


def _worth_showing(delivery: Delivery, outcome: Retry | DeadLetter) -> BaseException | None:
    """The exception of a handler, with where it was raised: the first time, and when it is the
    end. What headrace itself raises says everything in its sentence."""
    if isinstance(outcome.error, HeadraceError):
        return None
    first_or_last = delivery.receive_count == 1 or isinstance(outcome, DeadLetter)
    return outcome.error if first_or_last else None
