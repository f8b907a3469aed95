"""What stands in the tables, row by row, as the documentation of the table has it.

Read past the library, whose own reading is part of what is tried.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from headrace.aws.client import Clients

Row: TypeAlias = dict[str, Any]

_INBOX = "inbox#"


@dataclass(frozen=True, slots=True)
class InboxRecord:
    """That a consumer has handled an event; `outgoing` are the ids of what is not known to be
    out."""

    consumer: str
    event_id: str
    done: bool
    outgoing: tuple[str, ...]

    @property
    def service(self) -> str:
        return self.consumer.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.consumer} of {self.event_id}"


@dataclass(frozen=True, slots=True)
class Rows:
    """How often each order and each SKU was written, and every inbox record."""

    orders: dict[str, int] = field(default_factory=dict)
    stock: dict[str, int] = field(default_factory=dict)
    records: list[InboxRecord] = field(default_factory=list)

    def add(self, row: Row) -> None:
        kind = row.get("_type", {}).get("S")
        if row["pk"]["S"].startswith(_INBOX):
            self.records.append(_record(row))
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
    outgoing = row.get("outgoing", {"L": []})["L"]
    return InboxRecord(
        consumer=consumer,
        event_id=event_id,
        done=row["status"]["S"] == "done",
        outgoing=tuple(message["M"]["id"]["S"] for message in outgoing),
    )
