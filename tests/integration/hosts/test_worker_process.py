"""A real worker process, and the signals that end it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.integration.hosts import gated
from tests.integration.hosts.bank import Account, Deposited
from tests.integration.hosts.bodies import event
from tests.integration.hosts.emulated_hosts import (
    EmulatedHost,
    environment_of,
    on_worker,
)
from tests.integration.hosts.memory_hosts import PATIENCE

pytestmark = pytest.mark.emulator

ROOT = Path(__file__).parents[3]

Visit: TypeAlias = tuple[str, asyncio.StreamWriter]


class Gatekeeper:
    """Where the process says what happens there, and waits for leave to go on."""

    def __init__(self) -> None:
        self._visits: asyncio.Queue[Visit] = asyncio.Queue()
        self._visitors: list[asyncio.StreamWriter] = []

    async def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._visitors.append(writer)
        said = await reader.readline()
        self._visits.put_nowait((said.decode().strip(), writer))

    async def visit(self) -> Visit:
        """What happened next, and whom to let go on."""
        async with asyncio.timeout(PATIENCE):
            return await self._visits.get()

    async def close(self) -> None:
        for visitor in self._visitors:
            visitor.close()
            with suppress(ConnectionError):
                await visitor.wait_closed()


def let_pass(visitor: asyncio.StreamWriter) -> None:
    visitor.write(b"go on\n")


@pytest.fixture
async def gate() -> AsyncIterator[tuple[Gatekeeper, str]]:
    keeper = Gatekeeper()
    async with await asyncio.start_server(keeper.arrived, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()[:2]
        yield keeper, f"{host}:{port}"
        await keeper.close()


@asynccontextmanager
async def worker_process(
    host: EmulatedHost, address: str, *gated_at: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker of `gated`, which asks for leave at these places."""
    paths = [str(ROOT), *filter(None, sys.path)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.hosts.gated",
        env={
            **os.environ,
            **environment_of(host.url, host.config),
            "PYTHONPATH": os.pathsep.join(paths),
            "GATE": address,
            "GATED": ",".join(gated_at),
            # What a killed process had received then comes again within a test.
            "HEADRACE_VISIBILITY_SECONDS": "1",
        },
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def deposited(account: str) -> str:
    return event(Deposited(account=account, amount=5), id=f"d-{account}")


async def test_sigterm_lets_the_running_handler_finish_and_nothing_new_begin(
    ministack_url: str, gate: tuple[Gatekeeper, str]
) -> None:
    keeper, address = gate
    async with on_worker(gated, ministack_url) as host:
        await host.send(deposited("A"))
        async with worker_process(host, address, "handler", "stop") as process:
            said, handler = await keeper.visit()
            assert said == "handler A"
            process.send_signal(signal.SIGTERM)
            said, stopping = await keeper.visit()
            assert said == "stop"
            await host.send(deposited("B"))
            let_pass(stopping)
            let_pass(handler)
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == 0

        assert await host.entities(Account, "A", "B") == {
            "A": Account(number="A", balance=5, movements=1),
            "B": None,
        }
        assert await host.statuses(("credit", "d-A")) == ["done"]
        assert [detail["data"]["account"] for detail in await host.published()] == ["A"]
        # What was handled is deleted. The other one is left, though the emulator may have given
        # it to the poll that was cancelled, which hides it for a while.
        depth = await host.ports.queues.depth("ledger")
        assert depth.visible + depth.in_flight == 1


async def test_what_a_killed_worker_had_committed_is_sent_by_the_next_and_has_one_effect(
    ministack_url: str, gate: tuple[Gatekeeper, str]
) -> None:
    keeper, address = gate
    async with on_worker(gated, ministack_url) as host:
        await host.send(deposited("A"))
        async with worker_process(host, address, "bus") as process:
            said, _ = await keeper.visit()
            process.kill()
            await process.wait()
        kept_back = json.loads(said.removeprefix("bus "))
        assert await host.statuses(("credit", "d-A")) == ["pending"]
        assert await host.published() == []

        assert await host.handle(1) == {deposited("A"): "acked"}

        assert await host.published() == [kept_back]
        assert await host.statuses(("credit", "d-A")) == ["done"]
        assert await host.entities(Account, "A") == {
            "A": Account(number="A", balance=5, movements=1)
        }
