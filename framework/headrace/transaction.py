"""A transaction: what one handler read, wants to write, and has to say.

Nothing here talks to AWS except the reads. Writes and messages are collected; `inbox`
commits them together with the record that the delivery was handled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from headrace.entity import VERSION_ATTRIBUTE as VERSION
from headrace.entity import Entity, EntityT, from_item, key_for, key_of, to_item, version_of
from headrace.errors import DefinitionError, HeadraceError, NoTable
from headrace.events import Message, contract_of
from headrace.ports import Action, Condition, Delete, Item, ItemKey, Put

Read: TypeAlias = Callable[[ItemKey], Awaitable[Item | None]]
"""One consistent read; whoever makes the transaction may join several into one call."""

MUST_NOT_EXIST = Condition("attribute_not_exists(pk)")
_UNVERSIONED = Condition("attribute_exists(pk) AND attribute_not_exists(#v)", {"#v": VERSION})


class Transaction:
    """The unit of work of one handler on one delivery.

    Reads are consistent and remembered: reading an entity twice gives the same object, and
    putting it fails as a conflict if another writer changed it in between; headrace then
    runs the handler again. All writes and messages happen together or not at all.
    """

    def __init__(self, read: Read, *, table: str | None, idempotency_key: str) -> None:
        self._read = read
        self._table = table
        self._versions: dict[ItemKey, int | None] = {}
        self._known: dict[ItemKey, Entity | None] = {}
        self._writes: dict[ItemKey, Action] = {}
        self._messages: list[Message] = []
        self._open = True
        self.idempotency_key = idempotency_key
        """The same on every attempt at this delivery: hand it to providers that deduplicate."""

    async def get(self, cls: type[EntityT], *values: Any, **fields: Any) -> EntityT | None:
        """The entity with this key, or `None`. `tx.get(Stock, "A-1")` or `sku="A-1"`.

        Sees what this transaction itself has put or deleted.
        """
        self._ensure_open()
        key = key_for(cls, self._table_name(), values, fields)
        if key not in self._known:
            item = await self._read(key)
            # Another read of the same key may have been answered while this one waited.
            if key not in self._known:
                self._remember(key, item, cls)
        entity = self._known[key]
        if entity is not None and not isinstance(entity, cls):
            raise HeadraceError(
                f"{key.pk!r} was read as {type(entity).__name__} and now as {cls.__name__}: two "
                "entities share a key template. Give each its own prefix."
            )
        return entity

    def put(self, *entities: Entity) -> None:
        """Write whole entities at the commit.

        One that was read is replaced if it is still as it was read; one that was not read,
        or was not there, is created and must not exist yet.
        """
        self._ensure_open()
        for entity in entities:
            key = key_of(entity, self._table_name())
            seen = self._versions.get(key)
            item = to_item(entity, key, (seen or 0) + 1)
            self._writes[key] = Put(key.table, item, self._unchanged(key))
            self._known[key] = entity

    def delete(self, *entities: Entity) -> None:
        """Remove entities at the commit; one that was read, only if it is still as it was."""
        self._ensure_open()
        for entity in entities:
            key = key_of(entity, self._table_name())
            condition = self._unchanged(key) if key in self._versions else None
            self._writes[key] = Delete(key, condition)
            self._known[key] = None

    def publish(self, *messages: Message) -> None:
        """Send events to the bus and commands to their owners, once the commit stands."""
        self._ensure_open()
        for message in messages:
            if contract_of(message).native:
                raise DefinitionError(
                    f"{type(message).__name__} is a native event of another producer: it can be "
                    "handled but not published. Publish an event of your own instead."
                )
            self._messages.append(message)

    def close(self) -> tuple[list[Action], list[Message]]:
        """What is to be committed; afterwards the transaction takes nothing more."""
        self._open = False
        return list(self._writes.values()), list(self._messages)

    def _remember(self, key: ItemKey, item: Item | None, cls: type[Entity]) -> None:
        self._versions[key] = version_of(item) if item is not None else None
        self._known[key] = from_item(cls, item) if item is not None else None

    def _unchanged(self, key: ItemKey) -> Condition:
        version = self._versions.get(key)
        if version is None:
            return MUST_NOT_EXIST
        if version == 0:
            return _UNVERSIONED
        return Condition("#v = :v", {"#v": VERSION}, {":v": {"N": str(version)}})

    def _table_name(self) -> str:
        if self._table is None:
            raise NoTable('The service has no table to read or write: write Service(…, table="…").')
        return self._table

    def _ensure_open(self) -> None:
        if not self._open:
            raise HeadraceError(
                "The transaction is over: its handler has returned or was cancelled. Await "
                "everything that uses `tx` before the handler returns."
            )
