"""What must hold in the shop, whatever goes wrong."""

from __future__ import annotations

from collections import Counter
from typing import Final

from headrace.saga.item import SagaItem
from headrace.saga.progress import Status
from headrace.testing import Letter, World
from schemas.inventory import RestockItem, StockRejected, StockReserved
from schemas.notification import CustomerNotified
from schemas.order import OrderCancelled, OrderConfirmed, OrderPlaced
from services.inventory.app import inventory
from services.inventory.model import Reservation, ReservationStatus, Stock, wanted
from services.order.app import order
from services.order.local_gateway import PaymentStatus
from services.order.model import Order, OrderStatus
from services.order.payments import payment_key
from services.simulation.shop import MAILS, PAYMENTS, PLACED, SHELF, is_reused

_ENDS: Final = {
    OrderStatus.CONFIRMED: Status.COMPLETED,
    OrderStatus.CANCELLED: Status.COMPENSATED,
}
_AT_THE_BANK: Final = ("order.authorise_payment", "order.capture_payment", "order.void_payment")
_PAID: Final = [PaymentStatus.AUTHORISED, PaymentStatus.CAPTURED]
_NOT_PAID: Final = [
    [],
    [PaymentStatus.DECLINED],
    [PaymentStatus.CANCELLED],
    [PaymentStatus.AUTHORISED, PaymentStatus.VOIDED],
    [PaymentStatus.AUTHORISED, PaymentStatus.CAPTURED, PaymentStatus.REFUNDED],
]
"""All that may have happened to the payment of a cancelled order."""


def no_order_is_lost(aws: World) -> None:
    kept = {found.order_id for found in aws.all(Order, order)}
    sent = {command.order_id for command in aws.ledger(PLACED)}
    known = {placed.order_id for _, placed in aws.traffic(OrderPlaced)}
    assert kept == known, f"{sorted(kept)} are in the table, {sorted(known)} were announced"
    lost = sent - kept
    assert not lost, f"{sorted(lost)} were sent and are nowhere"


def every_order_ends_once(aws: World) -> None:
    ends = Counter(event.order_id for event in aws.published(OrderConfirmed))
    ends += Counter(event.order_id for event in aws.published(OrderCancelled))
    for found in aws.all(Order, order):
        assert found.has_ended, f"{found.order_id} is {found.status} for ever"
        said = ends[found.order_id]
        assert said == 1, f"{found.order_id} has ended {said} times"


def every_checkout_ends_as_its_order(aws: World) -> None:
    sagas = {saga.key: saga.status for saga in aws.all(SagaItem, order)}
    due = {found.order_id: _ENDS.get(found.status) for found in aws.all(Order, order)}
    assert sagas == due, f"the checkouts are {sagas}, and they should be {due}"


def stock_adds_up(aws: World) -> None:
    left = {stock.sku: stock.available for stock in aws.all(Stock, inventory)}
    due = Counter(SHELF)
    for _, command in aws.traffic(RestockItem):
        due[command.sku] += command.quantity
    for found in aws.all(Order, order):
        if found.status is OrderStatus.CONFIRMED:
            due.subtract(wanted(found.lines))
    assert left == dict(due), f"{left} is on the shelf, and it should be {dict(due)}"


def every_reservation_ends_as_its_order(aws: World) -> None:
    found = {each.order_id: each for each in aws.all(Reservation, inventory)}
    for each in aws.all(Order, order):
        reservation = found.pop(each.order_id)
        taken = reservation.status is ReservationStatus.TAKEN
        assert taken or reservation.status is ReservationStatus.RELEASED, f"{reservation} is held"
        assert taken == (each.status is OrderStatus.CONFIRMED), f"{each.order_id} is {each.status}"
        assert not taken or reservation.pieces == wanted(each.lines)
    assert not found, f"{sorted(found)} are reservations for nothing"


def money_adds_up(aws: World) -> None:
    """The money of confirmed orders was taken, and not given back; that of others was not, or it
    was given back."""
    history: dict[str, list[PaymentStatus]] = {}
    for key, payment in aws.ledger(PAYMENTS):
        statuses = history.setdefault(key, [])
        if statuses[-1:] != [payment.status]:
            statuses.append(payment.status)
    for found in aws.all(Order, order):
        happened = history.pop(payment_key(found.order_id), [])
        paid = found.status is OrderStatus.CONFIRMED and found.total
        right = [_PAID] if paid else _NOT_PAID if found.total else [[]]
        assert happened in right, (
            f"{found.order_id} over {found.total} is {found.status}, and was {', '.join(happened)}"
        )
    assert not history, f"{sorted(history)} are payments for nothing"


def stock_is_never_negative(aws: World) -> None:
    for item in aws.items(inventory):
        pieces = int(item["available"]["N"]) if "available" in item else 0
        assert pieces >= 0, f"There are {pieces} pieces of {item['pk']['S']}."


def every_reply_is_given_once(aws: World) -> None:
    replies = Counter(event.order_id for event in aws.published(StockReserved))
    replies += Counter(event.order_id for event in aws.published(StockRejected))
    for found in aws.all(Order, order):
        said = replies[found.order_id]
        assert said == 1, f"inventory has answered {said} times about {found.order_id}"


def every_customer_is_notified_once(aws: World) -> None:
    """A mail cannot be taken back, so it may be handed in again after a crash, under the key that
    it had: a mail server that knows keys delivers it once."""
    mails = dict(aws.ledger(MAILS))
    told = Counter(mail.order_id for mail in mails.values())
    said = Counter(event.order_id for event in aws.published(CustomerNotified))
    for found in aws.all(Order, order):
        keys, events = told[found.order_id], said[found.order_id]
        assert keys == 1, f"the customer of {found.order_id} has {keys} different mails"
        assert events == 1, f"{found.order_id} has {events} events CustomerNotified"


def is_expected(letter: Letter) -> bool:
    """An order under an id that is taken is poisonous. And who asks a bank that does not answer
    gives up some time: the checkout asks again, or is undone. Nothing else is a dead letter."""
    gave_up = letter.handler in _AT_THE_BANK and letter.reason.startswith("Gave up after")
    return letter.queue == order.name and (is_reused(letter.reason) or gave_up)


ALWAYS = (stock_is_never_negative,)
IN_THE_END = (
    no_order_is_lost,
    every_order_ends_once,
    every_checkout_ends_as_its_order,
    stock_adds_up,
    every_reservation_ends_as_its_order,
    money_adds_up,
    every_reply_is_given_once,
    every_customer_is_notified_once,
)
