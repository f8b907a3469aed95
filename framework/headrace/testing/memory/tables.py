"""The tables of the Store port in memory, with their indexes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Final, TypeAlias

from headrace.errors import Refused
from headrace.limits import PARTITION_KEY_BYTES, SORT_KEY_BYTES
from headrace.ports import AttributeValue, Clock, Item, ItemKey
from headrace.testing.expressions import CannotUpdate
from headrace.testing.expressions.values import invalid
from headrace.testing.memory.latitude import ORDERLY, Latitude
from headrace.topology.model import Table

_INDEX_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{3,252}")
"""DynamoDB's own limit is 255, as it is for the attributes that are named after the index."""

_Rows: TypeAlias = dict[tuple[str, str], Item]
"""Items, or what an index holds of them, by their primary key."""


def key_names(index: str | None) -> tuple[str, ...]:
    """The attributes that a key of the table or of an index is made of, partition key first;
    the values of the others give the order within a partition."""
    table = ("pk", "sk")
    return table if index is None else (*_index_keys(index), *table)


def _index_keys(index: str) -> dict[str, int]:
    """The key attributes of an index, and how long each may be in UTF-8."""
    return {f"{index}_pk": PARTITION_KEY_BYTES, f"{index}_sk": SORT_KEY_BYTES}


class MemoryTable:
    """The items of one table, and the ones that stand in each of its indexes."""

    def __init__(self, spec: Table, clock: Clock, latitude: Latitude = ORDERLY) -> None:
        self._spec = spec
        self._clock = clock
        self._latitude = latitude
        self._partitions: dict[str, _Rows] = {}
        self._indexes: dict[str, _Index] = {}

    def add_index(self, index: str) -> None:
        """Make an index of what is there, unless it has been made. Raises `Refused` for a name
        that DynamoDB does not take."""
        if not _INDEX_NAME.fullmatch(index):
            raise Refused(
                f"The index name {index!r} must be 3 to 252 letters, digits, '_', '-' or '.'.",
                operation="CreateTable",
                code="ValidationException",
            )
        if index not in self._indexes:
            self._indexes[index] = _Index(index)
            for item in self.items():
                self._indexes[index].show((item["pk"]["S"], item["sk"]["S"]), item)

    def items(self) -> Iterator[Item]:
        """Every item, by partition and sort key."""
        for pk in sorted(self._partitions):
            for key in sorted(self._partitions[pk]):
                yield self._partitions[pk][key]

    def read(self, key: ItemKey) -> Item | None:
        return self._partitions.get(key.pk, {}).get((key.pk, key.sk))

    def partition(self, pk: str, index: str | None) -> Iterable[Item]:
        """What the table or one of its indexes holds of a partition, in no order. Raises
        `Refused` for an index that the table does not have."""
        if index is None:
            return self._partitions.get(pk, {}).values()
        if index not in self._indexes:
            raise invalid(
                f"The table does not have the index {index!r}; provision a topology that names it."
            )
        return self._indexes[index].partition(pk, self._clock.now(), self.read)

    def write(self, key: ItemKey, item: Item | None) -> None:
        """Let this stand at the key, and nothing else."""
        rows = self._partitions.setdefault(key.pk, {})
        rows.pop((key.pk, key.sk), None)
        if item is not None:
            rows[key.pk, key.sk] = item
        for name, index in self._indexes.items():
            lag = self._latitude.index_lag(self._spec.name, name)
            if lag:
                index.show_later(key, self._clock.now() + lag)
            else:
                index.show((key.pk, key.sk), item)

    def expire(self, before: datetime) -> list[Item]:
        """Delete the items whose TTL attribute lies before this moment, and return them."""
        limit = before.timestamp()
        expired = [item for item in self.items() if self._expires_at(item) < limit]
        for item in expired:
            self.write(ItemKey(self._spec.name, item["pk"]["S"], item["sk"]["S"]), None)
        return expired

    def _expires_at(self, item: Item) -> float:
        # DynamoDB's TTL looks at numbers only; whatever else stands there never expires.
        return float(item.get(self._spec.ttl_attribute, {}).get("N", "inf"))

    def require_index_keys(self, item: Item) -> None:
        """Raises `Refused` for an index key that is empty, and `CannotUpdate` for one that is
        too long or no text. DynamoDB tells these apart: in a transaction, the first refuses the
        call and the second is a reason to cancel it."""
        for index in self._indexes:
            for name, most in _index_keys(index).items():
                if item.get(name) == {"S": ""}:
                    raise invalid(f"The key attribute {name} of the index {index} is empty text.")
                if name in item and not _fits(item[name], most):
                    raise CannotUpdate(
                        f"The key attribute {name} of the index {index} must be text of 1 to "
                        f"{most} bytes."
                    )


class _Index:
    """What one index holds. A change that it does not show yet is looked up once it is due."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rows: dict[str, _Rows] = {}
        self._partition_of: dict[tuple[str, str], str] = {}
        self._late: list[tuple[datetime, ItemKey]] = []

    def partition(
        self, pk: str, now: datetime, read: Callable[[ItemKey], Item | None]
    ) -> Iterable[Item]:
        due = [key for when, key in self._late if when <= now]
        if due:
            self._late = [(when, key) for when, key in self._late if when > now]
            for key in due:
                self.show((key.pk, key.sk), read(key))
        return self._rows.get(pk, {}).values()

    def show_later(self, key: ItemKey, when: datetime) -> None:
        self._late.append((when, key))

    def show(self, key: tuple[str, str], item: Item | None) -> None:
        """Let the index say of this key what its item says, or nothing if there is none."""
        before = self._partition_of.pop(key, None)
        if before is not None:
            self._rows[before].pop(key, None)
        if item is not None and self._takes(item):
            partition = item[f"{self._name}_pk"]["S"]
            self._partition_of[key] = partition
            keys = {name: item[name] for name in key_names(self._name)}
            self._rows.setdefault(partition, {})[key] = keys

    def _takes(self, item: Item) -> bool:
        keys = _index_keys(self._name).items()
        return all(_fits(item.get(name, {}), most) for name, most in keys)


def _fits(value: AttributeValue, most: int) -> bool:
    return 1 <= len(value.get("S", "").encode()) <= most
