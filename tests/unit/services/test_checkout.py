"""A checkout confirms an order with all that belongs to it, or cancels it and undoes everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from decimal import Decimal
from typing import Any

from headrace import Service
from headrace.saga.progress import Status
from headrace.testing.harness import Harness, harness
from schemas.inventory import ReleaseStock, StockReleased, StockReserved
from schemas.notification import CustomerNotified
from schemas.order import CancelOrder, ConfirmOrder, OrderCancelled, OrderConfirmed
from schemas.payment import (
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentDeclined,
    PaymentVoided,
    VoidPayment,
)
from services.inventory.app import inventory
from services.inventory.handlers import HOLD
from services.inventory.model import Reservation, ReservationStatus, Stock
from services.notification.app import notification
from services.notification.mail import Mail
from services.order.app import order
from services.order.local_gateway import LocalGateway, MemoryBook, PaymentStatus
from services.order.model import Order, OrderStatus
from services.order.payments import payment_key
from services.order.saga import ANSWER, DEADLINE, Checkout
from tests.unit.services.shop import line, place
from tests.unit.timeless import timeless

ALL = (order, inventory, notification)


class Mailbox:
    """A mail server that keeps what it takes."""

    def __init__(self) -> None:
        self.mails: dict[str, Mail] = {}

    async def send(self, mail: Mail, *, idempotency_key: str) -> None:
        self.mails[idempotency_key] = mail


class Shop:
    """Services of the shop, with a bank and a mailbox that the test can look into."""

    def __init__(self, aws: Harness, book: MemoryBook, mailbox: Mailbox) -> None:
        self.aws = aws
        self.book = book
        self.mailbox = mailbox

    @property
    def order(self) -> Order:
        return self.aws.get(Order, "W1", service=order)

    @property
    def checkout(self) -> Status:
        return self.aws.saga(Checkout, "W1").status

    @property
    def reservation(self) -> Reservation:
        return self.aws.get(Reservation, "W1", service=inventory)

    @property
    def mugs(self) -> int:
        return self.aws.get(Stock, "MUG", service=inventory).available

    @property
    def payment(self) -> PaymentStatus | None:
        found = self.book.payments.get(payment_key("W1"))
        return None if found is None else found.status

    @property
    def subjects(self) -> list[str]:
        return [mail.subject for mail in self.mailbox.mails.values()]


@asynccontextmanager
async def open_shop(*services: Service, mugs: int = 5) -> AsyncIterator[Shop]:
    book, mailbox = MemoryBook(), Mailbox()
    resources: Mapping[Service, Any] = {
        order: lambda: nullcontext(LocalGateway(book)),
        notification: lambda: nullcontext(mailbox),
    }
    services = services or ALL
    wanted = {service: of for service, of in resources.items() if service in services}
    async with harness(*services, resources=wanted) as aws:
        if inventory in services:
            await aws.put(Stock(sku="MUG", available=mugs), service=inventory)
        yield Shop(aws, book, mailbox)


def is_untouched(shop: Shop, reason: str) -> bool:
    """Whether the order is cancelled for this reason, told to its customer, and left nothing."""
    assert (shop.order.status, shop.order.reason) == (OrderStatus.CANCELLED, reason)
    assert shop.checkout is Status.COMPENSATED
    assert (shop.mugs, shop.reservation.status) == (5, ReservationStatus.RELEASED)
    assert shop.subjects == ["Your order W1 is cancelled"]
    assert shop.aws.cloud.scheduler.peek() == []
    return shop.aws.published(OrderConfirmed) == []


# --- how it ends -------------------------------------------------------------------------


async def test_an_order_that_is_in_stock_and_paid_is_confirmed() -> None:
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 2)))
        await shop.aws.settled()
        assert shop.order.status is OrderStatus.CONFIRMED
        assert shop.checkout is Status.COMPLETED
        assert (shop.mugs, shop.reservation.status) == (3, ReservationStatus.TAKEN)
        assert shop.payment is PaymentStatus.CAPTURED
        assert shop.subjects == ["Your order W1 is confirmed"]
        assert shop.aws.cloud.scheduler.peek() == []


async def test_an_order_that_is_out_of_stock_is_cancelled_before_anybody_is_asked_for_money() -> (
    None
):
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 6), line("TEAPOT")))
        await shop.aws.settled()
        assert is_untouched(shop, "We do not have enough of MUG, TEAPOT.")
        assert shop.payment is None


async def test_the_stock_of_an_order_whose_payment_is_declined_is_given_back() -> None:
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 1, "3.13")))
        await shop.aws.settled()
        assert is_untouched(shop, "Your payment was declined.")
        assert shop.payment is PaymentStatus.DECLINED


@timeless
async def test_what_a_bank_has_set_aside_without_a_word_is_voided() -> None:
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 1, "3.66")))
        await shop.aws.settled()
        assert is_untouched(shop, "Your bank did not answer in time.")
        assert shop.payment is PaymentStatus.VOIDED


@timeless
async def test_a_bank_that_answers_when_it_is_asked_again_is_no_reason_to_cancel() -> None:
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 1, "3.77")))
        await shop.aws.settled()
        assert shop.order.status is OrderStatus.CONFIRMED
        assert shop.payment is PaymentStatus.CAPTURED
        assert shop.aws.published(PaymentVoided) == []


@timeless
async def test_what_a_bank_has_taken_without_a_word_is_refunded() -> None:
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 1, "3.88")))
        await shop.aws.settled()
        assert is_untouched(shop, "Your payment could not be taken in time.")
        assert shop.payment is PaymentStatus.REFUNDED


async def test_an_order_that_costs_nothing_needs_no_bank() -> None:
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 1, "0.00")))
        await shop.aws.settled()
        assert (shop.order.status, shop.payment) == (OrderStatus.CONFIRMED, None)


# --- everything twice --------------------------------------------------------------------


async def test_an_order_of_which_everything_comes_twice_is_paid_and_told_once() -> None:
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 2)), times=2)
        await shop.aws.settled()
        await shop.aws.redeliver()
        await shop.aws.settled()
        assert (shop.mugs, shop.payment) == (3, PaymentStatus.CAPTURED)
        assert [len(shop.aws.published(cls)) for cls in (OrderConfirmed, CustomerNotified)] == [
            1,
            1,
        ]


async def test_an_order_that_was_cancelled_stays_so_when_everything_comes_again() -> None:
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 1, "3.13")), times=2)
        await shop.aws.settled()
        await shop.aws.redeliver()
        await shop.aws.settled()
        assert is_untouched(shop, "Your payment was declined.")


# --- answers that do not come, or come late ----------------------------------------------


async def test_pieces_that_are_reserved_after_the_checkout_gave_up_are_released() -> None:
    async with open_shop(order, notification) as shop:
        await shop.aws.send(place("W1"))
        await shop.aws.elapsed(ANSWER)
        assert shop.aws.sent(ReleaseStock) == [ReleaseStock(order_id="W1")]
        assert shop.aws.published(OrderCancelled) == []
        await shop.aws.publish(StockReserved(order_id="W1"))
        await shop.aws.publish(StockReleased(order_id="W1"))
        await shop.aws.settled()
        assert shop.order.reason == "We could not reserve it in time."
        assert shop.aws.sent(AuthorisePayment) == []


async def test_a_late_answer_does_not_reopen_an_order_that_has_ended() -> None:
    async with open_shop() as shop:
        await shop.aws.send(place("W1", line("MUG", 1, "3.13")))
        await shop.aws.settled()
        for late in (StockReserved, PaymentAuthorised, PaymentCaptured):
            await shop.aws.publish(late(order_id="W1"))
            await shop.aws.settled()
        assert is_untouched(shop, "Your payment was declined.")


# --- what each of them promises ----------------------------------------------------------


@asynccontextmanager
async def at_the_gateway() -> AsyncIterator[tuple[Harness, MemoryBook]]:
    async with open_shop(order) as shop:
        yield shop.aws, shop.book


def authorise(total: str) -> AuthorisePayment:
    return AuthorisePayment(order_id="W1", total=Decimal(total), currency="EUR")


async def sent(aws: Harness, *commands: Any) -> None:
    """Send commands, and handle each before the next."""
    for command in commands:
        await aws.send(command)
        await aws.settled()


def statuses(book: MemoryBook) -> Sequence[PaymentStatus]:
    return [payment.status for payment in book.payments.values()]


async def test_a_payment_that_is_voided_before_it_is_asked_for_is_declined() -> None:
    async with at_the_gateway() as (aws, book):
        await sent(aws, VoidPayment(order_id="W1"), authorise("5.00"))
        assert aws.published(PaymentDeclined) == [PaymentDeclined(order_id="W1")]
        assert statuses(book) == [PaymentStatus.CANCELLED]


async def test_a_payment_that_was_voided_is_not_captured() -> None:
    async with at_the_gateway() as (aws, book):
        commands = (VoidPayment(order_id="W1"), CapturePayment(order_id="W1"))
        await sent(aws, authorise("5.00"), *commands)
        assert statuses(book) == [PaymentStatus.VOIDED]
        assert aws.published(PaymentCaptured) == []


async def test_an_order_that_is_to_be_confirmed_twice_says_so_once() -> None:
    async with at_the_gateway() as (aws, _):
        await aws.put(Order.of(place("W1")))
        await sent(aws, ConfirmOrder(order_id="W1"), ConfirmOrder(order_id="W1"))
        assert len(aws.published(OrderConfirmed)) == 1


async def test_an_order_ends_once() -> None:
    async with at_the_gateway() as (aws, _):
        await aws.put(Order.of(place("W1")))
        cancel = CancelOrder(order_id="W1", reason="It is gone.")
        await sent(aws, cancel, cancel)
        assert len(aws.published(OrderCancelled)) == 1
        await aws.send(ConfirmOrder(order_id="W1"))
        await aws.settled(dead_letters=1)
        [letter] = aws.dead_letters()
        assert "W1 is cancelled, and an order ends once" in letter.reason


async def test_the_end_of_an_order_that_was_never_placed_is_a_dead_letter() -> None:
    async with at_the_gateway() as (aws, _):
        await aws.send(ConfirmOrder(order_id="W9"))
        await aws.settled(dead_letters=1)
        [letter] = aws.dead_letters()
        assert "There is no order W9" in letter.reason


def test_a_checkout_is_over_long_before_a_reservation_expires() -> None:
    assert DEADLINE < HOLD / 4
