"""The demo's verdict fails when anything is off, and its orders are what they should be."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from headrace.envelope import Outgoing
from headrace.errors import ConfigurationError
from headrace.outcome import Ack, DeadLetter, Outcome
from headrace.ports import Delivery, QueueDepth
from headrace.saga.progress import Status
from headrace.testing.memory import ManualClock
from schemas.values import total_of
from services.demo.found import Found, Letter, Why
from services.demo.sample import ORDERS, Sample, load
from services.demo.script import Script
from services.demo.verdict import judge
from services.demo.watch import Watch, missing
from services.inventory.model import Reservation, ReservationStatus, Stock, wanted
from services.order.local_gateway import (
    DECLINED_CENTS,
    FORGETFUL_CENTS,
    GREEDY_CENTS,
    SILENT_CENTS,
    Payment,
    PaymentStatus,
)
from services.order.model import Order, OrderStatus
from services.order.payments import payment_key
from tests.unit.services.aftermath import checkout_of, payments_of, reservation_of

SCRIPT = Script(load(5))
EMPTY = QueueDepth(0, 0, 0)


def ended(order_id: str, status: OrderStatus = OrderStatus.CONFIRMED) -> Order:
    sent = next(order for order in SCRIPT.sample.orders if order.order_id == order_id)
    return Order.of(sent.as_command()).model_copy(update={"status": status})


def right() -> Found:
    """What is found after a run in which everything went well."""
    orders = {id: ended(id) for id in SCRIPT.order_ids}
    gone: Counter[str] = Counter()
    for order in orders.values():
        gone.update(wanted(order.lines))
    stock = SCRIPT.sample.stock
    return Found(
        orders=orders,
        checkouts={id: checkout_of(order) for id, order in orders.items()},
        payments=payments_of(orders.values()),
        reservations={id: reservation_of(order) for id, order in orders.items()},
        stock={sku: Stock(sku=sku, available=stock[sku] - gone[sku]) for sku in stock},
        mails=Counter(SCRIPT.order_ids),
        letters=[
            Letter("order-dlq", "not JSON", "NotJson", ""),
            Letter("order-dlq", "reused", "OrderIdReused", ""),
        ],
        left={"order": EMPTY},
    )


def outgoing(type: str, order_id: str, id: str) -> Outgoing:
    detail = json.dumps({"metadata": {}, "data": {"order_id": order_id}})
    return Outgoing(id, type, detail, ManualClock().now(), source="shop.order")


def watched(*, duplicate: bool = True) -> Watch:
    """What was observed in a run in which everything went well."""
    watch = Watch()
    for id in SCRIPT.order_ids:
        watch.sent("order", outgoing("OrderPlaced", id, f"placed {id}"))
        watch.sent("order", outgoing("OrderConfirmed", id, f"ended {id}"))
        watch.sent("notification", outgoing("CustomerNotified", id, f"told {id}"))
    outcomes: tuple[Outcome, ...] = (Ack(duplicate), DeadLetter("no"), DeadLetter("no"))
    for number, outcome in enumerate(outcomes):
        delivery = Delivery(f"m{number}", "r", f'{{"id":"{SCRIPT.doubled_id}"}}', "order")
        watch.received("order", delivery)
        watch.settled("order", delivery, outcome)
    return watch


def wrong(found: Found, watch: Watch | None = None) -> list[str]:
    return [check.name for check in judge(SCRIPT, watch or watched(), found).failed]


def test_a_run_that_went_well_has_nothing_wrong() -> None:
    assert wrong(right()) == []


def test_the_last_line_counts_everything() -> None:
    assert judge(SCRIPT, watched(), right()).line() == (
        "orders=5 confirmed=5 cancelled=0 notified=5 lost=0 doubled=0 dead_letters=2"
    )


def test_an_order_that_has_not_ended_is_lost() -> None:
    id = SCRIPT.order_ids[0]
    for order in (None, ended(id, OrderStatus.PLACED)):
        found = replace(right(), orders={**right().orders, id: order})
        assert judge(SCRIPT, watched(), found).lost == [id]


def test_an_order_with_another_customer_is_noticed() -> None:
    order = ended(SCRIPT.order_ids[0])
    other = order.model_copy(update={"customer": ended(SCRIPT.order_ids[1]).customer})
    found = replace(right(), orders={**right().orders, order.order_id: other})
    assert wrong(found) == ["every order says what was ordered"]


@pytest.mark.parametrize("difference", [-1, 1])
def test_one_piece_too_few_or_too_many_is_noticed(difference: int) -> None:
    sku, item = next(iter(right().stock.items()))
    assert item is not None
    other = Stock(sku=sku, available=item.available + difference)
    found = replace(right(), stock={**right().stock, sku: other})
    assert wrong(found) == ["stock adds up and is nowhere negative"]


def test_an_order_that_was_cancelled_but_kept_everything_is_noticed() -> None:
    id = SCRIPT.order_ids[0]
    found = replace(right(), orders={**right().orders, id: ended(id, OrderStatus.CANCELLED)})
    assert wrong(found) == [
        "every checkout ended as its order",
        "what was confirmed is paid, and nothing else is",
        "every reservation ended as its order",
        "stock adds up and is nowhere negative",
    ]


def test_a_checkout_that_is_stuck_or_still_under_way_or_nowhere_is_noticed() -> None:
    id = SCRIPT.order_ids[0]
    ended_well = checkout_of(ended(id))
    stuck = ended_well.model_copy(update={"status": Status.STUCK})
    under_way = ended_well.model_copy(update={"status": Status.RUNNING})
    for checkout in (stuck, under_way, None):
        found = replace(right(), checkouts={**right().checkouts, id: checkout})
        assert wrong(found) == ["every checkout ended as its order"]


def paid(order: Order, status: PaymentStatus, amount: Decimal | None = None) -> Found:
    """The same with another payment for one order."""
    key = payment_key(order.order_id)
    total = order.total if amount is None else amount
    payment = Payment(key=key, status=status, amount=total, currency=order.currency)
    return replace(right(), payments={**right().payments, key: payment})


def test_an_order_that_was_confirmed_and_not_paid_is_noticed() -> None:
    order = ended(SCRIPT.order_ids[0])
    unpaid = {key: p for key, p in right().payments.items() if key != payment_key(order.order_id)}
    for found in (
        replace(right(), payments=unpaid),
        paid(order, PaymentStatus.AUTHORISED),
        paid(order, PaymentStatus.REFUNDED),
        paid(order, PaymentStatus.CAPTURED, order.total - 1),
    ):
        assert wrong(found) == ["what was confirmed is paid, and nothing else is"]


def test_a_payment_for_an_order_that_nobody_placed_is_noticed() -> None:
    payment = Payment(key="order-of-nobody", status=PaymentStatus.VOIDED)
    found = replace(right(), payments={**right().payments, payment.key: payment})
    assert wrong(found) == ["what was confirmed is paid, and nothing else is"]


def cancelled(status: PaymentStatus | None, *, short: tuple[str, ...] = ()) -> Found:
    """The same with its first order cancelled and nothing kept of it, and this payment."""
    order = ended(SCRIPT.order_ids[0], OrderStatus.CANCELLED)
    id, key = order.order_id, payment_key(order.order_id)
    stock = dict(right().stock)
    for sku, pieces in wanted(order.lines).items():
        item = stock[sku]
        assert item is not None
        stock[sku] = Stock(sku=sku, available=item.available + pieces)
    payments = {each: payment for each, payment in right().payments.items() if each != key}
    if status is not None:
        payments[key] = Payment(key=key, status=status, amount=order.total, currency="EUR")
    reservation = Reservation(order_id=id, pieces=wanted(order.lines), short=short)
    return replace(
        right(),
        orders={**right().orders, id: order},
        checkouts={**right().checkouts, id: checkout_of(order)},
        payments=payments,
        reservations={**right().reservations, id: reservation},
        stock=stock,
    )


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (cancelled(None, short=("COCOA-70-400G",)), Why.OUT_OF_STOCK),
        (cancelled(PaymentStatus.DECLINED), Why.DECLINED),
        (cancelled(PaymentStatus.VOIDED), Why.LATE),
        (cancelled(PaymentStatus.REFUNDED), Why.LATE),
        (cancelled(PaymentStatus.CANCELLED), Why.LATE),
        (cancelled(None), Why.LATE),
    ],
)
def test_an_order_that_was_cancelled_and_undone_is_right_and_counted_by_why(
    found: Found, why: Why
) -> None:
    assert wrong(found) == []
    assert {each: found.cancelled(each) for each in Why} == dict.fromkeys(Why, 0) | {why: 1}


@pytest.mark.parametrize("status", [PaymentStatus.AUTHORISED, PaymentStatus.CAPTURED])
def test_money_that_was_kept_for_a_cancelled_order_is_noticed(status: PaymentStatus) -> None:
    assert wrong(cancelled(status)) == ["what was confirmed is paid, and nothing else is"]


def test_money_that_was_taken_for_a_free_order_is_noticed() -> None:
    id = SCRIPT.order_ids[0]
    order = ended(id)
    free = order.model_copy(
        update={"lines": [line.model_copy(update={"unit_price": 0}) for line in order.lines]}
    )
    orders = {**right().orders, id: free}
    assert wrong(replace(right(), orders=orders))[1:] == [
        "what was confirmed is paid, and nothing else is"
    ]


def test_a_reservation_that_is_held_for_ever_or_of_something_else_is_noticed() -> None:
    id = SCRIPT.order_ids[0]
    order = ended(id)
    held = reservation_of(order).model_copy(update={"status": ReservationStatus.HELD})
    other = reservation_of(order).model_copy(update={"pieces": {}})
    for reservation in (held, other, None):
        found = replace(right(), reservations={**right().reservations, id: reservation})
        assert wrong(found) == ["every reservation ended as its order"]


def test_a_customer_without_a_mail_is_noticed() -> None:
    found = replace(right(), mails=Counter(SCRIPT.order_ids[1:]))
    assert wrong(found) == ["every customer has one mail for each order"]


def test_two_mails_about_one_order_are_one_too_many() -> None:
    found = replace(right(), mails=Counter([*SCRIPT.order_ids, SCRIPT.order_ids[0]]))
    verdict = judge(SCRIPT, watched(), found)
    assert verdict.doubled == [SCRIPT.order_ids[0]]
    assert len(verdict.failed) == 2


def test_an_event_that_is_sent_again_under_its_id_is_not_doubled() -> None:
    watch, id = watched(), SCRIPT.order_ids[0]
    watch.sent("order", outgoing("OrderPlaced", id, f"placed {id}"))
    assert judge(SCRIPT, watch, right()).doubled == []


def test_an_order_that_is_placed_by_two_events_is_doubled() -> None:
    watch, id = watched(), SCRIPT.order_ids[0]
    watch.sent("order", outgoing("OrderPlaced", id, "another id"))
    assert judge(SCRIPT, watch, right()).doubled == [id]


def test_a_command_whose_second_delivery_was_never_seen_is_noticed() -> None:
    assert wrong(right(), watched(duplicate=False)) == [
        "the command that was sent twice was seen twice"
    ]


def test_a_third_dead_letter_or_a_missing_one_is_noticed() -> None:
    letters = list(right().letters)
    for others in (letters[:1], [*letters, letters[0]], [letters[0], letters[0]]):
        assert wrong(replace(right(), letters=others)) == [
            "the two bad messages, and no others, are dead letters"
        ]


def test_a_message_that_is_left_in_a_queue_is_noticed() -> None:
    for depth in (QueueDepth(1, 0, 0), QueueDepth(0, 1, 0), QueueDepth(0, 0, 1)):
        assert wrong(replace(right(), left={"order": depth})) == [
            "no queue holds anything but timers"
        ]


def test_what_is_missing_is_told_with_the_orders_it_is_about() -> None:
    watch = watched(duplicate=False)
    late = SCRIPT.order_ids[2]
    del watch.ended[late]
    phrases = missing(watch, SCRIPT.order_ids, 3, SCRIPT.doubled_id)
    assert phrases[0] == f"1 of 5 orders have not ended ({late})"
    assert len(phrases) == 3


def test_nothing_is_missing_after_a_run_that_went_well() -> None:
    assert missing(watched(), SCRIPT.order_ids, 2, SCRIPT.doubled_id) == []


# --- the orders ------------------------------------------------------------------------


def test_there_are_200_orders_of_many_kinds() -> None:
    sample = load(200)
    skus = {line.sku for order in sample.orders for line in order.lines}
    assert len({order.order_id for order in sample.orders}) == 200
    assert len({order.customer.email for order in sample.orders}) > 50
    assert {order.via for order in sample.orders} == {"command", "storefront"}
    assert skus - sample.stock.keys(), "no order names an unknown SKU"
    assert any(len(order.lines) > len(wanted(order.lines)) for order in sample.orders)


def test_some_of_the_200_orders_cannot_be_served() -> None:
    sample = load(200)
    asked: Counter[str] = Counter()
    for order in sample.orders:
        asked.update(wanted(order.lines))
    assert [sku for sku in sample.stock if asked[sku] > sample.stock[sku]]


def test_the_bank_makes_all_its_difficulties_among_the_first_60_orders_and_some_are_free() -> None:
    totals = [order.as_command().lines for order in load(60).orders]
    cents = {int(total_of(lines) * 100) % 100 for lines in totals}
    assert cents >= {DECLINED_CENTS, SILENT_CENTS, FORGETFUL_CENTS, GREEDY_CENTS}
    assert any(not total_of(lines) for lines in totals)


def test_fewer_orders_are_the_first_ones() -> None:
    assert load(3).orders == load(200).orders[:3]


def test_more_orders_begin_again_with_ids_of_their_own_and_more_stock() -> None:
    once, more = load(200), load(450)
    assert len({order.order_id for order in more.orders}) == 450
    assert more.orders[200].order_id == f"{once.orders[0].order_id}-2"
    assert more.orders[400].order_id == f"{once.orders[0].order_id}-3"
    assert more.stock == {sku: 3 * pieces for sku, pieces in once.stock.items()}


def test_one_order_is_enough_for_a_script() -> None:
    script = Script(Sample(load(1).orders, {}))
    assert script.commands == [script.reused]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ('{"order_id": "W1"}\n', "Line 1 .* is no order: customer"),
        ("not json\n", "Line 1 .* is no order"),
    ],
)
def test_a_file_that_holds_no_orders_is_refused_by_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        load(1, file)


def test_one_order_id_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    first = ORDERS.read_text(encoding="utf-8").split("\n")[0]
    file = tmp_path / "orders.jsonl"
    file.write_text(f"{first}\n{first}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="twice"):
        load(2, file)


def test_a_file_that_is_not_there_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.jsonl cannot be read"):
        load(1, tmp_path / "nowhere.jsonl")
