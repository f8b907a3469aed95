"""Emulators start on loopback, end with their block, and never outlive their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from headrace.errors import ConfigurationError
from headrace.hosts import emulator

pytestmark = pytest.mark.emulator


def listens(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname, address.port)) == 0


async def test_an_emulator_is_gone_after_its_block() -> None:
    async with emulator.ministack() as url:
        assert listens(url)

    assert not listens(url)


async def test_an_emulator_is_gone_after_a_block_that_raised() -> None:
    url = ""
    with pytest.raises(LookupError):
        async with emulator.ministack() as url:
            raise LookupError

    assert url
    assert not listens(url)


async def test_a_port_that_is_taken_is_not_shared() -> None:
    async with emulator.ministack() as url:
        with pytest.raises(ConfigurationError, match="cannot be used"):
            async with emulator.ministack(port=urlsplit(url).port):
                pytest.fail("two emulators on one port")


async def test_an_emulator_that_dies_at_once_shows_what_it_printed(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such table: stock >&2\nexit 3\n")
    broken.chmod(0o755)

    with pytest.raises(ConfigurationError, match=r"status 3 .*\n  no such table: stock"):
        async with emulator.dynoxide(binary=broken):
            pytest.fail("a broken emulator came up")


async def test_an_emulator_that_is_not_there_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HEADRACE_DYNOXIDE", raising=False)
    monkeypatch.delenv("HEADRACE_LOCALSTACK_PYTHON", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(ConfigurationError, match="set HEADRACE_DYNOXIDE"):
        async with emulator.dynoxide():
            pytest.fail("there is no such binary")
    with pytest.raises(ConfigurationError, match="set HEADRACE_LOCALSTACK_PYTHON"):
        async with emulator.localstack():
            pytest.fail("there is no such interpreter")


def only_child(parent: int) -> int:
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text())


PARENT = """
import asyncio, sys
from headrace.hosts import emulator

async def main():
    async with emulator.ministack() as url:
        print(url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
async def test_an_emulator_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": str(tmp_path),
        },
    )
    assert parent.stdout is not None
    url = (await parent.stdout.readline()).decode().strip()
    ended = asyncio.Event()
    child_end = os.pidfd_open(only_child(parent.pid))
    asyncio.get_running_loop().add_reader(child_end, ended.set)
    assert listens(url)

    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await ended.wait()

    assert not listens(url)
    asyncio.get_running_loop().remove_reader(child_end)
    os.close(child_end)


def test_the_environment_points_every_client_at_the_emulator() -> None:
    variables = emulator.endpoints_environment("http://127.0.0.1:1", dynamodb="http://127.0.0.1:2")

    assert variables["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert variables["AWS_ENDPOINT_URL_DYNAMODB"] == "http://127.0.0.1:2"
    assert variables["AWS_ENDPOINT_URL_DYNAMODB_STREAMS"] == "http://127.0.0.1:2"
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"} <= variables.keys()
