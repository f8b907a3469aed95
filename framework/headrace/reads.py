"""Consistent reads of what runs at the same time, joined into as few calls as possible."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.coalesce import Coalescer
from headrace.entity import Partition
from headrace.errors import CloudError, Refused
from headrace.limits import BATCH_GET_KEYS
from headrace.ports import Item, ItemKey, Store


class SharedReads:
    """`headrace.transaction.Reads` for all transactions of one process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._items: Coalescer[ItemKey, Item | None] = Coalescer(
            self._read_items, max_entries=BATCH_GET_KEYS
        )

    async def item(self, key: ItemKey) -> Item | None:
        return await self._items.add(key)

    async def partition(self, partition: Partition) -> Sequence[Item]:
        """Every page of it."""
        items: list[Item] = []
        start: Item | None = None
        while True:
            page = await self._store.query(
                partition.table,
                partition.pk,
                sk_prefix=partition.sk_prefix,
                start=start,
                consistent=True,
            )
            items += page.items
            if page.next is None:
                return items
            start = page.next

    async def flush(self) -> None:
        await self._items.flush()

    async def _read_items(self, keys: Sequence[ItemKey]) -> list[Item | Exception | None]:
        # Two deliveries may read one item, and BatchGetItem refuses a key that comes twice.
        distinct = list(dict.fromkeys(keys))
        try:
            items: Sequence[Item | Exception | None] = await self._store.get(distinct)
        except Refused:
            # For the fault of one key, perhaps: each delivery answers for its own.
            items = [await self._read_item(key) for key in distinct]
        found = dict(zip(distinct, items, strict=True))
        return [found[key] for key in keys]

    async def _read_item(self, key: ItemKey) -> Item | Exception | None:
        try:
            (item,) = await self._store.get([key])
        except CloudError as error:
            return error
        return item
