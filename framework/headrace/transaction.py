"""A transaction: what one handler read, wants to write, and has to say.

Nothing here talks to AWS except the reads. Writes and messages are collected; `inbox`
commits them together with the record that the delivery was handled.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from headrace.entity import VERSION_ATTRIBUTE as VERSION
from headrace.entity import (
    WRITES,
    Entity,
    EntityT,
    Partition,
    from_item,
    key_fields_of,
    key_for,
    key_of,
    partition_for,
    to_item,
    unknown_in,
    version_of,
)
from headrace.envelope import Cancellation
from headrace.errors import ConditionNotMet, DefinitionError, HeadraceError, NoTable
from headrace.events import Command, Message, contract_of
from headrace.expressions import update_of
from headrace.ports import Action, Check, Condition, Delete, Item, ItemKey, Put, Update
from headrace.record import Trail
from headrace.text import shown

MUST_NOT_EXIST: Final = Condition("attribute_not_exists(pk)")
_UNVERSIONED: Final = Condition(
    "attribute_exists(pk) AND attribute_not_exists(#_v)", {"#_v": VERSION}
)


_EPOCH: Final = datetime.fromtimestamp(0, UTC)


_SCHEDULE_NAME: Final = re.compile("[0-9A-Za-z_.-]{1,40}")
"""Scheduler takes 64 characters, of which a namespace needs some."""


class Reads(Protocol):
    """Consistent reads; whoever makes the transaction may join several into one call."""

    def item(self, key: ItemKey) -> Awaitable[Item | None]: ...

    def partition(self, partition: Partition) -> Awaitable[Sequence[Item]]: ...


class Refusal(NamedTuple):
    """A write whose own condition did not hold, and the item as it stood then."""

    action: Action
    item: Item | None


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A command that is not to arrive before `at`."""

    command: Command
    at: datetime
    name: str


Wanted: TypeAlias = Message | Scheduled | Cancellation
"""What is to be sent, or not to be sent any more."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What a handler wants to happen, all of it or nothing.

    `conditional` are the items whose condition is the user's own: if it does not hold, nobody
    interfered, and only the handler knows what to do instead. The `trail` is left in the record.
    """

    actions: Sequence[Action] = ()
    messages: Sequence[Wanted] = ()
    conditional: frozenset[ItemKey] = frozenset()
    trail: Trail | None = None

    @property
    def nothing(self) -> bool:
        return not (self.actions or self.messages or self.trail)


