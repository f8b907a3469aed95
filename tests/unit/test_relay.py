"""What was committed and is not out is sent, however its process ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from headrace import Command, Event, Service
from headrace.connection import connect
from headrace.envelope import Outgoing
from headrace.errors import NoTable, Throttled
from headrace.observe.tally import Tally
from headrace.observer import Observer
from headrace.ports import BusEntry, Delete, EntryFailure, Item, ItemKey, Page, Put
from headrace.record import RELAY_SHARDS
from headrace.relay import GRACE, Relay, is_relayed
from headrace.testing.memory import ManualClock, MemoryCloud, SeededRandomness, memory_ports
from headrace.topology.derive import topology
from headrace.topology.model import Queue, Rule, Topology


class LetterPosted(Event, source="town.post-office"):
    to: str


class DeliverParcel(Command, owner="courier"):
    to: str


office = Service("post-office", bus="post", emits=[LetterPosted, DeliverParcel])
A_DAY = timedelta(days=1)
A_SECOND = timedelta(seconds=1)


class Closed:
    """A bus that is there and takes nothing."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        return [EntryFailure(i, "Closed", "no", retryable=False) for i in range(len(entries))]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


@dataclass
class World:
    """The post office on an account in memory, and what a test asks of both."""

    cloud: MemoryCloud[ManualClock]

    @property
    def store(self) -> Any:
        return self.cloud.store

    def relay(self, observer: Observer | None = None, **ports: Any) -> Relay:
        return Relay(office, replace(self.cloud.ports, **ports), observer)

    async def leave(self, *to: str) -> None:
        """A letter to each, whose process ended before it was sent."""
        closed: Any = Closed(self.cloud.bus)
        async with connect(office, replace(self.cloud.ports, bus=closed)) as connection:
            for name in to:
                async with connection.transaction(key=name) as tx:
                    tx.publish(LetterPosted(to=name))

    async def leave_parcel(self, to: str) -> None:
        """A parcel, for a courier whose queue is not there."""
        async with (
            connect(office, self.cloud.ports) as connection,
            connection.transaction(key=to) as tx,
        ):
            tx.publish(DeliverParcel(to=to))

    def records(self) -> dict[str, Item]:
        """By key."""
        items = self.cloud.store.items("post-office")
        return {item["pk"]["S"].rpartition("#")[2]: item for item in items}

    def pending(self) -> dict[str, Item]:
        return {k: item for k, item in self.records().items() if item["status"]["S"] == "pending"}

    def arrived(self) -> list[dict[str, Any]]:
        """The detail of every letter that has arrived."""
        return [json.loads(e.body)["detail"] for e in self.cloud.queues.peek("letters")]

    def addressees(self) -> list[str]:
        return sorted(detail["data"]["to"] for detail in self.arrived())

    def later(self, by: timedelta = GRACE + A_SECOND) -> None:
        self.cloud.clock.advance(by)


@pytest.fixture
def world() -> World:
    cloud = memory_ports()
    cloud.provision(topology(office))
    everything = Rule("everything", "post", {"source": [{"exists": True}]}, "letters")
    cloud.provision(Topology(rules=(everything,), queues=(Queue("letters", A_DAY, A_DAY),)))
    return World(cloud)


# --- sweeping ----------------------------------------------------------------------------


async def test_what_was_left_is_sent_under_the_ids_it_was_committed_with_and_noted(
    world: World,
) -> None:
    await world.leave("Ada", "Bo")
    ids = {item["outgoing"]["L"][0]["M"]["id"]["S"] for item in world.pending().values()}
    world.later()
    tally = Tally()
    assert await world.relay(tally).sweep() == 2
    assert world.addressees() == ["Ada", "Bo"]
    assert {detail["metadata"]["id"] for detail in world.arrived()} == ids
    assert world.pending() == {}
    assert tally.services["post-office"].published == 2


