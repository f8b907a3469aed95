"""What stands in the tables, row by row, as the documentation of the table has it.

Read past the library, whose own reading is part of what is tried.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from headrace.aws.client import Clients

Row: TypeAlias = dict[str, Any]

_INBOX = "inbox#"
_CHECKOUTS = "saga#order.checkout#"
_HISTORY = "saga-history#order.checkout#"


@dataclass(frozen=True, slots=True)
class InboxRecord:
    """That a consumer has handled an event; `outgoing` are the ids of what is not known to be
    out. `besides` is how much more that is which no end depends on: timers, that nobody needs one
    any more, and what observers are told."""

    consumer: str
    event_id: str
    done: bool
    outgoing: tuple[str, ...]
    besides: int = 0

    @property
    def service(self) -> str:
        return self.consumer.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.consumer} of {self.event_id}"


@dataclass(frozen=True, slots=True)
class Checkout:
    """How often the item of a checkout was written, and how many turns it says that it took."""

    writes: int
    turns: int


@dataclass(frozen=True, slots=True)
class Rows:
    """How often each order and each SKU was written, every checkout by its order, and every inbox
    record. `turns` are those that the history tells of, each as often as it does, with the order
    before it."""

    orders: dict[str, int] = field(default_factory=dict)
    stock: dict[str, int] = field(default_factory=dict)
    checkouts: dict[str, Checkout] = field(default_factory=dict)
    turns: Counter[tuple[str, int]] = field(default_factory=Counter)
    records: list[InboxRecord] = field(default_factory=list)

    def add(self, row: Row) -> None:
        kind, pk = row.get("_type", {}).get("S"), row["pk"]["S"]
        if pk.startswith(_INBOX):
            self.records.append(_record(row))
            self.turns.update(_turn(row))
        elif pk.startswith(_CHECKOUTS):
            turns = json.loads(row["progress"]["S"])["turn"]
            self.checkouts[pk.removeprefix(_CHECKOUTS)] = Checkout(_writes(row), turns)
        elif kind == "Order":
            self.orders[row["order_id"]["S"]] = _writes(row)
        elif kind == "Stock":
            self.stock[row["sku"]["S"]] = _writes(row)


def _writes(row: Row) -> int:
    """The last six digits of a version count the writes since the item was made."""
    return int(row["_version"]["N"]) % 1_000_000


async def read_rows(clients: Clients, tables: list[str]) -> Rows:
    """Every row of these tables, which are named as in AWS."""
    rows = Rows()
    for table in tables:
        async for row in _scan(clients, table):
            rows.add(row)
    return rows


async def _scan(clients: Clients, table: str) -> AsyncIterator[Row]:
    pages = clients.dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    async for page in pages:
        for row in page["Items"]:
            yield row


def _record(row: Row) -> InboxRecord:
    # An event's id may hold what separates the parts, a consumer's name cannot.
    consumer, _, event_id = row["pk"]["S"].removeprefix(_INBOX).partition("#")
    outgoing = [message["M"] for message in row.get("outgoing", {"L": []})["L"]]
    now = [message for message in outgoing if not message.keys() & {"due", "cancel"}]
    return InboxRecord(
        consumer=consumer,
        event_id=event_id,
        done=row["status"]["S"] == "done",
        outgoing=tuple(message["id"]["S"] for message in now),
        besides=len(outgoing) - len(now) + len(row.get("remarks", {"L": []})["L"]),
    )


def _turn(row: Row) -> list[tuple[str, int]]:
    """The turn that a record tells of, unless the checkout stayed as it was."""
    note = json.loads(row["note"]["S"]) if "note" in row else {"ignored": True}
    return [] if note["ignored"] else [(row["relay_pk"]["S"].removeprefix(_HISTORY), note["turn"])]
