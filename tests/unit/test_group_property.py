"""A batch that is committed in groups ends as if its deliveries had come one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import Ack, DeadLetter, Entity, Event, Outcome, PoisonMessage, Retry, Service
from headrace.errors import ConditionNotMet
from headrace.pipeline import running
from headrace.ports import Action, BusEntry, EntryFailure, ItemKey, Ports, Update
from headrace.testing import delivery_of
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from headrace.transaction import Transaction

SHELVES = ("a", "b", "c")


class Asked(Event, name="MillAsked", source="mill.customer"):
    """Take so much from each of these shelves, or nothing at all."""

    pieces: dict[str, int]
    fate: str = "well"


class Given(Event, name="MillGiven", source="mill.store"): ...


class Denied(Event, name="MillDenied", source="mill.store"): ...


class Shelf(Entity, pk="shelf#{shelf}"):
    shelf: str
    left: int


def a_store(*, together: bool) -> Service:
    store = Service("store", bus="mill", group_commit=together)

    @store.on(Asked)
    async def give(event: Asked, tx: Transaction) -> Given | Denied:
        if event.fate == "in place":
            return _give_in_place(event, tx)
        shelves = await tx.get_many(Shelf, event.pieces)
        if event.fate == "fails":
            raise ValueError("not today")
        if event.fate == "poison":
            raise PoisonMessage("never")
        if any(shelf is None or shelf.left < event.pieces[shelf.shelf] for shelf in shelves):
            # What the answer rests on is not written, so it is checked.
            tx.check(*(shelf for shelf in shelves if shelf is not None))
            return Denied()
        for shelf in shelves:
            assert shelf is not None
            shelf.left -= event.pieces[shelf.shelf]
            tx.put(shelf)
        return Given()

    return store


def _give_in_place(event: Asked, tx: Transaction) -> Given | Denied:
    try:
        for shelf, pieces in event.pieces.items():
            tx.update(
                Shelf,
                shelf,
                change="SET #left = #left - :n",
                condition="#left >= :n",
                values={"n": pieces},
            )
    except ConditionNotMet:
        return Denied()
    return Given()


@dataclass(frozen=True)
class Wish:
    """One delivery: its event's id, and what it asks for."""

    id: str
    asked: Asked


@dataclass(frozen=True)
class Meddling:
    """Another process that takes pieces away, just before the transaction of this number."""

    before: int
    shelf: str
    pieces: int


pieces = st.dictionaries(st.sampled_from(SHELVES), st.integers(1, 3), min_size=1)
fates = st.sampled_from(["well", "well", "well", "in place", "fails", "poison"])
wishes = st.lists(
    st.builds(
        lambda id, pieces, fate: (id, pieces, fate), st.sampled_from("uvwxyz"), pieces, fates
    ),
    min_size=1,
    max_size=6,
).map(lambda asked: [_the_same(asked, wish) for wish in asked])
meddlings = st.lists(
    st.builds(Meddling, st.integers(1, 4), st.sampled_from(SHELVES), st.integers(1, 2)),
    max_size=2,
)
stock = st.fixed_dictionaries({shelf: st.integers(0, 6) for shelf in SHELVES})


def _the_same(all: Sequence[tuple[str, dict[str, int], str]], wish: tuple[str, Any, Any]) -> Wish:
    """Deliveries with one id bring one event."""
    first = next(each for each in all if each[0] == wish[0])
    return Wish(first[0], Asked(pieces=first[1], fate=first[2]))


class Meddled:
    """A store that others write to in between."""

    def __init__(self, cloud: MemoryCloud[Any], meddlings: Sequence[Meddling]) -> None:
        self._store = cloud.store
        self._left = list(meddlings)
        self._calls = 0
        self.done: list[Meddling] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def transact(self, actions: Sequence[Action], *, token: str) -> None:
        self._calls += 1
        for meddling in [each for each in self._left if each.before == self._calls]:
            self._left.remove(meddling)
            await self._meddle(meddling)
            self.done.append(meddling)
        await self._store.transact(actions, token=token)

    async def _meddle(self, meddling: Meddling) -> None:
        await self._store.change(
            Update(
                ItemKey("store", f"shelf#{meddling.shelf}", "-"),
                "SET #left = #left - :n ADD #v :one",
                {"#left": "left", "#v": "_version"},
                {":n": {"N": str(meddling.pieces)}, ":one": {"N": "1"}},
            )
        )


