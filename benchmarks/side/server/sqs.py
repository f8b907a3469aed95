"""SQS: one queue that has messages, and any number of empty ones."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from hashlib import md5
from typing import Any, Final

from benchmarks.side import work
from benchmarks.side.server.counts import Counts
from benchmarks.side.server.faults import Fault
from benchmarks.side.server.settings import Settings

_SENT_AT: Final = "1793534400000"
_MOST: Final = 10


class Backlog:
    """The messages of the one queue: made when they are asked for, or those that were sent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bodies = work.Bodies(seed=settings.seed, poison=settings.poison)
        self._made = 0
        self._held: dict[int, dict[str, Any]] = {}
        self._sent = 0
        self._again: deque[int] = deque()
        self._receives: Counter[int] = Counter()
        """Of those that came again."""
        self.arrival = asyncio.Event()
        """Replaced whenever it is set, so that each waiter sees each arrival once."""
        self.closed = False

    def give(self, limit: int) -> list[dict[str, Any]]:
        return [self._message(number) for number in self._numbers(limit)]

    def send(self, entry: dict[str, Any]) -> int:
        number, self._sent = self._sent, self._sent + 1
        if self._settings.hold:
            self._held[number] = entry
            self._again.append(number)
            self.wake()
        return number

    def delete(self, receipt: str) -> int:
        """The number of the message. Raises `Fault` for a receipt that was never given."""
        number = self._number(receipt)
        self._held.pop(number, None)
        return number

    def bring_again(self, receipt: str) -> None:
        number = self._number(receipt)
        self._receives[number] += 1
        self._again.append(number)
        self.wake()

    def wake(self) -> None:
        self.arrival.set()
        self.arrival = asyncio.Event()

    def close(self) -> None:
        """Nothing comes any more: whoever waits gets an empty answer."""
        self.closed = True
        self.wake()

    def _numbers(self, limit: int) -> Iterator[int]:
        left = limit
        while left and self._again:
            number = self._again.popleft()
            if not self._settings.hold or number in self._held:
                left -= 1
                yield number
        end = 0 if self._settings.hold else min(self._made + left, self._settings.messages)
        first, self._made = self._made, max(self._made, end)
        yield from range(first, self._made)

    def _number(self, receipt: str) -> int:
        prefix, _, digits = receipt.partition("-")
        if prefix != "r" or not digits.isdigit() or int(digits) >= max(self._made, self._sent):
            raise Fault("ReceiptHandleIsInvalid", f"The receipt handle {receipt!r} was not given.")
        return int(digits)

    def _message(self, number: int) -> dict[str, Any]:
        held = self._held.get(number)
        body = self._bodies[number] if held is None else held["MessageBody"]
        message = {
            "MessageId": work.message_id(number),
            "ReceiptHandle": f"r-{number}",
            "Body": body,
            "MD5OfBody": digest(body),
            "Attributes": {
                "ApproximateReceiveCount": str(self._receives[number] + 1),
                "SentTimestamp": _SENT_AT,
            },
        }
        if held is not None and held.get("MessageAttributes"):
            message["MessageAttributes"] = held["MessageAttributes"]
        return message


