"""The floor: aiobotocore in a bare loop, with exactly the calls that headrace makes.

Fairness

The calls, their sizes and the items in them are those of headrace with one handler (see
`bare.loop`; the server counts both): a receive of ten, one TransactWriteItems with the record and
the order of each, one PutEvents, deletes by ten and done marks by 25, dead letters in a batch.
The clients are aiobotocore's, with standard retries, and without validation of parameters, which is
faster than aiobotocore's default and as headrace has them. Two things that headrace does to its own
clients are not done here, as nobody's bare loop does them: the user agent is put together for each
request, and requests are written by botocore (see `headrace.aws.bodies`). JSON within messages is
read and written by orjson. `tuned_loop` is the same loop with headrace's clients. It does less than
headrace: nothing is validated but what fails when it is used, and everything that `bare.loop` lists
is missing. So what headrace costs above this is what its features cost; nobody should run this
loop. Duplicates are found, and dead letters written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from benchmarks.side.contenders.bare.jobs import run
from benchmarks.side.contenders.bare.loop import Canceled
from benchmarks.side.contenders.bare.orders import Request
from benchmarks.side.protocol import Job
from benchmarks.side.work import REGION

_METHODS: Final = {
    "sqs": {
        "GetQueueUrl": "get_queue_url",
        "ReceiveMessage": "receive_message",
        "DeleteMessageBatch": "delete_message_batch",
        "SendMessageBatch": "send_message_batch",
    },
    "dynamodb": {
        "TransactWriteItems": "transact_write_items",
        "BatchWriteItem": "batch_write_item",
    },
    "events": {"DescribeEventBus": "describe_event_bus", "PutEvents": "put_events"},
}

_SETTINGS: Final = AioConfig(
    connect_timeout=3,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 3},
    max_pool_connections=128,
    parameter_validation=False,
    endpoint_discovery_enabled=False,
)


class Botocore:
    """Calls AWS through aiobotocore's clients."""

    def __init__(self, methods: dict[str, Callable[..., Awaitable[Any]]]) -> None:
        self._methods = methods

    async def call(self, operation: str, request: Request) -> Request:
        try:
            answer: Request = await self._methods[operation](**request)
        except ClientError as error:
            reasons = error.response.get("CancellationReasons")
            if reasons is None:
                raise
            raise Canceled(reasons) from error
        return answer


def methods_of(service: str, client: Any) -> dict[str, Callable[..., Awaitable[Any]]]:
    """What the loop calls of one client, by operation."""
    return {name: getattr(client, method) for name, method in _METHODS[service].items()}


@asynccontextmanager
async def clients(job: Job) -> AsyncIterator[Botocore]:
    session = get_session()
    methods: dict[str, Callable[..., Awaitable[Any]]] = {}
    async with AsyncExitStack() as stack:
        for service in _METHODS:
            opening = session.create_client(
                service, endpoint_url=job.endpoint, region_name=REGION, config=_SETTINGS
            )
            client = await stack.enter_async_context(opening)
            methods |= methods_of(service, client)
        yield Botocore(methods)


def main() -> None:
    run("bare_loop", clients, packages=("aiobotocore", "aiohttp", "botocore", "orjson"))


if __name__ == "__main__":
    main()
