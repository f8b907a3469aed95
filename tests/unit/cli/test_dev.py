"""`headrace dev` and `headrace worker` as processes, against an emulator."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.emulator

SERVICES = ("shop.app:till", "shop.app:store")
LIMIT = 60
"""Seconds after which a process that says nothing is a failure."""


@asynccontextmanager
async def process(
    project: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """The command line in a process of its own; ended on exit, if it has not ended itself."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    clean |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environ or {})}
    command = [sys.executable, "-c", "from headrace.cli import main; main()", *arguments]
    started = await asyncio.create_subprocess_exec(
        *command, cwd=project, env=clean, stdout=PIPE, stderr=STDOUT
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.communicate()


async def line_with(started: Process, part: str) -> str:
    """The next line of the process that says this."""
    assert started.stdout is not None
    seen: list[str] = []
    async with asyncio.timeout(LIMIT):
        async for line in started.stdout:
            seen.append(line.decode())
            if part in seen[-1]:
                return seen[-1]
    raise AssertionError(f"The process ended without saying {part!r}:\n{''.join(seen)}")


async def stopped(started: Process) -> tuple[int, str]:
    """Ask the process to end; its exit code, and what it said at last."""
    started.send_signal(signal.SIGTERM)
    async with asyncio.timeout(LIMIT):
        rest, _ = await started.communicate()
    assert started.returncode is not None
    return started.returncode, rest.decode()


async def test_dev_starts_an_emulator_and_handles_what_another_terminal_publishes(
    project: Path,
) -> None:
    async with process(project, "dev", *SERVICES, "--plain", "--port", "0") as dev:
        exports = await line_with(dev, "export AWS_ENDPOINT_URL=")
        exports += await line_with(dev, "export AWS_REGION=")
        exports += await line_with(dev, "export AWS_ACCESS_KEY_ID=")
        environ = dict(re.findall(r"(AWS_\w+)=(\S+)", exports))

        publish = ("publish", "Bought", "--data", '{"sku": "A"}', "-m", "shop", "--bus", "shop")
        async with process(project, *publish, environ=environ) as published:
            await line_with(published, "Sent Bought ")

        await line_with(dev, "store: Bought is done")
        code, said = await stopped(dev)

    assert code == 0
    assert re.search(r"^store: 1 received, 0 in flight, 1 done, ", said, re.MULTILINE)


async def test_a_port_that_is_given_wins_over_an_endpoint_of_the_environment(
    project: Path,
) -> None:
    environ = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    async with process(
        project, "dev", SERVICES[0], "--plain", "--port", "0", environ=environ
    ) as dev:
        assert "127.0.0.1:9\n" not in await line_with(dev, "export AWS_ENDPOINT_URL=")


async def test_dev_says_that_it_starts_nothing_where_the_environment_names_an_endpoint(
    project: Path,
) -> None:
    async with process(project, "dev", SERVICES[0], "--plain", "--port", "0") as dev:
        endpoint = (await line_with(dev, "export AWS_ENDPOINT_URL=")).strip().partition("=")[2]
        environ = {"AWS_ENDPOINT_URL": endpoint}
        async with process(project, "dev", SERVICES[1], "--plain", environ=environ) as second:
            await line_with(second, "AWS_ENDPOINT_URL is set, so what it names is used and no em")
            assert endpoint in await line_with(second, "export AWS_ENDPOINT_URL=")
            await stopped(second)
        await stopped(dev)


SHELF = """
from headrace import Service
from shop.app import Shipped

shelf = Service("shelf", bus="shop")

@shelf.on(Shipped)
async def count(event: Shipped) -> None:
    print("counted", event.sku, flush=True)
"""


async def test_a_worker_handles_what_was_provisioned_and_ends_with_0_on_sigterm(
    project: Path,
) -> None:
    (project / "shop" / "shelf.py").write_text(SHELF)
    async with process(project, "dev", SERVICES[0], "--plain", "--port", "0") as dev:
        endpoint = (await line_with(dev, "export AWS_ENDPOINT_URL=")).strip().partition("=")[2]
        environ = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        async with process(project, "provision", "shop.shelf:shelf", environ=environ) as provision:
            await line_with(provision, "shelf")
            await provision.wait()
        publish = ("publish", "Shipped", "--data", '{"sku": "A"}', "-m", "shop", "--bus", "shop")
        async with process(project, *publish, environ=environ) as published:
            await line_with(published, "Sent Shipped ")

        async with process(project, "worker", "shop.shelf:shelf", environ=environ) as worker:
            await line_with(worker, "counted A")
            code, said = await stopped(worker)

    assert code == 0
    assert "Stopped: what was running is finished, or comes again." in said


async def test_nothing_is_provisioned_in_an_aws_that_cannot_be_reached(project: Path) -> None:
    environ = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }

    async with process(project, "provision", SERVICES[0], environ=environ) as provision:
        await line_with(provision, "headrace: ")
        async with asyncio.timeout(LIMIT):
            await provision.communicate()

    assert provision.returncode == 3