class Transaction:
    """The unit of work of one handler on one delivery.

    Reads are consistent and remembered: reading an entity twice gives the same object, and
    putting it fails as a conflict if another writer changed it in between; headrace then
    runs the handler again. All writes and messages happen together or not at all.
    """

    def __init__(
        self,
        reads: Reads,
        *,
        table: str | None,
        idempotency_key: str,
        now: datetime = _EPOCH,
        refused: Sequence[Refusal] = (),
    ) -> None:
        self._reads = reads
        self._table = table
        self._slots: dict[ItemKey, _Slot] = {}
        self._messages: list[Wanted] = []
        self._trail: Trail | None = None
        self._savepoints: list[_Savepoint] = []
        self._first_version = first_version(now)
        self._refused = refused
        self._untold = list(refused)
        self._open = True
        self.idempotency_key = idempotency_key
        """The same on every attempt at this delivery: hand it to providers that deduplicate."""
        self.now = now
        """When the handler began, in UTC: the same for a handler that runs again after a
        conflict."""

    # --- reading ---

    async def get(self, cls: type[EntityT], *values: Any, **fields: Any) -> EntityT | None:
        """The entity with this key, or `None`. `tx.get(Stock, "A-1")` or `sku="A-1"`.

        Sees what this transaction itself has put or deleted.
        """
        self._ensure_open()
        key = key_for(cls, self._table_name(), values, fields)
        if not self._knows(key):
            item = await self._reads.item(key)
            # Another read of the same key may have been answered while this one waited.
            if not self._knows(key):
                self._slots[key] = self._found(key, item, cls)
        return self._slots[key].seen_as(cls)

    async def get_many(self, cls: type[EntityT], keys: Iterable[Any]) -> list[EntityT | None]:
        """The entities with these keys, in their order, all in one call.

        A key is the value of its field, or a tuple where the key has several.
        """
        return await asyncio.gather(
            *(self.get(cls, *(key if isinstance(key, tuple) else (key,))) for key in keys)
        )

    async def query(self, cls: type[EntityT], *values: Any, **fields: Any) -> list[EntityT]:
        """The entities under one partition key, by sort key: `tx.query(Line, order_id)`.

        Needs every field of `pk`, and may narrow by those of `sk` from the left. What it finds
        is remembered as if it had been read one by one; an entity that another writer adds
        meanwhile is not noticed. Sees what this transaction itself has put or deleted.
        """
        self._ensure_open()
        partition = partition_for(cls, self._table_name(), values, fields)
        for item in await self._reads.partition(partition):
            key = ItemKey(partition.table, item["pk"]["S"], item["sk"]["S"])
            if partition.holds(key) and not self._knows(key):
                self._slots[key] = self._found(key, item, cls)
        found = [
            self._slots[key].seen_as(cls) for key in sorted(filter(partition.holds, self._slots))
        ]
        return [entity for entity in found if entity is not None]

    # --- writing ---

    def put(self, *entities: Entity) -> None:
        """Write whole entities at the commit.

        One that was read is replaced if it is still as it was read; one that was not read,
        or was not there, is created and must not exist yet. Attributes that the class does not
        know, of a version of it that is yet to be deployed here, stay.
        """
        self._ensure_open()
        for entity in entities:
            self._slot(key_of(entity, self._table_name())).put(entity)

    def delete(self, *entities: Entity) -> None:
        """Remove entities at the commit; one that was read, only if it is still as it was."""
        self._ensure_open()
        for entity in entities:
            self._slot(key_of(entity, self._table_name())).delete()

    def check(self, *entities: Entity) -> None:
        """Commit only if these entities, which were read here, are still as they were read.

        For what a decision rests on and is not written itself; it costs as much as a write.
        """
        self._ensure_open()
        for entity in entities:
            self._slot(key_of(entity, self._table_name())).check(entity)

    def update(
        self,
        cls: type[Entity],
        *key: Any,
        change: str,
        condition: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Change an entity in place, without reading it first.

            tx.update(Stock, sku, change="SET #available = #available - :n",
                      condition="#available >= :n", values={"n": 3})

        `change` is a DynamoDB update expression and `condition` a condition expression over the
        entity's `#fields`. Where there is no entity it makes one, if every field has a default or
        is set; otherwise there must be one. Two updates of one item never conflict, so this is
        for counters that many handlers write.

        If the condition does not hold at the commit, the handler runs again, and this call then
        raises `ConditionNotMet`, for it to decide what to do instead. As in a database, what the
        transaction has written and published until then is taken back, up to the last `savepoint`.
        """
        self._ensure_open()
        item = key_for(cls, self._table_name(), key, {})
        slot = self._slot(item)
        update, conditional = update_of(
            cls,
            item,
            key_fields_of(cls, key),
            change=change,
            condition=condition,
            values=values or {},
            unless_changed=slot.unchanged() if slot.read else None,
            first_version=self._first_version,
        )
        self._refuse_unmet(update, cls)
        slot.update(update, conditional=conditional)

    def write(self, *actions: Action) -> None:
        """Any write that DynamoDB's transactions take, as it is: `headrace.ports` has `Put`,
        `Update`, `Delete` and `Check`, on items of any table by its logical name.

        No version is kept. A condition that does not hold is answered as by `update`.
        """
        self._ensure_open()
        for action in actions:
            told = replace(action, return_old=True)
            slot = self._slot(told.key)
            self._refuse_unmet(told)
            slot.write(told, conditional=told.condition is not None)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What the block writes and publishes is taken back if it raises; what came before it
        stays. What was read must be read again then.

        Raises `HeadraceError` where another task of the handler has one open: what each of them
        wrote could not be told apart.
        """
        self._ensure_open()
        self._ensure_own_savepoint()
        self._savepoints.append(_Savepoint(_current_task(), *self._wanted()))
        try:
            yield
        except BaseException:
            self._take_back()
            raise
        finally:
            self._savepoints.pop()

    # --- saying ---

    def publish(self, *messages: Message) -> None:
        """Send events to the bus and commands to their owners, once the commit stands."""
        self._ensure_open()
        self._ensure_own_savepoint()
        for message in messages:
            if contract_of(message).native:
                raise DefinitionError(
                    f"{type(message).__name__} is a native event of another producer: it can be "
                    "handled but not published. Publish an event of your own instead."
                )
            self._messages.append(message)

    def schedule(self, command: Command, *, at: datetime, name: str) -> None:
        """Send a command once the commit stands, to arrive at a later time: not before `at`, an
        aware datetime, and up to a minute after it.

        `name` tells it from every other schedule of the same namespace, in all of time: 1 to 40
        characters, of letters, digits, `-`, `_` and `.`. What lies up to 15 minutes ahead waits in
        the queue itself, and cannot be called off; the rest waits in EventBridge Scheduler.
        """
        self._ensure_open()
        self._ensure_own_savepoint()
        if at.tzinfo is None:
            raise DefinitionError(
                f"The time at which {type(command).__name__} is to arrive has no time zone: give "
                "an aware datetime, such as tx.now + timedelta(hours=1)."
            )
        if not isinstance(command, Command) or contract_of(command).owner is None:
            raise DefinitionError(
                f"{type(command).__name__} is no command: a schedule sends to a queue. Schedule a "
                "command of your own service, and publish the event when it comes."
            )
        _refuse_bad_name(name)
        self._messages.append(Scheduled(command, at, name))

    def unschedule(self, name: str) -> None:
        """Call off what was scheduled under this name, once the commit stands. It may come all
        the same: when it is due at this moment, or waits in its queue already."""
        self._ensure_open()
        self._ensure_own_savepoint()
        _refuse_bad_name(name)
        self._messages.append(Cancellation(name))

    # --- for headrace itself ---

    def leave_trail(self, trail: Trail) -> None:
        """Have the inbox record tell something of a history, as well."""
        self._trail = trail

    def close(self) -> Effects:
        """What is to be committed; afterwards the transaction takes nothing more."""
        self._open = False
        slots = self._slots.values()
        return Effects(
            actions=[slot.action for slot in slots if slot.action is not None],
            messages=list(self._messages),
            conditional=frozenset(slot.key for slot in slots if slot.conditional),
            trail=self._trail,
        )

    def _knows(self, key: ItemKey) -> bool:
        slot = self._slots.get(key)
        return slot is not None and slot.known

    def _slot(self, key: ItemKey) -> _Slot:
        """What is to be written at a key."""
        self._ensure_own_savepoint()
        return self._slots.setdefault(key, _Slot(key, self._first_version))

    def _found(self, key: ItemKey, item: Item | None, cls: type[Entity]) -> _Slot:
        return _Slot.of(key, item, cls, self._first_version)

    def _refuse_unmet(self, action: Action, cls: type[Entity] | None = None) -> None:
        refusal = self._refusal_of(action)
        if refusal is None:
            return
        # Half of what belongs together must not stay behind where this is caught.
        self._take_back()
        item = refusal.item
        raise ConditionNotMet(
            f"The condition of the write to {action.key.pk!r} does not hold. Catch ConditionNotMet "
            "where the handler can do something else.",
            item=item,
            entity=from_item(cls, item) if cls is not None and item is not None else None,
        )

    def _refusal_of(self, action: Action) -> Refusal | None:
        """What is known of a condition from earlier runs. What the write sets may differ from run
        to run, as a time does. So may the values of the condition: it may hold now and is asked
        again, but once only."""
        same = [r for r in self._refused if _asks(r.action) == _asks(action)]
        alike = [r for r in self._untold if _asks_alike(r.action) == _asks_alike(action)]
        if action.condition is None or not (same or len(alike) > 1):
            return None
        told = same or alike[:2]
        self._untold = [refusal for refusal in self._untold if refusal not in told]
        return told[-1]

    def _wanted(self) -> tuple[dict[ItemKey, _Slot], list[Wanted]]:
        """What is to happen so far; a slot is changed in place, so these are copies."""
        return {key: replace(slot) for key, slot in self._slots.items()}, list(self._messages)

    def _take_back(self) -> None:
        last = self._savepoints[-1] if self._savepoints else _Savepoint(None, {}, [])
        reads = {key: slot.as_read() for key, slot in self._slots.items() if slot.read}
        self._slots = {**reads, **{key: slot.anew() for key, slot in last.slots.items()}}
        self._messages = list(last.messages)

    def _ensure_own_savepoint(self) -> None:
        if self._savepoints and self._savepoints[-1].task is not _current_task():
            raise HeadraceError(
                "A savepoint is open in another task of this handler, so what is written here "
                "could be taken back there: write one after the other."
            )

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


def _refuse_bad_name(name: str) -> None:
    if not _SCHEDULE_NAME.fullmatch(name):
        raise HeadraceError(
            f"The schedule cannot be named {shown(name)!r}: take 1 to 40 letters, digits, hyphens, "
            "underscores and dots, such as a digest of what it is for."
        )


def _asks(action: Action) -> tuple[ItemKey, Condition | None]:
    return action.key, action.condition


def _asks_alike(action: Action) -> tuple[ItemKey, str, dict[str, str]] | None:
    if action.condition is None:
        return None
    return action.key, action.condition.expression, dict(action.condition.names)


def _current_task() -> object:
    """What tells concurrent parts of a handler apart; a plain function's thread has no task."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


@dataclass(slots=True)
class _Slot:
    """One item, as this transaction found it and wants it to be.

    `version` is what it was read with: 0 if something else wrote it, `None` if it was not there
    or was not read. `item` is what was read and `cls` as what, `entity` what it is to be. `blind`
    is set once it was deleted without having been read, whatever it was. `written` is set once
    its new state is known to DynamoDB alone.
    """

    key: ItemKey
    first_version: int
    version: int | None = None
    item: Item | None = None
    cls: type[Entity] | None = None
    entity: Entity | None = None
    action: Action | None = None
    read: bool = False
    blind: bool = False
    written: bool = False
    conditional: bool = False

    @classmethod
    def of(cls, key: ItemKey, item: Item | None, entity: type[Entity], first_version: int) -> _Slot:
        if item is None:
            return cls(key, first_version, read=True)
        found = from_item(entity, item)
        return cls(key, first_version, version_of(item), item, entity, found, read=True)

    def as_read(self) -> _Slot:
        """The item as it was before anything was written. The entity is made anew, as the handler
        may have changed the one it was given."""
        if self.cls is None:
            return _Slot(self.key, self.first_version, read=True)
        return _Slot.of(self.key, self.item, self.cls, self.first_version)

    def anew(self) -> _Slot:
        """The item as it is to be here, whatever becomes of the entity that the handler holds."""
        item = self.action.item if isinstance(self.action, Put) else self.item
        if self.entity is None or item is None or self.written:
            return replace(self)
        return replace(self, entity=from_item(type(self.entity), item))

    @property
    def known(self) -> bool:
        """Whether it was read or written here: a write that was refused leaves nothing."""
        return self.read or self.action is not None

    def seen_as(self, cls: type[EntityT]) -> EntityT | None:
        self._refuse_written("read")
        if self.entity is not None and not isinstance(self.entity, cls):
            raise HeadraceError(
                f"{self.key.pk!r} was read as {type(self.entity).__name__} and now as "
                f"{cls.__name__}: two entities share a key template. Give each its own prefix."
            )
        return self.entity

    def put(self, entity: Entity) -> None:
        self._refuse_written("put")
        item = to_item(entity, self.key, (self.version or self.first_version) + 1)
        if self.item is not None and self.entity is not None:
            item = {**unknown_in(self.item, type(entity)), **item}
        self.action = Put(self.key.table, item, None if self.blind else self.unchanged())
        self.entity = entity

    def delete(self) -> None:
        self._refuse_written("deleted")
        self.blind = self.blind or (not self.read and self.action is None)
        if self.blind:
            self.action = Delete(self.key)
        elif self.version is None:
            self.action = Check(self.key, MUST_NOT_EXIST)
        else:
            self.action = Delete(self.key, self.unchanged())
        self.entity = None

    def check(self, entity: Entity) -> None:
        if not self.read:
            raise HeadraceError(
                f"{type(entity).__name__} {self.key.pk!r} was not read in this transaction, so "
                "nothing is known that could be checked: get it with tx.get first."
            )
        if self.action is None:
            self.action = Check(self.key, self.unchanged())

    def update(self, update: Update, *, conditional: bool) -> None:
        if isinstance(self.action, Check) and self.entity is not None:
            # What was checked is part of the update's own condition.
            self.action = None
        self.write(update, conditional=conditional)

    def write(self, action: Action, *, conditional: bool) -> None:
        if self.action is not None:
            raise HeadraceError(
                f"{self.key.pk!r} is written twice in one transaction, and DynamoDB takes one "
                "write for each item: join the two."
            )
        self.action = action
        self.written = True
        self.conditional = conditional

    def unchanged(self) -> Condition:
        if self.version is None:
            return MUST_NOT_EXIST
        if self.version == 0:
            return _UNVERSIONED
        return Condition("#_v = :_v", {"#_v": VERSION}, {":_v": {"N": str(self.version)}})

    def _refuse_written(self, what: str) -> None:
        if self.written:
            raise HeadraceError(
                f"{self.key.pk!r} was updated in this transaction and is now {what}: what it "
                "becomes is known only after the commit. Read it first, or put it as a whole."
            )


class _Savepoint(NamedTuple):
    """What was to happen when it began, and the task that it was begun in."""

    task: object
    slots: dict[ItemKey, _Slot]
    messages: list[Wanted]


def first_version(now: datetime) -> int:
    """What the versions of an entity that is created now begin after.

    Not after 0: one that is deleted and made anew would have the versions of the one before, and
    whoever has read that could overwrite this. Microseconds, with room to count by ones.
    """
    return int(now.timestamp() * 1_000_000) * WRITES


def rests_on_version(action: Action) -> bool:
    """Whether an action fails once anyone else has changed its item."""
    return action.condition is not None and action.condition.names.get("#_v") == VERSION
