"""What a small change of the commit path would break, and nothing else said so."""

from __future__ import annotations

from collections.abc import Sequence

from headrace import Ack, Transaction
from headrace.ports import Action
from tests.unit.depot import Bus, CrateMoved, CrateSeen, Depot, Shelf, Through


async def test_a_put_of_what_was_read_counts_one_more_write(depot: Depot) -> None:
    async def move(tx: Transaction) -> None:
        tx.put(await tx.get(Shelf, "a") or Shelf(sku="a"))

    for writes in (1, 2, 3):
        assert await depot.run(move) == Ack()
        assert await depot.writes() == writes


async def test_what_was_not_there_and_is_deleted_must_still_not_be_there(depot: Depot) -> None:
    runs = 0

    async def clear(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        if await tx.get(Shelf, "a") is None:
            tx.delete(Shelf(sku="a"))

    class Meanwhile(Through):
        async def transact(self, actions: Sequence[Action], *, token: str) -> None:
            if not self.transacts:
                self.transacts.append([])
                await depot.run(put_a)
            await self.store.transact(actions, token=token)

    async def put_a(tx: Transaction) -> None:
        tx.put(Shelf(sku="a", count=1))

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        await clear(tx)

    async with depot.pipeline(store=Meanwhile(depot)) as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert runs == 2
    assert await depot.shelf() == 1


async def test_without_a_record_what_is_said_otherwise_in_a_second_run_has_another_id(
    depot: Depot,
) -> None:
    notes = iter(["first", "second", "second"])

    @depot.service.on(CrateMoved, idempotent=True)
    async def move(event: CrateMoved) -> CrateSeen:
        return CrateSeen(note=next(notes))

    bus = Bus()
    async with depot.pipeline(bus=bus) as pipeline:
        for _ in range(3):
            assert await pipeline.consume(depot.delivery()) == Ack()
    first, second, again = bus.ids
    assert first != second == again