async def test_what_is_out_is_not_sent_again(world: World) -> None:
    await world.leave("Ada")
    world.later()
    assert await world.relay().sweep() == 1
    world.later()
    assert await world.relay().sweep() == 0
    assert world.addressees() == ["Ada"]


async def test_what_may_still_be_sent_by_its_own_process_is_let_alone(world: World) -> None:
    await world.leave("Ada")
    world.later(GRACE)
    await world.leave("Bo")
    assert await world.relay().sweep() == 0
    world.later(A_SECOND)
    assert await world.relay().sweep() == 1
    assert world.addressees() == ["Ada"]
    assert await world.relay().sweep(grace=timedelta(0)) == 1
    assert world.addressees() == ["Ada", "Bo"]


async def test_more_than_fits_into_a_page_is_sent_page_by_page(world: World) -> None:
    # At least one of the shards has more than a page then.
    many = [f"n{number}" for number in range(RELAY_SHARDS * 100 + 1)]
    await leave_at_once(world, many)
    world.later()
    world.store.calls.clear()
    assert await world.relay().sweep() == len(many)
    assert world.store.calls["query"] > RELAY_SHARDS
    assert world.addressees() == sorted(many)
    assert world.pending() == {}


async def leave_at_once(world: World, to: Sequence[str]) -> None:
    closed: Any = Closed(world.cloud.bus)
    async with connect(office, replace(world.cloud.ports, bus=closed)) as connection:

        async def leave(name: str) -> None:
            async with connection.transaction(key=name) as tx:
                tx.publish(LetterPosted(to=name))

        await asyncio.gather(*map(leave, to))


async def test_an_index_that_still_names_what_is_done_or_gone_sends_nothing(
    world: World,
) -> None:
    await world.leave("Ada", "Bo", "Cy")
    world.later()
    stale = Stale(world.store, await entries(world))
    assert await world.relay().sweep() == 3
    await forget(world, "Cy")
    assert await world.relay(store=stale).sweep() == 0
    assert world.addressees() == ["Ada", "Bo", "Cy"]


async def test_an_index_that_names_a_record_twice_sends_it_once(world: World) -> None:
    await world.leave("Ada")
    world.later()
    (entry,) = await entries(world)
    assert await world.relay(store=Stale(world.store, [entry, entry])).sweep() == 1
    assert world.addressees() == ["Ada"]


async def test_an_index_that_lags_behind_is_caught_up_with_by_a_later_sweep(world: World) -> None:
    await world.leave("Ada")
    world.later()
    assert await world.relay(store=Stale(world.store, [])).sweep() == 0
    assert list(world.pending()) == ["Ada"]
    assert await world.relay().sweep() == 1


async def entries(world: World) -> list[Item]:
    """What the index holds now, of any shard."""
    before = (world.cloud.clock.now() + A_DAY).isoformat()
    pages = [
        await world.store.query(
            "post-office", f"post-office#{number}", index="relay", sk_before=before
        )
        for number in range(RELAY_SHARDS)
    ]
    return [item for page in pages for item in page.items]


async def forget(world: World, name: str) -> None:
    key = ItemKey("post-office", f"inbox#post-office#{name}", "-")
    await world.store.write([Delete(key)])


class Stale:
    """The store, with an index that shows in its first shard what it showed once."""

    def __init__(self, store: Any, entries: Sequence[Item]) -> None:
        self._store = store
        self._entries = entries

    async def query(self, table: str, pk: str, **kwargs: Any) -> Page:
        return Page(self._entries if pk.endswith("#0") else [])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_two_relays_at_once_send_nothing_under_two_ids(world: World) -> None:
    await world.leave("Ada", "Bo")
    world.later()
    both = await asyncio.gather(world.relay().sweep(), world.relay().sweep())
    assert 2 <= sum(both) <= 4
    assert set(world.addressees()) == {"Ada", "Bo"}
    assert len({detail["metadata"]["id"] for detail in world.arrived()}) == 2
    assert world.pending() == {}


