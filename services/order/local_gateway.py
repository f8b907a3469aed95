"""A payment gateway for a laptop: its bank does as it is told, and remembers it after a kill."""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import BaseModel, ConfigDict

from services.order.payments import Declined

DECLINED_CENTS: Final = 13
SILENT_CENTS: Final = 66
FORGETFUL_CENTS: Final = 77
GREEDY_CENTS: Final = 88


class PaymentStatus(StrEnum):
    """`cancelled` was so before it was anything else."""

    AUTHORISED = "authorised"
    CAPTURED = "captured"
    DECLINED = "declined"
    VOIDED = "voided"
    REFUNDED = "refunded"
    CANCELLED = "cancelled"


class Payment(BaseModel):
    """What the local gateway knows of one payment; `calls` are those that wanted it authorised."""

    model_config = ConfigDict(frozen=True)

    key: str
    status: PaymentStatus
    amount: Decimal = Decimal(0)
    currency: str = ""
    calls: int = 0


Change: TypeAlias = Callable[[Payment | None], Payment]
"""What becomes of a payment, from what is known of it."""
Book: TypeAlias = Callable[[str, Change], Awaitable[Payment]]
"""Makes a change to the payment with this key, which no other change comes in between."""


class LocalGateway:
    """A gateway whose bank decides by the cents of the amount:

    .13   it declines
    .66   it sets the money aside, and never says so: the call hangs
    .77   so it does when it is asked first; it answers when it is asked again
    .88   it takes the money, and never says so
    """

    def __init__(self, book: Book) -> None:
        self._book = book

    async def authorise(self, amount: Decimal, currency: str, *, idempotency_key: str) -> None:
        wanted = partial(_authorised, idempotency_key, amount, currency)
        payment = await self._book(idempotency_key, wanted)
        if payment.status not in _GOOD:
            raise Declined(f"The payment {idempotency_key} is {payment.status}.")
        if _says_nothing(payment):
            await asyncio.Event().wait()

    async def capture(self, *, idempotency_key: str) -> None:
        payment = await self._book(idempotency_key, partial(_captured, idempotency_key))
        if payment.status is not PaymentStatus.CAPTURED:
            raise Declined(f"The payment {idempotency_key} is {payment.status}.")
        if _cents(payment.amount) == GREEDY_CENTS:
            await asyncio.Event().wait()

    async def cancel(self, *, idempotency_key: str) -> None:
        await self._book(idempotency_key, partial(_cancelled, idempotency_key))


_GOOD: Final = (PaymentStatus.AUTHORISED, PaymentStatus.CAPTURED)
_CANCELLED_AS: Final = {
    PaymentStatus.AUTHORISED: PaymentStatus.VOIDED,
    PaymentStatus.CAPTURED: PaymentStatus.REFUNDED,
}


def _authorised(key: str, amount: Decimal, currency: str, found: Payment | None) -> Payment:
    if found is not None:
        return found.model_copy(update={"calls": found.calls + 1})
    declines = _cents(amount) == DECLINED_CENTS
    status = PaymentStatus.DECLINED if declines else PaymentStatus.AUTHORISED
    return Payment(key=key, status=status, amount=amount, currency=currency, calls=1)


def _captured(key: str, found: Payment | None) -> Payment:
    if found is None:
        # Of a gateway that was somebody else's memory. It is not to be authorised later.
        return Payment(key=key, status=PaymentStatus.CANCELLED)
    authorised = found.status is PaymentStatus.AUTHORISED
    return found.model_copy(update={"status": PaymentStatus.CAPTURED}) if authorised else found


def _cancelled(key: str, found: Payment | None) -> Payment:
    if found is None:
        return Payment(key=key, status=PaymentStatus.CANCELLED)
    return found.model_copy(update={"status": _CANCELLED_AS.get(found.status, found.status)})


def _says_nothing(payment: Payment) -> bool:
    cents = _cents(payment.amount)
    return cents == SILENT_CENTS or (cents == FORGETFUL_CENTS and payment.calls == 1)


def _cents(amount: Decimal) -> int:
    return int(amount * 100) % 100


# --- where it keeps them ---------------------------------------------------------------


class MemoryBook:
    """Keeps payments as long as the process lives."""

    def __init__(self) -> None:
        self.payments: dict[str, Payment] = {}

    async def __call__(self, key: str, change: Change) -> Payment:
        payment = self.payments[key] = change(self.payments.get(key))
        return payment


class FolderBook:
    """Keeps each payment in a file of its own, for all processes that share the folder, which it
    makes if need be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def payments(self) -> dict[str, Payment]:
        """All of them, by key."""
        found = map(self._read, sorted(self.folder.glob("*.json")))
        return {payment.key: payment for payment in found if payment is not None}

    async def __call__(self, key: str, change: Change) -> Payment:
        return await asyncio.to_thread(self._change, key, change)

    def _change(self, key: str, change: Change) -> Payment:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{sha256(key.encode()).hexdigest()[:32]}.json"
        with self._alone():
            payment = change(self._read(file))
            self._write(file, payment)
        return payment

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # A lock of a process that is killed is free.
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self, file: Path) -> Payment | None:
        return Payment.model_validate_json(file.read_bytes()) if file.exists() else None

    def _write(self, file: Path, payment: Payment) -> None:
        descriptor, draft = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(descriptor, "w") as written:
            written.write(payment.model_dump_json())
        # Whoever is killed in the middle of this leaves the payment as it was, or as it is.
        Path(draft).replace(file)
