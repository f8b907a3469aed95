"""A saga that is stuck, from the first look at it to its end: workers here, an operator at the
command line there, and the emulator between them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from headrace import Service, Transaction
from headrace.client import send
from headrace.errors import NotProvisioned
from headrace.hosts.worker import Worker
from headrace.observer import Observer, SagaChange
from headrace.pipeline import running
from headrace.saga.operating import Sagas
from tests.load.common import BRIEF, Emulated, emulated
from tests.unit.cli.conftest import Ended
from tests.unit.saga import removal
from tests.unit.saga.removal import SAGA, SERVICE, PianoSold, cranes, movers

pytestmark = pytest.mark.emulator

ROOT: Final = Path(__file__).parents[3]
PATIENCE: Final = 60.0

Operator: TypeAlias = Callable[..., Coroutine[Any, Any, Ended]]


class Watch(Observer):
    """Told of what sagas come to."""

    def __init__(self) -> None:
        self._changes: asyncio.Queue[str] = asyncio.Queue()

    def saga(self, service: str, change: SagaChange) -> None:
        self._changes.put_nowait(change.status)

    async def came_to(self, status: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self._changes.get() != status:
                pass


@asynccontextmanager
async def at_work(on: Emulated, watch: Watch) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with running(movers, on.ports, watch) as one, running(cranes, on.ports, watch) as other:
        worker = asyncio.create_task(Worker([one, other], settings=BRIEF, observer=watch).run(stop))
        try:
            yield
        finally:
            stop.set()
            await worker


def operator(on: Emulated) -> Operator:
    """`await headrace("saga", "list", SERVICE)`, in a process of its own."""
    path = os.pathsep.join([str(ROOT / "framework"), str(ROOT)])

    async def call(*arguments: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from headrace.cli import main; main()", *arguments),
            env={**os.environ, **on.environment, "PYTHONPATH": path},
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())

    return call


def lines(ended: Ended) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


async def test_a_saga_that_is_stuck_is_found_looked_at_resumed_and_ends(
    ministack_url: str,
) -> None:
    watch = Watch()
    async with emulated(movers, cranes, url=ministack_url) as on, at_work(on, watch):
        headrace = operator(on)
        with removal.trouble():
            removal.heavy.add("P1")
            removal.jammed.add("P1")
            await send(on.ports, [PianoSold(piano="P1")], bus=movers.bus)
            await watch.came_to("stuck")

            (row,) = lines(await headrace("saga", "list", SERVICE, "--stuck", "--json"))
            assert (row["saga"], row["key"], row["steps"]) == (SAGA, "P1", ["hire"])

            (shown,) = lines(await headrace("saga", "show", SERVICE, "P1", "--json"))
            assert shown["status"] == "stuck"
            assert shown["state"] == {"piano": "P1", "owner": "***"}
            assert [(entry["event"], entry["sent"]) for entry in shown["history"]] == [
                ("PianoSold", ["HireCrane"]),
                ("CraneHired", ["LiftPiano"]),
                ("PianoDropped", ["ReturnCrane"]),
                ("CraneJammed", []),
                ("SagaTimer", ["ReturnCrane"]),
                ("CraneJammed", []),
            ]

        resumed = await headrace("saga", "resume", SERVICE, "P1", "--why", "oiled", "--yes")
        assert resumed.code == 0, resumed.out + resumed.err
        await watch.came_to("compensated")

        (after,) = lines(await headrace("saga", "show", SERVICE, "P1", "--json"))
        assert after["status"] == "compensated"
        assert [entry["event"] for entry in after["history"][6:]] == [
            "SagaIntervention",
            "CraneReturned",
        ]
        assert [item async for item in Sagas(movers, on.ports).open(SAGA)] == []


async def test_a_table_from_before_there_were_sagas_is_not_provisioned_for_them(
    ministack_url: str,
) -> None:
    before = Service("movers", bus="stage")

    @before.on(PianoSold)
    async def lift_by_hand(event: PianoSold, tx: Transaction) -> None: ...

    async with emulated(before, url=ministack_url) as on:
        with pytest.raises(NotProvisioned, match="no index 'relay'"):
            await Sagas(movers, on.ports).in_flight()
