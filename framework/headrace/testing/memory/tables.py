"""The tables of the Store port in memory, with their indexes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from headrace.errors import Refused
from headrace.limits import PARTITION_KEY_BYTES, SORT_KEY_BYTES
from headrace.ports import AttributeValue, Item, ItemKey
from headrace.testing.expressions import CannotUpdate
from headrace.testing.expressions.values import invalid

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

    def __init__(self) -> None:
        self._partitions: dict[str, _Rows] = {}
        self._indexes: dict[str, dict[str, _Rows]] = {}

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
            self._indexes[index] = {}
            for item in self.items():
                self._enter(index, item)

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
        return self._indexes[index].get(pk, {}).values()

    def write(self, key: ItemKey, item: Item | None) -> None:
        """Let this stand at the key, and nothing else."""
        old = self._partitions.setdefault(key.pk, {}).pop((key.pk, key.sk), None)
        if item is not None:
            self._partitions[key.pk][key.pk, key.sk] = item
        for index in self._indexes:
            if old is not None:
                self._leave(index, old)
            if item is not None:
                self._enter(index, item)

    def _enter(self, index: str, item: Item) -> None:
        if all(_fits(item.get(name, {}), most) for name, most in _index_keys(index).items()):
            keys = {name: item[name] for name in key_names(index)}
            rows = self._indexes[index].setdefault(item[f"{index}_pk"]["S"], {})
            rows[item["pk"]["S"], item["sk"]["S"]] = keys

    def _leave(self, index: str, item: Item) -> None:
        rows = self._indexes[index].get(item.get(f"{index}_pk", {}).get("S", ""), {})
        rows.pop((item["pk"]["S"], item["sk"]["S"]), None)

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


def _fits(value: AttributeValue, most: int) -> bool:
    return 1 <= len(value.get("S", "").encode()) <= most
