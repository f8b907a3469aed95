"""One ministack and one dynoxide for all tests here; a namespace of its own for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path

import pytest
import pytest_asyncio
from botocore.loaders import JSONFileLoader

from headrace.hosts import emulator
from tests.integration.commit.emulated_mill import EmulatedMill, emulated_mill


@pytest.fixture(scope="session", autouse=True)
def models_are_read_once() -> Iterator[None]:
    """Reading AWS's service models would be most of a test's time: each opens new clients."""
    read = cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: read(path))
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ministack_url() -> AsyncIterator[str]:
    async with emulator.ministack() as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dynoxide_url() -> AsyncIterator[str]:
    binary = os.environ.get("HEADRACE_DYNOXIDE")
    if not binary:
        pytest.skip("HEADRACE_DYNOXIDE names no dynoxide binary: run under .ci/with-dynoxide")
    async with emulator.dynoxide(binary=Path(binary)) as url:
        yield url


@pytest_asyncio.fixture
async def mill(ministack_url: str, dynoxide_url: str) -> AsyncIterator[EmulatedMill]:
    async with emulated_mill(ministack_url, dynoxide_url) as found:
        yield found
