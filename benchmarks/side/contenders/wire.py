"""The floor below: the same calls without botocore: aiohttp, SigV4 and orjson.

Fairness

The loop, the calls and the requests are those of `bare_loop`, to the last attribute; only the way
to AWS differs. What this does not do, and botocore does: credentials that expire and come from a
role, endpoints by region and their rules, retries and their quota, errors as exceptions by code,
checksums (DynamoDB's CRC32), the shapes of requests and answers, hooks, user agent, pagination.
The signature is the same (a test compares it with botocore's), with one SHA-256 of the body, one of
the canonical request and one HMAC, under a key that is derived once a day. So what this saves
against `bare_loop` is the most that a client of headrace's own could save, and it would save less.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from benchmarks.side.contenders.bare.jobs import run
from benchmarks.side.contenders.bare.loop import Canceled
from benchmarks.side.contenders.bare.orders import Request
from benchmarks.side.contenders.bare.sigv4 import Service, Signer
from benchmarks.side.protocol import Job
from benchmarks.side.work import REGION

_SQS: Final = Service("sqs", "AmazonSQS", "1.0")
_DYNAMODB: Final = Service("dynamodb", "DynamoDB_20120810", "1.0")
_EVENTS: Final = Service("events", "AWSEvents", "1.1")

_SERVICES: Final = {
    "GetQueueUrl": _SQS,
    "ReceiveMessage": _SQS,
    "DeleteMessageBatch": _SQS,
    "SendMessageBatch": _SQS,
    "TransactWriteItems": _DYNAMODB,
    "BatchWriteItem": _DYNAMODB,
    "DescribeEventBus": _EVENTS,
    "PutEvents": _EVENTS,
}

_TIMEOUT: Final = ClientTimeout(total=None, sock_connect=3, sock_read=30)


class CallFailed(Exception):
    """AWS answered with an error."""


class Wire:
    """Calls AWS over HTTP, and nothing more."""

    def __init__(self, session: ClientSession, endpoint: str, signer: Signer) -> None:
        self._session = session
        self._url = f"{endpoint}/"
        self._host = urlsplit(endpoint).netloc
        self._signer = signer

    async def call(self, operation: str, request: Request) -> Request:
        body = orjson.dumps(request, default=_epoch, option=orjson.OPT_PASSTHROUGH_DATETIME)
        headers = self._signer.headers(
            _SERVICES[operation], self._host, operation, body, now=time.time()
        )
        async with self._session.post(self._url, data=body, headers=headers) as response:
            answer: Request = orjson.loads(await response.read() or b"{}")
        if response.status != 200:
            raise _failure(operation, answer)
        return answer


@asynccontextmanager
async def wire(job: Job) -> AsyncIterator[Wire]:
    signer = Signer(
        os.environ["AWS_ACCESS_KEY_ID"],
        os.environ["AWS_SECRET_ACCESS_KEY"],
        REGION,
        os.environ.get("AWS_SESSION_TOKEN"),
    )
    unwanted = ("Accept", "Accept-Encoding", "User-Agent")
    async with ClientSession(
        connector=TCPConnector(limit=128), timeout=_TIMEOUT, skip_auto_headers=unwanted
    ) as session:
        yield Wire(session, job.endpoint, signer)


def _failure(operation: str, answer: Request) -> Exception:
    reasons = answer.get("CancellationReasons")
    return CallFailed(f"{operation}: {answer}") if reasons is None else Canceled(reasons)


def _epoch(value: Any) -> float:
    """AWS's JSON has times in seconds."""
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(f"{type(value).__name__} has no form in AWS's JSON.")


def main() -> None:
    run("wire", wire, packages=("aiohttp", "orjson"))


if __name__ == "__main__":
    main()
