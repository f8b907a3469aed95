"""Whether anything was lost or took effect twice, by three witnesses that know nothing of each
other: the tables, the mail folder, and the tap on the bus."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from headrace.events import contract_of
from schemas.order import OrderConfirmed
from services.demo.sample import DemoOrder, Sample
from services.demo.script import command_id
from services.demo.verdict import Check, Found, emptiness, listed, shop_checks
from services.inventory.model import wanted
from services.order.model import Order, OrderStatus
from services.soak.rows import Rows
from services.soak.tap import STEPS, Seen, Sighting

_ORDER_WRITES = 2
"""It is placed, then it ends."""

_CONFIRMED = contract_of(OrderConfirmed).name
_FIRST_STOCK = 1
"""The version of a SKU when it has been restocked, once."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a run after its end."""

    sample: Sample
    found: Found
    rows: Rows
    seen: Seen
    kills: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`doubled` and `unfinished` are phrases, one for each thing that is."""

    evidence: Evidence
    doubled: Sequence[str]
    unfinished: Sequence[str]
    checks: Sequence[Check]

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.wrong]

    def line(self) -> str:
        """The run in one line, for people and for `grep`."""
        counts = {
            "orders": len(self.evidence.sample.orders),
            "kills": self.evidence.kills,
            "lost": len(self.evidence.found.lost),
            "doubled": len(self.doubled),
            "unfinished": len(self.unfinished),
        }
        return " ".join(f"{name}={count}" for name, count in counts.items())


def judge(evidence: Evidence) -> Verdict:
    found, seen = evidence.found, evidence.seen
    doubled = [*_twice(evidence)]
    unfinished = [*_unfinished(evidence)]
    return Verdict(
        evidence,
        doubled,
        unfinished,
        [
            *shop_checks(evidence.sample, found),
            Check("nothing took effect twice", listed(doubled)),
            Check("every order took every step by one event", listed([*_missteps(evidence)])),
            Check("every step was caused by the one before", listed([*_strays(evidence)])),
            Check("an event that was sent again said the same", listed(sorted(seen.changed))),
            Check("every event has the record of its cause", listed([*_unrecorded(evidence)])),
            Check("events and tables say the same", listed([*_contradictions(evidence)])),
            Check("every order and SKU was written as often as due", listed([*_odd(evidence)])),
            Check("nothing is unfinished", listed(unfinished)),
            Check("nothing became a dead letter", listed(_letters(found))),
            emptiness(found),
            Check("workers were killed", "" if evidence.kills else "none was: take more orders"),
        ],
    )


# --- twice, or not at all --------------------------------------------------------------


def _twice(evidence: Evidence) -> Iterator[str]:
    """Every effect that there is more than one of."""
    for step, orders in evidence.seen.steps.items():
        for id, events in orders.items():
            if len(events) > 1:
                yield f"{id} was {step} by {len(events)} events"
    for (type, cause), events in _by_cause(evidence.seen).items():
        if len(events) > 1:
            yield f"{cause} caused {len(events)} events {type}"
    yield from (f"{id} has {n} mails" for id, n in evidence.found.mails.items() if n > 1)
    yield from (str(writes) for writes in _writes(evidence) if writes.found > writes.most)


def _unfinished(evidence: Evidence) -> Iterator[str]:
    """What was committed and never came out, and every message that is left."""
    known = evidence.seen.events.keys()
    for record in evidence.rows.records:
        if not record.done and not (record.outgoing and known >= set(record.outgoing)):
            yield f"{record} is not done"
    for queue, depth in evidence.found.left.items():
        for _ in range(depth.visible + depth.in_flight + depth.delayed):
            yield f"a message in {queue}"
    yield from (f"a message in {letter.queue}" for letter in evidence.found.letters)


def _by_cause(seen: Seen) -> dict[tuple[str, str | None], set[str]]:
    """The ids of the events that each consumer sent for each cause; the type of an event says
    which consumer that was."""
    found: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for event in seen.events.values():
        found[event.type, event.cause].add(event.id)
    return found


# --- the tap ---------------------------------------------------------------------------


def _missteps(evidence: Evidence) -> Iterator[str]:
    ids = {order.order_id for order in evidence.sample.orders}
    for step, orders in evidence.seen.steps.items():
        yield from (f"{id} was {step} and never ordered" for id in orders.keys() - ids)
        yield from (f"{id} was not {step}" for id in ids - orders.keys())
        yield from (f"{id} was {step} more than once" for id in orders if len(orders[id]) > 1)


def _strays(evidence: Evidence) -> Iterator[str]:
    """Events that do not follow from the step before, or at last from what was sent."""
    seen = evidence.seen
    for order in evidence.sample.orders:
        causes = _sent_as(order, seen)
        for step in dict.fromkeys(STEPS.values()):
            events = _events(seen, step, order.order_id)
            for event in events:
                if event.cause not in causes:
                    yield f"{order.order_id} was {step} because of {event.cause}"
            causes = {event.id for event in events}


def _sent_as(order: DemoOrder, seen: Seen) -> set[str]:
    """The ids that an order came under."""
    if order.via == "command":
        return {command_id(order)}
    return seen.checkouts.get(order.order_id, set())


# --- the tables ------------------------------------------------------------------------


def _unrecorded(evidence: Evidence) -> Iterator[str]:
    known = {(record.service, record.event_id) for record in evidence.rows.records}
    for event in evidence.seen.events.values():
        if (event.service, event.cause) not in known:
            yield f"{event.type} {event.id} because of {event.cause}"


def _contradictions(evidence: Evidence) -> Iterator[str]:
    """Orders that ended otherwise than an event says."""
    for id, order in evidence.found.orders.items():
        for event in _events(evidence.seen, "ended", id):
            confirmed = event.type == _CONFIRMED
            if order is None or (order.status is OrderStatus.CONFIRMED) != confirmed:
                yield f"{event.type} of {id}, which is {order.status if order else 'not there'}"


def _events(seen: Seen, step: str, order_id: str) -> list[Sighting]:
    return [seen.events[id] for id in seen.steps[step].get(order_id, ())]


def _odd(evidence: Evidence) -> Iterator[str]:
    return (str(writes) for writes in _writes(evidence) if writes.found != writes.due)


@dataclass(frozen=True, slots=True)
class _Writes:
    """How often a row had to be written, how often it may have been at most if not all orders
    have ended, and how often it was."""

    what: str
    due: int
    most: int
    found: int

    def __str__(self) -> str:
        return f"{self.what} was written {self.found} times instead of {self.due}"


def _writes(evidence: Evidence) -> Iterator[_Writes]:
    found, rows = evidence.found, evidence.rows
    reserved = _wanting(found.with_status(OrderStatus.CONFIRMED))
    # What is reserved for an order whose end got lost was not reserved twice.
    perhaps = _wanting(found.with_status(OrderStatus.PLACED))
    for sku in evidence.sample.stock:
        due = _FIRST_STOCK + reserved[sku]
        name = f"the stock of {sku}"
        yield _Writes(name, due, due + perhaps[sku], rows.stock.get(sku, 0))
    for id in found.orders:
        yield _Writes(f"the order {id}", _ORDER_WRITES, _ORDER_WRITES, rows.orders.get(id, 0))


def _wanting(orders: Iterable[Order]) -> Counter[str]:
    """How many of these orders want each SKU."""
    return Counter(sku for order in orders for sku in wanted(order.lines))


def _letters(found: Found) -> list[str]:
    return [f"{letter.queue}: {letter.reason}" for letter in found.letters]
