"""The outbox: getting committed messages out, until they are out.

Nothing here decides what is sent; that stands in the inbox record. The bus does not
deduplicate and neither does a standard queue, so what is sent twice carries one id twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from math import ceil
from typing import TypeVar

from headrace.coalesce import Coalescer
from headrace.entries import answers
from headrace.envelope import Cancellation, Metadata, Outgoing, queue_body, seal
from headrace.errors import CloudError, DispatchError, TooLarge
from headrace.events import Message
from headrace.limits import (
    PUT_EVENTS_BYTES,
    PUT_EVENTS_ENTRIES,
    SQS_BATCH_ENTRIES,
    SQS_MAX_DELAY,
    SQS_MESSAGE_BYTES,
)
from headrace.observer import Guarded, Observer
from headrace.ports import BusEntry, Ports, QueueEntry
from headrace.retrying import after, retried
from headrace.text import text_size
from headrace.transaction import Scheduled

EntryT = TypeVar("EntryT", BusEntry, QueueEntry)

ATTEMPTS = 4
"""Sends of one entry within one delivery; after that, the redelivery of the cause goes on."""


class Outbox:
    """Sends the messages of one service: events to its bus, commands to their owners."""

    def __init__(
        self,
        service: str,
        bus_name: str,
        ports: Ports,
        observer: Observer,
    ) -> None:
        self._service = service
        self._bus_name = bus_name
        self._bus = ports.bus
        self._queues = ports.queues
        self._scheduler = ports.scheduler
        self._clock = ports.clock
        self._randomness = ports.randomness
        self._observer = Guarded(observer)
        self._events: Coalescer[BusEntry, None] = Coalescer(
            self._put_events,
            max_entries=PUT_EVENTS_ENTRIES,
            max_weight=PUT_EVENTS_BYTES - 1,
            weigh=_bus_size,
        )
        self._commands: dict[str, Coalescer[QueueEntry, None]] = {}

    async def dispatch(self, outgoing: Sequence[Outgoing | Cancellation]) -> None:
        """Send every message; raises `DispatchError` if any could not be sent for now."""
        failures = await self._failures(outgoing)
        for failure in failures:
            if not isinstance(failure, Exception):
                raise failure
        if failures:
            raise DispatchError(
                f"{len(failures)} of {len(outgoing)} messages are not out yet: {failures[0]}"
            ) from failures[0]

    async def _failures(self, outgoing: Sequence[Outgoing | Cancellation]) -> list[BaseException]:
        """What has kept messages from being sent, once no more is tried with any of them."""
        if len(outgoing) == 1:
            # As most handlers have it, and without a task of its own.
            try:
                await self._send(outgoing[0])
            except Exception as error:
                return [error]
            return []
        answers = await asyncio.gather(*map(self._send, outgoing), return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, BaseException)]

    async def flush(self) -> None:
        await self._events.flush()
        for commands in list(self._commands.values()):
            await commands.flush()

    async def _send(self, message: Outgoing | Cancellation) -> None:
        send = partial(self._send_once, message)
        await retried(send, again=_is_retryable, stop=after(ATTEMPTS), wait=self._wait)
        if isinstance(message, Outgoing):
            self._observer.sent(self._service, message)

    async def _send_once(self, message: Outgoing | Cancellation) -> None:
        if isinstance(message, Cancellation):
            await self._scheduler.cancel(message.schedule)
        elif message.owner is None:
            await self._events.add(bus_entry(message))
        elif message.due is None:
            await self._to(message.owner).add(queue_entry(message))
        else:
            await self._send_for(message.due, message.owner, message)

    async def _send_for(self, due: datetime, owner: str, message: Outgoing) -> None:
        """Into the queue, to be hidden there until it is due; or to the scheduler, if that is
        further ahead than a queue can hide it."""
        ahead = due - self._clock.now()
        if ahead > SQS_MAX_DELAY and message.schedule is not None:
            entry = QueueEntry(_without_keywords(queue_body(message)))
            await self._scheduler.schedule(message.schedule, due, owner, entry)
            return
        # Whole seconds, rounded up, so that it does not come early.
        delay = timedelta(seconds=max(0, ceil(ahead.total_seconds())))
        await self._to(owner).add(replace(queue_entry(message), delay=min(delay, SQS_MAX_DELAY)))

    def _wait(self, attempt: int, error: BaseException | None) -> float:
        return self._randomness.uniform(0, 0.1 * 2**attempt)

    def _to(self, queue: str) -> Coalescer[QueueEntry, None]:
        if queue not in self._commands:

            async def send(entries: Sequence[QueueEntry]) -> list[Exception | None]:
                return await answers(entries, partial(self._queues.send, queue))

            self._commands[queue] = Coalescer(
                send,
                max_entries=SQS_BATCH_ENTRIES,
                max_weight=SQS_MESSAGE_BYTES,
                weigh=lambda entry: text_size(entry.body),
            )
        return self._commands[queue]

    async def _put_events(self, entries: Sequence[BusEntry]) -> list[Exception | None]:
        return await answers(entries, partial(self._bus.put, self._bus_name))


def bus_entry(message: Outgoing) -> BusEntry:
    return BusEntry(
        source=message.source or "",
        detail_type=message.detail_type,
        detail=message.detail,
        time=message.time,
        trace_header=message.trace_header,
    )


def queue_entry(message: Outgoing) -> QueueEntry:
    return QueueEntry(
        body=queue_body(message), group_id=message.group_id, trace_header=message.trace_header
    )


def sealed_as(wanted: Message | Scheduled, metadata: Metadata) -> Outgoing:
    """A message as it will be sent; raises `TooLarge` for what could not be."""
    if isinstance(wanted, Scheduled):
        outgoing = replace(seal(wanted.command, metadata), due=wanted.at, schedule=wanted.name)
    else:
        outgoing = seal(wanted, metadata)
    refuse_unsendable(outgoing)
    return outgoing


def refuse_unsendable(message: Outgoing) -> None:
    """Raises `TooLarge`, with the numbers, for what the bus or the queue would refuse."""
    if message.owner is None:
        size, limit, where = _bus_size(message), PUT_EVENTS_BYTES - 1, "EventBridge"
    else:
        size, limit, where = text_size(queue_body(message)), SQS_MESSAGE_BYTES, "SQS"
    if size > limit:
        raise TooLarge(
            f"{message.detail_type} has {size:,} bytes: {where} takes {limit:,}. Put the bulk into "
            "S3 and publish where it is.",
            size=size,
            limit=limit,
        )


def _bus_size(message: Outgoing | BusEntry) -> int:
    """Bytes as EventBridge counts an entry: 14 for the time, then the UTF-8 of the rest
    (user guide, "Calculating PutEvents event entry size")."""
    named = text_size(message.source or "") + text_size(message.detail_type)
    return 14 + named + text_size(message.detail)


def _without_keywords(body: str) -> str:
    """JSON without `<`: Scheduler replaces `<aws.scheduler.…>` in what it sends."""
    return body.replace("<", "\\u003c")


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, CloudError) and error.retryable