class Sqs:
    """The operations, by their names. Some answer later."""

    def __init__(self, settings: Settings, counts: Counts, endpoint: str) -> None:
        self._settings = settings
        self._counts = counts
        self._endpoint = endpoint
        self.backlog = Backlog(settings)
        self.operations: dict[str, Callable[[dict[str, Any]], Any]] = {
            "ReceiveMessage": self._receive,
            "DeleteMessage": self._delete,
            "DeleteMessageBatch": self._delete_batch,
            "SendMessage": self._send,
            "SendMessageBatch": self._send_batch,
            "ChangeMessageVisibility": self._change,
            "ChangeMessageVisibilityBatch": self._change_batch,
            "GetQueueUrl": self._url,
            "CreateQueue": self._url,
            "GetQueueAttributes": self._attributes,
            "SetQueueAttributes": self._nothing,
            "ListQueues": self._list,
            "PurgeQueue": self._nothing,
            "TagQueue": self._nothing,
        }

    # --- receiving ---

    def _receive(self, request: dict[str, Any]) -> Any:
        messages = self._given(request)
        seconds = float(request.get("WaitTimeSeconds", 0))
        if messages or not seconds or not self._settings.wait:
            return self._received(messages)
        return self._receive_later(request, seconds)

    async def _receive_later(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                # One may have arrived since this was asked.
                while not (messages := self._given(request)) and not self.backlog.closed:
                    await self.backlog.arrival.wait()
        except TimeoutError:
            messages = []
        return self._received(messages)

    def _given(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        limit = min(int(request.get("MaxNumberOfMessages", 1)), _MOST)
        return self.backlog.give(limit) if self._is_the_queue(request) else []

    def _received(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        self._counts.received += len(messages)
        self._counts.billed_by_queue(sum(len(each["Body"]) for each in messages))
        return {"Messages": messages} if messages else {}

    # --- deleting, and bringing again ---

    def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        self._counts.billed_by_queue(0)
        self._counts.deleted.note(self.backlog.delete(request["ReceiptHandle"]))
        return {}

    def _delete_batch(self, request: dict[str, Any]) -> dict[str, Any]:
        def delete(entry: dict[str, Any]) -> None:
            self._counts.deleted.note(self.backlog.delete(entry["ReceiptHandle"]))

        return self._batch(request, delete)

    def _change(self, request: dict[str, Any]) -> dict[str, Any]:
        self._counts.billed_by_queue(0)
        self._bring_again(request)
        return {}

    def _change_batch(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._batch(request, self._bring_again)

    def _bring_again(self, entry: dict[str, Any]) -> None:
        self.backlog.bring_again(entry["ReceiptHandle"])

    def _batch(
        self, request: dict[str, Any], one: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        self._counts.billed_by_queue(0)
        done, failed = [], []
        for entry in _entries(request):
            try:
                one(entry)
            except Fault as fault:
                failed.append(_failure(entry["Id"], fault))
            else:
                done.append({"Id": entry["Id"]})
        return {"Successful": done, "Failed": failed}

    # --- sending ---

    def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        self._counts.billed_by_queue(len(request["MessageBody"]))
        return self._sent(request, request)

    def _send_batch(self, request: dict[str, Any]) -> dict[str, Any]:
        entries = _entries(request)
        self._counts.billed_by_queue(sum(len(entry["MessageBody"]) for entry in entries))
        sent = [self._sent(request, entry) | {"Id": entry["Id"]} for entry in entries]
        return {"Successful": sent, "Failed": []}

    def _sent(self, request: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
        if not self._is_the_queue(request):
            number = self._counts.sent_elsewhere
            self._counts.sent_elsewhere += 1
        else:
            number = self.backlog.send(entry)
            self._counts.sent += 1
        return {
            "MessageId": work.message_id(number),
            "MD5OfMessageBody": digest(entry["MessageBody"]),
        }

    # --- queues ---

    def _url(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"QueueUrl": self._url_of(request["QueueName"])}

    def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"QueueUrls": [self._url_of(self._settings.queue)]}

    def _attributes(self, request: dict[str, Any]) -> dict[str, Any]:
        queue = _queue(request)
        return {
            "Attributes": {
                "QueueArn": f"arn:aws:sqs:{work.REGION}:{work.ACCOUNT}:{queue}",
                "VisibilityTimeout": "180",
                "ReceiveMessageWaitTimeSeconds": "0",
                "ApproximateNumberOfMessages": "0",
                "ApproximateNumberOfMessagesNotVisible": "0",
                "ApproximateNumberOfMessagesDelayed": "0",
            }
        }

    def _nothing(self, request: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _url_of(self, queue: str) -> str:
        return f"{self._endpoint}/{work.ACCOUNT}/{queue}"

    def _is_the_queue(self, request: dict[str, Any]) -> bool:
        return _queue(request) == self._settings.queue


def digest(body: str) -> str:
    return md5(body.encode(), usedforsecurity=False).hexdigest()


def _queue(request: dict[str, Any]) -> str:
    return str(request["QueueUrl"]).rpartition("/")[2]


def _entries(request: dict[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = request["Entries"]
    if not 1 <= len(entries) <= _MOST:
        raise Fault("InvalidParameterValue", f"{len(entries)} entries: a batch has 1 to {_MOST}.")
    return entries


def _failure(id: str, fault: Fault) -> dict[str, Any]:
    return {"Id": id, "SenderFault": True, "Code": fault.code, "Message": str(fault)}
