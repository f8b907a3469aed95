"""The sample shop at work, with inventory on the one host or on the other.

at first        Lambda alone
one move        the other host starts: both take from the one queue, until each has handled some
                the first is stopped in the middle of its work, and the other is alone
the next move   the other way round
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace.aws.config import AwsConfig
from headrace.client import read
from headrace.errors import HeadraceError
from headrace.hosts.emulator import ACCOUNT, REGION
from headrace.hosts.worker import run_worker
from headrace.ports import Ports
from headrace.service import Service
from services.demo.found import until_over
from services.demo.run import SERVICES
from services.demo.script import restock
from services.inventory.app import inventory
from services.inventory.model import Stock
from services.soak.feed import Feed
from services.soak.workers import WorkerProcess
from tests.load.two_hosts import Host, HostEnded, OnLambda, OnWorker, Witness

ON_THEIR_WAY: Final = 40
"""Orders at a time: an answer that waits in a long queue is not in time."""

_BATCH: Final = 10
_SOME: Final = 3
_TAP_CONCURRENCY: Final = 100
_LOOK_SECONDS: Final = 0.2


class NotMoved(HeadraceError):
    """There were too few orders to see the hosts at work."""


@dataclass(frozen=True, slots=True)
class Move:
    """How many messages each host handled while both were at work, and the new one alone after
    that; and how many were in an invocation that was killed (`cut_short`), or that ran when the
    mapping was disabled (`completed`)."""

    number: int
    source: str
    target: str
    together: Mapping[str, int]
    alone: int
    cut_short: int = 0
    completed: int = 0

    def __str__(self) -> str:
        both = " and ".join(f"{count} by {host}" for host, count in sorted(self.together.items()))
        left = f"; {self.cut_short} cut short, {self.completed} completed" if self.cut_short else ""
        return (
            f"{self.number:3}  {self.source} to {self.target}: together {both}{left}; "
            f"then {self.alone} by {self.target} alone"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where the shop is: its account, and what processes are told of it."""

    ports: Ports
    config: AwsConfig
    environ: Mapping[str, str]
    folder: Path


