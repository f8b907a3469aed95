"""Whether the run was right: read from tables, queues and mail, not from what was observed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email import message_from_bytes
from pathlib import Path

from headrace.client import read
from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.limits import SQS_BATCH_ENTRIES
from headrace.ports import Delivery, Ports, QueueDepth
from headrace.service import Service
from headrace.topology.model import dead_letter_queue
from services.demo.sample import Sample
from services.demo.script import BAD_MESSAGES, Script
from services.demo.watch import Watch
from services.inventory.app import inventory
from services.inventory.model import Stock, wanted
from services.notification.mail import ORDER_HEADER
from services.order.app import order as order_service
from services.order.model import Order, OrderIdReused, OrderStatus

_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in a dead-letter queue, and what its note says."""

    queue: str
    reason: str
    error: str
    body: str


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in the tables, the queues and the mail folder after the run."""

    orders: Mapping[str, Order | None]
    stock: Mapping[str, Stock | None]
    mails: Counter[str]
    letters: Sequence[Letter]
    left: Mapping[str, QueueDepth]

    @property
    def lost(self) -> list[str]:
        """The orders that are not there, or have not ended."""
        return [id for id, order in self.orders.items() if order is None or not order.has_ended]

    def with_status(self, status: OrderStatus) -> list[Order]:
        return [order for order in self.orders.values() if order and order.status is status]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so; `wrong` says what is not, and is empty if it is."""

    name: str
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    found: Found
    lost: Sequence[str]
    doubled: Sequence[str]
    checks: Sequence[Check]

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.wrong]

    def line(self) -> str:
        """The run in one line, for people and for `grep`."""
        found = self.found
        counts = {
            "orders": len(found.orders),
            "confirmed": len(found.with_status(OrderStatus.CONFIRMED)),
            "cancelled": len(found.with_status(OrderStatus.CANCELLED)),
            "notified": len(found.mails.keys() & found.orders.keys()),
            "lost": len(self.lost),
            "doubled": len(self.doubled),
            "dead_letters": len(found.letters),
        }
        return " ".join(f"{name}={count}" for name, count in counts.items())


async def look(ports: Ports, sample: Sample, services: Sequence[Service], mail: Path) -> Found:
    """Read everything that a verdict on these orders is made from."""
    ids, skus = [order.order_id for order in sample.orders], list(sample.stock)
    orders = await read(ports, Order, ids, table=order_service.name)
    stock = await read(ports, Stock, skus, table=inventory.name)
    queues = [queue for service in services for queue in service.queues]
    letters = await asyncio.gather(*(_letters(ports, dead_letter_queue(q)) for q in queues))
    depths = await asyncio.gather(*(ports.queues.depth(queue) for queue in queues))
    return Found(
        orders=dict(zip(ids, orders, strict=True)),
        stock=dict(zip(skus, stock, strict=True)),
        mails=_mails(mail),
        letters=[letter for some in letters for letter in some],
        left=dict(zip(queues, depths, strict=True)),
    )


async def until_empty(ports: Ports, queues: Sequence[str]) -> None:
    """Wait until these queues hold nothing: a duplicate that came while the first delivery was at
    work is put off for a moment, and comes again."""
    while True:
        if not any(await held(ports, queues)):
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def held(ports: Ports, queues: Sequence[str]) -> list[int]:
    """How many messages each queue holds, whether waiting or being handled."""
    depths = await asyncio.gather(*(ports.queues.depth(queue) for queue in queues))
    return [depth.visible + depth.in_flight + depth.delayed for depth in depths]


def judge(script: Script, watch: Watch, found: Found) -> Verdict:
    doubled = _doubled(watch, found)
    return Verdict(
        found,
        found.lost,
        doubled,
        [
            *shop_checks(script.sample, found),
            Check("nothing took effect twice", listed(doubled)),
            Check("the command that was sent twice was seen twice", _unseen(script, watch)),
            Check("the two bad messages, and no others, are dead letters", _misplaced(found)),
            emptiness(found),
        ],
    )


