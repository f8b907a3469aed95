"""Every test of a port runs on every backend that has the port."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from functools import cache

import pytest
import pytest_asyncio
from botocore.loaders import JSONFileLoader

from headrace.hosts import emulator
from tests.contract.deviations import expected_failure
from tests.contract.emulators import brisk_ministack
from tests.contract.world import MemoryWorld, World, aws_world

BACKENDS = {
    "queues": ("memory", "ministack", "localstack"),
    "bus": ("memory", "ministack", "localstack"),
    "scheduler": ("memory", "ministack", "localstack"),
    "store": ("memory", "ministack", "dynoxide"),
}
"""By the folder of a test."""

NO_DYNOXIDE = pytest.mark.skipif(
    not os.environ.get("HEADRACE_DYNOXIDE"),
    reason="HEADRACE_DYNOXIDE does not name a dynoxide binary",
)
NO_LOCALSTACK = pytest.mark.skipif(
    not os.environ.get("HEADRACE_LOCALSTACK_PYTHON"),
    reason="HEADRACE_LOCALSTACK_PYTHON names no interpreter",
)
MARKS: dict[str, tuple[pytest.MarkDecorator, ...]] = {
    "memory": (),
    "ministack": (pytest.mark.emulator,),
    "dynoxide": (pytest.mark.emulator, pytest.mark.dynoxide, NO_DYNOXIDE),
    "localstack": (pytest.mark.emulator, pytest.mark.slow, NO_LOCALSTACK),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "deviates(*names): rows of DEVIATIONS that this test shows")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "endpoint" in metafunc.fixturenames:
        names = [n for mark in metafunc.definition.iter_markers("deviates") for n in mark.args]
        folder = metafunc.definition.path.parent.name
        metafunc.parametrize(
            "endpoint",
            [_backend(backend, tuple(names)) for backend in BACKENDS[folder]],
            indirect=True,
        )


def _backend(backend: str, deviations: tuple[str, ...]) -> object:
    failure = expected_failure(backend, deviations)
    marks = (*MARKS[backend], *([failure] if failure else []))
    return pytest.param(backend, id=backend, marks=marks)


@pytest.fixture(scope="session", autouse=True)
def models_are_read_once() -> Iterator[None]:
    """Reading AWS's service models would be most of a test's time: each opens new clients."""
    read = cache(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: read(path))
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ministack() -> AsyncIterator[str]:
    async with brisk_ministack() as endpoint:
        yield endpoint


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dynoxide() -> AsyncIterator[str]:
    async with emulator.dynoxide() as endpoint:
        yield endpoint


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def localstack() -> AsyncIterator[str]:
    async with emulator.localstack() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(request: pytest.FixtureRequest) -> str | None:
    """Where the backend listens; nowhere, if it is memory. Each emulator starts once."""
    found: str | None = None
    if request.param != "memory":
        found = request.getfixturevalue(request.param)
    return found


@pytest_asyncio.fixture
async def world(endpoint: str | None) -> AsyncIterator[World]:
    if endpoint is None:
        yield MemoryWorld()
    else:
        async with aws_world(endpoint) as found:
            yield found
