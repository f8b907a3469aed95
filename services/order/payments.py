"""Taking money: the port."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol


class Declined(Exception):
    """The gateway says no, and will say so again."""


class Gateway(Protocol):
    """Takes payments. Each has an idempotency key, under which every call may be repeated, and
    comes to the same as if it had been made once."""

    async def authorise(self, amount: Decimal, currency: str, *, idempotency_key: str) -> None:
        """Set the money aside. Raises `Declined`, also for a payment that was cancelled, even if
        that came first."""
        ...

    async def capture(self, *, idempotency_key: str) -> None:
        """Take what was set aside. Raises `Declined` if nothing is."""
        ...

    async def cancel(self, *, idempotency_key: str) -> None:
        """Void what was set aside, or refund what was taken, as it stands. A payment that was
        never heard of is cancelled all the same."""
        ...


def payment_key(order_id: str) -> str:
    """The idempotency key of the one payment of an order."""
    return f"order-{order_id}"
