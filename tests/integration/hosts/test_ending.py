"""`headrace worker` ends, although a handler in a thread does not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from uuid import uuid4

import pytest

from headrace import Command, Service
from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.client import send
from headrace.topology.derive import topology
from tests.integration.hosts.emulated_hosts import collected, environment_of
from tests.integration.hosts.memory_hosts import PATIENCE

pytestmark = pytest.mark.emulator

STUCK = """
import threading
from headrace import Command, Service

class Stick(Command, owner="stuck"):
    number: int

stuck = Service("stuck", bus="default")

@stuck.on(Stick, idempotent=True)
def stick(command: Stick) -> None:
    print("stuck", command.number, flush=True)
    threading.Event().wait()
"""


class Stick(Command, owner="stuck"):
    number: int


stuck = Service("stuck", bus="default")


@stuck.on(Stick, idempotent=True)
def stick(command: Stick) -> None:
    """The worker's stands in a module of its own."""


async def line_with(process: asyncio.subprocess.Process, part: str) -> None:
    assert process.stdout is not None
    seen: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        async for line in process.stdout:
            seen.append(line)
            if part in line.decode():
                return
    raise AssertionError(f"The process ended without saying {part!r}: {seen}")


async def test_a_plain_handler_that_hangs_does_not_keep_a_stopped_worker(
    ministack_url: str, tmp_path: Path
) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    endpoints = {"sqs": ministack_url, "events": ministack_url, "dynamodb": ministack_url}
    config = AwsConfig(namespace=f"test{uuid4().hex[:10]}", endpoints=endpoints)
    await provision(topology(stuck), config)
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, **environment_of(ministack_url, config), "PYTHONPATH": paths}
    command = [sys.executable, "-c", "from headrace.cli import main; main()"]
    async with open_ports(config) as ports:
        await send(ports, [Stick(number=1)], bus="default")
        process = await asyncio.create_subprocess_exec(
            *command,
            *("worker", "stuck:stuck", "--drain", "0"),
            cwd=tmp_path,
            env=environment,
            stdout=PIPE,
            stderr=STDOUT,
        )
        try:
            await line_with(process, "stuck 1")
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

        assert process.returncode == 0
        assert "Threads that do not end: 1, so the process ends without them." in said.decode()
        (again,) = await collected(ports, "stuck", 1)
        assert again.receive_count == 2
