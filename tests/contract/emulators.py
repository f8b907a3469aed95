"""The emulators that the contract tests run on."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.hosts import emulator

_BRISK = Path(__file__).with_name("brisk_ministack.py")


@asynccontextmanager
async def brisk_ministack() -> AsyncIterator[str]:
    """`emulator.ministack`, but for how often it looks for schedules that are due."""
    port = emulator.free_port()
    settings = {
        "BIND_HOST": emulator.HOST,
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "MINISTACK_ACCOUNT_ID": emulator.ACCOUNT,
        "MINISTACK_REGION": emulator.REGION,
    }
    command = [sys.executable, str(_BRISK)]
    # Not public: what starts, watches and ends an emulator, which is not what is tested here.
    running = emulator._running(
        "ministack", command, settings, port, emulator._HEALTH, None, seconds=20
    )
    async with running as endpoint:
        yield endpoint