def shop_checks(sample: Sample, found: Found) -> list[Check]:
    """What must be so after any run that has ended."""
    return [
        Check("every order ended, confirmed or cancelled", listed(found.lost)),
        Check("every order says what was ordered", listed(_changed(sample, found))),
        Check("stock adds up and is nowhere negative", listed(_miscounted(sample, found))),
        Check("every customer has one mail for each order", listed(_mistold(found))),
    ]


def emptiness(found: Found) -> Check:
    return Check("no queue holds anything", listed(_left(found)))


def _changed(sample: Sample, found: Found) -> list[str]:
    return [
        sent.order_id
        for sent in sample.orders
        if (order := found.orders[sent.order_id]) is not None
        and (order.customer, order.lines, order.currency)
        != (sent.customer, sent.lines, sent.currency)
    ]


def _miscounted(sample: Sample, found: Found) -> list[str]:
    gone: Counter[str] = Counter()
    for order in found.with_status(OrderStatus.CONFIRMED):
        gone.update(wanted(order.lines))
    wrong = [f"{sku} was confirmed and never in stock" for sku in gone.keys() - found.stock.keys()]
    for sku, item in found.stock.items():
        should = sample.stock[sku] - gone[sku]
        if item is None or item.available != should or should < 0:
            wrong.append(f"{sku}: {item.available if item else 'nothing'} instead of {should}")
    return wrong


def _mistold(found: Found) -> list[str]:
    wrong = [f"{id}: {found.mails[id]} mails" for id in found.orders if found.mails[id] != 1]
    return wrong + [f"{id}: not an order" for id in found.mails.keys() - found.orders.keys()]


def _doubled(watch: Watch, found: Found) -> list[str]:
    steps = (watch.placed, watch.ended, watch.notified)
    twice = {id for step in steps for id, events in step.items() if len(events) > 1}
    return sorted(twice | {id for id, mails in found.mails.items() if mails > 1})


def _unseen(script: Script, watch: Watch) -> str:
    if watch.is_duplicate(script.doubled_id):
        return ""
    return f"no second delivery of {script.doubled_id} was answered as a duplicate"


def _misplaced(found: Found) -> str:
    errors = sorted(letter.error for letter in found.letters)
    if errors == sorted(["NotJson", OrderIdReused.__name__]):
        return ""
    return f"{len(found.letters)} instead of {BAD_MESSAGES}: {', '.join(errors) or 'none'}"


def _left(found: Found) -> list[str]:
    return [
        f"{queue}: {depth.visible} visible, {depth.in_flight} in flight, {depth.delayed} delayed"
        for queue, depth in found.left.items()
        if depth.visible or depth.in_flight or depth.delayed
    ]


def _mails(folder: Path) -> Counter[str]:
    """Mails by order id."""
    files = sorted(folder.glob("*.eml"))
    return Counter(message_from_bytes(file.read_bytes())[ORDER_HEADER] for file in files)


async def _letters(ports: Ports, queue: str) -> list[Letter]:
    """Everything in a dead-letter queue, which stays there."""
    found: dict[str, Letter] = {}
    while deliveries := await ports.queues.receive(
        queue,
        limit=SQS_BATCH_ENTRIES,
        wait=timedelta(seconds=1),
        visibility=timedelta(minutes=5),
    ):
        found |= {delivery.message_id: _letter(delivery) for delivery in deliveries}
    return list(found.values())


def _letter(delivery: Delivery) -> Letter:
    attribute = delivery.attributes.get(NOTE_ATTRIBUTE)
    note = json.loads(attribute.value) if attribute else {}
    reason = note.get("reason") or "SQS moved it here: it was received too often."
    return Letter(delivery.queue, reason, note.get("error") or "none", delivery.body)


def listed(wrong: Sequence[str], most: int = 5) -> str:
    """The first few of what is wrong, and how many more there are; empty if nothing is."""
    more = f" and {len(wrong) - most} more" if len(wrong) > most else ""
    return ", ".join(wrong[:most]) + more
