"""Where the soak runs: emulators of its own, and queues that give a message up soon."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from headrace.hosts.emulator import dynoxide, endpoints_environment, ministack
from headrace.topology.model import Queue, Topology

VISIBILITY = timedelta(seconds=2)
"""What a killed worker had received comes again after this; a handler takes milliseconds, and a
message whose handler waits for a bank is kept hidden meanwhile."""

RECEIVES = 1000
"""The most that SQS allows: no number of kills may make a dead letter."""


@asynccontextmanager
async def emulators(folder: Path) -> AsyncIterator[Mapping[str, str]]:
    """Yields the environment that leads to them. Tables are dynoxide's where there is one,
    because no two writers of a row pass each other there, and ministack's otherwise."""
    async with ministack(log=folder / "ministack.log") as url:
        if not has_dynoxide():
            yield endpoints_environment(url)
            return
        async with dynoxide(log=folder / "dynoxide.log") as tables:
            yield endpoints_environment(url, dynamodb=tables)


def has_dynoxide() -> bool:
    return bool(os.environ.get("HEADRACE_DYNOXIDE") or shutil.which("dynoxide"))


def impatient(topology: Topology) -> Topology:
    """The same topology with queues on which a message of a killed worker soon comes again."""
    return replace(topology, queues=tuple(map(_impatient, topology.queues)))


def _impatient(queue: Queue) -> Queue:
    receives = RECEIVES if queue.dead_letters else 0
    return replace(queue, visibility=VISIBILITY, max_receive_count=receives)
