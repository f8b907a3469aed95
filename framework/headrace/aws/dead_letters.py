"""Moving the messages of a dead-letter queue within SQS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headrace.aws.client import open_clients
from headrace.aws.config import AwsConfig, place
from headrace.aws.faults import translated
from headrace.errors import Refused, Unreachable

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

_NO_SUCH_CALL: Final = frozenset(
    {"InvalidAction", "UnknownOperation", "UnknownOperationException", "NotImplemented"}
)

_MOVES: Final = 10
"""Moves that one ListMessageMoveTasks names at most (SQS API reference)."""


@dataclass(frozen=True, slots=True)
class MoveTask:
    """How far one move is, as SQS says."""

    status: str
    moved: int
    total: int | None = None
    failure: str | None = None
    handle: str | None = None
    started: int = 0


class SqsMoves:
    """`headrace.dlq.moving.Moves` on SQS."""

    def __init__(self, client: SQSClient, config: AwsConfig) -> None:
        self._client = client
        self._config = config
        self._place = place(client)

    async def start(self, dead_letters: str, queue: str) -> str | None:
        """Begin to move all messages; `None` where the endpoint does not know this call. The
        destination is named, because a letter that headrace wrote there was never moved by SQS, so
        SQS does not know where it came from."""
        source, destination = await self._arn(dead_letters), await self._arn(queue)
        try:
            with translated("StartMessageMoveTask", self._resource(dead_letters), self._place):
                answer = await self._client.start_message_move_task(
                    SourceArn=source, DestinationArn=destination
                )
        except (Refused, Unreachable) as error:
            if self._is_unknown(error):
                return None
            raise
        return answer.get("TaskHandle", "")

    async def recent(self, dead_letters: str) -> list[MoveTask]:
        """The latest moves from this queue; none if there was none, or none is known here."""
        arn = await self._arn(dead_letters)
        try:
            with translated("ListMessageMoveTasks", self._resource(dead_letters), self._place):
                answer = await self._client.list_message_move_tasks(
                    SourceArn=arn, MaxResults=_MOVES
                )
        except (Refused, Unreachable) as error:
            if self._is_unknown(error):
                return []
            raise
        return [
            MoveTask(
                status=found["Status"],
                moved=found.get("ApproximateNumberOfMessagesMoved", 0),
                total=found.get("ApproximateNumberOfMessagesToMove"),
                failure=found.get("FailureReason"),
                handle=found.get("TaskHandle"),
                started=found.get("StartedTimestamp", 0),
            )
            for found in answer.get("Results", ())
        ]

    def _is_unknown(self, error: Refused | Unreachable) -> bool:
        """An emulator that does not know a call; AWS knows it."""
        return self._config.is_local("sqs") and error.code in _NO_SUCH_CALL

    def _resource(self, queue: str) -> str:
        return f"queue '{self._config.physical(queue)}'"

    async def _arn(self, queue: str) -> str:
        name = self._config.physical(queue)
        with translated("GetQueueAttributes", self._resource(queue), self._place):
            found = await self._client.get_queue_url(QueueName=name)
            answer = await self._client.get_queue_attributes(
                QueueUrl=found["QueueUrl"], AttributeNames=["QueueArn"]
            )
        return answer["Attributes"]["QueueArn"]


@asynccontextmanager
async def open_moves(config: AwsConfig) -> AsyncIterator[SqsMoves]:
    """Moves on AWS, or on whatever emulator the endpoints name."""
    async with open_clients(config) as clients:
        yield SqsMoves(clients.sqs, config)
