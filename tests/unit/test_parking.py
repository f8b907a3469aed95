"""What stands behind a message that was given up waits in the table, and comes in order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace import (
    Ack,
    DeadLetter,
    Delivery,
    Entity,
    Event,
    Metadata,
    Outcome,
    PoisonMessage,
    RetryLater,
    Service,
    Transaction,
)
from headrace.dead_letter import NOTE_ATTRIBUTE, Note, note
from headrace.dlq.moving import move_all
from headrace.dlq.redrive import Plan, redriving
from headrace.errors import DefinitionError, Throttled, Unreachable
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import Worker
from headrace.parking import Block
from headrace.pipeline import running
from headrace.ports import Attribute, Delete, Ports, Put, QueueEntry
from headrace.testing import delivery_of
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.testing.memory.moves import MemoryMoves
from headrace.topology.derive import topology
from headrace.yard import Replayed, Yard
from tests.crash.skipping import START, LoopClock
from tests.unit.timeless import timeless

GROUPS = 50
EACH = 20
POISONED = 10

COLOUR = {"colour": Attribute("red")}
CROWD = {f"plate-{number}": Attribute("x") for number in range(10)}


class WagonCame(Event, source="shunting.yard"):
    track: str
    number: int
    load: str = ""


class Track(Entity, pk="track#{name}"):
    """What was handled on it, in its order, as it was committed."""

    name: str
    numbers: tuple[int, ...] = ()


@dataclass
class Station:
    """A service with one FIFO queue, and the wagons that it cannot handle for now."""

    broken: set[tuple[str, int]] = field(default_factory=set)
    late: set[tuple[str, int]] = field(default_factory=set)
    runs: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.service = Service("station")

        @self.service.on(WagonCame, queue="track.fifo", park=True)
        async def shunt(event: WagonCame, tx: Transaction, meta: Metadata, at: Delivery) -> None:
            self.runs.append((event.track, event.number))
            if (event.track, event.number) in self.broken:
                raise PoisonMessage(f"Wagon {event.number} has no wheels.")
            if (event.track, event.number) in self.late:
                raise RetryLater(delay=timedelta(seconds=1))
            track = await tx.get(Track, event.track) or Track(name=event.track)
            tx.put(track.model_copy(update={"numbers": (*track.numbers, event.number)}))

        self.cloud: MemoryCloud[Any] = memory_ports(clock=LoopClock())
        self.cloud.provision(topology(self.service))
        self.yard = Yard(
            self.cloud.store, self.cloud.queues, self.cloud.ports.randomness, "station"
        )

    @property
    def queue(self) -> str:
        return self.service.queues[0]

    @property
    def letters(self) -> list[QueueEntry]:
        return self.cloud.queues.peek("station-track-dlq.fifo")

    async def come(
        self,
        track: str,
        *numbers: int,
        load: str = "",
        attributes: Mapping[str, Attribute] = COLOUR,
    ) -> None:
        for number in numbers:
            event = WagonCame(track=track, number=number, load=load)
            body = delivery_of(event, self.queue, id=f"{track}-{number}").body
            entry = QueueEntry(body, group_id=track, attributes=attributes)
            await self.cloud.queues.send(self.queue, [entry])

    async def work(self, ports: Ports | None = None) -> None:
        """Run a worker until the queue is empty."""
        async with self.working(ports):
            await self.emptied()

    async def emptied(self) -> None:
        async with asyncio.timeout(3600):
            while not self.cloud.queues.is_empty(self.queue):
                changed = asyncio.Event()
                unwatch = self.cloud.queues.watch(self.queue, changed.set)
                await changed.wait()
                unwatch()

    @asynccontextmanager
    async def working(self, ports: Ports | None = None) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with running(self.service, ports or self.cloud.ports) as pipeline:
            settings = WorkerSettings(concurrency=10, prefetch=40)
            worker = asyncio.create_task(Worker([pipeline], settings=settings).run(stop))
            try:
                yield
            finally:
                stop.set()
                await worker

    async def numbers(self, *tracks: str) -> dict[str, list[int]]:
        """What was handled on each, in the order in which it was committed."""
        found = {
            item["name"]["S"]: [int(n["N"]) for n in item["numbers"]["L"]]
            for item in self.cloud.store.items("station")
            if "numbers" in item
        }
        return {track: found.get(track, []) for track in tracks}

    async def redrive(self, track: str) -> None:
        """Send the first dead letter of a group back as it is, with its note."""
        dlq = "station-track-dlq.fifo"
        (letter,) = await self.cloud.queues.receive(dlq, limit=1, wait=timedelta(0))
        assert letter.group_id == track
        entry = QueueEntry(
            letter.body,
            group_id=letter.group_id,
            deduplication_id=f"again-{letter.message_id}",
            attributes=letter.attributes,
        )
        await self.cloud.queues.send(self.queue, [entry])
        await self.cloud.queues.delete(dlq, [letter.receipt_handle])

    async def replay(self, track: str) -> None:
        """Until the group is free, with a worker."""
        async with self.working():
            replayed = await self.yard.replay(await self.block(track), self.queue)
        assert replayed is Replayed.FREE

    async def send_again(self, track: str) -> None:
        """What is parked, while no worker runs."""
        block = await self.block(track)
        replayed = await self.yard.replay(block, self.queue, patience=timedelta(0))
        assert replayed is Replayed.GOING_ON

    def dying(self, method: str) -> Yard:
        """A yard whose process ends within its first replay: at the second `send`, or between the
        first and its `transact`."""
        queues: Any = self.cloud.queues
        store: Any = self.cloud.store
        if method == "send":
            queues = _Failing(queues, method, after=1, error=Died)
        else:
            store = _Failing(store, method, error=Died)
        return Yard(store, queues, self.cloud.ports.randomness, "station")

    async def block(self, track: str) -> Block:
        block = await self.yard.block("station.shunt", track)
        assert block is not None
        return block

    async def received(self, track: str, receive_count: int = 1) -> Delivery:
        """The next message of a group, as if it came for the so-manieth time."""
        (delivery,) = await self.cloud.queues.receive(self.queue, limit=1, wait=timedelta(0))
        assert delivery.group_id == track
        return replace(delivery, receive_count=receive_count)

    async def give_up_the_second_unparked(self) -> tuple[Delivery, Outcome]:
        """Of three in group a, whose first is broken: the second cannot be parked, and is given up
        as SQS would move it next."""
        await self.come("a", 1)
        await self.work()
        await self.come("a", 2, 3)
        store: Any = _Failing(self.cloud.store, "transact", error=Throttled)
        async with running(self.service, replace(self.cloud.ports, store=store)) as pipeline:
            second = await self.received("a", receive_count=10)
            return second, await pipeline.consume(second)

    async def write_letter(self, delivery: Delivery, outcome: Outcome) -> None:
        """What a host does with a message that was given up."""
        assert isinstance(outcome, DeadLetter)
        noted = {NOTE_ATTRIBUTE: note(delivery, outcome, self.cloud.clock.now())}
        letter = QueueEntry(
            delivery.body, group_id=delivery.group_id, deduplication_id="letter", attributes=noted
        )
        await self.cloud.queues.send("station-track-dlq.fifo", [letter])
        await self.cloud.queues.delete(self.queue, [delivery.receipt_handle])

    async def parked(self, track: str) -> list[str]:
        return [p.message_id for p in await self.yard.parked(await self.block(track))]


@timeless
async def test_those_behind_a_message_that_was_given_up_wait_in_their_order() -> None:
    station = Station(broken={("a", 2)})
    await station.come("a", 1, 2, 3, 4)
    await station.come("b", 1, 2)
    await station.work()
    assert await station.numbers("a", "b") == {"a": [1], "b": [1, 2]}
    assert len(station.letters) == 1
    assert (await station.block("a")).waiting == 2
    assert len(await station.parked("a")) == 2
    assert await station.yard.block("station.shunt", "b") is None


@timeless
async def test_what_comes_later_waits_too() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1)
    await station.work()
    await station.come("a", 2, 3)
    await station.work()
    assert await station.numbers("a") == {"a": []}
    assert (await station.block("a")).waiting == 2


@timeless
async def test_a_redriven_head_is_handled_and_the_others_when_they_are_replayed() -> None:
    station = Station(broken={("a", 2)})
    await station.come("a", 1, 2, 3, 4)
    await station.work()
    station.broken.clear()
    await station.redrive("a")
    await station.work()
    assert await station.numbers("a") == {"a": [1, 2]}
    await station.replay("a")
    await station.come("a", 5)
    await station.work()
    assert await station.numbers("a") == {"a": [1, 2, 3, 4, 5]}
    assert await station.yard.blocks("station.shunt") == []


@timeless
async def test_the_others_of_fifty_groups_finish_and_every_group_keeps_its_order() -> None:
    tracks = [f"track-{n}" for n in range(GROUPS)]
    station = Station(broken={(track, 3 + n) for n, track in enumerate(tracks[:POISONED])})
    for number in range(EACH):
        for track in tracks:
            await station.come(track, number)
    await station.work()
    everything = list(range(EACH))
    for n, track in enumerate(tracks):
        expected = everything[: 3 + n] if n < POISONED else everything
        assert await station.numbers(track) == {track: expected}
    assert [b.group for b in await station.yard.blocks("station.shunt")] == tracks[:POISONED]
    assert len(station.letters) == POISONED

    station.broken.clear()
    async with station.working():
        plan = Plan(station.queue, "after-the-repair")
        async with redriving(station.service, station.cloud.ports, plan) as redrive:
            report = await redrive.run()
        await station.emptied()
    assert (len(report.done), report.succeeded) == (POISONED, True)
    assert station.letters == []
    assert await station.numbers(*tracks) == dict.fromkeys(tracks, everything)
    assert await station.yard.blocks("station.shunt") == []


@timeless
async def test_when_one_that_is_replayed_is_given_up_those_behind_it_wait_for_it() -> None:
    station = Station(broken={("a", 1), ("a", 3)})
    await station.come("a", 1, 2, 3, 4, 5)
    await station.work()
    station.broken = {("a", 3)}
    await station.redrive("a")
    await station.work()
    # All are in the queue before the worker comes to the third.
    await station.send_again("a")
    await station.work()
    assert await station.numbers("a") == {"a": [1, 2]}
    assert (await station.block("a")).waiting == 2
    station.broken.clear()
    await station.redrive("a")
    await station.work()
    await station.replay("a")
    await station.work()
    assert await station.numbers("a") == {"a": [1, 2, 3, 4, 5]}


@timeless
async def test_a_replay_stops_when_its_group_is_blocked_anew() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1, 2, 3)
    await station.work()
    before = await station.block("a")
    station.broken = {("a", 2)}
    await station.redrive("a")
    await station.work()
    with pytest.raises(Died):
        await station.dying("send").replay(before, station.queue)
    await station.work()
    assert await station.yard.replay(before, station.queue) is Replayed.BLOCKED
    await station.work()
    assert await station.numbers("a") == {"a": [1]}
    assert len(await station.parked("a")) == 1
    station.broken.clear()
    await station.redrive("a")
    await station.work()
    await station.replay("a")
    await station.work()
    assert await station.numbers("a") == {"a": [1, 2, 3]}


@timeless
async def test_a_head_that_comes_again_as_its_letter_was_not_written_is_given_up_again() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1, 2)
    (first,) = await station.cloud.queues.receive(
        station.queue, limit=1, wait=timedelta(0), visibility=timedelta(seconds=5)
    )
    async with running(station.service, station.cloud.ports) as pipeline:
        await pipeline.consume(first)
    before = await station.block("a")
    station.broken.clear()
    await station.work()
    assert station.runs == [("a", 1)]
    assert await station.block("a") == replace(before, waiting=1)
    (letter,) = station.letters
    assert "Wagon 1 has no wheels." in str(letter.attributes[NOTE_ATTRIBUTE].value)


@timeless
async def test_a_message_that_was_done_before_the_head_is_not_parked_when_it_comes_again() -> None:
    station = Station(broken={("a", 2)})
    await station.come("a", 1, 2)
    (first,) = await station.cloud.queues.receive(station.queue, limit=1, wait=timedelta(0))
    async with running(station.service, station.cloud.ports) as pipeline:
        await pipeline.consume(first)
        await station.cloud.queues.delete(station.queue, [first.receipt_handle])
        await station.work()
        again = await pipeline.consume(first)
    assert getattr(again, "duplicate", False)
    assert (await station.block("a")).waiting == 0


@timeless
async def test_a_message_that_is_parked_already_is_parked_once() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1)
    await station.work()
    await station.come("a", 2)
    (second,) = await station.cloud.queues.receive(station.queue, limit=1, wait=timedelta(0))
    async with running(station.service, station.cloud.ports) as pipeline:
        for _ in range(3):
            outcome = await pipeline.consume(second)
            assert getattr(outcome, "parked", False)
    assert (await station.block("a")).waiting == 1
    assert len(await station.parked("a")) == 1


@timeless
async def test_a_group_is_blocked_before_its_letter_is_written_or_not_given_up_at_all() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1, 2)
    store: Any = _Failing(station.cloud.store, "change", times=2)
    await station.work(replace(station.cloud.ports, store=store))
    assert store.failed == 2
    assert await station.numbers("a") == {"a": []}
    assert len(station.letters) == 1
    assert (await station.block("a")).waiting == 1


@timeless
async def test_a_large_message_is_parked_in_pieces_and_comes_whole() -> None:
    station = Station(broken={("a", 1)})
    load = "x" * 1_000_000
    await station.come("a", 1)
    await station.come("a", 2, load=load)
    await station.work()
    (parked,) = await station.yard.parked(await station.block("a"))
    assert len(parked.keys) == 4
    assert load in parked.entry.body
    assert parked.entry.attributes == {"colour": Attribute("red")}
    station.broken.clear()
    await station.redrive("a")
    await station.work()
    await station.send_again("a")
    (entry,) = station.cloud.queues.peek(station.queue)
    assert entry.body == parked.entry.body
    assert set(entry.attributes) == {"colour", NOTE_ATTRIBUTE}
    await station.replay("a")
    assert await station.numbers("a") == {"a": [1, 2]}


@timeless
async def test_a_replay_that_died_after_a_send_is_begun_again_without_a_second_effect() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1, 2, 3)
    await station.work()
    station.broken.clear()
    await station.redrive("a")
    await station.work()
    block = await station.block("a")
    with pytest.raises(Died):
        await station.dying("transact").replay(block, station.queue)
    await station.work()
    await asyncio.sleep(600)  # longer than SQS remembers a deduplication id
    await station.replay("a")
    assert await station.numbers("a") == {"a": [1, 2, 3]}


@timeless
async def test_what_is_ahead_of_a_replayed_message_in_the_queue_is_handled_after_it() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1, 2, 3)
    await station.work()
    station.broken.clear()
    await station.redrive("a")
    await station.work()
    await station.come("a", 4)
    await station.send_again("a")
    await station.come("a", 5)
    await station.work()
    assert await station.numbers("a") == {"a": [1, 2, 3]}
    await station.replay("a")
    await station.work()
    assert await station.numbers("a") == {"a": [1, 2, 3, 4, 5]}
    assert await station.yard.blocks("station.shunt") == []


@timeless
async def test_a_busy_group_keeps_its_order_while_it_is_redriven() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 0, 1, 2, 3)
    await station.work()
    station.broken.clear()

    async def traffic() -> None:
        for number in range(4, 40):
            await station.come("a", number)
            await asyncio.sleep(0.02)

    async with station.working():
        coming = asyncio.create_task(traffic())
        plan = Plan(station.queue, "in-traffic")
        async with redriving(station.service, station.cloud.ports, plan) as redrive:
            await redrive.run()
        await coming
        await station.emptied()
    assert await station.numbers("a") == {"a": list(range(40))}
    assert await station.yard.blocks("station.shunt") == []


@timeless
async def test_a_group_is_not_blocked_by_a_message_that_another_handler_wants_again() -> None:
    station, tries = Station(broken={("a", 1)}), [0]

    @station.service.on(WagonCame, queue="track.fifo", name="weigh")
    async def weigh(event: WagonCame) -> None:
        tries[0] += 1
        if tries[0] == 1:
            station.broken.clear()
            raise RuntimeError("The scale is not ready.")

    await station.come("a", 1, 2)
    await station.work()
    assert await station.numbers("a") == {"a": [1, 2]}
    assert await station.yard.blocks("station.shunt") == []
    assert station.letters == []


@timeless
async def test_a_head_whose_letter_cannot_be_written_is_not_done_after_all() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1, 2)
    queues: Any = _Failing(station.cloud.queues, "send", times=2)
    async with station.working(replace(station.cloud.ports, queues=queues)):
        await queues.has_failed.wait()
        station.broken.clear()
        await station.emptied()
    assert await station.numbers("a") == {"a": []}
    assert len(station.letters) == 1
    assert (await station.block("a")).waiting == 1


@timeless
async def test_a_replayed_message_that_fails_before_it_was_taken_out_can_be_dropped() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1, 2)
    await station.work()
    station.broken = {("a", 2)}
    await station.redrive("a")
    await station.work()
    with pytest.raises(Died):
        await station.dying("transact").replay(await station.block("a"), station.queue)
    await station.work()
    assert len(await station.parked("a")) == 1
    # Its letter is not wanted any more, and neither is what is parked of it.
    await station.replay("a")
    await station.work()
    assert await station.numbers("a") == {"a": [1]}
    assert station.runs.count(("a", 2)) == 1
    assert await station.yard.blocks("station.shunt") == []


@timeless
async def test_a_head_without_a_note_is_handled_when_it_is_sent_back() -> None:
    station = Station(broken={("a", 1)})
    dlq = "station-track-dlq.fifo"
    await station.come("a", 1, 2)
    await station.work()
    (letter,) = await station.cloud.queues.receive(dlq, limit=1, wait=timedelta(0))
    attributes = {name: a for name, a in letter.attributes.items() if name != NOTE_ATTRIBUTE}
    bare = QueueEntry(letter.body, group_id="a", attributes=attributes)
    await station.cloud.queues.send(dlq, [bare])
    await station.cloud.queues.delete(dlq, [letter.receipt_handle])
    station.broken.clear()
    async with station.working():
        plan = Plan(station.queue, "without-a-note")
        async with redriving(station.service, station.cloud.ports, plan) as redrive:
            report = await redrive.run()
        await station.emptied()
    assert len(report.done) == 1
    assert await station.numbers("a") == {"a": [1, 2]}
    assert await station.yard.blocks("station.shunt") == []


# --- before SQS moves it -----------------------------------------------------------------


@timeless
async def test_a_message_that_is_put_off_until_sqs_would_move_it_blocks_its_group() -> None:
    station = Station(late={("a", 1)})
    await station.come("a", 1, 2, 3)
    await station.work()
    assert await station.numbers("a") == {"a": []}
    assert (await station.block("a")).waiting == 2
    (letter,) = station.letters
    reason = str(letter.attributes[NOTE_ATTRIBUTE].value)
    assert "Gave up after 10 receives, as SQS gives it out no more" in reason
    assert len(station.runs) == 10

    station.late.clear()
    await station.redrive("a")
    await station.work()
    await station.replay("a")
    assert await station.numbers("a") == {"a": [1, 2, 3]}


@timeless
async def test_a_message_that_another_handler_puts_off_until_the_end_blocks_its_group() -> None:
    station = Station(broken={("a", 1)})

    @station.service.on(WagonCame, queue="track.fifo", name="weigh")
    async def weigh(event: WagonCame) -> None:
        if event.number == 1:
            raise RetryLater(delay=timedelta(seconds=1))

    await station.come("a", 1, 2)
    await station.work()
    assert await station.numbers("a") == {"a": []}
    assert (await station.block("a")).waiting == 1


@timeless
async def test_a_message_that_cannot_be_parked_before_sqs_moves_it_keeps_its_place() -> None:
    station = Station(broken={("a", 1)})
    second, outcome = await station.give_up_the_second_unparked()
    assert isinstance(outcome, DeadLetter)
    await station.cloud.queues.delete(station.queue, [second.receipt_handle])
    await station.work()
    block = await station.block("a")
    assert (block.event_id, block.waiting) == ("a-1", 2)

    station.broken.clear()
    await station.redrive("a")
    await station.work()
    async with station.working():
        assert await station.yard.replay(block, station.queue) is Replayed.BLOCKED
    assert await station.numbers("a") == {"a": [1]}
    block = await station.block("a")
    assert (block.event_id, block.waiting) == ("a-2", 1)
    assert "Gave up after 10 receives" in block.reason


# --- what could not be sent again ----------------------------------------------------------


@timeless
async def test_a_message_without_room_for_a_note_is_a_letter_that_nothing_overtakes() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1, 2)
    await station.come("a", 3, attributes=CROWD)
    await station.come("a", 4)
    await station.work()
    assert [letter.attributes == CROWD for letter in station.letters] == [False, True]
    assert (await station.block("a")).waiting == 3

    station.broken.clear()
    await station.redrive("a")
    await station.work()
    async with station.working():
        replayed = await station.yard.replay(await station.block("a"), station.queue)
    assert replayed is Replayed.BLOCKED
    block = await station.block("a")
    assert (block.event_id, block.waiting) == ("a-3", 1)
    assert block.reason.startswith("It has ten attributes of its own")
    assert await station.numbers("a") == {"a": [1, 2]}

    moves = MemoryMoves(station.cloud.queues)
    await move_all(moves, "station-track-dlq.fifo", station.queue)
    await station.work()
    await station.replay("a")
    assert await station.numbers("a") == {"a": [1, 2, 3, 4]}


@timeless
async def test_a_message_that_the_note_would_make_too_large_is_a_letter_at_once() -> None:
    station = Station(broken={("a", 1)})
    bare = len(delivery_of(WagonCame(track="a", number=2), station.queue, id="a-2").body)
    await station.come("a", 1)
    await station.come("a", 2, load="x" * (1_048_576 - bare), attributes={})
    await station.work()
    assert len(station.letters) == 2
    (place,) = await station.yard.parked(await station.block("a"))
    assert (place.reason or "").startswith("SQS takes 1,048,576 bytes, and it would have 1,0")


@timeless
async def test_what_is_given_up_ahead_of_a_letters_place_comes_before_it() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1, 2)
    await station.come("a", 3, attributes=CROWD)
    await station.come("a", 4)
    await station.work()
    station.broken = {("a", 2)}
    await station.redrive("a")
    await station.work()
    async with station.working():
        replayed = await station.yard.replay(await station.block("a"), station.queue)
    assert replayed is Replayed.BLOCKED
    assert (await station.block("a")).event_id == "a-2"
    assert (await station.block("a")).waiting == 2


@timeless
async def test_the_place_of_a_letter_that_is_done_by_then_holds_up_nothing() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1)
    await station.come("a", 2, attributes=CROWD)
    await station.come("a", 3)
    await station.work()
    record = {
        "pk": {"S": "inbox#station.shunt#a-2"},
        "sk": {"S": "-"},
        "commit_id": {"S": "c-1"},
        "status": {"S": "done"},
    }
    await station.cloud.store.write([Put("station", record)])
    await station.replay("a")
    assert await station.numbers("a") == {"a": [3]}


# --- in the table --------------------------------------------------------------------------


@timeless
async def test_attributes_of_any_size_are_parked_beside_a_body_of_any_size() -> None:
    station = Station(broken={("a", 1)})
    heavy = {"papers": Attribute(b"\x00" * 450_000, "Binary"), "seal": Attribute('"' * 120_000)}
    await station.come("a", 1)
    await station.come("a", 2, load="x" * 400_000, attributes=heavy)
    await station.work()
    (parked,) = await station.yard.parked(await station.block("a"))
    assert parked.entry.attributes == heavy
    assert "x" * 400_000 in parked.entry.body
    station.broken.clear()
    await station.replay("a")
    assert await station.numbers("a") == {"a": [2]}


@timeless
async def test_a_replay_has_one_page_of_what_waits_in_memory_and_reads_it_once() -> None:
    station = Station(broken={("a", 0)})
    await station.come("a", 0)
    await station.come("a", *range(1, 41), load="x" * 100_000)
    await station.work()
    station.broken.clear()
    paged: Any = _Paged(station.cloud.store)
    yard = Yard(paged, station.cloud.queues, station.cloud.ports.randomness, "station")
    async with station.working():
        replayed = await yard.replay(await station.block("a"), station.queue)
    assert replayed is Replayed.FREE
    assert await station.numbers("a") == {"a": list(range(1, 41))}
    pages = [page for page in paged.pages if page]
    assert (sum(pages), max(pages)) == (40, 11)
    # What a page held was taken out before the next was read.
    assert paged.taken_out_at[:4] == [0, 11, 22, 33]


@timeless
async def test_a_message_of_which_a_part_is_not_there_yet_is_waited_for() -> None:
    station = Station(broken={("a", 1)})
    await station.come("a", 1)
    await station.come("a", 2, load="x" * 400_000)
    await station.come("a", 3)
    await station.work()
    station.broken.clear()
    block = await station.block("a")
    (second, _) = await station.yard.parked(block)
    (part,) = station.cloud.store.look(second.keys[1:])
    assert part is not None
    await station.cloud.store.write([Delete(second.keys[1])])
    assert await station.yard.parked(block) == []

    async with station.working():
        replay = asyncio.create_task(station.yard.replay(block, station.queue))
        await asyncio.sleep(0.01)
        await station.cloud.store.write([Put("station", part)])
        assert await replay is Replayed.FREE
    assert await station.numbers("a") == {"a": [2, 3]}


@timeless
async def test_a_parked_message_keeps_its_age_and_what_was_the_matter_before() -> None:
    station = Station(broken={("a", 1), ("a", 2)})
    await station.come("a", 1)
    await station.work()
    first = station.cloud.ports.clock.now()
    await station.come("a", 2)
    before = Attribute(
        '{"redrive": "run-1", "before": {"reason": "It was green.", '
        '"first_time": "2025-12-24T12:00:00+00:00"}}'
    )
    await station.come("a", 3, attributes={NOTE_ATTRIBUTE: before})
    await station.work()
    await asyncio.sleep(86_400)
    await station.send_again("a")
    second, third = [
        Note.of(Delivery("m", "r", "", station.queue, attributes=entry.attributes))
        for entry in station.cloud.queues.peek(station.queue)
    ]
    assert second is not None
    assert third is not None
    assert abs((second.first_time or START) - first) < timedelta(seconds=1)
    assert third.first_time == datetime(2025, 12, 24, 12, tzinfo=UTC)
    assert (third.before, third.redrive) == ("It was green.", None)

    await station.work()
    letter = station.letters[-1]
    given_up = Note.of(Delivery("m", "r", "", "q", attributes=letter.attributes))
    assert given_up is not None
    assert given_up.first_time == second.first_time


@pytest.mark.parametrize("method", ["change", "transact", "get", "query", "send"])
def test_a_replay_that_is_throttled_waits_and_goes_on(method: str) -> None:
    @timeless
    async def scenario() -> None:
        station = Station(broken={("a", 1)})
        await station.come("a", 1, 2)
        await station.work()
        store: Any = _Failing(station.cloud.store, method, times=3, error=Throttled)
        queues: Any = station.cloud.queues
        if method == "send":
            queues = store = _Failing(station.cloud.queues, method, times=3, error=Throttled)
        yard = Yard(
            station.cloud.store if method == "send" else store,
            queues,
            station.cloud.ports.randomness,
            "station",
        )
        async with station.working():
            replayed = await yard.replay(await station.block("a"), station.queue)
        assert (replayed, store.failed) == (Replayed.FREE, 3)
        assert await station.numbers("a") == {"a": [2]}

    scenario()


@timeless
async def test_a_handler_without_parking_goes_on_behind_a_message_that_was_given_up() -> None:
    handled = defaultdict[str, list[int]](list)
    service = Service("through")

    @service.on(WagonCame, queue="track.fifo")
    async def pass_through(event: WagonCame) -> None:
        if event.number == 2:
            raise PoisonMessage("It has no wheels.")
        handled[event.track].append(event.number)

    cloud = memory_ports(clock=LoopClock())
    cloud.provision(topology(service))
    for number in (1, 2, 3):
        event = WagonCame(track="a", number=number)
        body = delivery_of(event, service.queues[0], id=f"{number}").body
        await cloud.queues.send(service.queues[0], [QueueEntry(body, group_id="a")])
    async with running(service, cloud.ports) as pipeline:
        for delivery in await cloud.queues.receive(service.queues[0], limit=10, wait=timedelta(0)):
            await pipeline.consume(delivery)
    assert handled == {"a": [1, 3]}
    assert not any("blocked#" in item["pk"]["S"] for item in cloud.store.items("through"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "only a FIFO queue has"),
        ({"queue": "plain"}, "only a FIFO queue has"),
        ({"queue": "track.fifo", "idempotent": True}, "leave idempotent=True out"),
    ],
)
def test_parking_is_refused_where_there_is_no_order_or_no_memory(
    options: dict[str, Any], why: str
) -> None:
    service = Service("siding")
    with pytest.raises(DefinitionError, match=why):
        service.on(WagonCame, park=True, **options)


class _Paged:
    """A store that notes how many items each page of what is parked had, and how many of the parked
    messages were taken out by then."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.pages: list[int] = []
        self.taken_out_at: list[int] = []
        self._taken_out = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def query(self, table: str, pk: str, **options: Any) -> Any:
        page = await self._inner.query(table, pk, **options)
        self.pages.append(len(page.items))
        self.taken_out_at.append(self._taken_out)
        return page

    async def transact(self, actions: Any, *, token: str) -> None:
        await self._inner.transact(actions, token=token)
        self._taken_out += 1