class Heard:
    """A bus that remembers what was said because of which event, under which ids."""

    def __init__(self) -> None:
        self.said: dict[str, set[tuple[str, str]]] = {}

    async def require(self, bus: str) -> None: ...

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        for entry in entries:
            metadata = orjson.loads(entry.detail)["metadata"]
            said = (metadata["type"], metadata["id"])
            self.said.setdefault(metadata["causation_id"], set()).add(said)
        return []


@dataclass(frozen=True)
class Result:
    """What became of a batch."""

    outcomes: Sequence[Outcome]
    left: Mapping[str, int]
    said: Mapping[str, set[tuple[str, str]]]
    meddled: Sequence[Meddling]


async def run(
    wishes: Sequence[Wish],
    stock: Mapping[str, int],
    meddlings: Sequence[Meddling],
    *,
    together: bool,
) -> Result:
    service = a_store(together=together)
    cloud = memory_ports()
    cloud.provision(topology(service))
    async with running(service, cloud.ports) as pipeline:
        for shelf, there in stock.items():
            tx = Transaction(_NoReads(), table="store", idempotency_key="")
            tx.put(Shelf(shelf=shelf, left=there))
            await pipeline.ports.store.transact(tx.close().actions, token=f"stock {shelf}")
    store, heard = Meddled(cloud, meddlings), Heard()
    ports: Ports = replace(cloud.ports, store=store, bus=heard)
    async with running(service, ports) as pipeline:
        deliveries = [
            replace(delivery_of(wish.asked, "store", id=wish.id), message_id=str(number))
            for number, wish in enumerate(wishes)
        ]
        outcomes = await asyncio.gather(*map(pipeline.consume, deliveries))
    items = await cloud.store.get([ItemKey("store", f"shelf#{s}", "-") for s in SHELVES])
    left = {
        shelf: int((item or {})["left"]["N"]) for shelf, item in zip(SHELVES, items, strict=True)
    }
    return Result(outcomes, left, heard.said, store.done)


class _NoReads:
    async def item(self, key: ItemKey) -> None:
        raise AssertionError("nothing is read")

    async def partition(self, partition: Any) -> list[Any]:
        raise AssertionError("nothing is read")


# --- the model -------------------------------------------------------------------------


def answer(wish: Wish, left: Mapping[str, int]) -> tuple[type[Outcome], str | None]:
    """What one delivery by itself would come to: its outcome, and what is said."""
    if wish.asked.fate == "fails":
        return Retry, None
    if wish.asked.fate == "poison":
        return DeadLetter, None
    has_all = all(left[shelf] >= n for shelf, n in wish.asked.pieces.items())
    return Ack, "MillGiven" if has_all else "MillDenied"


def in_some_order(
    todo: Sequence[Wish | Meddling], left: Mapping[str, int], result: Result
) -> Iterator[Mapping[str, int]]:
    """What could be left after all of it, one after the other, if each says what it did say."""
    if not todo:
        yield left
    for index, each in enumerate(todo):
        rest = [*todo[:index], *todo[index + 1 :]]
        if isinstance(each, Meddling):
            yield from in_some_order(rest, _less(left, {each.shelf: each.pieces}), result)
            continue
        _, says = answer(each, left)
        said = {type for type, _ in result.said.get(each.id, ())}
        if said == ({says} if says else set()):
            taken = each.asked.pieces if says == "MillGiven" else {}
            yield from in_some_order(rest, _less(left, taken), result)


def _less(left: Mapping[str, int], taken: Mapping[str, int]) -> dict[str, int]:
    return {shelf: n - taken.get(shelf, 0) for shelf, n in left.items()}


@pytest.mark.parametrize("together", [True, False], ids=["in groups", "each by itself"])
@given(wishes=wishes, stock=stock, meddlings=meddlings)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_batch_comes_to_what_its_deliveries_come_to_one_after_the_other(
    together: bool, wishes: list[Wish], stock: dict[str, int], meddlings: list[Meddling]
) -> None:
    result = asyncio.run(run(wishes, stock, meddlings, together=together))
    for wish, outcome in zip(wishes, result.outcomes, strict=True):
        expected, _ = answer(wish, stock)
        assert isinstance(outcome, expected), (wish, outcome)
    # Deliveries of one event are one effect, and what it says has one id.
    assert all(len(said) == 1 for said in result.said.values())
    distinct = list({wish.id: wish for wish in wishes}.values())
    possible = in_some_order([*distinct, *result.meddled], stock, result)
    assert any(left == result.left for left in possible), result
