"""What a handler does instead, and what is left of what it did before: conditions that do not
hold, savepoints, and items that come and go under it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from pydantic import Field

from headrace import Ack, Entity, Retry, Service, Transaction
from headrace.connection import connect
from headrace.errors import ConditionNotMet, DefinitionError, HeadraceError
from headrace.outcome import Outcome
from headrace.pipeline import running
from headrace.ports import Condition, Delete, ItemKey, Put, Update
from tests.unit.depot import Act, Bus, CrateMoved, CrateSeen, Depot, Parcel, Shelf


class Label(Entity, pk="label#{id}"):
    """A model with a field that nothing but a whole entity brings."""

    id: str
    text: str
    prints: int = 0


class Tally(Entity, pk="tally#{id}"):
    id: str
    total: int


class Renamed(Entity, pk="renamed#{id}"):
    """A model of items that others write under other names."""

    id: str
    count: int = Field(default=0, alias="Count")
    note: str = Field(default="", validation_alias="Note")


async def stored(depot: Depot, *entities: Entity) -> None:
    async def put(tx: Transaction) -> None:
        tx.put(*entities)

    assert await depot.run(put) == Ack()


def take(tx: Transaction, sku: str = "a", n: int = 1) -> None:
    """Take so many from a shelf, if they are there."""
    tx.update(
        Shelf,
        sku,
        change="SET #count = #count - :n",
        condition="#count >= :n",
        values={"n": n},
    )


# --- one condition after another ---


async def test_a_handler_whose_every_fallback_is_refused_says_so(depot: Depot) -> None:
    await stored(depot, Shelf(sku="a"), Shelf(sku="b"))
    bus, runs = Bus(), count(1)

    async def act(tx: Transaction) -> CrateSeen | None:
        next(runs)
        for sku in "ab":
            with suppress(ConditionNotMet):
                take(tx, sku)
                return None
        return CrateSeen(note="sold out")

    assert await depot.run(act, bus=bus) == Ack()
    assert bus.notes == ["sold out"]
    assert next(runs) == 4


async def test_as_many_fallbacks_as_there_are_shelves_are_tried(depot: Depot) -> None:
    """Each of them is a run, and none of them a conflict."""
    await stored(depot, *(Shelf(sku=f"s{n}") for n in range(12)), Shelf(sku="s12", count=1))

    async def act(tx: Transaction) -> None:
        for n in range(13):
            with suppress(ConditionNotMet):
                take(tx, f"s{n}")
                return

    assert await depot.run(act) == Ack()
    assert await depot.shelf("s12") == 0


async def test_one_item_may_be_asked_for_less_and_less(depot: Depot) -> None:
    await stored(depot, Shelf(sku="a", count=1))
    bus = Bus()

    async def act(tx: Transaction) -> CrateSeen | None:
        for n in (4, 3, 2, 1):
            with suppress(ConditionNotMet):
                take(tx, n=n)
                return CrateSeen(note=f"took {n}")
        return CrateSeen(note="short")

    assert await depot.run(act, bus=bus) == Ack()
    assert bus.notes == ["took 1"]
    assert await depot.shelf() == 0


async def test_all_conditions_on_one_item_may_be_refused(depot: Depot) -> None:
    await stored(depot, Shelf(sku="a", count=1))
    bus = Bus()

    async def act(tx: Transaction) -> CrateSeen | None:
        for n in (4, 2):
            with suppress(ConditionNotMet):
                take(tx, n=n)
                return None
        return CrateSeen(note="short")

    assert await depot.run(act, bus=bus) == Ack()
    assert bus.notes == ["short"]
    assert await depot.shelf() == 1


async def test_a_run_that_asks_for_less_than_was_refused_is_heard(depot: Depot) -> None:
    await stored(depot, Shelf(sku="a", count=3))
    wanted, told = iter((4, 2)), list[str]()

    async def act(tx: Transaction) -> None:
        try:
            take(tx, n=next(wanted))
        except ConditionNotMet:
            told.append("not met")

    assert await depot.run(act) == Ack()
    assert told == []
    assert await depot.shelf() == 1


async def test_a_refused_write_is_known_again_by_its_condition_whatever_it_sets(
    depot: Depot,
) -> None:
    await stored(depot, Shelf(sku="a"))
    bus, runs = Bus(), count(1)

    async def act(tx: Transaction) -> CrateSeen | None:
        try:
            tx.update(
                Shelf,
                "a",
                change="SET #note = :time",
                condition="#count > :n",
                values={"time": f"run {next(runs)}", "n": 0},
            )
        except ConditionNotMet:
            return CrateSeen(note="not met")
        return None

    assert await depot.run(act, bus=bus) == Ack()
    assert bus.notes == ["not met"]
    assert next(runs) == 3


async def test_a_raw_write_is_known_again_by_its_condition_whatever_it_sets(
    depot: Depot,
) -> None:
    await stored(depot, Shelf(sku="a"))
    runs = count(1)
    missing = Condition("attribute_not_exists(pk)")

    async def act(tx: Transaction) -> None:
        item = {**depot.key("shelf#a").attributes(), "run": {"N": str(next(runs))}}
        with suppress(ConditionNotMet):
            tx.write(Put("depot", item, missing))

    assert await depot.run(act) == Ack()
    assert next(runs) == 3


@pytest.mark.parametrize("skus", ["a", "ab", "aa"])
async def test_a_condition_on_the_time_of_the_run_is_told_in_the_end(
    depot: Depot, skus: str
) -> None:
    """It is another condition in every run, and none of them would hold."""
    await stored(depot, Shelf(sku="a", count=1000), Shelf(sku="b", count=1000))
    times, bus = count(1), Bus()

    async def act(tx: Transaction) -> CrateSeen | None:
        for sku in skus:
            with suppress(ConditionNotMet):
                tx.update(
                    Shelf,
                    sku,
                    change="SET #note = :note",
                    condition="#count < :now",
                    values={"note": "mine", "now": next(times)},
                )
                return None
        return CrateSeen(note="held")

    assert await depot.run(act, bus=bus) == Ack()
    assert bus.notes == ["held"]


# --- whole keys ---


async def parcels(depot: Depot) -> None:
    await stored(depot, *(Parcel(order="o", number=n) for n in (1, 2, 10, 11)))


async def test_a_query_with_the_whole_key_finds_that_entity_alone(depot: Depot) -> None:
    await parcels(depot)
    found: list[list[int]] = []

    async def act(tx: Transaction) -> None:
        found.append([parcel.number for parcel in await tx.query(Parcel, "o", 1)])

    await depot.run(act)
    assert found == [[1]]


async def test_a_query_with_the_whole_key_does_not_remember_what_it_passed_over(
    depot: Depot,
) -> None:
    await parcels(depot)
    found: list[str] = []

    async def act(tx: Transaction) -> None:
        await tx.query(Parcel, "o", 1)

        async def relabel(other: Transaction) -> None:
            parcel = await other.get(Parcel, "o", 10)
            assert parcel is not None
            other.put(parcel.model_copy(update={"label": "new"}))

        await depot.run(relabel)
        parcel = await tx.get(Parcel, "o", 10)
        assert parcel is not None
        found.append(parcel.label)

    await depot.run(act)
    assert found == ["new"]


async def test_a_query_from_outside_with_the_whole_key_finds_that_entity_alone(
    depot: Depot,
) -> None:
    await parcels(depot)
    async with connect(depot.service, depot.cloud.ports) as service:
        found = await service.query(Parcel, "o", 1)
    assert [parcel.number for parcel in found] == [1]


# --- taken back ---


async def test_an_entity_that_was_changed_in_place_is_as_it_was_read_after_a_refusal(
    depot: Depot,
) -> None:
    await stored(depot, Shelf(sku="a", count=10), Shelf(sku="b"))

    async def act(tx: Transaction) -> None:
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None
        shelf.count -= 3
        tx.put(shelf)
        try:
            take(tx, "b")
        except ConditionNotMet:
            again = await tx.get(Shelf, "a")
            assert again is not None
            again.note = "none on b"
            tx.put(again)

    assert await depot.run(act) == Ack()
    assert await depot.shelf("a") == 10


async def failed_savepoint(tx: Transaction, change: Callable[[], None]) -> None:
    with suppress(ValueError), tx.savepoint():
        change()
        raise ValueError


async def test_an_entity_that_was_changed_in_a_savepoint_is_as_it_was_read_after_it(
    depot: Depot,
) -> None:
    await stored(depot, Shelf(sku="a", count=10))

    async def act(tx: Transaction) -> None:
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None

        def change() -> None:
            shelf.count -= 3
            tx.put(shelf)

        await failed_savepoint(tx, change)
        again = await tx.get(Shelf, "a")
        assert again is not None
        again.note = "checked"
        tx.put(again)

    assert await depot.run(act) == Ack()
    assert await depot.shelf() == 10


async def test_an_entity_that_was_put_before_a_savepoint_is_as_it_was_put_after_it(
    depot: Depot,
) -> None:
    await stored(depot, Shelf(sku="a", count=10))

    async def act(tx: Transaction) -> None:
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None
        shelf.count = 9
        tx.put(shelf)

        def change() -> None:
            shelf.count = 1
            tx.put(shelf)

        await failed_savepoint(tx, change)
        again = await tx.get(Shelf, "a")
        assert again is not None
        again.note = "checked"
        tx.put(again)

    assert await depot.run(act) == Ack()
    assert await depot.shelf() == 9


async def test_an_entity_that_was_made_before_a_savepoint_is_as_it_was_made_after_it(
    depot: Depot,
) -> None:
    async def act(tx: Transaction) -> None:
        shelf = Shelf(sku="a", count=9)
        tx.put(shelf)

        def change() -> None:
            shelf.count = 1

        await failed_savepoint(tx, change)
        again = await tx.get(Shelf, "a")
        assert again is not None
        tx.put(again)

    assert await depot.run(act) == Ack()
    assert await depot.shelf() == 9


async def test_an_entity_that_was_checked_before_a_savepoint_is_as_it_was_read_after_it(
    depot: Depot,
) -> None:
    await stored(depot, Shelf(sku="a", count=10))

    async def act(tx: Transaction) -> None:
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None
        tx.check(shelf)

        def change() -> None:
            shelf.count = 1
            tx.put(shelf)

        await failed_savepoint(tx, change)
        again = await tx.get(Shelf, "a")
        assert again is not None
        tx.put(again)

    assert await depot.run(act) == Ack()
    assert await depot.shelf() == 10


async def test_what_was_deleted_before_a_savepoint_is_gone_after_it(depot: Depot) -> None:
    await stored(depot, Shelf(sku="a", count=10))

    async def act(tx: Transaction) -> None:
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None
        tx.delete(shelf)
        await failed_savepoint(tx, lambda: tx.put(shelf))
        assert await tx.get(Shelf, "a") is None

    assert await depot.run(act) == Ack()
    assert await depot.shelf() is None


# --- savepoints of several at once ---


async def in_savepoint(tx: Transaction, sku: str, steps: int, *, fails: bool = False) -> None:
    """Write and publish in a savepoint that stays open for so many turns of the loop."""
    with suppress(ValueError), tx.savepoint():
        tx.put(Shelf(sku=sku))
        tx.publish(CrateSeen(note=sku))
        for _ in range(steps):
            await asyncio.sleep(0)
        if fails:
            raise ValueError


@pytest.mark.parametrize("fails", [True, False])
async def test_savepoints_of_two_tasks_at_once_are_refused_with_a_sentence(
    depot: Depot, fails: bool
) -> None:
    async def act(tx: Transaction) -> None:
        await asyncio.gather(
            in_savepoint(tx, "a", steps=2), in_savepoint(tx, "b", steps=1, fails=fails)
        )

    assert "A savepoint is open in another task" in str(await depot.refusal(act))


async def test_savepoints_one_after_the_other_in_two_tasks_are_each_their_own(
    depot: Depot,
) -> None:
    bus = Bus()

    async def act(tx: Transaction) -> None:
        await asyncio.create_task(in_savepoint(tx, "a", steps=1))
        await asyncio.create_task(in_savepoint(tx, "b", steps=1, fails=True))

    assert await depot.run(act, bus=bus) == Ack()
    assert [await depot.shelf(sku) for sku in "ab"] == [0, None]
    assert bus.notes == ["a"]


WRITES: dict[str, Callable[[Transaction], None]] = {
    "put": lambda tx: tx.put(Shelf(sku="b")),
    "delete": lambda tx: tx.delete(Shelf(sku="b")),
    "update": lambda tx: tx.update(Shelf, "b", change="ADD #count :n", values={"n": 1}),
    "write": lambda tx: tx.write(Delete(ItemKey("depot", "shelf#b", "-"))),
    "publish": lambda tx: tx.publish(CrateSeen(note="b")),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_nothing_is_written_from_another_task_while_a_savepoint_is_open(
    depot: Depot, write: Callable[[Transaction], None]
) -> None:
    async def other(tx: Transaction) -> None:
        write(tx)

    async def act(tx: Transaction) -> None:
        with tx.savepoint():
            await asyncio.create_task(other(tx))

    assert "A savepoint is open in another task" in str(await depot.refusal(act))


async def test_a_refusal_in_another_task_takes_nothing_out_of_a_savepoint_that_is_open(
    depot: Depot,
) -> None:
    """What another task is told must not be paid for by the one that has the savepoint."""
    await stored(depot, Shelf(sku="b"))
    runs, told = count(1), list[type[HeadraceError]]()
    missing = Condition("attribute_not_exists(pk)")

    async def other(tx: Transaction) -> None:
        try:
            tx.write(Delete(depot.key("shelf#b"), missing))
        except HeadraceError as error:
            told.append(type(error))

    async def act(tx: Transaction) -> None:
        if next(runs) == 1:
            await other(tx)
            return
        with tx.savepoint():
            tx.put(Shelf(sku="a"))
            await asyncio.create_task(other(tx))

    assert await depot.run(act) == Ack()
    assert told == [HeadraceError]
    assert await depot.shelf("a") == 0


async def test_many_are_read_while_a_savepoint_is_open(depot: Depot) -> None:
    """Reading is done by tasks, and they take part in nothing."""
    await stored(depot, Shelf(sku="a", count=1), Shelf(sku="b", count=2))

    async def act(tx: Transaction) -> None:
        with tx.savepoint():
            for shelf in await tx.get_many(Shelf, "ab"):
                assert shelf is not None
                shelf.count += 1
                tx.put(shelf)

    assert await depot.run(act) == Ack()
    assert [await depot.shelf(sku) for sku in "ab"] == [2, 3]


async def test_the_savepoint_of_a_plain_function_takes_back_what_was_in_it(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
        tx.put(Shelf(sku="a"))
        with suppress(ValueError), tx.savepoint():
            tx.put(Shelf(sku="b"))
            raise ValueError
        with tx.savepoint():
            tx.put(Shelf(sku="c"))
        return CrateSeen()

    async with depot.pipeline() as pipeline:
        assert await pipeline.consume(depot.delivery()) == Ack()
    assert [await depot.shelf(sku) for sku in "abc"] == [0, None, 0]


# --- deleted and made anew between a read and the commit ---

Rewrite = Callable[[Depot], Awaitable[None]]


async def deleted_and_created(depot: Depot) -> None:
    async def delete(tx: Transaction) -> None:
        tx.delete(Shelf(sku="a"))

    assert await depot.run(delete) == Ack()
    await stored(depot, Shelf(sku="a", count=100))


async def replaced_unread(depot: Depot) -> None:
    async def anew(tx: Transaction) -> None:
        tx.delete(Shelf(sku="a"))
        tx.put(Shelf(sku="a", count=100))

    assert await depot.run(anew) == Ack()


async def deleted_and_created_by_an_update(depot: Depot) -> None:
    async def delete(tx: Transaction) -> None:
        tx.delete(Shelf(sku="a"))

    async def create(tx: Transaction) -> None:
        tx.update(Shelf, "a", change="ADD #count :n", values={"n": 100})

    assert await depot.run(delete) == Ack()
    assert await depot.run(create) == Ack()


async def deleted_and_created_from_outside(depot: Depot) -> None:
    async with connect(depot.service, depot.cloud.ports) as service:
        async with service.transaction() as tx:
            tx.delete(Shelf(sku="a"))
        async with service.transaction() as tx:
            tx.put(Shelf(sku="a", count=100))


REWRITES = [
    deleted_and_created,
    replaced_unread,
    deleted_and_created_by_an_update,
    deleted_and_created_from_outside,
]


def putting(tx: Transaction, shelf: Shelf) -> None:
    shelf.count += 1
    tx.put(shelf)


def checking(tx: Transaction, shelf: Shelf) -> None:
    tx.check(shelf)
    tx.put(Shelf(sku="seen", count=shelf.count))


def updating(tx: Transaction, shelf: Shelf) -> None:
    tx.update(Shelf, "a", change="SET #count = :n", values={"n": shelf.count + 1})


def deleting(tx: Transaction, shelf: Shelf) -> None:
    tx.delete(shelf)
    tx.put(Shelf(sku="seen", count=shelf.count))


Write = Callable[[Transaction, Shelf], None]

WANTED: dict[Write, tuple[str, int]] = {
    putting: ("a", 101),
    checking: ("seen", 100),
    updating: ("a", 101),
    deleting: ("seen", 100),
}


@pytest.mark.parametrize("write", WANTED, ids=lambda write: write.__name__)
@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda rewrite: rewrite.__name__)
async def test_an_item_that_was_made_anew_is_another_item(
    depot: Depot, rewrite: Rewrite, write: Write
) -> None:
    await rewrite(depot)
    depot.advance(1)
    runs = count(1)

    async def act(tx: Transaction) -> None:
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None
        if next(runs) == 1:
            await rewrite(depot)
        write(tx, shelf)

    assert await depot.run(act) == Ack()
    sku, number = WANTED[write]
    assert await depot.shelf(sku) == number
    assert next(runs) == 3


# --- idempotent handlers ---


async def idempotent(depot: Depot, act: Act, bus: Bus) -> Outcome:
    service = Service("depot", bus="yard")

    @service.on(CrateMoved, idempotent=True)
    async def move(event: CrateMoved, tx: Transaction) -> CrateSeen | None:
        return await act(tx)

    async with running(service, replace(depot.cloud.ports, bus=bus)) as pipeline:
        return await pipeline.consume(depot.delivery())


async def test_an_idempotent_handler_that_writes_and_publishes_is_refused_with_a_sentence(
    depot: Depot,
) -> None:
    bus = Bus()

    async def act(tx: Transaction) -> CrateSeen:
        tx.put(Shelf(sku="a"))
        return CrateSeen()

    outcome = await idempotent(depot, act, bus)
    assert isinstance(outcome, Retry)
    assert isinstance(outcome.error, DefinitionError)
    assert "leave idempotent=True out" in outcome.reason
    assert (depot.items(), bus.notes) == ([], [])


async def test_an_idempotent_handler_may_write(depot: Depot) -> None:
    async def act(tx: Transaction) -> None:
        tx.put(Shelf(sku="a"))

    assert await idempotent(depot, act, Bus()) == Ack()
    assert await depot.shelf() == 0


async def test_an_idempotent_handler_may_publish(depot: Depot) -> None:
    bus = Bus()

    async def act(tx: Transaction) -> CrateSeen:
        await tx.get(Shelf, "a")
        return CrateSeen(note="said")

    assert await idempotent(depot, act, bus) == Ack()
    assert bus.notes == ["said"]


# --- items of other versions ---


async def with_colour(depot: Depot) -> None:
    """A shelf with an attribute that a newer version of the service has written."""
    await stored(depot, Shelf(sku="a", count=1))
    blue = Update(depot.key("shelf#a"), "SET colour = :c", values={":c": {"S": "blue"}})
    await depot.cloud.store.change(blue)


async def colour(depot: Depot) -> Any:
    item = await depot.item("shelf#a")
    assert item is not None
    return item.get("colour")


async def test_what_this_version_of_an_entity_does_not_know_survives_a_put(depot: Depot) -> None:
    await with_colour(depot)

    async def act(tx: Transaction) -> None:
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None
        tx.put(shelf.model_copy(update={"count": 2}))

    assert await depot.run(act) == Ack()
    assert (await depot.shelf(), await colour(depot)) == (2, {"S": "blue"})


async def test_what_this_version_of_an_entity_does_not_know_goes_with_a_delete(
    depot: Depot,
) -> None:
    await with_colour(depot)

    async def act(tx: Transaction) -> None:
        shelf = await tx.get(Shelf, "a")
        assert shelf is not None
        tx.delete(shelf)
        tx.put(Shelf(sku="a", count=2))

    assert await depot.run(act) == Ack()
    assert (await depot.shelf(), await colour(depot)) == (2, None)


async def test_an_attribute_that_is_read_by_an_alias_does_not_outlive_the_field_it_became(
    depot: Depot,
) -> None:
    names = {"id": {"S": "r"}, "Count": {"N": "1"}, "Note": {"S": "old"}}
    await depot.cloud.store.write([Put("depot", depot.key("renamed#r").attributes() | names)])
    found: list[tuple[int, str]] = []

    async def act(tx: Transaction) -> None:
        renamed = await tx.get(Renamed, "r")
        assert renamed is not None
        found.append((renamed.count, renamed.note))
        renamed.count, renamed.note = 2, "new"
        tx.put(renamed)

    await depot.run(act)
    await depot.run(act)
    assert found == [(1, "old"), (2, "new")]


# --- entities that are not there ---


@pytest.mark.parametrize(
    "condition", [None, "attribute_not_exists(#prints)"], ids=["plain", "its own condition"]
)
async def test_an_update_makes_no_entity_that_lacks_what_nobody_has_set(
    depot: Depot, condition: str | None
) -> None:
    told: list[Any] = []

    async def act(tx: Transaction) -> None:
        try:
            tx.update(Label, "l", change="ADD #prints :n", condition=condition, values={"n": 1})
        except ConditionNotMet as error:
            told.append(error.item)

    assert await depot.run(act) == Ack()
    assert told == [None]
    assert depot.items() == []


async def test_an_update_that_lacks_nothing_where_there_is_an_entity_is_done(
    depot: Depot,
) -> None:
    await stored(depot, Label(id="l", text="fragile"))

    async def act(tx: Transaction) -> None:
        tx.update(Label, "l", change="ADD #prints :n", values={"n": 1})

    assert await depot.run(act) == Ack()
    item = await depot.item("label#l")
    assert item is not None
    assert (item["text"], item["prints"]) == ({"S": "fragile"}, {"N": "1"})


@pytest.mark.parametrize(
    ("cls", "change", "values", "made"),
    [
        (Label, "SET #text = :text", {"text": "new"}, Label(id="x", text="new")),
        (Label, "SET #text=:text ADD #prints :n", {"text": "t", "n": 2},
         Label(id="x", text="t", prints=2)),
        (Tally, "ADD #total :n", {"n": 3}, Tally(id="x", total=3)),
    ],
)  # fmt: skip
async def test_an_update_that_sets_all_there_must_be_makes_an_entity(
    depot: Depot, cls: type[Entity], change: str, values: dict[str, Any], made: Entity
) -> None:
    async def act(tx: Transaction) -> None:
        tx.update(cls, "x", change=change, values=values)

    assert await depot.run(act) == Ack()
    async with connect(depot.service, depot.cloud.ports) as service:
        assert await service.get(cls, "x") == made
