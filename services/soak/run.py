"""One run of the soak, from empty emulators to a verdict."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from headrace.aws.client import open_clients, open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.client import read
from headrace.errors import HeadraceError
from headrace.hosts.worker import run_worker
from headrace.ports import Ports
from headrace.service import Service
from headrace.topology.derive import topology
from services.demo.found import held, look, until_over
from services.demo.run import SERVICES
from services.demo.script import BUS, restock
from services.inventory.app import inventory
from services.inventory.model import Stock
from services.soak.cloud import VISIBILITY, emulators, impatient
from services.soak.feed import Feed
from services.soak.report import Standing, show_progress
from services.soak.rows import read_rows
from services.soak.tap import Seen, tap_into
from services.soak.verdict import Evidence, Verdict, judge
from services.soak.workers import Killing, WorkerProcess

_TAP_CONCURRENCY = 100
_LOOK_SECONDS = 0.5
_HIDDEN_SECONDS = 15 * 60


class Stopped(HeadraceError):
    """A signal ended the run."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `gave_up` is a sentence, empty if everything happened that should."""

    verdict: Verdict
    kills: dict[str, int]
    seconds: float
    gave_up: str


@dataclass(slots=True)
class Run:
    """What is to be done, who does it, and what has been seen of it."""

    feed: Feed
    killing: Killing
    patience: float
    folder: Path
    console: Console
    seen: Seen = field(default_factory=Seen)
    workers: Sequence[WorkerProcess] = ()
    started: float = 0.0

    async def go(self) -> Ended:
        """Start everything, send and kill until all is done or nothing changes any more, end
        everything, and look what there is.

        Raises `Stopped` at a signal, `WorkerEnded` for a worker that ended by itself, and
        another `HeadraceError` when something does not start.
        """
        async with emulators(self.folder) as environ:
            config = AwsConfig.from_environment({**os.environ, **environ})
            tap = tap_into(BUS, self.seen)
            services = (*SERVICES, tap)
            await provision(impatient(topology(*services)), config)
            visibility = {"HEADRACE_VISIBILITY_SECONDS": f"{VISIBILITY.total_seconds():g}"}
            self.workers = _workers({**os.environ, **environ, **visibility}, self.folder)
            async with open_ports(config) as ports:
                self.started = monotonic()
                gave_up = await self._soak(ports, tap, services)
                seconds = monotonic() - self.started
                evidence = await self._evidence(ports, config, services, over=not gave_up)
            kills = {worker.service: worker.kills for worker in self.workers}
            return Ended(judge(evidence), kills, seconds, gave_up)

    async def _soak(self, ports: Ports, tap: Service, services: Sequence[Service]) -> str:
        """Everything at once until one thing has ended; a sentence if that is giving up."""
        queues = [queue for service in services for queue in service.queues]
        return await _first(
            self._everything(ports, queues),
            self._giving_up(ports, queues),
            _tapping(tap, ports),
            self.killing.go_on(self.workers, self.seen.last),
            show_progress(self._standing, self.console),
            *(worker.run() for worker in self.workers),
        )

    async def _everything(self, ports: Ports, queues: Sequence[str]) -> str:
        await self._stock_up(ports)
        await self.feed.go(ports, self.seen)
        await self.seen.until(lambda: not self._late())
        # Twice, because a message may pass from a queue not yet looked at to one that was.
        await until_over(ports, self.feed.sample, queues)
        await until_over(ports, self.feed.sample, queues)
        return ""

    async def _stock_up(self, ports: Ports) -> None:
        stock = self.feed.sample.stock
        await restock(ports, self.feed.sample)
        while True:
            found = await read(ports, Stock, list(stock), table=inventory.name)
            if {item.sku: item.available for item in found if item} == stock:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _giving_up(self, ports: Ports, queues: Sequence[str]) -> str:
        """Watch until nothing has changed for too long. Messages count wherever they are in a
        queue: one that fails for ever is received again and again, and that is no change."""
        before: object = None
        changed = monotonic()
        while True:
            left = await held(ports, queues)
            now = (len(self.seen.events), left)
            if now != before:
                before, changed = now, monotonic()
            if monotonic() - changed > self._patience():
                late = [*self._late(), *_full(queues, left)]
                what = "; ".join(late) or "no order was taken, as the stock did not come in"
                return f"Nothing has changed for {self._patience():g} s: {what}."
            await asyncio.sleep(_LOOK_SECONDS)

    def _patience(self) -> float:
        # A bank that does not answer is asked again, also when nobody needs to know any more. And
        # what waits for the lease of a killed worker is hidden for up to 15 minutes.
        return self.patience if self._late() else self.patience + _HIDDEN_SECONDS

    def _late(self) -> list[str]:
        """What orders have not done yet, as phrases."""
        orders = self.feed.sample.orders
        return [
            f"{len(orders) - self.seen.count(step)} of {len(orders)} {what}"
            for step, what in (
                ("ended", "orders have not ended"),
                ("notified", "customers are not notified"),
            )
            if self.seen.count(step) < len(orders)
        ]

    def _standing(self) -> Standing:
        return Standing(
            orders=len(self.feed.sample.orders),
            ended=self.seen.count("ended"),
            notified=self.seen.count("notified"),
            kills=self._kills(),
            seconds=monotonic() - self.started,
        )

    def _kills(self) -> int:
        return sum(worker.kills for worker in self.workers)

    async def _evidence(
        self, ports: Ports, config: AwsConfig, services: Sequence[Service], *, over: bool
    ) -> Evidence:
        tables = [config.physical(service.table) for service in services if service.table]
        async with open_clients(config) as clients:
            rows = await read_rows(clients, tables)
        found = await look(ports, self.feed.sample, services, self.folder, over=over)
        return Evidence(self.feed.sample, found, rows, self.seen, self._kills())


def _workers(environ: Mapping[str, str], folder: Path) -> list[WorkerProcess]:
    return [
        WorkerProcess(name, f"services.{name}.app:{name}", environ, folder / f"{name}.log")
        for name in (service.name for service in SERVICES)
    ]


async def _tapping(tap: Service, ports: Ports) -> str:
    await run_worker([tap], ports, concurrency=_TAP_CONCURRENCY)
    raise Stopped("The soak was stopped by a signal.")


def _full(queues: Sequence[str], held: Sequence[int]) -> list[str]:
    return [f"{queue} holds {count}" for queue, count in zip(queues, held, strict=True) if count]


async def _first(*coroutines: Coroutine[Any, Any, str | None]) -> str:
    """What the first of them returns or raises; the others are cancelled, and have ended."""
    running = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    first, *_ = [task.result() for task in ended]
    return first or ""
