"""Whether anything was lost or took effect twice, by three witnesses that know nothing of each
other: the tables, the mail folder, and the tap on the bus."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headrace.events import contract_of
from schemas.order import OrderConfirmed
from services.demo.found import Found
from services.demo.sample import DemoOrder, Sample
from services.demo.script import command_id
from services.demo.verdict import Check, emptiness, listed, shop_checks
from services.inventory.model import Reservation, ReservationStatus
from services.order.model import OrderStatus
from services.soak.rows import Rows
from services.soak.tap import Seen, Sighting

_ORDER_WRITES = 2
"""It is placed, then it ends."""

_CONFIRMED = contract_of(OrderConfirmed).name
_FIRST_STOCK = 1
"""The version of a SKU when it has been restocked, once."""
_MOVES = {
    ReservationStatus.HELD: 1,
    ReservationStatus.TAKEN: 1,
    ReservationStatus.RELEASED: 2,
}
"""Of the stock, for a reservation that there was enough for."""


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
            Check("all that was said of an order follows from it", listed([*_strays(evidence)])),
            Check("an event that was sent again said the same", listed(sorted(seen.changed))),
            Check("every event has the record of its cause", listed([*_unrecorded(evidence)])),
            Check("events and tables say the same", listed([*_contradictions(evidence)])),
            Check("every row was written as often as due", listed([*_odd(evidence)])),
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
    for (id, turn), times in evidence.rows.turns.items():
        if times > 1:
            yield f"the checkout of {id} took turn {turn} {times} times"
    yield from (str(writes) for writes in _writes(evidence) if writes.found > writes.due)


def _unfinished(evidence: Evidence) -> Iterator[str]:
    """What was committed and never came out, and every message that is left."""
    records = evidence.rows.records
    # A command is not on the bus: that it was sent, its own record says.
    known = evidence.seen.events.keys() | {record.event_id for record in records}
    for record in records:
        wants = record.outgoing or record.besides
        if not record.done and not (wants and known >= set(record.outgoing)):
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
    """Events that do not follow from what was sent, or from the step before, where that is an event
    and not a command."""
    seen = evidence.seen
    begun: dict[str, set[str]] = defaultdict(set)
    for order in evidence.sample.orders:
        id, causes = order.order_id, _sent_as(order, seen)
        for event in _events(seen, "placed", id):
            begun[id].add(event.beginning)
            if event.cause not in causes:
                yield f"{id} was placed because of {event.cause}"
        ends = seen.steps["ended"].get(id, set())
        for event in _events(seen, "notified", id):
            if event.cause not in ends:
                yield f"{id} was notified because of {event.cause}"
    for event in seen.events.values():
        if event.beginning not in begun[event.order_id]:
            yield f"{event.type} of {event.order_id} goes back to {event.beginning}"


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
    """How often a row had to be written, and how often it was."""

    what: str
    due: int
    found: int

    def __str__(self) -> str:
        return f"{self.what} was written {self.found} times instead of {self.due}"


def _writes(evidence: Evidence) -> Iterator[_Writes]:
    found, rows = evidence.found, evidence.rows
    moved = _moved([each for each in found.reservations.values() if each is not None])
    for sku in evidence.sample.stock:
        due = _FIRST_STOCK + moved[sku]
        yield _Writes(f"the stock of {sku}", due, rows.stock.get(sku, 0))
    for id in found.orders:
        yield _Writes(f"the order {id}", _ORDER_WRITES, rows.orders.get(id, 0))
    for id, checkout in rows.checkouts.items():
        yield _Writes(f"the checkout of {id}", checkout.turns, checkout.writes)


def _moved(reservations: Sequence[Reservation]) -> Counter[str]:
    """How often pieces of each SKU were taken off the shelf or put back."""
    moved: Counter[str] = Counter()
    for reservation in reservations:
        if not reservation.short:
            moved.update(dict.fromkeys(reservation.pieces, _MOVES[reservation.status]))
    return moved


def _letters(found: Found) -> list[str]:
    return [f"{letter.queue}: {letter.reason}" for letter in found.letters]