class Died(BaseException):
    """The process is gone."""


class _Failing:
    """A port, one method of which gives no answer for some times, after it gave some; if the
    answer is `lost`, what was asked for is done."""

    def __init__(
        self,
        inner: Any,
        method: str,
        *,
        after: int = 0,
        times: int = 1,
        error: type[BaseException] = Unreachable,
        lost: bool = False,
    ) -> None:
        self._inner = inner
        self._lost = lost
        self._method = method
        self._answers = after
        self._times = times
        self._error = error
        self.failed = 0
        self.has_failed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return self._called if name == self._method else getattr(self._inner, name)

    async def _called(self, *args: Any, **kwargs: Any) -> Any:
        if self._answers == 0 and self.failed < self._times:
            self.failed += 1
            self.has_failed.set()
            if self._lost:
                await getattr(self._inner, self._method)(*args, **kwargs)
            raise self._error("No answer came back.")
        self._answers -= self._answers > 0
        return await getattr(self._inner, self._method)(*args, **kwargs)


@timeless
async def test_a_letter_whose_place_was_kept_is_parked_in_it_when_it_comes_back_too_early() -> None:
    station = Station(broken={("a", 1)})
    second, outcome = await station.give_up_the_second_unparked()
    await station.write_letter(second, outcome)
    await station.work()

    station.broken.clear()
    assert await move_all(
        MemoryMoves(station.cloud.queues), "station-track-dlq.fifo", station.queue
    )
    await station.work()
    await station.replay("a")

    assert await station.numbers("a") == {"a": [1, 2, 3]}
    assert station.letters == []


@timeless
async def test_a_letter_that_was_parked_in_its_place_unheard_is_there_once() -> None:
    station = Station(broken={("a", 1)})
    second, outcome = await station.give_up_the_second_unparked()
    await station.write_letter(second, outcome)
    await station.work()
    (letter,) = [each for each in station.letters if each.body == second.body]
    await station.cloud.queues.send(station.queue, [replace(letter, deduplication_id="back")])

    back = await station.received("a")
    deaf: Any = _Failing(station.cloud.store, "transact", after=1, lost=True)
    async with running(station.service, replace(station.cloud.ports, store=deaf)) as pipeline:
        await pipeline.consume(back)
    assert deaf.failed == 1
    async with running(station.service, station.cloud.ports) as pipeline:
        assert await pipeline.consume(back) == Ack(parked=True)
    assert (await station.block("a")).waiting == len(await station.parked("a")) == 2
