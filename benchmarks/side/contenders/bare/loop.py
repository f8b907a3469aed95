"""The floors' loop: headrace's calls for the same messages, in the same sizes, and nothing around.

    ReceiveMessage 10 → TransactWriteItems of all → PutEvents of all → DeleteMessageBatch by tens,
    BatchWriteItem of the done marks by 25, the last two while the next messages are handled

What headrace does beside that is missing: validation, versions and upcasting, context for logs,
middleware, the heartbeat, policies for what fails, retries of single entries, observers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import orjson

from benchmarks.side.contenders.bare.orders import Message, Orders, Request, Unit
from benchmarks.side.protocol import Job, Measure

_SYSTEM_ATTRIBUTES: Final = (
    "ApproximateReceiveCount",
    "SentTimestamp",
    "MessageGroupId",
    "AWSTraceHeader",
    "SequenceNumber",
)
_VISIBILITY_SECONDS: Final = 60
_WAIT_SECONDS: Final = 20
_TENS: Final = 10
_MARKS: Final = 25


class Canceled(Exception):
    """A TransactWriteItems was cancelled, for these `CancellationReasons`."""

    def __init__(self, reasons: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("The transaction was cancelled.")
        self.reasons = reasons


class Calls(Protocol):
    """One way to call AWS. `call` makes one call, and raises `Canceled` for a transaction."""

    async def call(self, operation: str, request: Request) -> Request: ...


class Loop:
    """Handles messages as headrace does."""

    def __init__(self, job: Job, calls: Calls, queue: str, letters: str) -> None:
        self._calls = calls
        self._queue = queue
        self._letters = letters
        self._orders = Orders(job)
        self._deletes = Batches(self._delete, _TENS)
        self._marks = Batches(self._mark, _MARKS)

    async def drain(self) -> None:
        """Receive and handle until it is cancelled."""
        try:
            while True:
                messages = await self._receive()
                for message in await self.handle(messages):
                    self._deletes.add(message.receipt)
                if not messages:
                    await self._deletes.flush()
        finally:
            await self._deletes.flush()
            await self._marks.flush()

    async def invoke(self, event: Request) -> Request:
        """Handle one Lambda event; names what failed."""
        messages = [
            Message(record["messageId"], record["receiptHandle"], record["body"])
            for record in event["Records"]
        ]
        settled = {message.id for message in await self.handle(messages)}
        await self._marks.flush()
        failed = [message.id for message in messages if message.id not in settled]
        return {"batchItemFailures": [{"itemIdentifier": id} for id in failed]}

    async def handle(self, messages: Sequence[Message]) -> list[Message]:
        """Those that are done with, and are to be deleted."""
        units: list[Unit] = []
        bad: list[tuple[Message, str]] = []
        for message in messages:
            try:
                units.append(self._orders.unit(message))
            except (ValueError, KeyError, TypeError) as error:
                bad.append((message, repr(error)))
        committed = await self._committed(units)
        await self._publish([event for unit in committed for event in unit.events])
        for unit in committed:
            self._marks.add(unit.done)
        await self._bury(bad)
        return [unit.message for unit in committed] + [message for message, _ in bad]

    async def _receive(self) -> list[Message]:
        answer = await self._calls.call(
            "ReceiveMessage",
            {
                "QueueUrl": self._queue,
                "MaxNumberOfMessages": _TENS,
                "WaitTimeSeconds": _WAIT_SECONDS,
                "MessageSystemAttributeNames": _SYSTEM_ATTRIBUTES,
                "MessageAttributeNames": ["All"],
                "VisibilityTimeout": _VISIBILITY_SECONDS,
            },
        )
        return [
            Message(message["MessageId"], message["ReceiptHandle"], message["Body"])
            for message in answer.get("Messages", ())
        ]

    async def _committed(self, units: Sequence[Unit]) -> list[Unit]:
        """Commit all in one call; as long as it is cancelled, those that had nothing against them.
        One whose record stands already has what that still has to send for its events."""
        standing: list[Unit] = []
        left = list(units)
        while left:
            try:
                await self._calls.call("TransactWriteItems", self._orders.transaction(left))
            except Canceled as canceled:
                found, left = self._parted(left, canceled.reasons)
                standing += found
            else:
                break
        return left + standing

    def _parted(
        self, units: Sequence[Unit], reasons: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Unit], list[Unit]]:
        """Those whose record stands, and those that nothing was wrong with. The others come
        again."""
        standing, fine = [], []
        for index, unit in enumerate(units):
            claim, put = reasons[2 * index : 2 * index + 2]
            if claim.get("Item") is not None:
                standing.append(unit._replace(events=self._orders.standing(claim["Item"])))
            elif claim["Code"] == put["Code"] == "None":
                fine.append(unit)
        return standing, [] if len(fine) == len(units) else fine

    async def _publish(self, events: Sequence[Request]) -> None:
        for entries in tens(events):
            answer = await self._calls.call("PutEvents", {"Entries": entries})
            if answer.get("FailedEntryCount"):
                raise RuntimeError(f"Events were refused: {answer['Entries']}")

    async def _bury(self, bad: Sequence[tuple[Message, str]]) -> None:
        for some in tens(bad):
            entries = [_letter(index, *each) for index, each in enumerate(some)]
            request = {"QueueUrl": self._letters, "Entries": entries}
            _refuse_failed(await self._calls.call("SendMessageBatch", request))

    async def _delete(self, receipts: Sequence[str]) -> None:
        entries = [
            {"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)
        ]
        request = {"QueueUrl": self._queue, "Entries": entries}
        _refuse_failed(await self._calls.call("DeleteMessageBatch", request))

    async def _mark(self, done: Sequence[Request]) -> None:
        await self._calls.call("BatchWriteItem", self._orders.marks(done))


class Batches:
    """Sends entries as soon as there are so many, while others go on."""

    def __init__(self, send: Callable[[list[Any]], Awaitable[None]], most: int) -> None:
        self._send = send
        self._most = most
        self._waiting: list[Any] = []
        self._sending: set[asyncio.Future[None]] = set()

    def add(self, entry: Any) -> None:
        self._waiting.append(entry)
        if len(self._waiting) == self._most:
            self._leave()

    async def flush(self) -> None:
        """Send what is left, and wait for all. Raises what one of them raised."""
        if self._waiting:
            self._leave()
        await asyncio.gather(*self._sending)

    def _leave(self) -> None:
        sending = asyncio.ensure_future(self._send(self._waiting))
        self._waiting = []
        self._sending.add(sending)
        sending.add_done_callback(self._sent)

    def _sent(self, sending: asyncio.Future[None]) -> None:
        # What failed stays, for `flush` to raise it.
        if not sending.cancelled() and sending.exception() is None:
            self._sending.discard(sending)


async def opened(job: Job, calls: Calls) -> Loop:
    """A loop that knows its queues, and that its bus is there: the calls headrace begins with."""
    await calls.call("DescribeEventBus", {"Name": job.bus})
    names = (job.queue, f"{job.queue}-dlq")
    queue, letters = [
        (await calls.call("GetQueueUrl", {"QueueName": name}))["QueueUrl"] for name in names
    ]
    return Loop(job, calls, queue, letters)


async def drained(job: Job, calls: Calls, measure: Measure) -> None:
    """Drain the queue, until the server has seen all messages deleted."""
    loop = await opened(job, calls)
    draining = asyncio.create_task(loop.drain())
    running = asyncio.get_running_loop()
    measure.watch(lambda: running.call_soon_threadsafe(draining.cancel))
    with suppress(asyncio.CancelledError):
        await draining


def tens(entries: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (entries[start : start + _TENS] for start in range(0, len(entries), _TENS))


def _letter(index: int, message: Message, reason: str) -> Request:
    note = orjson.dumps({"reason": reason, "attempts": 1, "message_id": message.id}).decode()
    return {
        "Id": str(index),
        "MessageBody": message.body,
        "MessageAttributes": {"headrace": {"DataType": "String.json", "StringValue": note}},
    }


def _refuse_failed(answer: Request) -> None:
    if answer.get("Failed"):
        raise RuntimeError(f"Entries were refused: {answer['Failed']}")
