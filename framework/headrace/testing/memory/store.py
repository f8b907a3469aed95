"""The Store port in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from headrace.errors import (
    CancellationReason,
    CloudError,
    ConditionFailed,
    NotProvisioned,
    TransactionCanceled,
)
from headrace.limits import (
    BATCH_GET_KEYS,
    BATCH_WRITE_ITEMS,
    TRANSACTION_ACTIONS,
    TRANSACTION_BYTES,
)
from headrace.ports import Action, Check, Clock, Delete, Item, ItemKey, Page, Put, Update
from headrace.testing.expressions import CannotUpdate
from headrace.testing.expressions.values import copied_item, invalid, item_bytes
from headrace.testing.memory.actions import Prepared, prepare, require_key, stored_item
from headrace.testing.memory.latitude import ORDERLY, Latitude
from headrace.testing.memory.queries import Query
from headrace.testing.memory.tables import MemoryTable
from headrace.testing.memory.tokens import Tokens
from headrace.topology.model import Table

_CHANGES: Final = {Put: "PutItem", Update: "UpdateItem", Delete: "DeleteItem"}


class MemoryStore:
    """DynamoDB. `calls` counts calls by the name of the port's method. An expired item stays:
    DynamoDB's own sweep may take days. An index follows its table at once, unless `latitude`
    lets it lag."""

    def __init__(self, clock: Clock, latitude: Latitude = ORDERLY) -> None:
        self.calls: Counter[str] = Counter()
        self._clock = clock
        self._latitude = latitude
        self._tokens = Tokens(clock)
        self._tables: dict[str, MemoryTable] = {}

    # --- what exists ---

    def create(self, table: Table) -> None:
        """Make a table, unless it is there, and the indexes it does not have yet. Raises
        `Refused` for the name of an index that DynamoDB does not take."""
        if table.name not in self._tables:
            self._tables[table.name] = MemoryTable(table, self._clock, self._latitude)
        for index in table.indexes:
            self._tables[table.name].add_index(index)

    def items(self, table: str) -> list[Item]:
        """Every item of a table, by partition and sort key."""
        return [copied_item(item) for item in self._table(table).items()]

    def each(self, table: str) -> Iterator[Item]:
        """As `items`, and as they stand there: to look at, not to change."""
        return self._table(table).items()

    def tables(self) -> list[str]:
        """The names of the tables there are."""
        return list(self._tables)

    def look(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        """The items at these keys, without a call."""
        found = [self._table(key.table).read(key) for key in keys]
        return [None if item is None else copied_item(item) for item in found]

    def _table(self, name: str) -> MemoryTable:
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
        return self._tables[key.table].read(key)

    def _write(self, key: ItemKey, item: Item | None) -> None:
        self._tables[key.table].write(key, item)

    def expire(self, table: str, before: datetime) -> list[Item]:
        """What DynamoDB's sweep does at a time of its own: delete the items whose TTL attribute
        lies before this moment. Returns them."""
        return [copied_item(item) for item in self._table(table).expire(before)]

    # --- the port ---

    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        await asyncio.sleep(0)
        return self.get_now(keys)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        await asyncio.sleep(0)
        self.transact_now(actions, token=token)

    async def change(self, action: Put | Update | Delete) -> None:
        await asyncio.sleep(0)
        self.change_now(action)

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        await asyncio.sleep(0)
        self.write_now(actions)
        return []

    async def query(
        self,
        table: str,
        pk: str,
        *,
        sk_prefix: str = "",
        sk_before: str | None = None,
        index: str | None = None,
        limit: int | None = None,
        start: Item | None = None,
        forward: bool = True,
        consistent: bool = False,
    ) -> Page:
        await asyncio.sleep(0)
        asked = Query(pk, sk_prefix, sk_before, index, limit, start, forward, consistent)
        return self.query_now(table, asked)

    # --- the same without waiting, for whoever keeps the time himself ---

    def get_now(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        """`get`, at once."""
        self.calls["get"] += 1
        with _during("BatchGetItem"):
            _require_count("keys", len(keys), BATCH_GET_KEYS)
            self._require_keys(keys)
        found = [self._read(key) for key in keys]
        return [None if item is None else copied_item(item) for item in found]

    def transact_now(self, actions: Sequence[Action], *, token: str) -> None:
        """`transact`, at once."""
        self.calls["transact"] += 1
        with _during("TransactWriteItems"):
            _require_count("actions", len(actions), TRANSACTION_ACTIONS)
            prepared = [prepare(action) for action in actions]
            self._require_keys([action.key for action in prepared])
            if self._tokens.is_new(token, actions):
                self._commit(prepared)
                self._tokens.remember(token, actions)

    def _commit(self, prepared: Sequence[Prepared]) -> None:
        """All of it or, with a reason for each action, none."""
        outcomes = [self._attempt(action) for action in prepared]
        reasons = [o if isinstance(o, CancellationReason) else None for o in outcomes]
        if any(reasons):
            raise TransactionCanceled(reasons)
        written = [o for o in outcomes if not isinstance(o, CancellationReason)]
        _require_total(written)
        for action, item in zip(prepared, written, strict=True):
            if not isinstance(action.action, Check):
                self._write(action.key, item)

    def _attempt(self, action: Prepared) -> Item | CancellationReason | None:
        """What one action leaves in its place, or why it fails."""
        old = self._read(action.key)
        if not action.allowed(old):
            return CancellationReason(
                "ConditionalCheckFailed",
                "The conditional request failed",
                copied_item(old) if action.action.return_old and old is not None else None,
            )
        try:
            new = action.applied(old)
            self._require_index_keys(action.key, new)
            return new
        except CannotUpdate as error:
            return CancellationReason("ValidationError", str(error))

    def _require_index_keys(self, key: ItemKey, item: Item | None) -> None:
        if item is not None:
            self._tables[key.table].require_index_keys(item)

    def change_now(self, action: Put | Update | Delete) -> None:
        """`change`, at once."""
        self.calls["change"] += 1
        with _during(_CHANGES[type(action)]):
            prepared = prepare(action)
            self._require_keys([prepared.key])
            outcome = self._attempt(prepared)
            if isinstance(outcome, CancellationReason):
                raise _alone(outcome)
        self._write(prepared.key, outcome)

    def write_now(self, actions: Sequence[Put | Delete]) -> None:
        """`write`, at once, and with nothing left unprocessed."""
        self.calls["write"] += 1
        with _during("BatchWriteItem"):
            _require_count("actions", len(actions), BATCH_WRITE_ITEMS)
            if any(action.condition is not None for action in actions):
                raise invalid("A batch takes no conditions; use a transaction.")
            self._require_keys([action.key for action in actions])
            items = [stored_item(a.item) if isinstance(a, Put) else None for a in actions]
            for action, item in zip(actions, items, strict=True):
                self._require_kept(action.key, item)
        for action, item in zip(actions, items, strict=True):
            self._write(action.key, item)

    def _require_kept(self, key: ItemKey, item: Item | None) -> None:
        try:
            self._require_index_keys(key, item)
        except CannotUpdate as error:
            raise invalid(str(error)) from None

    def query_now(self, table: str, asked: Query) -> Page:
        """`query`, at once."""
        self.calls["query"] += 1
        with _during("Query"):
            asked.require_valid()
            partition = self._table(table).partition(asked.pk, asked.index)
        return asked.page(partition)


# --- what DynamoDB does not take -------------------------------------------------------


def _alone(reason: CancellationReason) -> CloudError:
    """What would cancel a transaction, said of a call of its own."""
    if reason.code == "ConditionalCheckFailed":
        return ConditionFailed(item=reason.item)
    return invalid(reason.message)


class _during:  # noqa: N801 it reads as a word
    """Every error names the call it was made in."""

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CloudError):
            error.operation = self._operation


def _require_count(what: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise invalid(f"A call takes 1 to {most} {what}, not {count}.")


def _require_total(items: Iterable[Item | None]) -> None:
    size = sum(item_bytes(item) for item in items if item is not None)
    if size > TRANSACTION_BYTES:
        raise invalid(f"The items have {size} bytes; a transaction takes {TRANSACTION_BYTES}.")
