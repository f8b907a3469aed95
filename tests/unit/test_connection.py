"""Work that no message started is written and published together, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from headrace import Command, Entity, Event, Service
from headrace.connection import Connection, KeyedTransaction, connect
from headrace.errors import (
    AlreadyDone,
    CancellationReason,
    CloudError,
    ConditionNotMet,
    ConfigurationError,
    Conflict,
    DefinitionError,
    KeyReused,
    NoTable,
    NotProvisioned,
    TooLarge,
    TransactionCanceled,
    Unreachable,
)
from headrace.observe.tally import Tally
from headrace.ports import EntryFailure, Item
from headrace.relay import GRACE, Relay
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.topology.derive import topology
from headrace.topology.model import Queue, Rule, Topology


class SeatTaken(Event, source="theatre.box-office"):
    seat: str
    note: str = ""


class PrintTicket(Command, owner="printer"):
    seat: str


class SeatFreed(Event, source="theatre.box-office"):
    seat: str


class Seat(Entity, pk="seat#{row}", sk="seat#{number}"):
    row: str
    number: int
    taken: int = 0


theatre = Service("theatre", bus="town", emits=[SeatTaken, PrintTicket])
A_DAY = timedelta(days=1)


@dataclass
class World:
    """The theatre on an account in memory, and what a test asks of both."""

    cloud: MemoryCloud[ManualClock]

    @asynccontextmanager
    async def connected(self, **ports: Any) -> AsyncIterator[Connection]:
        async with connect(theatre, replace(self.cloud.ports, **ports)) as connection:
            yield connection

    def items(self, kind: str) -> list[Item]:
        items = self.cloud.store.items("theatre")
        return [item for item in items if item["pk"]["S"].startswith(f"{kind}#")]

    def record(self) -> Item:
        (record,) = self.items("inbox")
        return record

    def heard(self, queue: str = "heard") -> list[dict[str, Any]]:
        """The metadata of everything that came to a queue."""
        bodies = [json.loads(entry.body) for entry in self.cloud.queues.peek(queue)]
        return [body["detail"]["metadata"] for body in bodies]

    async def relay(self) -> int:
        """A sweep, when everything that stands there is old enough."""
        self.cloud.clock.advance(GRACE + timedelta(seconds=1))
        return await Relay(theatre, self.cloud.ports).sweep()


@pytest.fixture
def world() -> World:
    cloud = memory_ports()
    cloud.provision(topology(theatre))
    queues = tuple(Queue(name, A_DAY, A_DAY) for name in ("heard", "printer"))
    everything = Rule("everything", "town", {"source": [{"exists": True}]}, "heard")
    cloud.provision(Topology(rules=(everything,), queues=queues))
    return World(cloud)


async def take(
    connection: Connection,
    number: int = 1,
    *,
    key: str | None = "k1",
    content: str | None = None,
    meanwhile: Callable[[], Awaitable[object]] | None = None,
) -> Any:
    """Take a seat that must be free, and say so."""
    async with connection.transaction(key=key, content=content) as tx:
        seat = await tx.get(Seat, "A", number)
        assert seat is None or seat.taken == 0, "the seat is taken"
        if meanwhile is not None:
            await meanwhile()
        tx.put(Seat(row="A", number=number, taken=1))
        tx.publish(SeatTaken(seat=f"A{number}"))
        tx.answer = {"seat": f"A{number}"}


async def run(
    connection: Connection,
    block: Callable[[KeyedTransaction], Awaitable[object]],
    *,
    key: str | None = "k1",
) -> None:
    async with connection.transaction(key=key) as tx:
        await block(tx)


class Faulty:
    """A port whose next calls of one method fail, before or after their effect."""

    def __init__(
        self, port: Any, method: str, error: CloudError, *, after: bool = False, times: int = 1
    ) -> None:
        self._port = port
        self._method = method
        self._error = error
        self._after = after
        self._left = times

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            failing = name == self._method and self._left > 0
            self._left -= failing
            if failing and not self._after:
                raise self._error
            answer = await method(*args, **kwargs)
            if failing:
                raise self._error
            return answer

        return call


LOST = Unreachable("No answer came.")
CONTENTION = TransactionCanceled([None, CancellationReason("TransactionConflict")])


class Closed:
    """A bus or queues that take nothing."""

    def __init__(self, port: Any, method: str) -> None:
        self._port = port
        self._method = method

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name == self._method else getattr(self._port, name)

    async def _refuse(self, name: str, entries: Sequence[Any]) -> list[EntryFailure]:
        return [EntryFailure(i, "Closed", "no", retryable=False) for i in range(len(entries))]


# --- what happens ------------------------------------------------------------------------


async def test_what_is_put_and_published_happens_at_the_end_of_the_block(world: World) -> None:
    async with world.connected() as connection:
        async with connection.transaction(key="k1") as tx:
            tx.put(Seat(row="A", number=1, taken=1))
            tx.publish(SeatTaken(seat="A1"), PrintTicket(seat="A1"))
            assert (world.items("seat"), world.heard()) == ([], [])
        assert await connection.get(Seat, "A", 1) == Seat(row="A", number=1, taken=1)
    (taken,), (ticket,) = world.heard(), world.heard("printer")
    assert (taken["type"], ticket["type"]) == ("SeatTaken", "PrintTicket")
    assert taken["correlation_id"] == ticket["correlation_id"] == taken["id"]
    assert taken["id"] != ticket["id"]
    assert "causation_id" not in taken


async def test_what_was_sent_is_noted_when_the_connection_closes_or_is_flushed(
    world: World,
) -> None:
    async with world.connected() as connection:
        await take(connection)
        assert world.record()["status"] == {"S": "pending"}
        await connection.flush()
        assert world.record()["status"] == {"S": "done"}
        async with connection.transaction() as tx:
            tx.publish(SeatTaken(seat="A2"))
    assert {record["status"]["S"] for record in world.items("inbox")} == {"done"}


async def test_entities_are_read_as_they_are_now(world: World) -> None:
    async with world.connected() as connection:
        for number in (2, 1):
            await take(connection, number, key=f"k{number}")
        first, none = await connection.get_many(Seat, [("A", 1), ("A", 3)])
        row = await connection.query(Seat, "A")
    assert (first, none) == (Seat(row="A", number=1, taken=1), None)
    assert [seat.number for seat in row] == [1, 2]


async def test_an_observer_sees_what_is_sent(world: World) -> None:
    tally = Tally()
    async with connect(theatre, world.cloud.ports, tally) as connection:
        await take(connection)
    assert tally.services["theatre"].published == 1


# --- once --------------------------------------------------------------------------------


async def test_a_key_that_comes_again_gets_the_answer_of_the_first(world: World) -> None:
    async with world.connected() as connection:
        await take(connection)
        with pytest.raises(AlreadyDone) as known:
            await take(connection, 2)
    async with world.connected() as another:
        with pytest.raises(AlreadyDone) as found:
            await take(another, 2)
    assert known.value.answer == found.value.answer == {"seat": "A1"}
    assert len(world.heard()) == len(world.items("seat")) == 1


async def test_a_block_without_effects_is_done_once_as_well(world: World) -> None:
    async with world.connected() as connection:
        async with connection.transaction(key="k1") as tx:
            tx.answer = ["nothing", "to", "do"]
        with pytest.raises(AlreadyDone) as known:
            await take(connection)
    assert known.value.answer == ["nothing", "to", "do"]
    assert world.items("seat") == []


async def test_an_empty_key_is_a_key(world: World) -> None:
    async with world.connected() as connection:
        await take(connection, key="")
        with pytest.raises(AlreadyDone):
            await take(connection, 2, key="")


async def test_without_an_answer_the_second_gets_none(world: World) -> None:
    async with world.connected() as connection:
        async with connection.transaction(key="k1") as tx:
            tx.publish(SeatTaken(seat="A1"))
        with pytest.raises(AlreadyDone) as known:
            await take(connection)
    assert known.value.answer is None


async def test_a_key_with_other_content_is_refused(world: World) -> None:
    async with world.connected() as connection:
        await take(connection, content="A1")
        with pytest.raises(KeyReused, match="Take a new key"):
            await take(connection, 2, content="A2")
        with pytest.raises(AlreadyDone):
            await take(connection, content="A1")
        with pytest.raises(AlreadyDone):
            await take(connection, content=None)
    assert len(world.items("seat")) == 1


async def test_a_key_of_which_no_content_is_known_is_not_refused(world: World) -> None:
    async with world.connected() as connection:
        await take(connection, content=None)
        with pytest.raises(AlreadyDone):
            await take(connection, content="A1")


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("content", ["A1", "A2"], ids=["same content", "other content"])
async def test_of_two_with_one_key_at_once_one_commits_and_the_other_hears_of_it(
    world: World, processes: int, content: str
) -> None:
    both = asyncio.Barrier(2)
    async with world.connected() as one, world.connected() as another:
        answers = await asyncio.gather(
            take(one, 1, content="A1", meanwhile=both.wait),
            take([one, another][processes - 1], 2, content=content, meanwhile=both.wait),
            return_exceptions=True,
        )
    (error,) = [answer for answer in answers if answer is not None]
    assert isinstance(error, AlreadyDone if content == "A1" else KeyReused)
    assert len(world.items("seat")) == len(world.heard()) == 1


async def test_a_key_is_forgotten_when_no_message_could_come_again_and_then_is_a_new_one(
    world: World,
) -> None:
    async with world.connected() as connection:
        await take(connection)
        await connection.flush()
        world.cloud.clock.advance(theatre.redelivery_horizon + timedelta(seconds=1))
        await take(connection, 2)
    # Who remembers for longer must not take it for what was published under the key before.
    first, second = world.heard()
    assert first["id"] != second["id"]


# --- what fails --------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k1", None])
async def test_a_block_that_raises_writes_and_sends_nothing(world: World, key: str | None) -> None:
    async def block(tx: KeyedTransaction) -> None:
        tx.put(Seat(row="A", number=1))
        tx.publish(SeatTaken(seat="A1"))
        raise LookupError("no such row")

    async with world.connected() as connection:
        with pytest.raises(LookupError, match="no such row"):
            await run(connection, block, key=key)
        assert world.cloud.store.items("theatre") == []
        await take(connection)


@pytest.mark.parametrize("key", ["k1", ""])
async def test_a_block_that_trips_over_what_another_with_its_key_did_is_told_so(
    world: World, key: str
) -> None:
    async def block(tx: KeyedTransaction) -> None:
        await take(connection, key=key)
        assert await tx.get(Seat, "A", 1) is None, "the seat is taken"

    async with world.connected() as connection:
        with pytest.raises(AlreadyDone) as known:
            await run(connection, block, key=key)
    assert known.value.answer == {"seat": "A1"}
    assert isinstance(known.value.__cause__, AssertionError)


async def test_a_cancelled_block_writes_nothing(world: World) -> None:
    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    begun = asyncio.Event()
    async with world.connected() as connection:
        taking = asyncio.create_task(take(connection, meanwhile=forever))
        await begun.wait()
        taking.cancel()
        await asyncio.wait([taking])
        assert taking.cancelled()
        await take(connection)
    assert len(world.items("seat")) == 1


async def test_a_message_that_is_not_declared_is_refused_and_nothing_written(world: World) -> None:
    async def block(tx: KeyedTransaction) -> None:
        tx.put(Seat(row="A", number=1))
        tx.publish(SeatFreed(seat="A1"))

    async with world.connected() as connection:
        with pytest.raises(DefinitionError, match=r"write emits=\[SeatFreed\]"):
            await run(connection, block)
    assert world.cloud.store.items("theatre") == []


async def test_a_message_that_the_bus_would_refuse_is_refused_before_the_commit(
    world: World,
) -> None:
    async def block(tx: KeyedTransaction) -> None:
        tx.put(Seat(row="A", number=1))
        tx.publish(SeatTaken(seat="A1", note="x" * 1_000_000))

    async with world.connected() as connection:
        with pytest.raises(TooLarge, match="EventBridge takes"):
            await run(connection, block)
    assert world.cloud.store.items("theatre") == []


async def test_an_answer_that_is_not_json_is_refused_and_nothing_written(world: World) -> None:
    async def block(tx: KeyedTransaction) -> None:
        tx.put(Seat(row="A", number=1))
        tx.answer = object()

    async with world.connected() as connection:
        with pytest.raises(TypeError):
            await run(connection, block)
    assert world.cloud.store.items("theatre") == []


@pytest.mark.parametrize("key", ["k2", None])
async def test_a_condition_that_does_not_hold_is_told_with_the_item_that_stood_there(
    world: World, key: str | None
) -> None:
    async def block(tx: KeyedTransaction) -> None:
        condition, values = "#taken = :none", {"more": 1, "none": 0}
        tx.update(Seat, "A", 1, change="ADD #taken :more", condition=condition, values=values)
        tx.publish(SeatTaken(seat="A1"))

    async with world.connected() as connection:
        await take(connection)
        with pytest.raises(ConditionNotMet) as refused:
            await run(connection, block, key=key)
        assert await connection.get(Seat, "A", 1) == Seat(row="A", number=1, taken=1)
    assert refused.value.item is not None
    assert refused.value.item["taken"] == {"N": "1"}
    assert len(world.heard()) == 1


@pytest.mark.parametrize("key", ["k2", None])
async def test_an_entity_that_changed_since_it_was_read_is_a_conflict(
    world: World, key: str | None
) -> None:
    async with world.connected() as connection, world.connected() as another:

        async def somebody_else() -> None:
            await take(another)

        with pytest.raises(Conflict, match="exists already"):
            await take(connection, key=key, meanwhile=somebody_else)
        await take(connection, 2, key=key)
    assert len(world.items("seat")) == len(world.heard()) == 2


async def test_contention_is_a_conflict_too_and_the_key_is_not_spent(world: World) -> None:
    store = Faulty(world.cloud.store, "transact", CONTENTION)
    async with world.connected(store=store) as connection:
        with pytest.raises(Conflict):
            await take(connection)
        await take(connection)
    assert len(world.heard()) == 1


# --- what is not known -------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k1", None])
async def test_a_commit_whose_answer_was_lost_is_no_failure(world: World, key: str | None) -> None:
    store = Faulty(world.cloud.store, "transact", LOST, after=True)
    async with world.connected(store=store) as connection:
        await take(connection, key=key)
    assert len(world.heard()) == 1
    assert world.record()["status"] == {"S": "done"}


async def test_a_commit_that_was_lost_may_be_tried_again(world: World) -> None:
    store = Faulty(world.cloud.store, "transact", LOST)
    async with world.connected(store=store) as connection:
        with pytest.raises(Unreachable):
            await take(connection)
        await take(connection)
    assert len(world.heard()) == 1


async def test_a_commit_that_was_lost_while_another_with_its_key_stood_is_told_so(
    world: World,
) -> None:
    async with world.connected() as another:

        class Overtaken:
            async def transact(self, *args: Any, **kwargs: Any) -> None:
                await take(another)
                raise LOST

            def __getattr__(self, name: str) -> Any:
                return getattr(world.cloud.store, name)

        async with world.connected(store=Overtaken()) as connection:
            with pytest.raises(AlreadyDone) as known:
                await take(connection, 2)
    assert known.value.answer == {"seat": "A1"}
    assert len(world.items("seat")) == len(world.heard()) == 1


async def test_whether_a_commit_stands_that_cannot_be_looked_up_is_told_by_its_key(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    lost = Faulty(world.cloud.store, "transact", LOST, after=True)
    blind = AfterACommit(lost, Faulty(world.cloud.store, "get", Unreachable("Nor this.")))
    async with world.connected(store=blind) as connection:
        with pytest.raises(Unreachable, match=r"No answer came\."):
            await take(connection)
        with pytest.raises(AlreadyDone) as known:
            await take(connection)
    assert known.value.answer == {"seat": "A1"}
    assert "Whether k1 stands could not be seen: Nor this." in caplog.text
    assert await world.relay() == 1
    assert len(world.heard()) == 1


class AfterACommit:
    """One store, and another in its place from the first commit on."""

    def __init__(self, first: Any, then: Any) -> None:
        self._first = first
        self._then = then
        self._committed = False

    def __getattr__(self, name: str) -> Any:
        if self._committed:
            return getattr(self._then, name)
        self._committed = name == "transact"
        return getattr(self._first, name)


async def test_a_key_that_cannot_be_looked_up_begins_nothing(world: World) -> None:
    async with world.connected(store=Faulty(world.cloud.store, "get", LOST)) as connection:
        with pytest.raises(Unreachable):
            await take(connection)
        assert world.cloud.store.items("theatre") == []
        await take(connection)


async def test_writes_of_nobody_whose_answer_was_lost_are_told_as_such(world: World) -> None:
    store = Faulty(world.cloud.store, "transact", LOST, after=True)
    async with world.connected(store=store) as connection:
        with pytest.raises(Unreachable):
            async with connection.transaction() as tx:
                tx.put(Seat(row="A", number=1))
    assert len(world.items("seat")) == 1


# --- what cannot be sent -----------------------------------------------------------------


@pytest.mark.parametrize("key", ["k1", None])
async def test_what_cannot_be_sent_is_no_error_and_left_to_the_relay(
    world: World, key: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.connected(bus=Closed(world.cloud.bus, "put")) as connection:
        await take(connection, key=key)
    assert "is left to the relay" in caplog.text
    (outgoing,) = world.record()["outgoing"]["L"]
    assert await world.relay() == 1
    (heard,) = world.heard()
    assert heard["id"] == outgoing["M"]["id"]["S"]
    assert await world.relay() == 0
    assert len(world.heard()) == 1


async def test_what_is_out_in_part_is_left_to_the_relay_as_a_whole(world: World) -> None:
    async with (
        world.connected(queues=Closed(world.cloud.queues, "send")) as connection,
        connection.transaction() as tx,
    ):
        tx.publish(SeatTaken(seat="A1"), PrintTicket(seat="A1"))
    assert (len(world.heard()), len(world.heard("printer"))) == (1, 0)
    assert await world.relay() == 1
    assert len(world.heard("printer")) == 1
    assert len({metadata["id"] for metadata in world.heard()}) == 1


async def test_a_record_expires_when_everything_is_out_and_not_before(world: World) -> None:
    async with world.connected(bus=Closed(world.cloud.bus, "put")) as connection:
        await take(connection)
    pending = world.record()
    assert (pending["status"], pending.get("expires_at")) == ({"S": "pending"}, None)
    world.cloud.clock.advance(2 * theatre.redelivery_horizon)
    async with world.connected() as connection:
        with pytest.raises(AlreadyDone) as known:
            await take(connection, 2)
    assert known.value.answer == {"seat": "A1"}
    assert await world.relay() == 1
    done = world.record()
    horizon = world.cloud.clock.now() + theatre.redelivery_horizon
    assert done["expires_at"] == {"N": str(int(horizon.timestamp()))}
    assert "outgoing" not in done
    async with world.connected() as connection:
        with pytest.raises(AlreadyDone) as known:
            await take(connection, 2)
    assert known.value.answer == {"seat": "A1"}


# --- without a key -----------------------------------------------------------------------


async def test_without_a_key_it_happens_as_often_as_it_is_begun(world: World) -> None:
    async with world.connected() as connection:
        for number in (1, 2):
            await take(connection, number, key=None)
    assert len(world.heard()) == len(world.items("seat")) == 2


async def test_without_a_key_and_messages_nothing_is_left_but_what_was_written(
    world: World,
) -> None:
    async with world.connected() as connection:
        async with connection.transaction() as tx:
            tx.put(Seat(row="A", number=1))
            tx.answer = "of use to nobody"
        calls = dict(world.cloud.store.calls)
        async with connection.transaction() as tx:
            tx.answer = "of use to nobody"
        assert dict(world.cloud.store.calls) == calls
    assert [item["pk"]["S"] for item in world.cloud.store.items("theatre")] == ["seat#A"]


async def test_without_a_key_an_answer_is_not_kept(world: World) -> None:
    async with world.connected() as connection:
        await take(connection, key=None)
    assert "answer" not in world.record()


# --- connecting --------------------------------------------------------------------------


async def test_a_service_without_a_table_has_nothing_to_connect_to() -> None:
    with pytest.raises(NoTable, match="nothing to connect to"):
        async with connect(Service("street", table=None), memory_ports().ports):
            raise AssertionError("it was connected")


async def test_a_service_that_publishes_to_no_bus_is_not_connected() -> None:
    with pytest.raises(NotProvisioned):
        async with connect(theatre, memory_ports().ports):
            raise AssertionError("it was connected")


async def test_without_ports_the_environment_says_which_aws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "there-is-none")
    with pytest.raises(ConfigurationError, match="set AWS_REGION"):
        async with connect(theatre):
            raise AssertionError("it was connected")
