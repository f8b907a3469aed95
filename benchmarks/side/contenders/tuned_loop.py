"""The floor on headrace's clients: `bare_loop`, but with the clients that headrace opens.

Fairness

As `bare_loop`, with one user agent for all requests, and with orjson to write them. What headrace
costs above this is its features alone; what `bare_loop` costs above this is what headrace's clients
save.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.side.contenders.bare.jobs import run
from benchmarks.side.contenders.bare_loop import Botocore, methods_of
from benchmarks.side.protocol import Job
from headrace.aws.client import open_clients
from headrace.aws.config import AwsConfig


@asynccontextmanager
async def clients(job: Job) -> AsyncIterator[Botocore]:
    async with open_clients(AwsConfig.from_environment()) as opened:
        yield Botocore(
            methods_of("sqs", opened.sqs)
            | methods_of("events", opened.events)
            | methods_of("dynamodb", opened.dynamodb)
        )


def main() -> None:
    run("tuned_loop", clients, packages=("aiobotocore", "aiohttp", "botocore", "orjson"))


if __name__ == "__main__":
    main()
