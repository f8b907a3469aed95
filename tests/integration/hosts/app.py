"""The ledger of the bank. `app_plain` is the same module without postponed annotations."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from headrace import Backoff, Delivery, Metadata, PoisonMessage, Policy, RetryLater, Service
from headrace import Transaction as Tx
from headrace.hosts.lambda_ import lambda_handler
from tests.integration.hosts.bank import (
    Account,
    Audited,
    Bounced,
    Credited,
    Deposited,
    Forged,
    OpenAccount,
    Postponed,
    Scanned,
    Stalled,
    Withdrawn,
)

# So long that nothing comes again while a test looks.
PATIENT = Policy(backoff=Backoff(base=timedelta(hours=1), cap=timedelta(hours=1)))

ledger = Service("ledger", bus="bank", policy=PATIENT)
handler = lambda_handler(ledger)


@ledger.on(Deposited)
async def credit(event: Deposited, tx: Tx) -> Credited:
    account = await tx.get(Account, event.account) or Account(number=event.account)
    account = account.after(event.amount)
    tx.put(account)
    return Credited(account=account.number, balance=account.balance)


@ledger.on(Withdrawn)
async def debit(event: Withdrawn, tx: Tx) -> Credited | None:
    account = await tx.get(Account, event.account) or Account(number=event.account)
    tx.put(account.after(-event.amount))
    return None


@ledger.on(OpenAccount, Scanned)
def open_account(message: OpenAccount | Scanned, tx: Tx, metadata: Metadata) -> list[Credited]:
    """A plain function, which runs in a thread."""
    number = message.account if isinstance(message, OpenAccount) else message.object["key"]
    tx.put(Account(number=number))
    return []


@ledger.on(Bounced)
async def bounce(event: Bounced, tx: Tx) -> None:
    tx.put(Account(number=event.account))
    raise RuntimeError(f"no cover for {event.account}")


@ledger.on(Forged)
async def detect(event: Forged, tx: Tx) -> Credited:
    tx.put(Account(number=event.account))
    raise PoisonMessage(f"the signature on {event.account} is forged")


@ledger.on(Postponed)
async def wait_for_it(event: Postponed, delivery: Delivery) -> None:
    raise RetryLater(f"{event.account} is not due", delay=timedelta(hours=2))


@ledger.on(Stalled)
async def stall(event: Stalled, tx: Tx) -> None:
    tx.put(Account(number=event.account))
    await asyncio.Event().wait()


@ledger.on(Audited, queue="audit")
async def note_the_audit(event: Audited) -> None:
    pass


auditor = Service("auditor", bus="bank", table=None)


@auditor.on(Credited, idempotent=True)
async def look_at(event: Credited) -> None:
    pass
