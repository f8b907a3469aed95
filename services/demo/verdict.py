"""Whether a run was right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from headrace.saga.progress import Status
from services.demo.found import Found
from services.demo.sample import Sample
from services.demo.script import BAD_MESSAGES, Script
from services.demo.watch import Watch
from services.inventory.model import ReservationStatus, wanted
from services.order.local_gateway import Payment, PaymentStatus
from services.order.model import Order, OrderIdReused, OrderStatus
from services.order.payments import payment_key

_CHECKOUTS: Final = {
    OrderStatus.CONFIRMED: Status.COMPLETED,
    OrderStatus.CANCELLED: Status.COMPENSATED,
}
_RESERVATIONS: Final = {
    OrderStatus.CONFIRMED: ReservationStatus.TAKEN,
    OrderStatus.CANCELLED: ReservationStatus.RELEASED,
}
_NOT_PAID: Final = frozenset(PaymentStatus) - {PaymentStatus.AUTHORISED, PaymentStatus.CAPTURED}


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
        Check("every checkout ended as its order", listed([*_strayed(found)])),
        Check("what was confirmed is paid, and nothing else is", listed([*_mispaid(found)])),
        Check("every reservation ended as its order", listed([*_misreserved(found)])),
        Check("stock adds up and is nowhere negative", listed(_miscounted(sample, found))),
        Check("every customer has one mail for each order", listed(_mistold(found))),
    ]


def emptiness(found: Found) -> Check:
    return Check("no queue holds anything but timers", listed(_left(found)))


def _changed(sample: Sample, found: Found) -> list[str]:
    return [
        sent.order_id
        for sent in sample.orders
        if (order := found.orders[sent.order_id]) is not None
        and (order.customer, order.lines, order.currency)
        != (sent.customer, sent.lines, sent.currency)
    ]


def _strayed(found: Found) -> Iterator[str]:
    for id, checkout in found.checkouts.items():
        if checkout is not None and checkout.status is Status.STUCK:
            yield f"{id}: stuck, {checkout.trouble}"
    for order in _ended(found):
        checkout = found.checkouts[order.order_id]
        if checkout is None or checkout.status not in (_CHECKOUTS[order.status], Status.STUCK):
            status = "nowhere" if checkout is None else checkout.status
            yield f"{order.order_id}: {status}, and the order is {order.status}"


def _mispaid(found: Found) -> Iterator[str]:
    for order in _ended(found):
        payment = found.payments.get(payment_key(order.order_id))
        if not _is_right(payment, order):
            how = f"{payment.status} {payment.amount} {payment.currency}" if payment else "not paid"
            yield f"{order.order_id}: {how}, and the order over {order.total} is {order.status}"
    known = {payment_key(id) for id in found.orders}
    yield from (f"{key}: not an order" for key in sorted(found.payments.keys() - known))


def _is_right(payment: Payment | None, order: Order) -> bool:
    """Whether the bank did with the money what became of the order."""
    if payment is None:
        return not (order.total and order.status is OrderStatus.CONFIRMED)
    if not order.total:
        return False
    if order.status is OrderStatus.CANCELLED:
        return payment.status in _NOT_PAID
    paid = (payment.status, payment.amount, payment.currency)
    return paid == (PaymentStatus.CAPTURED, order.total, order.currency)


def _misreserved(found: Found) -> Iterator[str]:
    for order in _ended(found):
        reservation, id = found.reservations[order.order_id], order.order_id
        if reservation is None or reservation.status is not _RESERVATIONS[order.status]:
            status = "nowhere" if reservation is None else reservation.status
            yield f"{id}: {status}, and the order is {order.status}"
        elif order.status is OrderStatus.CONFIRMED and reservation.pieces != wanted(order.lines):
            yield f"{id}: not what was ordered"


def _ended(found: Found) -> list[Order]:
    return [order for order in found.orders.values() if order is not None and order.has_ended]


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


def listed(wrong: Sequence[str], most: int = 5) -> str:
    """The first few of what is wrong, and how many more there are; empty if nothing is."""
    more = f" and {len(wrong) - most} more" if len(wrong) > most else ""
    return ", ".join(wrong[:most]) + more
