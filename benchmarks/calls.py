"""What a message costs in calls and write units: `python -m benchmarks.calls`.

The services' own handlers run in the worker, on ports in memory that count. Queues are full, so
every batch is; each row is one handler and one kind of work. The last line is the first row.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from benchmarks.shapes import SHAPES, Struck
from headrace import Delivery, Outcome, Service
from headrace.cost.meter import Meter
from headrace.entity import key_of, to_item
from headrace.envelope import queue_body, root_metadata, seal
from headrace.events import Message
from headrace.hosts.worker import run_worker
from headrace.observer import Observer
from headrace.ports import Put, QueueEntry
from headrace.system import SystemClock
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from schemas.inventory import ReserveStock
from schemas.order import ConfirmOrder, Customer, OrderConfirmed, OrderLine
from services.demo.sample import load
from services.inventory.app import inventory
from services.inventory.model import Stock
from services.notification.app import notification
from services.order.app import order
from services.order.model import Order

_CUSTOMER = Customer(name="Freja Holm", email="freja.holm@example.com")
_PRICE = Decimal("5.90")


@dataclass(frozen=True, slots=True)
class Case:
    """One handler at work: what comes, and what stands in its table before."""

    name: str
    service: Service
    messages: Callable[[int], Iterator[Message]]
    standing: Callable[[int], Iterator[Stock | Order]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one message, on average."""

    name: str
    messages: int
    meter: Meter

    @property
    def calls(self) -> float:
        return sum(self.meter.calls.values()) / self.messages

    @property
    def write_units(self) -> float:
        return self.meter.write_units / self.messages

    @property
    def read_units(self) -> float:
        return self.meter.read_units / self.messages

    def row(self) -> str:
        operations = ", ".join(
            f"{name} {count / self.messages:.2f}"
            for name, count in sorted(self.meter.calls.items())
        )
        return (
            f"{self.name:<48} {self.calls:>6.2f} {self.write_units:>6.2f} {self.read_units:>6.2f}"
            f"  {operations}"
        )


class _Finish(Observer):
    """An observer that stops the worker after the last message."""

    def __init__(self, messages: int, stop: asyncio.Event) -> None:
        self._left = messages
        self._stop = stop

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self._left -= 1
        if self._left == 0:
            self._stop.set()


async def cost_of(case: Case, messages: int) -> Cost:
    cloud = memory_ports(clock=SystemClock())
    # Without rules, so that nobody hears what is said, and nothing else is measured.
    cloud.provision(replace(topology(case.service), rules=()))
    await _fill(cloud, case, messages)
    meter, stop = Meter(), asyncio.Event()
    await run_worker(
        [case.service],
        meter.measured(cloud.ports),
        observer=_Finish(messages, stop),
        stop=stop,
    )
    return Cost(case.name, messages, meter)


async def _fill(cloud: MemoryCloud[SystemClock], case: Case, messages: int) -> None:
    table, now = case.service.name, cloud.clock.now()
    for entity in case.standing(messages):
        key = key_of(entity, table)
        await cloud.store.write([Put(table, to_item(entity, key, 1))])
    bodies = [
        queue_body(seal(message, root_metadata(message, id=f"e-{number}", now=now)))
        for number, message in enumerate(case.messages(messages))
    ]
    for start in range(0, len(bodies), 10):
        entries = [QueueEntry(body) for body in bodies[start : start + 10]]
        await cloud.queues.send(case.service.name, entries)


def _orders(messages: int, lines: int) -> Iterator[tuple[str, tuple[OrderLine, ...]]]:
    """Orders that have no SKU in common."""
    for number in range(messages):
        skus = (f"SKU-{number}-{line}" for line in range(lines))
        yield f"W{number}", tuple(OrderLine(sku=sku, quantity=1, unit_price=_PRICE) for sku in skus)


def _reserve(messages: int) -> Iterator[ReserveStock]:
    for order_id, lines in _orders(messages, 2):
        yield ReserveStock(order_id=order_id, lines=lines)


def _stocked(messages: int) -> Iterator[Stock]:
    for _, lines in _orders(messages, 2):
        yield from (Stock(sku=line.sku, available=10) for line in lines)


def _demo_reserve(messages: int) -> Iterator[ReserveStock]:
    for taken in load(messages).orders:
        yield ReserveStock(order_id=taken.order_id, lines=taken.lines)


def _demo_stocked(messages: int) -> Iterator[Stock]:
    for sku, pieces in load(messages).stock.items():
        yield Stock(sku=sku, available=pieces)


def _confirm(messages: int) -> Iterator[ConfirmOrder]:
    return (ConfirmOrder(order_id=order_id) for order_id, _ in _orders(messages, 2))


def _waiting(messages: int) -> Iterator[Order]:
    for order_id, lines in _orders(messages, 2):
        yield Order(order_id=order_id, customer=_CUSTOMER, lines=lines, currency="EUR")


def _confirmed(messages: int) -> Iterator[OrderConfirmed]:
    for order_id, lines in _orders(messages, 2):
        yield OrderConfirmed(
            order_id=order_id, customer=_CUSTOMER, lines=lines, total=_PRICE * 2, currency="EUR"
        )


def _struck(messages: int) -> Iterator[Struck]:
    return (Struck(number=number) for number in range(messages))


def _nothing(messages: int) -> Iterator[Stock]:
    return iter(())


CASES = (
    Case("order: confirming an order", order, _confirm, _waiting),
    Case("inventory: reserving two SKUs, with a schedule", inventory, _reserve, _stocked),
    Case("inventory: the orders of the demo, hot SKUs", inventory, _demo_reserve, _demo_stocked),
    Case("notification: a mail, under a lease", notification, _confirmed, _nothing),
    *(Case(f"a handler of {name}", service, _struck, _nothing) for name, service in SHAPES.items()),
)


async def _measure(messages: int) -> list[Cost]:
    return [await cost_of(case, messages) for case in CASES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--messages", type=int, default=1000, help="per handler")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as mail:
        os.environ.setdefault("MAIL_DIR", mail)
        costs = asyncio.run(_measure(options.messages))
    rows = [f"{'per message':<48} {'calls':>6} {'write':>6} {'read':>6}  of which"]
    rows += [cost.row() for cost in costs]
    first = costs[0]
    rows.append(
        f"calls_per_message={first.calls:.3f} write_units_per_message={first.write_units:.3f}"
    )
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
