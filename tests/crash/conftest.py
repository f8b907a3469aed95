"""The process that lives are ended in, and the emulators, once for all tests here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor

import pytest
import pytest_asyncio

from headrace.hosts import emulator
from tests.crash.laboratory import laboratory


@pytest.fixture(scope="session")
def instrumented() -> Iterator[Executor]:
    with laboratory() as process:
        yield process


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ministack_url() -> AsyncIterator[str]:
    async with emulator.ministack() as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dynoxide_url() -> AsyncIterator[str]:
    if not os.environ.get("HEADRACE_DYNOXIDE"):
        pytest.skip("HEADRACE_DYNOXIDE does not name a dynoxide binary")
    async with emulator.dynoxide() as url:
        yield url
