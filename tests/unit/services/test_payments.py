"""The local gateway takes each payment once, whoever asks how often, and decides by its cents."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from services.order.bootstrap import open_gateway
from services.order.local_gateway import (
    Book,
    FolderBook,
    LocalGateway,
    MemoryBook,
    Payment,
    PaymentStatus,
)
from services.order.payments import Declined
from tests.unit.timeless import timeless

KEY = "order-W1"


class Bank:
    """A gateway over some book, and what stands in it."""

    def __init__(self, book: MemoryBook | FolderBook) -> None:
        self.book = book
        self.gateway = LocalGateway(book)

    async def authorise(self, amount: str) -> None:
        await self.gateway.authorise(Decimal(amount), "EUR", idempotency_key=KEY)

    async def capture(self) -> None:
        await self.gateway.capture(idempotency_key=KEY)

    async def cancel(self) -> None:
        await self.gateway.cancel(idempotency_key=KEY)

    @property
    def status(self) -> PaymentStatus:
        return self.book.payments[KEY].status


@pytest.fixture(params=["memory", "folder"])
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> Bank:
    return Bank(MemoryBook() if request.param == "memory" else FolderBook(tmp_path / "payments"))


async def test_what_is_authorised_twice_and_captured_twice_is_one_payment(bank: Bank) -> None:
    for _ in range(2):
        await bank.authorise("28.00")
    for _ in range(2):
        await bank.capture()
    assert list(bank.book.payments) == [KEY]
    paid = Payment(key=KEY, status=PaymentStatus.CAPTURED, amount=Decimal("28.00"), currency="EUR")
    assert bank.book.payments[KEY] == paid.model_copy(update={"calls": 2})


async def test_a_payment_that_was_set_aside_is_voided(bank: Bank) -> None:
    await bank.authorise("28.00")
    for _ in range(2):
        await bank.cancel()
    assert bank.status is PaymentStatus.VOIDED


async def test_a_payment_that_was_taken_is_refunded(bank: Bank) -> None:
    await bank.authorise("28.00")
    await bank.capture()
    for _ in range(2):
        await bank.cancel()
    assert bank.status is PaymentStatus.REFUNDED


async def test_a_payment_that_is_cancelled_first_is_declined_when_it_is_asked_for(
    bank: Bank,
) -> None:
    await bank.cancel()
    for call in (bank.authorise("28.00"), bank.capture()):
        with pytest.raises(Declined, match="is cancelled"):
            await call
    assert bank.status is PaymentStatus.CANCELLED


async def test_a_payment_that_nobody_authorised_cannot_be_captured(bank: Bank) -> None:
    with pytest.raises(Declined):
        await bank.capture()


async def test_the_bank_declines_13_cents_as_often_as_it_is_asked(bank: Bank) -> None:
    for _ in range(2):
        with pytest.raises(Declined, match="is declined"):
            await bank.authorise("1.13")
    await bank.cancel()
    assert bank.status is PaymentStatus.DECLINED


@timeless
async def test_the_bank_says_nothing_to_66_cents_until_they_are_cancelled() -> None:
    bank = Bank(MemoryBook())
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bank.authorise("1.66"), 10)
    assert bank.status is PaymentStatus.AUTHORISED
    await bank.cancel()
    with pytest.raises(Declined, match="is voided"):
        await bank.authorise("1.66")


@timeless
async def test_the_bank_answers_77_cents_when_it_is_asked_again() -> None:
    bank = Bank(MemoryBook())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bank.authorise("1.77"), 10)
    await bank.authorise("1.77")
    assert bank.status is PaymentStatus.AUTHORISED


@timeless
async def test_the_bank_takes_88_cents_and_says_nothing() -> None:
    bank = Bank(MemoryBook())
    await bank.authorise("1.88")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bank.capture(), 10)
    assert bank.status is PaymentStatus.CAPTURED


async def test_processes_that_share_a_folder_share_its_payments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYMENTS_DIR", str(tmp_path))
    async with open_gateway() as one, open_gateway() as other:
        await one.authorise(Decimal("28.00"), "EUR", idempotency_key=KEY)
        await other.capture(idempotency_key=KEY)
    assert FolderBook(tmp_path).payments[KEY].status is PaymentStatus.CAPTURED


async def test_no_call_is_lost_where_many_come_at_once(bank: Bank) -> None:
    books: list[Book] = [bank.book, bank.book]
    if isinstance(bank.book, FolderBook):
        books = [bank.book, FolderBook(bank.book.folder)]
    gateways = [LocalGateway(book) for book in books]
    calls = [
        gateways[number % 2].authorise(Decimal("28.00"), "EUR", idempotency_key=KEY)
        for number in range(20)
    ]
    await asyncio.gather(*calls)
    assert bank.book.payments[KEY].calls == 20


async def test_without_a_folder_every_process_has_a_gateway_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PAYMENTS_DIR", raising=False)
    async with open_gateway() as one, open_gateway() as other:
        await one.authorise(Decimal("28.00"), "EUR", idempotency_key=KEY)
        with pytest.raises(Declined):
            await other.capture(idempotency_key=KEY)
