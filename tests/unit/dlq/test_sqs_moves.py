"""SQS's move of all letters, as it is asked for over the wire: no emulator here has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headrace.aws.config import AwsConfig
from headrace.aws.dead_letters import SqsMoves, open_moves
from headrace.errors import Refused

RESULTS = {
    "Results": [
        {
            "TaskHandle": "t-2",
            "Status": "RUNNING",
            "ApproximateNumberOfMessagesMoved": 5,
            "ApproximateNumberOfMessagesToMove": 9,
            "StartedTimestamp": 1_767_225_600_000,
        },
        {"Status": "FAILED", "FailureReason": "denied", "StartedTimestamp": 1_767_225_500_000},
    ]
}


class Endpoint:
    """A server on the loopback interface that answers as SQS would, and keeps what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers = answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            headers = dict(
                line.lower().split(": ", 1) for line in head.decode().splitlines()[1:] if line
            )
            request = json.loads(await reader.readexactly(int(headers["content-length"])))
            operation = headers["x-amz-target"].partition(".")[2]
            self.asked.append((operation, request))
            status, answer = self._answer(operation, request)
            body = json.dumps(answer).encode()
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.0\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
            break
        writer.close()

    def _answer(self, operation: str, request: dict[str, Any]) -> tuple[int, Any]:
        if operation == "getqueueurl":
            return 200, {"QueueUrl": f"http://127.0.0.1/000000000000/{request['QueueName']}"}
        if operation == "getqueueattributes":
            name = request["QueueUrl"].rpartition("/")[2]
            return 200, {"Attributes": {"QueueArn": f"arn:aws:sqs:us-east-1:000000000000:{name}"}}
        answer = self._answers[operation]
        return (400, {"__type": answer}) if isinstance(answer, str) else (200, answer)


@asynccontextmanager
async def moves_at(answers: dict[str, Any]) -> AsyncIterator[tuple[SqsMoves, Endpoint]]:
    endpoint = Endpoint(answers)
    async with await asyncio.start_server(endpoint.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        endpoints = {"sqs": url, "events": url, "dynamodb": url}
        async with open_moves(AwsConfig(namespace="shop", endpoints=endpoints)) as moves:
            yield moves, endpoint


async def test_a_move_names_its_destination_as_sqs_does_not_know_where_a_copy_came_from() -> None:
    async with moves_at({"startmessagemovetask": {"TaskHandle": "t"}}) as (moves, endpoint):
        assert await moves.start("orders-dlq", "orders") == "t"

    (asked,) = [request for name, request in endpoint.asked if name == "startmessagemovetask"]
    assert asked == {
        "SourceArn": "arn:aws:sqs:us-east-1:000000000000:shop-orders-dlq",
        "DestinationArn": "arn:aws:sqs:us-east-1:000000000000:shop-orders",
    }


async def test_how_far_moves_are_is_what_sqs_says_of_them() -> None:
    async with moves_at({"listmessagemovetasks": RESULTS}) as (moves, endpoint):
        running, failed = await moves.recent("orders-dlq")

    assert (running.status, running.moved, running.total, running.failure) == (
        "RUNNING",
        5,
        9,
        None,
    )
    assert (running.handle, running.started) == ("t-2", 1_767_225_600_000)
    assert (failed.status, failed.failure, failed.handle) == ("FAILED", "denied", None)
    assert endpoint.asked[-1][1]["MaxResults"] == 10


async def test_a_queue_that_was_never_moved_from_has_no_move() -> None:
    async with moves_at({"listmessagemovetasks": {}}) as (moves, _):
        assert await moves.recent("orders-dlq") == []


async def test_an_endpoint_that_does_not_know_the_calls_cannot_move() -> None:
    unknown = "com.amazonaws.sqs#InvalidAction"
    answers = {"listmessagemovetasks": unknown, "startmessagemovetask": unknown}
    async with moves_at(answers) as (moves, _):
        assert await moves.recent("orders-dlq") == []
        assert await moves.start("orders-dlq", "orders") is None


async def test_what_sqs_refuses_is_no_missing_call() -> None:
    refused = "com.amazonaws.sqs#UnsupportedOperation"
    async with moves_at({"startmessagemovetask": refused}) as (moves, _):
        with pytest.raises(Refused, match="StartMessageMoveTask on the queue 'shop-orders-dlq'"):
            await moves.start("orders-dlq", "orders")
