"""The shapes that handlers have, one service each, for counting what each costs."""

from __future__ import annotations

from datetime import timedelta

from headrace import Entity, Event, Service, Transaction


class Struck(Event, name="BenchmarkStruck", source="benchmark.shapes"):
    number: int


class Rang(Event, name="BenchmarkRang", source="benchmark.shapes"):
    number: int


class Bell(Entity, pk="bell#{number}"):
    number: int
    rings: int = 0


note = Service("note")
say = Service("say")
write = Service("write")
write_and_say = Service("write-and-say")
update = Service("update")
again = Service("again")
lease = Service("lease")


@note.on(Struck)
async def take_note(event: Struck) -> None: ...


@say.on(Struck)
async def ring(event: Struck) -> Rang:
    return Rang(number=event.number)


@write.on(Struck)
async def count(event: Struck, tx: Transaction) -> None:
    await _counted(event, tx)


@write_and_say.on(Struck)
async def count_and_ring(event: Struck, tx: Transaction) -> Rang:
    await _counted(event, tx)
    return Rang(number=event.number)


@update.on(Struck)
async def count_in_place(event: Struck, tx: Transaction) -> None:
    tx.update(Bell, event.number, change="ADD #rings :one", values={"one": 1})


@again.on(Struck, idempotent=True)
async def set_to_one(event: Struck, tx: Transaction) -> None:
    bell = await tx.get(Bell, event.number) or Bell(number=event.number)
    bell.rings = 1
    tx.put(bell)


@lease.on(Struck, lease=timedelta(seconds=10))
async def ring_under_a_lease(event: Struck) -> Rang:
    return Rang(number=event.number)


async def _counted(event: Struck, tx: Transaction) -> None:
    bell = await tx.get(Bell, event.number) or Bell(number=event.number)
    bell.rings += 1
    tx.put(bell)


SHAPES = {
    "the record alone": note,
    "one event": say,
    "one entity, read and written": write,
    "one entity and one event": write_and_say,
    "one entity, updated in place": update,
    "one entity, idempotent=True": again,
    "one event, under a lease": lease,
}
