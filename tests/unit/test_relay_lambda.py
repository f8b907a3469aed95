"""The relay as a Lambda function: by the clock, and by the stream of the table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from headrace import Event, Service
from headrace.aws.config import AwsConfig
from headrace.connection import connect
from headrace.errors import NoTable, NotProvisioned, Throttled
from headrace.hosts.relay_lambda import MARGIN, RelayHandler, relay_handler
from headrace.ports import BusEntry, EntryFailure, Item, ItemKey, Ports, Put
from headrace.relay import GRACE
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.topology.derive import topology
from headrace.topology.model import Queue, Rule, Topology


class WireSent(Event, source="town.telegraph"):
    to: str


telegraph = Service("telegraph", bus="wire", emits=[WireSent])
A_DAY = timedelta(days=1)


class Closed:
    """A bus that is there and takes nothing for those named, or for anybody."""

    def __init__(self, bus: Any, *names: str) -> None:
        self._bus = bus
        self._names = names

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        failures: list[EntryFailure] = []
        for index, entry in enumerate(entries):
            if not self._names or json.loads(entry.detail)["data"]["to"] in self._names:
                failures.append(EntryFailure(index, "Closed", "no", retryable=False))
            else:
                failures += await self._bus.put(bus, [entry])
        return failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


class Opener:
    """Opens ports in memory, and counts how often."""

    def __init__(self, cloud: MemoryCloud[ManualClock]) -> None:
        self.cloud = cloud
        self.ports: Ports = cloud.ports
        self.opened = self.closed = 0

    @asynccontextmanager
    async def __call__(self, config: AwsConfig) -> AsyncIterator[Ports]:
        self.opened += 1
        yield self.ports
        self.closed += 1


@dataclass
class Remaining:
    """The part of Lambda's context object that headrace looks at."""

    milliseconds: int = 30_000
    aws_request_id: str = "7d0a6d8e-6d4f-4f5e-9c7e-0d6f2f5f7b31"

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


class World:
    """The telegraph office on an account in memory, and its relay."""

    def __init__(self) -> None:
        self.cloud = memory_ports()
        self.cloud.provision(topology(telegraph))
        everything = Rule("everything", "wire", {"source": [{"exists": True}]}, "wires")
        self.cloud.provision(Topology(rules=(everything,), queues=(Queue("wires", A_DAY, A_DAY),)))
        self.opener = Opener(self.cloud)
        self.relay = RelayHandler(telegraph, ports=self.opener)

    def invoke(self, event: object, *, milliseconds: int = 30_000) -> dict[str, Any]:
        """What Lambda gets, which is JSON."""
        answer: dict[str, Any] = json.loads(json.dumps(self.relay(event, Remaining(milliseconds))))
        return answer

    def leave(self, *to: str) -> None:
        """A wire to each, whose process ended before it was sent."""
        asyncio.run(self._leave(to))

    async def _leave(self, to: Sequence[str]) -> None:
        closed: Any = Closed(self.cloud.bus)
        async with connect(telegraph, replace(self.cloud.ports, bus=closed)) as connection:
            for name in to:
                async with connection.transaction(key=name) as tx:
                    tx.publish(WireSent(to=name))

    def put(self, item: Item) -> None:
        asyncio.run(self._put(item))

    async def _put(self, item: Item) -> None:
        assert await self.cloud.store.write([Put("telegraph", item)]) == []

    def record(self, name: str) -> Item:
        return next(
            item
            for item in self.cloud.store.items("telegraph")
            if item["pk"]["S"].endswith(f"#{name}")
        )

    def arrived(self) -> list[str]:
        bodies = [json.loads(entry.body) for entry in self.cloud.queues.peek("wires")]
        return sorted(body["detail"]["data"]["to"] for body in bodies)

    def forget_calls(self) -> None:
        self.cloud.store.calls.clear()
        self.cloud.bus.calls.clear()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.relay.close()


SCHEDULED = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "000000000000",
    "time": "2026-11-21T12:00:00Z",
    "region": "us-east-1",
    "resources": ["arn:aws:events:us-east-1:000000000000:rule/relay"],
    "detail": {},
}


def stream(*changes: tuple[str, Item, str], view: str = "NEW_IMAGE") -> dict[str, Any]:
    """What the event source mapping of a table's stream makes of changes: an event name, the item
    as it then was, and a sequence number."""
    return {"Records": [_stream_record(*change, view) for change in changes]}


def _stream_record(name: str, item: Item, sequence: str, view: str) -> dict[str, Any]:
    image = {"NewImage": item} if name != "REMOVE" and view == "NEW_IMAGE" else {}
    return {
        "eventID": f"e{sequence}",
        "eventName": name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1795262400.0,
            "Keys": {"pk": item["pk"], "sk": item["sk"]},
            **image,
            "SequenceNumber": sequence,
            "SizeBytes": 200,
            "StreamViewType": view,
        },
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:000000000000:table/telegraph/stream/2026",
    }


