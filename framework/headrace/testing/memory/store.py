"""The Store port in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from headrace.errors import CancellationReason, CloudError, NotProvisioned, TransactionCanceled
from headrace.limits import (
    BATCH_GET_KEYS,
    BATCH_WRITE_ITEMS,
    MIB,
    TRANSACTION_ACTIONS,
    TRANSACTION_BYTES,
)
from headrace.ports import Action, Check, Clock, Delete, Item, ItemKey, Page, Put
from headrace.testing.expressions import CannotUpdate
from headrace.testing.expressions.values import copied_item, invalid, item_bytes
from headrace.testing.memory.actions import Prepared, prepare, require_key, stored_item
from headrace.testing.memory.tokens import Tokens
from headrace.topology.model import Table

PAGE_BYTES: Final = 1 * MIB
"""What one Query reads at most."""


class MemoryStore:
    """DynamoDB. `calls` counts calls by the name of the port's method. An expired item stays:
    DynamoDB's own sweep may take days."""

    def __init__(self, clock: Clock) -> None:
        self.calls: Counter[str] = Counter()
        self._tokens = Tokens(clock)
        self._tables: dict[str, dict[str, dict[str, Item]]] = {}

    # --- what exists ---

    def create(self, table: Table) -> None:
        """Make a table, unless it is there."""
        self._tables.setdefault(table.name, {})

    def items(self, table: str) -> list[Item]:
        """Every item of a table, by partition and sort key."""
        partitions = self._table(table)
        return [
            copied_item(partitions[pk][sk])
            for pk in sorted(partitions)
            for sk in sorted(partitions[pk])
        ]

    def _table(self, name: str) -> dict[str, dict[str, Item]]:
        if name not in self._tables:
            raise NotProvisioned(
                f"There is no table {name!r}; provision a topology that names it.",
                code="ResourceNotFoundException",
            )
        return self._tables[name]

    def _require_keys(self, keys: Sequence[ItemKey]) -> None:
        twice = [key for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise invalid(f"The item {twice[0]} is named more than once.")
        for key in keys:
            require_key(key.attributes())
            self._table(key.table)

    def _read(self, key: ItemKey) -> Item | None:
        return self._tables[key.table].get(key.pk, {}).get(key.sk)

    def _write(self, key: ItemKey, item: Item | None) -> None:
        if item is not None:
            self._tables[key.table].setdefault(key.pk, {})[key.sk] = item
        else:
            self._tables[key.table].get(key.pk, {}).pop(key.sk, None)

    async def _begin(self, method: str) -> None:
        self.calls[method] += 1
        await asyncio.sleep(0)

    # --- the port ---

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        await self._begin("get")
        with _during("BatchGetItem"):
            _require_count("keys", len(keys), BATCH_GET_KEYS)
            self._require_keys(keys)
        found = [self._read(key) for key in keys]
        return [None if item is None else copied_item(item) for item in found]

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        await self._begin("transact")
        with _during("TransactWriteItems"):
            _require_count("actions", len(actions), TRANSACTION_ACTIONS)
            prepared = [prepare(action) for action in actions]
            self._require_keys([action.key for action in prepared])
            if self._tokens.is_new(token, actions):
                self._commit(prepared)
                self._tokens.remember(token, actions)

    def _commit(self, prepared: Sequence[Prepared]) -> None:
        """All of it or, with a reason for each action, none."""
        outcomes = [_attempt(action, self._read(action.key)) for action in prepared]
        reasons = [o if isinstance(o, CancellationReason) else None for o in outcomes]
        if any(reasons):
            raise TransactionCanceled(reasons)
        written = [o for o in outcomes if not isinstance(o, CancellationReason)]
        _require_total(written)
        for action, item in zip(prepared, written, strict=True):
            if not isinstance(action.action, Check):
                self._write(action.key, item)

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        await self._begin("write")
        with _during("BatchWriteItem"):
            _require_count("actions", len(actions), BATCH_WRITE_ITEMS)
            if any(action.condition is not None for action in actions):
                raise invalid("A batch takes no conditions; use a transaction.")
            self._require_keys([action.key for action in actions])
            items = [stored_item(a.item) if isinstance(a, Put) else None for a in actions]
        for action, item in zip(actions, items, strict=True):
            self._write(action.key, item)
        return []

    async def query(
        self,
        table: str,
        pk: str,
        *,
        sk_prefix: str = "",
        limit: int | None = None,
        start: Item | None = None,
        forward: bool = True,
        consistent: bool = False,
    ) -> Page:
        await self._begin("query")
        with _during("Query"):
            if limit is not None and limit < 1:
                raise invalid(f"A page has at least one item, not {limit}.")
            partition = self._table(table).get(pk, {})
        found = sorted((sk for sk in partition if sk.startswith(sk_prefix)), reverse=not forward)
        if start is not None:
            after = start["sk"]["S"]
            found = [sk for sk in found if (sk > after if forward else sk < after)]
        return _page([partition[sk] for sk in found], limit)


def _attempt(action: Prepared, old: Item | None) -> Item | CancellationReason | None:
    """What one action leaves in its place, or why it fails."""
    if not action.allowed(old):
        return CancellationReason(
            "ConditionalCheckFailed",
            "The conditional request failed",
            copied_item(old) if action.action.return_old and old is not None else None,
        )
    try:
        return action.applied(old)
    except CannotUpdate as error:
        return CancellationReason("ValidationError", str(error))


def _page(items: Sequence[Item], limit: int | None) -> Page:
    taken: list[Item] = []
    size = 0
    for item in items:
        taken.append(copied_item(item))
        size += item_bytes(item)
        # DynamoDB stops at the limit without looking whether anything follows.
        if len(taken) == limit or size >= PAGE_BYTES:
            return Page(taken, {"pk": item["pk"], "sk": item["sk"]})
    return Page(taken)


# --- what DynamoDB does not take -------------------------------------------------------


@contextmanager
def _during(operation: str) -> Iterator[None]:
    """Every error names the call it was made in."""
    try:
        yield
    except CloudError as error:
        error.operation = operation
        raise


def _require_count(what: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise invalid(f"A call takes 1 to {most} {what}, not {count}.")


def _require_total(items: Iterable[Item | None]) -> None:
    size = sum(item_bytes(item) for item in items if item is not None)
    if size > TRANSACTION_BYTES:
        raise invalid(f"The items have {size} bytes; a transaction takes {TRANSACTION_BYTES}.")
