"""The services of the parity suite, and the entry point of the Lambda function.

The function is the same module as the worker's: its ports are wrapped in the same faults.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from headrace import Backoff, Delivery, Metadata, Policy, Service
from headrace import Transaction as Tx
from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.lambda_records import delivery_from_lambda
from headrace.hosts.execution_environment import LambdaContext
from headrace.hosts.lambda_ import LambdaHandler
from headrace.ports import Ports
from tests.parity.acts import Forged, Scene, play, play_plainly
from tests.parity.contracts import (
    Balanced,
    Book,
    Booked,
    BookedAbove,
    BookedAnew,
    BookedInOrder,
    BookedInTime,
    BookedInWaiting,
    BookedPlainly,
    BookedPlainlyInTime,
    BookedPlainlyUnderLease,
    BookedTwice,
    BookedUnderLease,
    Remind,
    Unannounced,
)
from tests.parity.faults import Faults, faulty

AN_HOUR: Final = timedelta(hours=1)
POLICY: Final = Policy(backoff=Backoff(base=AN_HOUR, cap=AN_HOUR), dead_letter=(Forged,))
"""So patient that nothing comes again while a case looks."""

SHORT: Final = timedelta(milliseconds=50)
LEASE: Final = timedelta(minutes=30)

books = Service("books", bus="parity", policy=POLICY)


@books.on(Booked)
async def book(event: Booked, tx: Tx, meta: Metadata, at: Delivery) -> list[Balanced | Remind]:
    return await play(Scene("book", event, tx, meta, at), event.do)


@books.on(Book)
async def obey(event: Book, tx: Tx, meta: Metadata, at: Delivery) -> list[Balanced | Remind]:
    return await play(Scene("obey", event, tx, meta, at), event.do)


@books.on(BookedPlainly)
def book_plainly(event: BookedPlainly, tx: Tx, meta: Metadata, at: Delivery) -> list[Balanced]:
    return play_plainly(Scene("book_plainly", event, tx, meta, at))


@books.on(BookedTwice)
async def book_first(event: BookedTwice, tx: Tx, meta: Metadata, at: Delivery) -> list[Balanced]:
    return await play(Scene("book_first", event, tx, meta, at), event.do)


@books.on(BookedTwice)
async def book_second(event: BookedTwice, tx: Tx, meta: Metadata, at: Delivery) -> list[Balanced]:
    other = event.model_copy(update={"account": f"{event.account}-2"})
    return await play(Scene("book_second", other, tx, meta, at), event.second)


@books.on(BookedAbove, where=lambda e: e.amount > 100)
async def book_above(event: BookedAbove, tx: Tx, meta: Metadata, at: Delivery) -> list[Balanced]:
    return await play(Scene("book_above", event, tx, meta, at), event.do)


@books.on(BookedInTime, timeout=SHORT)
async def book_in_time(event: BookedInTime, tx: Tx, meta: Metadata, at: Delivery) -> list[Balanced]:
    return await play(Scene("book_in_time", event, tx, meta, at), event.do)


@books.on(BookedPlainlyInTime, timeout=SHORT)
def book_plainly_in_time(
    event: BookedPlainlyInTime, tx: Tx, meta: Metadata, at: Delivery
) -> list[Balanced]:
    return play_plainly(Scene("book_plainly_in_time", event, tx, meta, at))


@books.on(BookedUnderLease, lease=LEASE)
async def book_under_lease(
    event: BookedUnderLease, tx: Tx, meta: Metadata, at: Delivery
) -> list[Balanced]:
    return await play(Scene("book_under_lease", event, tx, meta, at), event.do)


@books.on(BookedInWaiting, lease=LEASE, on_held="wait")
async def book_in_waiting(
    event: BookedInWaiting, tx: Tx, meta: Metadata, at: Delivery
) -> list[Balanced]:
    return await play(Scene("book_in_waiting", event, tx, meta, at), event.do)


@books.on(BookedPlainlyUnderLease, lease=LEASE)
def book_plainly_under_lease(
    event: BookedPlainlyUnderLease, tx: Tx, meta: Metadata, at: Delivery
) -> list[Balanced]:
    return play_plainly(Scene("book_plainly_under_lease", event, tx, meta, at))


@books.on(BookedAnew, idempotent=True)
async def book_anew(event: BookedAnew, tx: Tx, meta: Metadata, at: Delivery) -> list[Balanced]:
    return await play(Scene("book_anew", event, tx, meta, at), event.do)


@books.on(BookedInOrder, queue="lane.fifo")
async def book_in_order(
    event: BookedInOrder, tx: Tx, meta: Metadata, at: Delivery
) -> list[Balanced]:
    return await play(Scene("book_in_order", event, tx, meta, at), event.do)


auditor = Service("auditor", bus="parity", table=None)


@auditor.on(Balanced, Unannounced, idempotent=True)
async def look_at(event: Balanced | Unannounced) -> None:
    """Its queue shows what was published; nobody runs it."""


clerk = Service("clerk", bus="parity", table=None)


@clerk.on(Remind, idempotent=True)
async def write_to(command: Remind) -> None:
    """Its queue shows what was sent; nobody runs it."""


# --- on Lambda -----------------------------------------------------------------------------------

_FAULTS: Final = Faults()


@asynccontextmanager
async def _opened(config: AwsConfig) -> AsyncIterator[Ports]:
    async with open_ports(config) as ports:
        yield faulty(ports, _FAULTS)


_on_lambda: Final = LambdaHandler(books, ports=_opened)


def handler(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any] | None:
    """What `lambda_handler(books)` would be, with faults; they have to know what was received."""
    config = AwsConfig.from_environment()
    for record in event["Records"]:
        _FAULTS.learn(delivery_from_lambda(record, config))
    return _on_lambda(event, context)
