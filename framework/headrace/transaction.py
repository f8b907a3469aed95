"""A transaction: what one handler read, wants to write, and has to say.

Nothing here talks to AWS except the reads. Writes and messages are collected; `inbox`
commits them together with the record that the delivery was handled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from headrace.entity import VERSION_ATTRIBUTE as VERSION
from headrace.entity import Entity, EntityT, from_item, key_for, key_of, to_item, version_of
from headrace.errors import DefinitionError, HeadraceError, NoTable
from headrace.events import Message, contract_of
from headrace.ports import Action, Check, Condition, Delete, Item, ItemKey, Put

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
        self._slots: dict[ItemKey, _Slot] = {}
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
        if key not in self._slots:
            item = await self._read(key)
            # Another read of the same key may have been answered while this one waited.
            if key not in self._slots:
                self._slots[key] = _Slot.of(key, item, cls)
        entity = self._slots[key].entity
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
            self._slot(entity).put(entity)

    def delete(self, *entities: Entity) -> None:
        """Remove entities at the commit; one that was read, only if it is still as it was."""
        self._ensure_open()
        for entity in entities:
            self._slot(entity).delete()

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
        actions = [slot.action for slot in self._slots.values() if slot.action is not None]
        return actions, list(self._messages)

    def _slot(self, entity: Entity) -> _Slot:
        key = key_of(entity, self._table_name())
        return self._slots.setdefault(key, _Slot(key))

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


@dataclass(slots=True)
class _Slot:
    """One item, as this transaction found it and wants it to be.

    `version` is what it was read with: 0 if something else wrote it, `None` if it was not there
    or was not read. `blind` is set once it was deleted without having been read, whatever it was.
    """

    key: ItemKey
    version: int | None = None
    entity: Entity | None = None
    action: Action | None = None
    read: bool = False
    blind: bool = False

    @classmethod
    def of(cls, key: ItemKey, item: Item | None, entity: type[Entity]) -> _Slot:
        if item is None:
            return cls(key, read=True)
        return cls(key, version_of(item), from_item(entity, item), read=True)

    def put(self, entity: Entity) -> None:
        item = to_item(entity, self.key, (self.version or 0) + 1)
        self.action = Put(self.key.table, item, None if self.blind else self._unchanged())
        self.entity = entity

    def delete(self) -> None:
        self.blind = self.blind or (not self.read and self.action is None)
        if self.blind:
            self.action = Delete(self.key)
        elif self.version is None:
            self.action = Check(self.key, MUST_NOT_EXIST)
        else:
            self.action = Delete(self.key, self._unchanged())
        self.entity = None

    def _unchanged(self) -> Condition:
        if self.version is None:
            return MUST_NOT_EXIST
        if self.version == 0:
            return _UNVERSIONED
        return Condition("#v = :v", {"#v": VERSION}, {":v": {"N": str(self.version)}})