class Shop:
    """One run: all orders of the feed, and so many moves."""

    def __init__(self, feed: Feed, count: int, place: Place, witness: Witness) -> None:
        self.moves: list[Move] = []
        self._feed = feed
        self._count = count
        self._place = place
        self._witness = witness
        self._sending = Sending(feed, place.ports, witness)
        self._running: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def open(self, tap: Service) -> AsyncIterator[None]:
        """What runs all the time. If anything ends by itself, so does the block, with its error."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for work in (
                    _tapping(tap, self._place.ports),
                    self._worker("order"),
                    self._worker("notification"),
                ):
                    _ = self._begin(work)
                yield
                for task in self._running:
                    task.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from group

    async def run(self) -> None:
        """Raises `NotMoved` when all orders are through and not all moves are made."""
        host, running = self._start(0)
        await self._stock_up()
        self._sending.let_out(self._share)
        sending = self._begin(self._sending.go())
        await self._at_work(host)
        for number in range(1, self._count + 1):
            host, running = await self._move(number, host, running)
        self._sending.let_out(len(self._feed.sendings))
        await sending
        await self._witness.until(lambda: not self._sending.on_their_way)
        await self._until_over()
        host.stop()
        await running

    def standing(self) -> str:
        """How far it is, as a phrase."""
        ended, notified = self._witness.count("ended"), self._witness.count("notified")
        return (
            f"{len(self.moves)} of {self._count} moves are made, {ended} orders have ended, and "
            f"{notified} customers are notified"
        )

    # --- moving ---

    async def _move(
        self, number: int, old: Host, old_running: asyncio.Task[None]
    ) -> tuple[Host, asyncio.Task[None]]:
        new, new_running = self._start(number)
        await self._held_back(new.ready())
        self._sending.let_out(self._share)
        together = await self._at_work(old, new)
        self._sending.let_out(self._share)
        if isinstance(old, OnLambda):
            await self._before_the_last(old.cut())
            await self._held_back(old.ready())
        await self._before_the_last(old.in_the_middle())
        old.stop()
        await self._held_back(old_running)
        alone = await self._at_work(new)
        left = (old.cut_short, old.completed) if isinstance(old, OnLambda) else ()
        self.moves.append(Move(number, old.name, new.name, together, alone[new.name], *left))
        print(self.moves[-1], flush=True)
        return new, new_running

    def _start(self, number: int) -> tuple[Host, asyncio.Task[None]]:
        """The host where inventory is after so many moves."""
        host = self._on_worker() if number % 2 else self._on_lambda()
        return host, self._begin(host.run())

    def _on_lambda(self) -> Host:
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self._place.config.physical(inventory.name)}"
        return OnLambda(self._place.ports, arn, self._place.environ, self._witness)

    def _on_worker(self) -> Host:
        log = self._place.folder / "inventory.log"
        return OnWorker(self._place.environ, self._witness, log)

    async def _at_work(self, *hosts: Host) -> dict[str, int]:
        """Wait until each of them has handled some more, and return how many."""
        before = self._witness.handled.copy()

        def done() -> dict[str, int]:
            return {
                host.name: self._witness.handled[host.name] - before[host.name] for host in hosts
            }

        enough = max(self._share // 3, 1)
        await self._before_the_last(
            self._witness.until(lambda: all(count >= enough for count in done().values()))
        )
        return done()

    async def _held_back(self, work: Awaitable[None]) -> None:
        """Await it while no more orders come than are let out already."""
        self._sending.hold_back()
        await work
        self._sending.let_out(0)

    async def _before_the_last(self, work: Coroutine[Any, Any, None]) -> None:
        """Await it, unless all orders are through by then."""
        working = asyncio.create_task(work)
        over = asyncio.create_task(self._sending.over())
        try:
            await asyncio.wait((working, over), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise NotMoved(f"There were too few orders: {self.standing()}.")
            await working
        finally:
            working.cancel()
            over.cancel()

    @property
    def _share(self) -> int:
        """Orders for each stage: one at first, two of each move, and one after all."""
        return len(self._feed.sample.orders) // (2 * self._count + 2)

    # --- all the time ---

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._running.append(self._group.create_task(work))
        return self._running[-1]

    async def _worker(self, name: str) -> None:
        log = self._place.folder / f"{name}.log"
        where = f"services.{name}.app:{name}"
        await WorkerProcess(name, where, self._place.environ, log).run()

    async def _stock_up(self) -> None:
        sample = self._feed.sample
        await restock(self._place.ports, sample)
        while True:
            found = await read(self._place.ports, Stock, list(sample.stock), table=inventory.name)
            if {item.sku: item.available for item in found if item} == sample.stock:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _until_over(self) -> None:
        queues = [queue for service in SERVICES for queue in service.queues]
        # Twice, because a message may pass from a queue not yet looked at to one that was.
        await until_over(self._place.ports, self._feed.sample, queues)
        await until_over(self._place.ports, self._feed.sample, queues)


async def _tapping(tap: Service, ports: Ports) -> None:
    await run_worker([tap], ports, concurrency=_TAP_CONCURRENCY)
    raise HostEnded("The run was stopped by a signal.")


class Sending:
    """Sends what the feed has, as far as it is let out. After that it sends a few more whenever
    none is on its way, until it is to hold back: so there is work for hosts that are to be seen
    at it, and orders are left for later."""

    def __init__(self, feed: Feed, ports: Ports, witness: Witness) -> None:
        self._feed = feed
        self._ports = ports
        self._witness = witness
        self._next = 0
        self._let_out = 0
        self._holds_back = False
        self._orders: set[str] = set()

    @property
    def on_their_way(self) -> int:
        return len(self._orders) - self._witness.count("notified")

    def let_out(self, sendings: int) -> None:
        """So many more."""
        self._let_out = max(self._let_out, self._next) + sendings
        self._holds_back = False
        self._witness.look_again()

    def hold_back(self) -> None:
        """Send what is let out, and nothing more for now."""
        self._holds_back = True

    async def go(self) -> None:
        while self._next < len(self._feed.sendings):
            await self._witness.until(self._has_room)
            await self._send(min(_BATCH, max(self._let_out - self._next, _SOME)))

    async def over(self) -> None:
        """Wait until all is sent, and nothing on its way any more."""
        last = len(self._feed.sendings)
        await self._witness.until(lambda: self._next == last and not self.on_their_way)

    def _has_room(self) -> bool:
        if self._next < self._let_out:
            return self.on_their_way < ON_THEIR_WAY
        return not (self._holds_back or self.on_their_way)

    async def _send(self, count: int) -> None:
        some = self._feed.sendings[self._next : self._next + count]
        self._orders.update(order.order_id for order in some)
        await Feed(self._feed.sample, some).go(self._ports, self._witness)
        self._next += len(some)
        self._witness.look_again()
