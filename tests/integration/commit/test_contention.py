"""Twenty consumers in two processes get the same two hundred deliveries at once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.ports import Ports
from headrace.topology.derive import topology
from headrace.topology.model import Topology
from tests.integration.commit.contender import Assignment, assigned
from tests.integration.commit.mill import (
    a_mill,
    hoppers,
    require_said_once,
    sacks_in,
    said_in,
    statuses,
)

pytestmark = [pytest.mark.emulator, pytest.mark.dynoxide]

ROOT: Final = Path(__file__).parents[3]
PATIENCE: Final = 300.0
"""Seconds after which a test that waits in vain is ended."""
PROCESSES: Final = 2


@pytest.fixture
async def ports(dynoxide_url: str) -> AsyncIterator[tuple[Ports, AwsConfig]]:
    """A table for the mill, and nothing else."""
    endpoints = dict.fromkeys(("sqs", "events", "dynamodb"), dynoxide_url)
    config = AwsConfig(namespace=f"test{uuid4().hex[:10]}", endpoints=endpoints)
    await provision(Topology(tables=topology(a_mill()).tables), config)
    async with open_ports(config) as opened:
        yield opened, config


@asynccontextmanager
async def contender(assignment: Assignment) -> AsyncIterator[asyncio.subprocess.Process]:
    paths = [str(ROOT), *filter(None, sys.path)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.commit.contender",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **assigned(assignment), "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def contest(assignments: Sequence[Assignment]) -> Counter[str]:
    """Let a process for each assignment begin when all are ready; how often which outcome came
    about in all of them."""
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(contender(each)) for each in assignments]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        ended = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        assert [process.returncode for process in processes] == [0] * len(processes)
    return sum((Counter[str](json.loads(printed)) for printed, _ in ended), Counter[str]())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weighed", "seen"])
async def test_every_consumer_is_done_with_every_delivery_and_each_has_one_effect(
    ports: tuple[Ports, AwsConfig], dynoxide_url: str, tmp_path: Path, kind: str
) -> None:
    """`weighed` is counted in one of four counters, so that the handlers conflict; of `seen`
    nothing is written but the record. Both say an event and a command."""
    opened, config = ports
    assignments = [
        Assignment(dynoxide_url, config.namespace, kind, str(tmp_path / f"said-{n}"), seed=100 * n)
        for n in range(PROCESSES)
    ]
    told = assignments[0].told()

    counted = await contest(assignments)

    everyone = sum(assignment.consumers for assignment in assignments)
    assert counted["DeadLetter"] == 0
    assert counted["Ack"] + counted["duplicate"] == everyone * len(told)
    assert counted["Ack"] == len(told)

    expected = sacks_in(told.values())
    assert await hoppers(opened.store, expected) == expected
    assert set((await statuses(opened.store, told)).values()) == {"done"}

    bodies = written_in(assignments)
    # What is said again is said as it was committed, whoever says it and whatever it had computed.
    require_said_once(said_in(bodies), told)
    if kind == "weighed":
        assert counted["lost"] > len(told)
        # Each count was said once: nobody's sack was counted on top of an old count.
        milled = [payload for payload in map(payload_in, set(bodies)) if "sacks" in payload]
        counts = sorted((payload["hopper"], payload["sacks"]) for payload in milled)
        assert counts == [(h, n + 1) for h in sorted(expected) for n in range(expected[h])]


def written_in(assignments: Sequence[Assignment]) -> list[str]:
    """Everything that was put on the bus or into a queue."""
    return [line for each in assignments for line in Path(each.said).read_text().splitlines()]


def payload_in(body: str) -> dict[str, object]:
    payload: dict[str, object] = json.loads(body)["detail"]["data"]
    return payload
