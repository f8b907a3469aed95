"""One emulator for all tests here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from headrace.hosts import emulator


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ministack_url() -> AsyncIterator[str]:
    async with emulator.ministack() as url:
        yield url
