"""What a worker process says of itself, while its queue and its network come and go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.aws.client import open_clients
from headrace.aws.provision import provision
from headrace.hosts.emulator import free_port
from headrace.topology.derive import topology
from tests.integration.hosts import gated
from tests.integration.hosts.bank import Deposited
from tests.integration.hosts.bodies import event
from tests.integration.hosts.emulated_hosts import EmulatedHost, environment_of, on_worker
from tests.integration.hosts.memory_hosts import PATIENCE
from tests.integration.hosts.test_worker_process import Gatekeeper, let_pass

pytestmark = pytest.mark.emulator

ROOT: Final = Path(__file__).parents[3]
HOST: Final = "127.0.0.1"
_LOOK: Final = 0.05


# --- the network ---


@dataclass(slots=True)
class Wire:
    """TCP between the worker and the emulator. What comes back waits while `open` is not set.
    `calls` counts what was asked of SQS."""

    to: tuple[str, int]
    url: str = ""
    calls: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    ends: set[asyncio.Task[None]] = field(default_factory=set)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self.to)
        both = {
            asyncio.create_task(self._out(reader, back)),
            asyncio.create_task(self._home(there, writer)),
        }
        self.ends |= both
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for end in both:
            end.cancel()
        writer.close()
        back.close()
        self.ends -= both

    async def _out(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(65_536):
                self.calls += piece.count(b"AmazonSQS.")
                writer.write(piece)
                await writer.drain()

    async def _home(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(65_536):
                await self.open.wait()
                writer.write(piece)
                await writer.drain()


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    host, _, port = url.removeprefix("http://").partition(":")
    wire = Wire((host, int(port)))
    wire.open.set()
    server = await asyncio.start_server(wire.connected, HOST, 0)
    try:
        wire.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        yield wire
    finally:
        server.close()
        for end in wire.ends:
            end.cancel()
        await asyncio.gather(*wire.ends, return_exceptions=True)


# --- the worker ---


@dataclass(slots=True)
class Page:
    status: int
    said: dict[str, Any]

    @property
    def reasons(self) -> str:
        return " ".join(self.said["reasons"])


@dataclass(slots=True)
class Probed:
    """A worker process, and its health."""

    process: asyncio.subprocess.Process
    port: int
    log: Path

    async def ask(self, path: str) -> Page | None:
        """`None` while nobody listens."""
        return await asyncio.to_thread(self._ask, path)

    async def until(
        self, path: str, status: int, meant: Callable[[Page], bool] = lambda page: True
    ) -> Page:
        """The page, once it says so."""
        page: Page | None = None
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    page = await self.ask(path)
                    if page is not None and page.status == status and meant(page):
                        return page
                    assert self.process.returncode is None, self.printed()
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise AssertionError(
                f"{path} never was {status}, but {page}\n{self.printed()}"
            ) from None

    def printed(self) -> str:
        return self.log.read_text()

    def _ask(self, path: str) -> Page | None:
        connection = HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return Page(answer.status, json.loads(answer.read()))
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()


@asynccontextmanager
async def probed_worker(
    host: EmulatedHost, url: str, log: Path, **more: str
) -> AsyncIterator[Probed]:
    port = free_port()
    options = ["--health", f"{HOST}:{port}", "--wait", "1", "--patience", "1"]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from headrace.cli import main; main()"),
            *("worker", f"{gated.__name__}:ledger", *options),
            stdout=output,
            stderr=output,
            env={
                **os.environ,
                **environment_of(url, host.config),
                "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
                **more,
            },
        )
    try:
        yield Probed(process, port, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def handled(host: EmulatedHost, account: str) -> None:
    await host.send(event(Deposited(account=account, amount=5), id=f"d-{account}"))
    async with asyncio.timeout(PATIENCE):
        # It is in another process, and the table says nothing by itself.
        while await host.statuses(("credit", f"d-{account}")) != ["done"]:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)


async def test_a_queue_that_vanishes_is_named_until_it_is_there_again(
    ministack_url: str, tmp_path: Path
) -> None:
    async with (
        on_worker(gated, ministack_url) as host,
        wire_to(ministack_url) as wire,
        probed_worker(host, wire.url, tmp_path / "log") as worker,
    ):
        assert (await worker.until("/readyz", 200)).said["status"] == "ready"
        await handled(host, "A")

        async with open_clients(host.config) as clients:
            named = await clients.sqs.get_queue_url(QueueName=host.config.physical("ledger"))
            await clients.sqs.delete_queue(QueueUrl=named["QueueUrl"])
        page = await worker.until("/readyz", 503)
        assert "'ledger'" in page.reasons
        (queue,) = [queue for queue in page.said["queues"] if queue["queue"] == "ledger"]
        assert queue["phase"] == "failing"
        assert queue["cause"].rstrip(".") in page.reasons
        alive = await worker.ask("/healthz")
        assert alive is not None
        assert alive.status == 200
        await fails_again(wire, worker, times=2)
        assert worker.printed().count(queue["cause"]) == 1
        assert worker.printed().count("cannot be received from for now") == 1

        await provision(topology(gated.ledger, gated.auditor), host.config)
        await worker.until("/readyz", 200)
        assert "ledger is received from again" in worker.printed()
        await handled(host, "B")


async def fails_again(wire: Wire, worker: Probed, *, times: int) -> None:
    before = wire.calls
    await worker.until("/readyz", 503, lambda page: wire.calls >= before + times)


async def test_aws_that_does_not_answer_is_told_until_it_does_again(
    ministack_url: str, tmp_path: Path
) -> None:
    async with (
        on_worker(gated, ministack_url) as host,
        wire_to(ministack_url) as wire,
        probed_worker(host, wire.url, tmp_path / "log") as worker,
    ):
        await worker.until("/readyz", 200)
        wire.open.clear()
        page = await worker.until("/readyz", 503)
        assert "'ledger'" in page.reasons
        assert "not answered within 2 s" in page.reasons
        alive = await worker.ask("/healthz")
        assert alive is not None
        assert alive.status == 200
        wire.open.set()
        await worker.until("/readyz", 200)
        await handled(host, "A")
        assert worker.printed().count("was not answered within 2 s") == 1


async def test_a_worker_that_drains_lives_and_is_not_ready(
    ministack_url: str, tmp_path: Path
) -> None:
    keeper = Gatekeeper()
    server = await asyncio.start_server(keeper.arrived, HOST, 0)
    async with server, on_worker(gated, ministack_url) as host:
        address = f"{HOST}:{server.sockets[0].getsockname()[1]}"
        settings = {"GATE": address, "GATED": "handler"}
        async with probed_worker(host, ministack_url, tmp_path / "log", **settings) as worker:
            await worker.until("/readyz", 200)
            await host.send(event(Deposited(account="A", amount=5), id="d-A"))
            _, handler = await keeper.visit()
            worker.process.send_signal(signal.SIGTERM)
            page = await worker.until("/readyz", 503)
            assert "stops" in page.reasons
            alive = await worker.ask("/healthz")
            assert alive is not None
            assert (alive.status, alive.said["status"]) == (200, "alive")
            let_pass(handler)
            async with asyncio.timeout(PATIENCE):
                assert await worker.process.wait() == 0
            assert await worker.ask("/healthz") is None
        assert await host.statuses(("credit", "d-A")) == ["done"]
        await keeper.close()