OTHER: Item = {"pk": {"S": "wire#1"}, "sk": {"S": "-"}, "bytes": {"B": "AAEC/w=="}}
NO_FAILURES: dict[str, Any] = {"batchItemFailures": []}


def failures(*sequences: str) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": sequence} for sequence in sequences]}


# --- by the clock ------------------------------------------------------------------------


@pytest.mark.parametrize("event", [SCHEDULED, {}, None, {"Records": "none"}], ids=str)
def test_whatever_is_no_stream_batch_is_a_sweep(world: World, event: object) -> None:
    world.leave("Ada", "Bo")
    assert world.invoke(event) == {"sent": 0}
    world.cloud.clock.advance(2 * GRACE)
    assert world.invoke(event) == {"sent": 2}
    assert world.arrived() == ["Ada", "Bo"]
    assert world.record("Ada")["status"] == {"S": "done"}


def test_an_index_that_cannot_be_read_fails_the_invocation(world: World) -> None:
    class Unread:
        async def query(self, *args: Any, **kwargs: Any) -> Any:
            raise Throttled("Later.")

    store: Any = Unread()
    world.opener.ports = replace(world.cloud.ports, store=store)
    with pytest.raises(Throttled):
        world.invoke(SCHEDULED)


def test_a_sweep_ends_before_the_function_does(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.leave("Ada")
    world.cloud.clock.advance(2 * GRACE)
    at_the_end = int(MARGIN.total_seconds() * 1000)
    assert world.invoke(SCHEDULED, milliseconds=at_the_end) == {"sent": 0}
    assert "no time to look through" in caplog.text
    assert world.invoke(SCHEDULED) == {"sent": 1}


# --- by the stream -----------------------------------------------------------------------


def test_what_a_stream_shows_as_pending_is_sent_at_once(world: World) -> None:
    world.leave("Ada", "Bo")
    answer = world.invoke(
        stream(
            ("INSERT", world.record("Ada"), "100"),
            ("MODIFY", OTHER, "200"),
            ("INSERT", world.record("Bo"), "300"),
        )
    )
    assert answer == NO_FAILURES
    assert world.arrived() == ["Ada", "Bo"]
    assert world.record("Ada")["status"] == world.record("Bo")["status"] == {"S": "done"}


def test_a_batch_with_nothing_to_do_costs_no_call_and_opens_nothing(world: World) -> None:
    world.leave("Ada", "Bo", "Cy")
    pending = {name: world.record(name) for name in ("Ada", "Bo", "Cy")}
    world.cloud.clock.advance(2 * GRACE)
    world.invoke(SCHEDULED)
    world.relay.close()
    world.forget_calls()
    answer = world.invoke(
        stream(
            ("MODIFY", OTHER, "100"),
            ("INSERT", pending["Ada"], "200"),
            ("INSERT", pending["Bo"], "300"),
            ("INSERT", {**pending["Cy"], "relay_pk": {"S": "telephone#0"}}, "400"),
            ("MODIFY", world.record("Ada"), "500"),
            ("REMOVE", pending["Bo"], "600"),
        )
    )
    assert answer == NO_FAILURES
    assert world.invoke({"Records": []}) == NO_FAILURES
    assert world.opener.opened == 1
    assert dict(world.cloud.store.calls) == dict(world.cloud.bus.calls) == {}


def test_a_stream_that_lags_behind_sends_nothing_again(world: World) -> None:
    world.leave("Ada")
    late = stream(("INSERT", world.record("Ada"), "100"))
    world.cloud.clock.advance(2 * GRACE)
    world.invoke(SCHEDULED)
    assert world.invoke(late) == NO_FAILURES
    assert world.arrived() == ["Ada"]


def test_the_lowest_of_what_failed_is_reported_and_the_others_are_sent(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.leave("Ada", "Bo", "Cy", "Di")
    closed: Any = Closed(world.cloud.bus, "Bo", "Di")
    world.opener.ports = replace(world.cloud.ports, bus=closed)
    # As text, the higher of the two would come first.
    low, high = "99999999999999999999", "100000000000000000000"
    batch = stream(
        ("INSERT", world.record("Ada"), "1"),
        ("INSERT", world.record("Bo"), low),
        ("INSERT", world.record("Di"), high),
        ("INSERT", world.record("Cy"), "100000000000000000001"),
    )
    assert world.invoke(batch) == failures(low)
    assert world.arrived() == ["Ada", "Cy"]
    assert "inbox#telegraph#Bo is not out yet" in caplog.text
    world.opener.ports = world.cloud.ports
    world.relay.close()
    assert world.invoke(batch) == NO_FAILURES
    assert world.arrived() == ["Ada", "Bo", "Cy", "Di"]


@pytest.mark.parametrize(
    "broken",
    [
        {"eventSource": "aws:dynamodb"},
        {"eventSource": "aws:dynamodb", "eventName": "INSERT", "dynamodb": None},
        {**_stream_record("INSERT", OTHER, "first", "NEW_IMAGE")},
        {**_stream_record("INSERT", OTHER, "100", "KEYS_ONLY")},
    ],
    ids=["empty", "no change", "no number", "no image"],
)
def test_what_no_stream_sends_is_passed_over_and_said(
    world: World, broken: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world.leave("Ada")
    batch = stream(("INSERT", world.record("Ada"), "200"))
    batch["Records"].insert(0, broken)
    assert world.invoke(batch) == NO_FAILURES
    assert world.arrived() == ["Ada"]
    assert "1 of 2 records of the stream are passed over" in caplog.text
    assert "StreamViewType NEW_IMAGE" in caplog.text


def test_a_record_that_cannot_be_read_does_not_block_its_shard(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.leave("Ada", "Bo")
    frozen = {**world.record("Ada"), "status": {"S": "frozen"}}
    world.put(frozen)
    batch = stream(("INSERT", frozen, "100"), ("INSERT", world.record("Bo"), "200"))
    assert world.invoke(batch) == NO_FAILURES
    assert world.arrived() == ["Bo"]
    assert "inbox#telegraph#Ada is passed over" in caplog.text


def test_what_goes_wrong_unexpectedly_is_reported_and_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
            raise ZeroDivisionError("a bug")

        def __getattr__(self, name: str) -> Any:
            return getattr(world.cloud.store, name)

    world.leave("Ada")
    store: Any = Broken()
    world.opener.ports = replace(world.cloud.ports, store=store)
    assert world.invoke(stream(("INSERT", world.record("Ada"), "100"))) == failures("100")
    assert "ZeroDivisionError" in caplog.text


def test_nothing_is_sent_when_the_time_is_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.leave("Ada", "Bo")
    batch = stream(("INSERT", world.record("Ada"), "100"), ("INSERT", world.record("Bo"), "200"))
    at_the_end = int(MARGIN.total_seconds() * 1000)
    for milliseconds in (at_the_end, 0):
        assert world.invoke(batch, milliseconds=milliseconds) == failures("100")
    assert world.arrived() == []
    assert caplog.text.count("was not sent before the function's time was up") == 4


def test_what_is_not_sent_in_time_is_reported(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Hanging:
        async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
            loop = asyncio.get_running_loop()
            later = loop.time() + 3600
            monkeypatch.setattr(loop, "time", lambda: later)
            await asyncio.Event().wait()
            return []

        def __getattr__(self, name: str) -> Any:
            return getattr(world.cloud.bus, name)

    world.leave("Ada")
    hanging: Any = Hanging()
    world.opener.ports = replace(world.cloud.ports, bus=hanging)
    assert world.invoke(stream(("INSERT", world.record("Ada"), "100"))) == failures("100")
    assert "inbox#telegraph#Ada was not sent before" in caplog.text


# --- the execution environment -----------------------------------------------------------


def test_ports_are_opened_once_for_all_invocations_of_an_environment(world: World) -> None:
    for _ in range(3):
        world.invoke(SCHEDULED)
    assert (world.opener.opened, world.opener.closed) == (1, 0)
    world.relay.close()
    assert (world.opener.opened, world.opener.closed) == (1, 1)
    world.invoke(SCHEDULED)
    assert world.opener.opened == 2


def test_what_could_not_be_opened_is_opened_at_the_next_invocation() -> None:
    cloud = memory_ports()
    relay = RelayHandler(telegraph, ports=Opener(cloud))
    with pytest.raises(NotProvisioned):
        relay(SCHEDULED, Remaining())
    cloud.provision(topology(telegraph))
    assert relay(SCHEDULED, Remaining()) == {"sent": 0}
    relay.close()


def test_nothing_is_sent_to_a_bus_that_is_not_there() -> None:
    cloud = memory_ports()
    cloud.provision(Topology(tables=topology(telegraph).tables))
    relay = RelayHandler(telegraph, ports=Opener(cloud))
    with pytest.raises(NotProvisioned, match="wire"):
        relay(SCHEDULED, Remaining())
    relay.close()


def test_a_service_without_a_table_has_no_relay() -> None:
    with pytest.raises(NoTable, match="nothing to relay"):
        relay_handler(Service("semaphore", table=None))
