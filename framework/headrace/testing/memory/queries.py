"""One page of a Query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from headrace.limits import MIB, PARTITION_KEY_BYTES
from headrace.ports import Item, Page
from headrace.testing.expressions.values import copied_item, invalid, item_bytes
from headrace.testing.memory.tables import key_names

PAGE_BYTES: Final = 1 * MIB
"""What one Query reads at most."""


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked for, with the meaning it has at the port."""

    pk: str
    sk_prefix: str
    sk_before: str | None
    index: str | None
    limit: int | None
    start: Item | None
    forward: bool
    consistent: bool

    def require_valid(self) -> None:
        """Raises `Refused` as DynamoDB's ValidationException."""
        if self.limit is not None and self.limit < 1:
            raise invalid(f"A page has at least one item, not {self.limit}.")
        if self.index is not None and self.consistent:
            raise invalid("An index cannot be read consistently; read the table.")
        if not 1 <= len(self.pk.encode()) <= PARTITION_KEY_BYTES:
            raise invalid(f"A partition key is text of 1 to {PARTITION_KEY_BYTES} bytes.")
        self._require_one_range()
        self._require_start()

    def _require_one_range(self) -> None:
        if self.sk_before == "":
            raise invalid("Nothing comes before an empty sort key, and there is none.")
        if self.sk_before is not None and self.sk_prefix:
            raise invalid("A query has one condition on the sort key: a prefix or a bound.")

    def _require_start(self) -> None:
        names = key_names(self.index)
        if self.start is None:
            return
        if self.start.keys() != set(names):
            raise invalid(f"A start has the attributes {', '.join(names)} and no others.")
        if self.start[names[0]] != {"S": self.pk}:
            raise invalid("The start is in another partition; take the `next` of this query.")

    def page(self, partition: Iterable[Item]) -> Page:
        """From the items of the partition, in any order, those that are asked for."""
        found = sorted(filter(self._takes, partition), key=self._place, reverse=not self.forward)
        return self._first(found)

    def _takes(self, item: Item) -> bool:
        sk = item[key_names(self.index)[1]]["S"]
        below = self.sk_before is None or sk < self.sk_before
        return below and sk.startswith(self.sk_prefix) and self._follows(item)

    def _follows(self, item: Item) -> bool:
        if self.start is None:
            return True
        here, there = self._place(item), self._place(self.start)
        return here > there if self.forward else here < there

    def _place(self, item: Item) -> tuple[str, ...]:
        """Code points are in the order of their UTF-8, by which DynamoDB sorts."""
        return tuple(item[name]["S"] for name in key_names(self.index)[1:])

    def _first(self, items: Iterable[Item]) -> Page:
        taken: list[Item] = []
        size = 0
        for item in items:
            taken.append(copied_item(item))
            size += item_bytes(item)
            # DynamoDB stops at the limit without looking whether anything follows.
            if len(taken) == self.limit or size >= PAGE_BYTES:
                return Page(taken, {name: dict(item[name]) for name in key_names(self.index)})
        return Page(taken)
