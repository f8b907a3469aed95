"""A service that moves between its hosts while orders come, from empty emulators to a verdict."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Final

from headrace.aws.client import open_clients, open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.topology.derive import topology
from headrace.topology.model import Topology
from services.demo.environment import MAIL, PAYMENTS
from services.demo.found import Why, look
from services.demo.run import SERVICES
from services.demo.sample import DemoOrder, Sample, load
from services.demo.script import BUS
from services.inventory.app import inventory
from services.order.local_gateway import FORGETFUL_CENTS, GREEDY_CENTS, SILENT_CENTS
from services.soak.cloud import VISIBILITY, emulators
from services.soak.feed import Feed
from services.soak.rows import read_rows
from services.soak.tap import tap_into
from services.soak.verdict import Evidence, Verdict, judge
from tests.load.shop import Move, NotMoved, Place, Shop
from tests.load.two_hosts import ROOT, OnLambda, OnWorker, Witness

ANSWER_SECONDS: Final = 60
"""Many times what a message is hidden for that was left in the middle: no answer may be missed."""

_SPEECHLESS: Final = frozenset({SILENT_CENTS, FORGETFUL_CENTS, GREEDY_CENTS})
_NOT_INHERITED: Final = ("AWS_", "HEADRACE_", "LOCALSTACK_", "MAIL_", "USE_LOCALSTACK")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `gave_up` is a sentence, empty if everything happened that should."""

    verdict: Verdict
    moves: Sequence[Move]
    witness: Witness
    gave_up: str

    @property
    def wrong(self) -> list[str]:
        """All that is not as it should be, as sentences."""
        failed = [f"{check.name}: {check.wrong}" for check in self.verdict.failed]
        return [*filter(None, [self.gave_up]), *failed, *self._late(), *self._miscounted()]

    def line(self) -> str:
        """The run in one line, for people and for `grep`."""
        counts = {
            "orders": len(self.verdict.evidence.sample.orders),
            "moves": len(self.moves),
            "by_lambda": self.witness.handled[OnLambda.name],
            "by_worker": self.witness.handled[OnWorker.name],
            "lost": len(self.verdict.evidence.found.lost),
            "doubled": len(self.verdict.doubled),
            "unfinished": len(self.verdict.unfinished),
        }
        return " ".join(f"{name}={count}" for name, count in counts.items())

    def _late(self) -> Iterator[str]:
        """A command that was lost ends its order too, when nobody waits for the answer any more."""
        if late := self.verdict.evidence.found.cancelled(Why.LATE):
            yield f"{late} orders were cancelled, as inventory did not answer in time"

    def _miscounted(self) -> Iterator[str]:
        """Each inbox record is of one handler that took effect, on one of the hosts. What an
        environment counted that was killed is lost with it."""
        records = sum(r.service == inventory.name for r in self.verdict.evidence.rows.records)
        untold = records - self.witness.handled.total()
        if not 0 <= untold <= sum(move.cut_short for move in self.moves):
            yield (
                f"inventory has {records} inbox records, and its hosts say that they handled "
                f"{self.witness.handled.total()}"
            )


def _feed(orders: int, chance: Random) -> Feed:
    """The demo's orders, but for those whose bank never answers: these take minutes to end, and
    the soak has them."""
    sample = load(orders + orders // 10 + 10)
    chosen = [order for order in sample.orders if _cents(order) not in _SPEECHLESS][:orders]
    return Feed.of(Sample(tuple(chosen), sample.stock), chance)


def _cents(order: DemoOrder) -> int:
    total = sum((line.quantity * line.unit_price for line in order.lines), Decimal(0))
    return int(total * 100) % 100


async def moved(orders: int, moves: int, folder: Path, *, seed: int, limit: float) -> Ended:
    """Start the shop, move inventory so many times while orders come, and look what there is. It
    ends early, and says so, after `limit` seconds. The seed decides which orders are sent twice.

    Raises `HeadraceError` when something does not start, or ends by itself.
    """
    feed, witness = _feed(orders, Random(seed)), Witness()
    tap = tap_into(BUS, witness)
    services = (*SERVICES, tap)
    async with emulators(folder) as emulated:
        environ = _environment(emulated, folder)
        config = AwsConfig.from_environment(environ)
        await provision(_impatient(topology(*services)), config)
        async with open_ports(config) as ports, open_clients(config) as clients:
            place = Place(ports, config, environ, folder)
            shop = Shop(feed, moves, place, witness)
            async with shop.open(tap):
                gave_up = await _within(limit, shop)
            tables = [config.physical(service.table) for service in services if service.table]
            rows = await read_rows(clients, tables)
            found = await look(ports, feed.sample, services, folder, over=not gave_up)
    killed = sum(move.cut_short > 0 for move in shop.moves)
    return Ended(
        judge(Evidence(feed.sample, found, rows, witness, killed)), shop.moves, witness, gave_up
    )


async def _within(limit: float, shop: Shop) -> str:
    """Run it; a sentence if that is given up."""
    try:
        async with asyncio.timeout(limit):
            await shop.run()
    except TimeoutError:
        return f"It took longer than {limit:g} s: {shop.standing()}."
    except NotMoved as error:
        return str(error)
    return ""


def _environment(emulated: Mapping[str, str], folder: Path) -> dict[str, str]:
    """For all processes. Whatever account the shell is set to, the emulator is used."""
    own = {name: v for name, v in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return {
        **own,
        **emulated,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "MAIL_DIR": str(folder / MAIL),
        "PAYMENTS_DIR": str(folder / PAYMENTS),
        "SHOP_ANSWER_SECONDS": str(ANSWER_SECONDS),
        "HEADRACE_VISIBILITY_SECONDS": f"{VISIBILITY.total_seconds():g}",
    }


def _impatient(wanted: Topology) -> Topology:
    """What a host leaves behind comes again soon. How often it may be received stays as it is: no
    move may make a dead letter."""
    return replace(wanted, queues=tuple(replace(q, visibility=VISIBILITY) for q in wanted.queues))
