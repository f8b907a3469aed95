"""One ministack and one dynoxide for all tests here; a namespace of its own for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from headrace.aws.client import Clients, open_clients, open_ports
from headrace.aws.config import AwsConfig
from headrace.hosts import emulator
from headrace.ports import Ports


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ministack_url() -> AsyncIterator[str]:
    async with emulator.ministack() as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dynoxide_url() -> AsyncIterator[str]:
    binary = os.environ.get("HEADRACE_DYNOXIDE")
    if not binary:
        pytest.skip("HEADRACE_DYNOXIDE names no binary")
    async with emulator.dynoxide(binary=Path(binary)) as url:
        yield url


@pytest.fixture
def config(ministack_url: str) -> AwsConfig:
    return AwsConfig(
        # dynoxide's stream shards need table names of eleven characters or more.
        namespace=f"test{uuid4().hex[:10]}",
        endpoints={"sqs": ministack_url, "events": ministack_url, "dynamodb": ministack_url},
    )


@pytest_asyncio.fixture
async def ports(config: AwsConfig) -> AsyncIterator[Ports]:
    async with open_ports(config) as opened:
        yield opened


@pytest_asyncio.fixture
async def clients(config: AwsConfig) -> AsyncIterator[Clients]:
    async with open_clients(config) as opened:
        yield opened