# --- what fails --------------------------------------------------------------------------


async def test_a_record_that_cannot_be_sent_holds_up_no_other_and_stays(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.leave_parcel("Ada")
    await world.leave("Bo")
    world.later()
    caplog.clear()
    assert await world.relay().sweep() == 1
    assert world.addressees() == ["Bo"]
    assert "inbox#post-office#Ada is not out yet" in caplog.text
    assert list(world.pending()) == ["Ada"]
    world.cloud.provision(Topology(queues=(Queue("courier", A_DAY, A_DAY),)))
    assert await world.relay().sweep() == 1
    assert len(world.cloud.queues.peek("courier")) == 1


@pytest.mark.parametrize(
    "damage",
    [{"status": {"S": "frozen"}}, {"outgoing": {"L": [{"S": "?"}]}}, {"commit_id": {"N": "1"}}],
    ids=str,
)
async def test_a_record_that_cannot_be_read_holds_up_no_other_and_stays(
    world: World, caplog: pytest.LogCaptureFixture, damage: Item
) -> None:
    await world.leave("Ada", "Bo")
    ada = world.pending()["Ada"]
    await world.store.write([Put("post-office", {**ada, **damage})])
    world.later()
    assert await world.relay().sweep() == 1
    assert world.addressees() == ["Bo"]
    assert "inbox#post-office#Ada is passed over" in caplog.text
    assert world.records()["Ada"] == {**ada, **damage}
    await world.store.write([Put("post-office", ada)])
    assert await world.relay().sweep() == 1
    assert world.addressees() == ["Ada", "Bo"]


async def test_records_that_cannot_be_read_from_the_table_for_now_stay(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.leave("Ada")
    world.later()
    assert await world.relay(store=Faulty(world.store, "get", times=1)).sweep() == 0
    assert "Ada is not out yet: Later" in caplog.text
    assert await world.relay().sweep() == 1


async def test_an_index_that_cannot_be_read_is_an_error_and_what_was_sent_is_noted(
    world: World,
) -> None:
    await world.leave("Ada")
    world.later()
    (entry,) = await entries(world)
    first = Stale(world.store, [entry])
    with pytest.raises(Throttled):
        await world.relay(store=FaultyAfterwards(first), randomness=Restless()).sweep()
    assert world.addressees() == ["Ada"]
    assert world.pending() == {}


class Faulty:
    """The store, whose next calls of one method are refused for now."""

    def __init__(self, store: Any, method: str, times: int) -> None:
        self._store = store
        self._method = method
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name == self._method and self.left else getattr(self._store, name)

    async def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        raise Throttled("Later.")


class FaultyAfterwards:
    """The store, whose index answers once."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._asked = False

    async def query(self, *args: Any, **kwargs: Any) -> Page:
        if self._asked:
            raise Throttled("Later.")
        self._asked = True
        page: Page = await self._store.query(*args, **kwargs)
        return page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_a_note_that_fails_means_that_the_same_id_is_sent_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.leave("Ada")
    world.later()
    assert await world.relay(store=Faulty(world.store, "write", times=1)).sweep() == 1
    assert "could not be marked as done" in caplog.text
    assert await world.relay().sweep() == 1
    first, second = world.arrived()
    assert first["metadata"]["id"] == second["metadata"]["id"]


# --- time --------------------------------------------------------------------------------


async def test_a_sweep_ends_with_its_time_and_the_next_goes_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.leave("Ada")
    world.later()
    assert await world.relay().sweep(limit=timedelta(0)) == 0
    assert "no time to look through all that post-office may have left" in caplog.text
    assert await world.relay().sweep(limit=timedelta(minutes=1)) == 1


async def test_what_was_sent_before_the_time_was_up_is_counted_and_noted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.leave("Ada")
    world.later()
    (entry,) = await entries(world)
    hanging = Hanging(Stale(world.store, [entry]), monkeypatch)
    relay = world.relay(store=hanging, randomness=Restless())
    assert await relay.sweep(limit=timedelta(minutes=1)) == 1
    assert world.pending() == {}


class Hanging:
    """The store, whose index answers once and then hangs for an hour of the event loop's time."""

    def __init__(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store = store
        self._monkeypatch = monkeypatch
        self._asked = False

    async def query(self, *args: Any, **kwargs: Any) -> Page:
        if self._asked:
            loop = asyncio.get_running_loop()
            later = loop.time() + 3600
            self._monkeypatch.setattr(loop, "time", lambda: later)
            await asyncio.Event().wait()
        self._asked = True
        page: Page = await self._store.query(*args, **kwargs)
        return page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_a_port_that_runs_out_of_time_is_not_taken_for_the_end_of_the_sweep(
    world: World,
) -> None:
    class Late:
        async def query(self, *args: Any, **kwargs: Any) -> Page:
            raise TimeoutError("the socket's")

    with pytest.raises(TimeoutError, match="the socket's"):
        await world.relay(store=Late()).sweep(limit=A_DAY)


class Restless(SeededRandomness):
    """Chance by which a relay does not pause and begins with the first shard, and which remembers
    what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float, float]] = []

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return 0.0


class Expecting(Tally):
    """Sets an event when something is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.happened = asyncio.Event()

    def sent(self, service: str, outgoing: Outgoing) -> None:
        super().sent(service, outgoing)
        self.happened.set()


async def test_a_relay_that_runs_outlives_an_index_that_cannot_be_read(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.leave("Ada")
    world.later()
    observer, chance = Expecting(), Restless()
    store = Faulty(world.store, "query", times=2)
    relay = world.relay(observer, store=store, randomness=chance)
    running = asyncio.create_task(relay.run())
    happened = asyncio.create_task(observer.happened.wait())
    await asyncio.wait([running, happened], return_when=asyncio.FIRST_COMPLETED)
    happened.cancel()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert caplog.text.count("What post-office has left to send is not seen: Later.") == 2
    assert world.addressees() == ["Ada"]
    assert chance.asked[0] == (0.5, 1.5)


# --- what is told of it ------------------------------------------------------------------


class Listening(Observer):
    """Remembers what the relay tells of each look."""

    def __init__(self) -> None:
        self.oldest: list[timedelta | None] = []

    def swept(self, service: str, oldest: timedelta | None) -> None:
        assert service == "post-office"
        self.oldest.append(oldest)


async def test_a_look_that_leaves_nothing_says_so(world: World) -> None:
    observer = Listening()
    await world.relay(observer).sweep()
    await world.leave("Ada")
    world.later()
    await world.relay(observer).sweep()
    assert observer.oldest == [None, None]


async def test_a_look_says_how_old_the_oldest_is_that_it_cannot_send(world: World) -> None:
    await world.leave_parcel("Ada")
    world.later(timedelta(minutes=4))
    await world.leave_parcel("Bo")
    await world.leave("Cleo")
    world.later()
    observer = Listening()
    assert await world.relay(observer).sweep() == 1
    assert observer.oldest == [timedelta(minutes=4) + GRACE + A_SECOND]


async def test_what_cannot_be_read_is_left_as_well(world: World) -> None:
    await world.leave("Ada")
    ada = world.pending()["Ada"]
    await world.store.write([Put("post-office", {**ada, "status": {"S": "frozen"}})])
    world.later()
    observer = Listening()
    await world.relay(observer).sweep()
    assert observer.oldest == [GRACE + A_SECOND]


@pytest.mark.parametrize("time", ["0 yesterday", "2026-01-01T00:00:00"])
async def test_an_entry_whose_time_was_changed_by_hand_holds_up_no_other(
    world: World, time: str
) -> None:
    await world.leave("Ada", "Bo")
    ada = world.pending()["Ada"]
    await world.store.write([Put("post-office", {**ada, "relay_sk": {"S": time}})])
    world.later()
    await world.relay(Listening()).sweep()
    assert "Bo" in world.addressees()


async def test_an_index_that_cannot_be_read_says_nothing(world: World) -> None:
    observer = Listening()
    with pytest.raises(Throttled):
        await world.relay(observer, store=Faulty(world.store, "query", times=1)).sweep()
    assert observer.oldest == []


# --- the stream of the table -------------------------------------------------------------


async def test_an_image_of_what_is_pending_is_sent_without_waiting(world: World) -> None:
    await world.leave("Ada")
    relay = world.relay()
    assert await relay.send_image(world.pending()["Ada"])
    await relay.flush()
    assert world.addressees() == ["Ada"]
    assert world.pending() == {}


async def test_an_image_that_lags_behind_sends_nothing_again(world: World) -> None:
    await world.leave("Ada", "Bo")
    images = world.pending()
    world.later()
    await world.relay().sweep()
    await forget(world, "Bo")
    assert await world.relay().send_image(images["Ada"])
    assert await world.relay().send_image(images["Bo"])
    assert world.addressees() == ["Ada", "Bo"]


async def test_what_is_no_pending_record_of_the_service_costs_no_call(world: World) -> None:
    await world.leave("Ada")
    ada = world.pending()["Ada"]
    world.later()
    await world.relay().sweep()
    world.store.calls.clear()
    images: list[Item] = [
        world.records()["Ada"],
        {"pk": {"S": "letter#1"}, "sk": {"S": "-"}},
        {**ada, "relay_pk": {"S": "post-office-2#0"}},
        {**ada, "relay_pk": {"N": "1"}},
    ]
    for image in images:
        assert not is_relayed(image, "post-office")
        assert await world.relay().send_image(image)
    assert dict(world.store.calls) == {}


async def test_images_at_once_are_read_in_one_call(world: World) -> None:
    await world.leave(*"abcdefgh")
    relay = world.relay()
    images = world.pending().values()
    world.store.calls.clear()
    assert all(await asyncio.gather(*map(relay.send_image, images)))
    await relay.flush()
    assert dict(world.store.calls) == {"get": 1, "write": 1}
    assert world.addressees() == list("abcdefgh")


async def test_an_image_that_cannot_be_sent_is_to_be_tried_again(world: World) -> None:
    await world.leave("Ada")
    image = world.pending()["Ada"]
    assert not await world.relay(bus=Closed(world.cloud.bus)).send_image(image)
    assert not await world.relay(store=Faulty(world.store, "get", times=1)).send_image(image)
    assert await world.relay().send_image(image)


async def test_an_image_of_what_cannot_be_read_is_passed_over_and_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.leave("Ada")
    frozen = {**world.pending()["Ada"], "status": {"S": "frozen"}}
    await world.store.write([Put("post-office", frozen)])
    assert await world.relay().send_image(frozen)
    assert "inbox#post-office#Ada is passed over" in caplog.text
    assert world.addressees() == []


# --- what there is to relay --------------------------------------------------------------


async def test_a_relay_sends_nothing_of_another_service_in_the_same_table(world: World) -> None:
    other = Service("branch", bus="post", table="post-office", emits=[LetterPosted])
    closed: Any = Closed(world.cloud.bus)
    async with (
        connect(other, replace(world.cloud.ports, bus=closed)) as connection,
        connection.transaction() as tx,
    ):
        tx.publish(LetterPosted(to="Ada"))
    world.later()
    assert await world.relay().sweep() == 0
    assert await Relay(other, world.cloud.ports).sweep() == 1


def test_a_service_without_a_table_has_nothing_to_relay(world: World) -> None:
    with pytest.raises(NoTable, match="nothing can be left"):
        Relay(Service("street", table=None), world.cloud.ports)
