"""What must hold in the shop, whatever goes wrong."""

from __future__ import annotations

from collections import Counter

from headrace.testing import Letter, World
from schemas.inventory import RestockItem, StockRejected, StockReserved
from schemas.notification import CustomerNotified
from schemas.order import OrderCancelled, OrderConfirmed, OrderPlaced
from services.inventory.app import inventory
from services.inventory.model import Stock, wanted
from services.order.app import order
from services.order.model import Order, OrderStatus
from services.simulation.shop import MAILS, PLACED, SHELF, is_reused


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


def stock_adds_up(aws: World) -> None:
    left = {stock.sku: stock.available for stock in aws.all(Stock, inventory)}
    due = Counter(SHELF)
    for _, command in aws.traffic(RestockItem):
        due[command.sku] += command.quantity
    for found in aws.all(Order, order):
        if found.status is OrderStatus.CONFIRMED:
            due.subtract(wanted(found.lines))
    assert left == dict(due), f"{left} is on the shelf, and it should be {dict(due)}"


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
    """An order under an id that is taken is poisonous; nothing else is that the shop sends."""
    return letter.queue == order.name and is_reused(letter.reason)


ALWAYS = (stock_is_never_negative,)
IN_THE_END = (
    no_order_is_lost,
    every_order_ends_once,
    stock_adds_up,
    every_reply_is_given_once,
    every_customer_is_notified_once,
)
