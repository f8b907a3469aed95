"""The soak's verdict fails when anything is off, and what it sends is what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from headrace import Metadata
from headrace.events import contract_of
from headrace.ports import QueueDepth
from headrace.testing.memory import ManualClock
from schemas.checkout import CheckoutCompleted
from schemas.inventory import StockReserved
from schemas.notification import CustomerNotified
from schemas.order import OrderConfirmed, OrderPlaced
from schemas.payment import PaymentAuthorised, PaymentCaptured
from services.demo.found import Found, Letter
from services.demo.sample import load
from services.demo.script import command_id
from services.inventory.model import ReservationStatus, Stock, wanted
from services.order.model import Order, OrderStatus
from services.soak.feed import Feed
from services.soak.rows import Checkout, InboxRecord, Rows
from services.soak.tap import Seen, Witnessed
from services.soak.verdict import Evidence, judge
from tests.unit.services.aftermath import checkout_of, payments_of, reservation_of

SAMPLE = Feed.of(load(4), Random(1)).sample
FIRST = SAMPLE.orders[0]
CONSUMERS = {
    OrderPlaced: "order.place_order",
    StockReserved: "inventory.reserve_stock",
    PaymentAuthorised: "order.authorise_payment",
    PaymentCaptured: "order.capture_payment",
    OrderConfirmed: "order.confirm_order",
    CustomerNotified: "notification.notify_customer",
}
ORDERS = {
    order.order_id: Order.of(order.as_command()).model_copy(
        update={"status": OrderStatus.CONFIRMED}
    )
    for order in SAMPLE.orders
}


TURNS = len(CONSUMERS)
"""Of a checkout that is confirmed."""


def metadata(event: Witnessed | CheckoutCompleted, id: str, cause: str | None) -> Metadata:
    return Metadata(
        id=id,
        type=contract_of(event).name,
        time=ManualClock().now(),
        correlation_id=f"all of {event.order_id}",
        causation_id=cause,
    )


def steps(order: Order) -> list[Witnessed]:
    """The events of an order that is confirmed."""
    content = order.model_dump(include={"order_id", "customer", "lines", "currency"})
    return [
        OrderPlaced(**content, total=order.total),
        StockReserved(order_id=order.order_id),
        PaymentAuthorised(order_id=order.order_id),
        PaymentCaptured(order_id=order.order_id),
        OrderConfirmed(**content, total=order.total),
        CustomerNotified(order_id=order.order_id, email="a@example.com", subject="yours"),
    ]


def right(*, first_cause: str = command_id(FIRST)) -> Evidence:
    """What is known after a run in which everything went well."""
    seen, rows, gone, written = Seen(), Rows(), Counter[str](), Counter[str](SAMPLE.stock.keys())
    for sent in SAMPLE.orders:
        order = ORDERS[sent.order_id]
        cause = first_cause if sent is FIRST else command_id(sent)
        if sent.via == "storefront":
            cause = f"checkout {sent.order_id}"
            checkout = sent.as_checkout()
            seen.add_checkout(checkout, metadata(checkout, cause, None))
        for event in steps(order):
            if isinstance(event, CustomerNotified):
                cause = f"OrderConfirmed {order.order_id}"
            elif not isinstance(event, OrderPlaced):
                cause = f"what wanted {type(event).__name__} of {order.order_id}"
            rows.records.append(InboxRecord(CONSUMERS[type(event)], cause, done=True, outgoing=()))
            id = f"{type(event).__name__} {order.order_id}"
            seen.add(event, metadata(event, id, cause))
        rows.orders[order.order_id] = 2
        rows.checkouts[order.order_id] = Checkout(writes=TURNS, turns=TURNS)
        rows.turns.update((order.order_id, turn + 1) for turn in range(TURNS))
        gone.update(wanted(order.lines))
        written.update(wanted(order.lines).keys())
    rows.stock.update(written)
    found = Found(
        orders=dict(ORDERS),
        checkouts={id: checkout_of(order) for id, order in ORDERS.items()},
        payments=payments_of(ORDERS.values()),
        reservations={id: reservation_of(order) for id, order in ORDERS.items()},
        stock={
            sku: Stock(sku=sku, available=pieces - gone[sku])
            for sku, pieces in SAMPLE.stock.items()
        },
        mails=Counter(ORDERS.keys()),
        letters=[],
        left={"order": QueueDepth(0, 0, 0)},
    )
    return Evidence(SAMPLE, found, rows, seen, kills=3)


def wrong(evidence: Evidence) -> list[str]:
    return [check.name for check in judge(evidence).failed]


def line(evidence: Evidence) -> str:
    return judge(evidence).line()


def test_a_run_that_went_well_has_nothing_wrong() -> None:
    assert wrong(right()) == []
    assert line(right()) == "orders=4 kills=3 lost=0 doubled=0 unfinished=0"


def test_an_order_that_has_not_ended_is_lost() -> None:
    evidence = right()
    order = ORDERS[FIRST.order_id].model_copy(update={"status": OrderStatus.PLACED})
    found = replace(evidence.found, orders={**ORDERS, FIRST.order_id: order})
    assert "lost=1 doubled=0 " in line(replace(evidence, found=found))


@pytest.mark.parametrize("number", [0, 1, 4, 5])
def test_a_step_that_was_taken_by_two_events_is_doubled(number: int) -> None:
    evidence = right()
    event = steps(ORDERS[FIRST.order_id])[number]
    evidence.seen.add(event, metadata(event, "another", "another cause"))
    assert "doubled=1 " in line(evidence)
    assert "every order took every step by one event" in wrong(evidence)
    assert "every event has the record of its cause" in wrong(evidence)


def test_two_events_of_one_cause_are_doubled_whatever_order_they_name() -> None:
    evidence = right()
    event = steps(ORDERS[SAMPLE.orders[1].order_id])[0]
    evidence.seen.add(event, metadata(event, "another", command_id(FIRST)))
    doubled = judge(evidence).doubled
    assert f"{command_id(FIRST)} caused 2 events OrderPlaced" in doubled


def test_an_event_that_is_sent_again_under_its_id_is_not_doubled() -> None:
    evidence = right()
    event = steps(ORDERS[FIRST.order_id])[0]
    id = f"OrderPlaced {FIRST.order_id}"
    evidence.seen.add(event, metadata(event, id, command_id(FIRST)))
    assert wrong(evidence) == []
    assert evidence.seen.again == 1


def test_an_event_that_says_something_else_under_its_id_is_noticed() -> None:
    evidence = right()
    event = steps(ORDERS[SAMPLE.orders[1].order_id])[0].model_copy(
        update={"order_id": FIRST.order_id}
    )
    evidence.seen.add(event, metadata(event, f"OrderPlaced {FIRST.order_id}", command_id(FIRST)))
    assert wrong(evidence) == ["an event that was sent again said the same"]


def test_a_step_that_nobody_saw_is_noticed() -> None:
    evidence = right()
    del evidence.seen.steps["answered"][FIRST.order_id]
    assert "every order took every step by one event" in wrong(evidence)


def test_an_event_of_an_unknown_cause_is_noticed() -> None:
    evidence = right(first_cause="nothing that was sent")
    assert wrong(evidence) == ["all that was said of an order follows from it"]


def test_an_event_that_goes_back_to_another_order_is_noticed() -> None:
    evidence = right()
    event, other = PaymentAuthorised(order_id=FIRST.order_id), SAMPLE.orders[1]
    cause = f"what wanted PaymentAuthorised of {other.order_id}"
    strange = metadata(event, "another", cause).model_copy(update={"correlation_id": "other"})
    evidence.seen.add(event, strange)
    assert "all that was said of an order follows from it" in wrong(evidence)


def test_a_payment_that_is_captured_again_because_it_was_wanted_again_is_not_doubled() -> None:
    evidence = right()
    event = PaymentCaptured(order_id=FIRST.order_id)
    record = InboxRecord("order.capture_payment", "wanted again", done=True, outgoing=())
    evidence.rows.records.append(record)
    evidence.seen.add(event, metadata(event, "another", "wanted again"))
    assert wrong(evidence) == []


def _order_again(rows: Rows) -> None:
    rows.orders[FIRST.order_id] += 1


def _stock_again(rows: Rows) -> None:
    rows.stock[FIRST.lines[0].sku] += 1


def _checkout_again(rows: Rows) -> None:
    rows.checkouts[FIRST.order_id] = Checkout(writes=TURNS + 1, turns=TURNS)


@pytest.mark.parametrize("again", [_order_again, _stock_again, _checkout_again])
def test_a_row_that_was_written_once_more_than_due_is_doubled(
    again: Callable[[Rows], None],
) -> None:
    evidence = right()
    again(evidence.rows)
    assert "doubled=1 " in line(evidence)
    assert "every row was written as often as due" in wrong(evidence)


def test_a_turn_of_a_checkout_that_was_taken_twice_is_doubled() -> None:
    evidence = right()
    evidence.rows.turns[FIRST.order_id, 2] += 1
    assert "doubled=1 " in line(evidence)


@pytest.mark.parametrize(
    ("short", "writes"), [((), 2), ((FIRST.lines[0].sku,), 0)], ids=["given back", "too few"]
)
def test_stock_is_written_twice_for_what_is_given_back_and_never_for_what_was_too_few(
    short: tuple[str, ...], writes: int
) -> None:
    evidence = right()
    released = reservation_of(ORDERS[FIRST.order_id]).model_copy(
        update={"status": ReservationStatus.RELEASED, "short": short}
    )
    reservations = {**evidence.found.reservations, FIRST.order_id: released}
    for line_ in FIRST.lines:
        evidence.rows.stock[line_.sku] += writes - 1
    found = replace(evidence.found, reservations=reservations)
    assert "every row was written as often as due" not in wrong(replace(evidence, found=found))


def test_a_row_that_was_written_less_often_than_due_is_noticed() -> None:
    evidence = right()
    evidence.rows.orders[FIRST.order_id] = 1
    assert wrong(evidence) == ["every row was written as often as due"]


def test_two_mails_about_one_order_are_doubled() -> None:
    evidence = right()
    evidence.found.mails[FIRST.order_id] += 1
    assert "doubled=1 " in line(evidence)


def test_a_pending_record_whose_event_was_never_seen_is_unfinished() -> None:
    evidence = right()
    record = InboxRecord("order.place_order", "x", done=False, outgoing=("never seen",))
    evidence.rows.records.append(record)
    assert "unfinished=1" in line(evidence)
    assert wrong(evidence) == ["nothing is unfinished"]


def test_a_pending_record_whose_event_was_seen_is_finished() -> None:
    evidence = right()
    outgoing = (f"OrderPlaced {FIRST.order_id}",)
    evidence.rows.records.append(
        InboxRecord("order.place_order", "x", done=False, outgoing=outgoing)
    )
    assert wrong(evidence) == []


def test_a_pending_record_whose_command_was_handled_is_finished() -> None:
    evidence = right()
    outgoing = (f"what wanted StockReserved of {FIRST.order_id}",)
    evidence.rows.records.append(InboxRecord("order.checkout", "x", done=False, outgoing=outgoing))
    assert wrong(evidence) == []


def test_a_pending_record_of_nothing_that_an_end_depends_on_is_finished() -> None:
    evidence = right()
    record = InboxRecord("order.checkout", "x", done=False, outgoing=(), besides=1)
    evidence.rows.records.append(record)
    assert wrong(evidence) == []


def test_a_record_that_is_pending_with_nothing_to_send_is_unfinished() -> None:
    evidence = right()
    evidence.rows.records.append(InboxRecord("order.place_order", "x", done=False, outgoing=()))
    assert "unfinished=1" in line(evidence)


def test_every_message_that_is_left_is_unfinished() -> None:
    evidence = right()
    found = replace(
        evidence.found,
        left={"order": QueueDepth(1, 2, 0)},
        letters=[Letter("order-dlq", "too often", "none", "")],
    )
    verdict = judge(replace(evidence, found=found))
    assert verdict.line().endswith("unfinished=4")
    assert [check.name for check in verdict.failed] == [
        "nothing is unfinished",
        "nothing became a dead letter",
        "no queue holds anything but timers",
    ]


def test_an_event_that_says_otherwise_than_the_table_is_noticed() -> None:
    evidence = right()
    order = ORDERS[FIRST.order_id].model_copy(update={"status": OrderStatus.CANCELLED})
    found = replace(evidence.found, orders={**ORDERS, FIRST.order_id: order})
    assert "events and tables say the same" in wrong(replace(evidence, found=found))


def test_a_run_without_a_kill_says_nothing() -> None:
    assert wrong(replace(right(), kills=0)) == ["workers were killed"]


def test_a_row_of_the_inbox_is_read_as_the_documentation_has_it() -> None:
    rows = Rows()
    rows.add(
        {
            "pk": {"S": "inbox#order.place_order#id#with#these"},
            "sk": {"S": "-"},
            "status": {"S": "pending"},
            "outgoing": {
                "L": [
                    {"M": {"id": {"S": "e1"}}},
                    {"M": {"id": {"S": "a timer"}, "due": {"S": "2026-01-01T00:00:00Z"}}},
                    {"M": {"cancel": {"S": "a timer"}}},
                ]
            },
            "remarks": {"L": [{"M": {"saga": {"S": "checkout"}, "status": {"S": "stuck"}}}]},
        }
    )
    [record] = rows.records
    assert (record.consumer, record.event_id) == ("order.place_order", "id#with#these")
    assert (record.service, record.done) == ("order", False)
    assert (record.outgoing, record.besides) == (("e1",), 3)


@pytest.mark.parametrize(("ignored", "turns"), [("false", [("W#1", 4)]), ("true", [])])
def test_the_turn_of_a_checkout_is_read_from_what_its_history_says(
    ignored: str, turns: list[tuple[str, int]]
) -> None:
    rows = Rows()
    rows.add(
        {
            "pk": {"S": "inbox#order.checkout#e1"},
            "sk": {"S": "-"},
            "status": {"S": "done"},
            "relay_pk": {"S": "saga-history#order.checkout#W#1"},
            "note": {"S": f'{{"turn": 4, "ignored": {ignored}}}'},
        }
    )
    assert list(rows.turns.elements()) == turns


def test_a_checkout_is_read_with_its_writes_and_turns() -> None:
    rows = Rows()
    rows.add(
        {
            "pk": {"S": "saga#order.checkout#W1"},
            "sk": {"S": "-"},
            "_type": {"S": "SagaItem"},
            "_version": {"N": "1700000000000000005"},
            "progress": {"S": '{"turn": 5}'},
        }
    )
    assert rows.checkouts == {"W1": Checkout(writes=5, turns=5)}


# --- what is sent ----------------------------------------------------------------------


def test_half_of_the_orders_are_commands_and_some_are_sent_twice() -> None:
    feed = Feed.of(load(400), Random(7))
    times = Counter(order.order_id for order in feed.sendings)
    assert Counter(order.via for order in feed.sample.orders) == {"command": 200, "storefront": 200}
    assert times.keys() == {order.order_id for order in feed.sample.orders}
    assert 0 < feed.twice < 60
    assert {order.via for order in feed.sendings if times[order.order_id] > 1} == {
        "command",
        "storefront",
    }


def test_one_seed_sends_in_one_order_and_another_in_another() -> None:
    sample = load(100)
    assert Feed.of(sample, Random(1)).sendings == Feed.of(sample, Random(1)).sendings
    assert Feed.of(sample, Random(1)).sendings != Feed.of(sample, Random(2)).sendings


def test_the_first_order_is_sent_twice_however_few_there_are() -> None:
    feed = Feed.of(load(1), Random(3))
    assert len(feed.sendings) >= 2
