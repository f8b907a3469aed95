"""A Lambda function answers in time, and its answer is true: whatever hangs, on virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest

from headrace import Entity, Event, PoisonMessage, Service, Transaction
from headrace.aws.config import AwsConfig
from headrace.errors import Unreachable
from headrace.hosts.deadline import ANSWERING
from headrace.hosts.lambda_ import LambdaHandler, NotHandled
from headrace.hosts.settings import LambdaSettings
from headrace.ports import Delivery, EntryFailure, Ports, QueueEntry
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.testing.runtime_api import sqs_event
from headrace.topology.derive import topology
from headrace.topology.model import dead_letter_queue
from tests.crash.skipping import START, SkippingLoop

ARN: Final = "arn:aws:sqs:us-east-1:000000000000:"
TIMEOUT: Final = 3.0
MARGIN: Final = LambdaSettings().margin.total_seconds()


class BoatCame(Event, source="lock.river"):
    name: str


class BoatPassed(Event, source="lock.keeper"):
    name: str


class Boat(Entity, pk="boat#{name}"):
    name: str
    passages: int = 0


# --- the function ---


class Loops:
    """The loops of functions, which make their own. All they wait for takes no time."""

    def __init__(self) -> None:
        self.made: list[SkippingLoop] = []

    def make(self) -> SkippingLoop:
        self.made.append(SkippingLoop())
        return self.made[-1]

    def seconds(self) -> float:
        return sum(loop.time() for loop in self.made)


@dataclass(frozen=True, slots=True)
class LoopsClock:
    loops: Loops

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loops.seconds())


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Loops:
    loops = Loops()
    monkeypatch.setattr(asyncio, "Runner", partial(asyncio.Runner, loop_factory=loops.make))
    return loops


@dataclass(slots=True)
class Context:
    milliseconds: int
    aws_request_id: str = "3f6f0c86-7a3c-4a0b-9a2e-6c0f9d0b7c11"

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds


@dataclass(slots=True)
class Lock:
    """A service on an account in memory, and its function. `act` is what its handler does before
    it writes; `over` ends what would never end."""

    loops: Loops
    settings: LambdaSettings = field(default_factory=lambda: LambdaSettings(concurrency=5))
    fifo: bool = False
    act: Callable[[str], Any] | None = None
    ports: Ports | None = None
    begun: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    service: Service = field(init=False)
    cloud: MemoryCloud[Any] = field(init=False)
    function: LambdaHandler = field(init=False)
    took: float = 0

    def __post_init__(self) -> None:
        queue = "lock.fifo" if self.fifo else None
        self.service = Service("lock", bus="river")
        self.service.on(BoatCame, queue=queue)(self._handler())
        self.cloud = memory_ports(clock=LoopsClock(self.loops))
        self.cloud.provision(topology(self.service))
        self.function = LambdaHandler(self.service, settings=self.settings, ports=self._open)

    @property
    def queue(self) -> str:
        return self.service.queues[0]

    def _handler(self) -> Callable[..., Any]:
        async def let_pass(event: BoatCame, tx: Transaction) -> BoatPassed:
            self.begun.append(event.name)
            if self.act is not None:
                await self.act(event.name)
            boat = await tx.get(Boat, event.name) or Boat(name=event.name)
            tx.put(boat.model_copy(update={"passages": boat.passages + 1}))
            return BoatPassed(name=event.name)

        return let_pass

    @asynccontextmanager
    async def _open(self, config: AwsConfig) -> AsyncIterator[Ports]:
        yield self.ports or self.cloud.ports

    def invoke(self, records: Sequence[Any], *, timeout: float = TIMEOUT) -> list[str]:
        """What is reported as failed; `took` is how long that was."""
        began = self.loops.seconds()
        answer = self.function({"Records": list(records)}, Context(round(timeout * 1000)))
        self.took = self.loops.seconds() - began
        assert answer is not None
        assert list(answer) == ["batchItemFailures"]
        reported = [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
        assert len(set(reported)) == len(reported), "an id is reported twice"
        return reported

    def in_queue(self, *names: str, groups: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Messages that were sent and received, as records."""
        return asyncio.run(self._received(names, groups))

    async def _received(self, names: Sequence[str], groups: Sequence[str]) -> list[dict[str, Any]]:
        for index, name in enumerate(names):
            entry = QueueEntry(body_of(name))
            if groups:
                entry = replace(entry, group_id=groups[index], deduplication_id=name)
            assert await self.cloud.queues.send(self.queue, [entry]) == []
        found: list[Delivery] = []
        while len(found) < len(names):
            found += await self.cloud.queues.receive(self.queue, limit=10, wait=timedelta(0))
        records: list[dict[str, Any]] = sqs_event(ARN + self.queue, *found)["Records"]
        return records

    def passages(self) -> dict[str, int]:
        """How often each boat has passed."""
        return {
            item["name"]["S"]: int(item["passages"]["N"])
            for item in self.cloud.store.items("lock")
            if item["pk"]["S"].startswith("boat#")
        }

    def recorded(self) -> int:
        keys = [item["pk"]["S"] for item in self.cloud.store.items("lock")]
        return sum(key.startswith("inbox#") for key in keys)

    def end(self) -> None:
        self.over.set()
        self.function.close()


def body_of(name: str, *, id: str | None = None) -> str:
    detail: dict[str, Any] = {"name": name}
    if id is not None:
        metadata = {
            "id": id,
            "type": "BoatCame",
            "version": 1,
            "time": "2026-11-21T12:00:00Z",
            "correlation_id": id,
        }
        detail = {"metadata": metadata, "data": detail}
    return json.dumps({"detail-type": "BoatCame", "detail": detail})


def records_of(*names: str, queue: str = "lock") -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = sqs_event(ARN + queue, *map(body_of, names))["Records"]
    return records


def ids_of(records: Sequence[Any]) -> list[str]:
    return [record["messageId"] for record in records]


OpenLock = Callable[..., Lock]


@pytest.fixture
def open_lock(loops: Loops) -> Iterator[OpenLock]:
    locks: list[Lock] = []

    def opened(**given: Any) -> Lock:
        locks.append(Lock(loops, **given))
        return locks[-1]

    try:
        yield opened
    finally:
        for lock in locks:
            lock.end()


def answering_is_left(lock: Lock, timeout: float = TIMEOUT) -> bool:
    """Whether the answer left when the deadline's own table says."""
    # `Deadline` keeps this free for the answer itself and its way.
    return lock.took <= timeout - min(MARGIN / 4, ANSWERING.total_seconds()) + 0.001


# --- much at once ---


def test_a_batch_of_ten_thousand_is_handled_if_there_is_time(loops: Loops) -> None:
    service = Service("lock", bus="river", table=None)
    begun: list[str] = []

    @service.on(BoatCame, idempotent=True)
    async def see(event: BoatCame) -> None:
        await asyncio.sleep(0)
        begun.append(event.name)

    cloud = memory_ports(clock=LoopsClock(loops))
    cloud.provision(topology(service))

    @asynccontextmanager
    async def opened(config: AwsConfig) -> AsyncIterator[Ports]:
        yield cloud.ports

    function = LambdaHandler(service, settings=LambdaSettings(concurrency=100), ports=opened)
    names = [f"b{n}" for n in range(10_000)]
    try:
        answer = function({"Records": records_of(*names)}, Context(600_000))
    finally:
        function.close()
    assert answer == {"batchItemFailures": []}
    assert sorted(begun) == sorted(names)


def test_some_hundreds_have_their_effects_if_there_is_time(open_lock: OpenLock) -> None:
    lock = open_lock(settings=LambdaSettings(concurrency=100))
    names = [f"b{n}" for n in range(400)]
    assert lock.invoke(records_of(*names), timeout=600) == []
    assert lock.passages() == dict.fromkeys(names, 1)
    assert lock.recorded() == 400


class Noted(dict[str, Any]):
    """A record that tells when it is read."""

    read = 0

    def __getitem__(self, key: str) -> Any:
        if key == "body":
            Noted.read += 1
        return super().__getitem__(key)


def test_records_are_read_as_their_turn_comes(
    open_lock: OpenLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Noted, "read", 0)
    read_by_then: list[int] = []

    async def hang(name: str) -> None:
        await asyncio.sleep(1)
        read_by_then.append(Noted.read)

    lock = open_lock(act=hang)
    lock.invoke([Noted(record) for record in records_of(*map(str, range(1_000)))])
    assert len(read_by_then) == 10  # two rounds of five
    assert max(read_by_then) < 250
    assert len(lock.begun) == 15


def test_one_tenant_has_no_more_turns_than_it_may(open_lock: OpenLock) -> None:
    at_work: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def count(name: str) -> None:
        tenant = name[0]
        at_work[tenant] += 1
        most[tenant] = max(most[tenant], at_work[tenant])
        await asyncio.sleep(0.1)
        at_work[tenant] -= 1

    lock = open_lock(settings=LambdaSettings(concurrency=5, per_tenant=2), act=count)
    # The queue is full of one tenant's, and the other's come last.
    names = [*(f"a{n}" for n in range(20)), *(f"b{n}" for n in range(5))]
    records = records_of(*names)
    for record, name in zip(records, names, strict=True):
        record["attributes"]["MessageGroupId"] = name[0]
    assert lock.invoke(records) == []
    assert lock.passages() == dict.fromkeys(names, 1)
    assert most == {"a": 2, "b": 2}
    assert lock.begun.index("b0") == 2


def test_what_never_ends_of_one_tenant_does_not_keep_the_others_waiting(
    open_lock: OpenLock,
) -> None:
    async def hang(name: str) -> None:
        if name.startswith("a"):
            await asyncio.Event().wait()

    lock = open_lock(settings=LambdaSettings(concurrency=5, per_tenant=2), act=hang)
    names = [*(f"a{n}" for n in range(200)), *(f"b{n}" for n in range(50))]
    records = records_of(*names)
    for record, name in zip(records, names, strict=True):
        record["attributes"]["MessageGroupId"] = name[0]
    assert sorted(lock.invoke(records)) == sorted(ids_of(records[:200]))
    assert lock.passages() == dict.fromkeys(names[200:], 1)


def test_no_records_are_answered_with_no_failures(open_lock: OpenLock) -> None:
    assert open_lock().invoke([]) == []


# --- the same, twice ---


def test_an_event_that_is_in_the_batch_several_times_has_one_effect(open_lock: OpenLock) -> None:
    lock = open_lock()
    bodies = [body_of("Argo", id="e-1")] * 12 + [body_of("Dove", id="e-2")]
    records = sqs_event(ARN + "lock", *bodies)["Records"]
    assert lock.invoke(records) == []
    assert lock.passages() == {"Argo": 1, "Dove": 1}
    assert lock.recorded() == 2


def test_a_message_that_is_in_the_batch_several_times_is_reported_once(
    open_lock: OpenLock,
) -> None:
    async def hang(name: str) -> None:
        if name == "Argo":
            await asyncio.Event().wait()

    lock = open_lock(act=hang)
    stuck, free = records_of("Argo", "Dove")
    assert lock.invoke([stuck, free, stuck, free]) == [stuck["messageId"]]
    assert lock.passages() == {"Dove": 1}


def test_a_message_that_failed_once_in_the_batch_is_reported_whatever_became_of_it_again(
    open_lock: OpenLock,
) -> None:
    attempts = 0

    async def fail_first(name: str) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await asyncio.sleep(1)
            raise LookupError(name)

    lock = open_lock(act=fail_first)
    (record,) = records_of("Argo")
    # Whichever is noted last: its effect stands once, and it may come again.
    assert lock.invoke([record, dict(record)]) in ([], [record["messageId"]])
    assert lock.passages() == {"Argo": 1}


# --- what is not as it should be ---


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    return {**record, path: value}


def without(record: dict[str, Any], path: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != path}


MALFORMED: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "no body": lambda record: without(record, "body"),
    "no receipt": lambda record: without(record, "receiptHandle"),
    "no attributes": lambda record: without(record, "attributes"),
    "no arn": lambda record: without(record, "eventSourceARN"),
    "a null body": lambda record: changed(record, "body", None),
    "a body that is an object": lambda record: changed(record, "body", {"name": "Argo"}),
    "null attributes": lambda record: changed(record, "attributes", None),
    "a list of attributes": lambda record: changed(record, "attributes", []),
    "null message attributes": lambda record: changed(record, "messageAttributes", None),
    "a message attribute that is text": lambda record: changed(
        record, "messageAttributes", {"note": "n"}
    ),
    "a message attribute without a value": lambda record: changed(
        record, "messageAttributes", {"note": {"dataType": "String"}}
    ),
    "a null arn": lambda record: changed(record, "eventSourceARN", None),
    "a count that is no number": lambda record: changed(
        record, "attributes", {"ApproximateReceiveCount": "often"}
    ),
    "a time beyond all time": lambda record: changed(
        record, "attributes", {"SentTimestamp": "9" * 30}
    ),
    "a null receipt": lambda record: changed(record, "receiptHandle", None),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_record_that_sqs_does_not_make_is_reported_and_harms_nobody(
    open_lock: OpenLock, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    lock = open_lock()
    first, broken, last = records_of("Argo", "Bark", "Dove")
    broken = MALFORMED[what](broken)
    reported = lock.invoke([first, broken, last])
    # What it lacks may not matter for handling it.
    handled = {"Argo": 1, "Dove": 1} | ({} if reported else {"Bark": 1})
    assert lock.passages() == handled
    assert reported in ([], [broken["messageId"]])


@pytest.mark.parametrize("id", [None, "", 7])
def test_a_record_without_an_id_is_not_lost(open_lock: OpenLock, id: Any) -> None:
    lock = open_lock()
    good, broken = records_of("Argo", "Bark")
    broken = without(broken, "messageId") if id is None else changed(broken, "messageId", id)
    # Lambda takes an id that is empty or not of the batch for a failure of all.
    reported = lock.invoke([good, broken])
    letters = lock.cloud.queues.peek(dead_letter_queue(lock.queue))
    assert reported or "Bark" in lock.passages() or len(letters) == 1
    assert lock.passages()["Argo"] == 1


def test_a_record_of_a_queue_that_is_not_the_services_harms_nobody(open_lock: OpenLock) -> None:
    lock = open_lock()
    (good,) = records_of("Argo")
    (other,) = records_of("Bark", queue="elsewhere")
    lock.invoke([other, good])
    assert lock.passages()["Argo"] == 1


# --- what does not end ---


async def never(name: str) -> None:
    await asyncio.Event().wait()


def test_what_does_not_end_is_reported_in_time_and_handed_back(open_lock: OpenLock) -> None:
    async def hang(name: str) -> None:
        if name in ("Argo", "Bark"):
            await asyncio.Event().wait()

    lock = open_lock(act=hang)
    records = lock.in_queue("Argo", "Bark", "Crab", "Dove")
    stuck = ids_of([record for record in records if "Argo" in record["body"]])
    stuck += ids_of([record for record in records if "Bark" in record["body"]])
    assert sorted(lock.invoke(records)) == sorted(stuck)
    assert lock.passages() == {"Crab": 1, "Dove": 1}
    assert lock.took == pytest.approx(TIMEOUT - MARGIN, abs=0.02)
    depth = asyncio.run(lock.cloud.queues.depth("lock"))
    assert (depth.visible, depth.in_flight) == (2, 2)  # Lambda deletes the two that are done


def test_what_is_not_begun_for_what_does_not_end_is_reported_and_handed_back(
    open_lock: OpenLock,
) -> None:
    lock = open_lock(act=never)
    names = [f"b{n}" for n in range(60)]
    records = lock.in_queue(*names)
    assert sorted(lock.invoke(records)) == sorted(ids_of(records))
    assert len(lock.begun) == 5
    assert asyncio.run(lock.cloud.queues.depth("lock")).visible == 60
    assert answering_is_left(lock)


def test_what_swallows_its_cancellation_is_reported_in_time(open_lock: OpenLock) -> None:
    async def rage(name: str) -> None:
        while not lock.over.is_set():
            with suppress(asyncio.CancelledError):
                await lock.over.wait()

    lock = open_lock(act=rage)
    records = lock.in_queue(*(f"b{n}" for n in range(60)))
    assert sorted(lock.invoke(records)) == sorted(ids_of(records))
    assert asyncio.run(lock.cloud.queues.depth("lock")).visible == 60
    assert answering_is_left(lock)


def test_what_swallows_its_cancellation_and_ends_in_time_takes_effect_once(
    open_lock: OpenLock,
) -> None:
    async def end_late(name: str) -> None:
        if len(lock.begun) == 1:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    lock = open_lock(act=end_late)
    records = records_of("Argo")
    lock.invoke(records)
    assert lock.passages() == {"Argo": 1}
    assert lock.invoke(records) == []
    assert lock.passages() == {"Argo": 1}


def test_what_goes_on_into_the_next_invocation_takes_effect_once(open_lock: OpenLock) -> None:
    go_on = asyncio.Event()

    async def rage(name: str) -> None:
        if len(lock.begun) == 1:
            while not go_on.is_set():
                with suppress(asyncio.CancelledError):
                    await go_on.wait()

    lock = open_lock(act=rage)
    records = records_of("Argo")
    assert lock.invoke(records) == ids_of(records)
    go_on.set()
    assert lock.invoke(records) == []
    assert lock.invoke(records) == []
    assert lock.passages() == {"Argo": 1}
    assert lock.recorded() == 1


def test_a_thread_that_never_ends_is_left_and_reported_in_time(loops: Loops) -> None:
    service = Service("lock", bus="river")
    over = threading.Event()

    @service.on(BoatCame)
    def block(event: BoatCame, tx: Transaction) -> None:
        if event.name == "Argo":
            over.wait()
        tx.put(Boat(name=event.name, passages=1))

    cloud = memory_ports(clock=LoopsClock(loops))
    cloud.provision(topology(service))

    @asynccontextmanager
    async def opened(config: AwsConfig) -> AsyncIterator[Ports]:
        yield cloud.ports

    function = LambdaHandler(service, ports=opened)
    stuck, free = records_of("Argo", "Dove")
    try:
        # Threads take real time, and the loop skips its own: so the free one goes first.
        assert function({"Records": [free]}, Context(600_000)) == {"batchItemFailures": []}
        began = loops.seconds()
        answer = function({"Records": [stuck]}, Context(3_000))
        took = loops.seconds() - began
    finally:
        over.set()
        function.close()
    assert answer == {"batchItemFailures": [{"itemIdentifier": stuck["messageId"]}]}
    assert took <= TIMEOUT - ANSWERING.total_seconds()
    assert "boat#Argo" not in {item["pk"]["S"] for item in cloud.store.items("lock")}


@pytest.mark.parametrize("left", [0.0, -1.0])
def test_without_time_nothing_is_begun_and_all_is_reported(
    open_lock: OpenLock, left: float
) -> None:
    lock = open_lock()
    records = lock.in_queue("Argo", "Dove")
    assert sorted(lock.invoke(records, timeout=left)) == sorted(ids_of(records))
    assert lock.begun == []
    assert lock.took <= 0.05


def test_a_direct_invocation_that_does_not_end_is_said_to_be_unhandled_in_time(
    open_lock: OpenLock,
) -> None:
    lock = open_lock(act=never)
    began = lock.loops.seconds()
    with pytest.raises(NotHandled, match="deadline"):
        lock.function(json.loads(body_of("Argo")), Context(3_000))
    assert lock.loops.seconds() - began <= TIMEOUT - MARGIN / 2
    assert lock.passages() == {}


# --- order ---


def test_a_group_behind_a_handler_that_never_ends_is_handed_back_in_order(
    open_lock: OpenLock,
) -> None:
    async def hang(name: str) -> None:
        if name == "a1":
            await asyncio.Event().wait()

    lock = open_lock(fifo=True, act=hang)
    names = ["a0", "b0", "a1", "b1", "a2", "b2", "a3"]
    records = lock.in_queue(*names, groups=[name[0] for name in names])
    by_name = {json.loads(record["body"])["detail"]["name"]: record for record in records}
    reported = lock.invoke(records)
    assert sorted(reported) == sorted(ids_of([by_name[name] for name in ("a1", "a2", "a3")]))
    assert lock.passages() == dict.fromkeys(("a0", "b0", "b1", "b2"), 1)
    handled = [by_name[name]["receiptHandle"] for name in ("a0", "b0", "b1", "b2")]
    lock.act = None

    async def again() -> list[str]:
        # Lambda deletes what is not reported.
        assert await lock.cloud.queues.delete(lock.queue, handled) == []
        left = await lock.cloud.queues.receive(lock.queue, limit=10, wait=timedelta(0))
        return [json.loads(delivery.body)["detail"]["name"] for delivery in left]

    assert asyncio.run(again()) == ["a1", "a2", "a3"]


def test_a_group_behind_one_that_swallows_its_cancellation_is_reported_whole(
    open_lock: OpenLock,
) -> None:
    async def rage(name: str) -> None:
        while name == "a0" and not lock.over.is_set():
            with suppress(asyncio.CancelledError):
                await lock.over.wait()

    lock = open_lock(fifo=True, act=rage)
    records = lock.in_queue("a0", "a1", "b0", groups=["a", "a", "b"])
    reported = lock.invoke(records)
    assert len(reported) == 2
    assert lock.begun.count("a1") == 0
    assert lock.passages() == {"b0": 1}
    assert answering_is_left(lock)


# --- AWS that does not answer ---


@dataclass(slots=True)
class Silent:
    """A port of which some calls are not answered until it is healed, when they are given up as a
    client does. `given` are the arguments of those."""

    inner: Any
    calls: frozenset[str]
    given: list[Any] = field(default_factory=list)
    healed: asyncio.Event = field(default_factory=asyncio.Event)

    def __getattr__(self, name: str) -> Any:
        if name not in self.calls or self.healed.is_set():
            return getattr(self.inner, name)
        return self._hang

    async def _hang(self, *given: Any, **more: Any) -> list[EntryFailure]:
        self.given.append(given)
        await self.healed.wait()
        raise Unreachable("No answer came back.")


def test_a_dead_letter_queue_that_does_not_answer_holds_up_only_its_message(
    open_lock: OpenLock,
) -> None:
    async def refuse(name: str) -> None:
        if name == "Argo":
            raise PoisonMessage("it leaks")

    lock = open_lock(act=refuse)
    queues = Silent(lock.cloud.queues, frozenset({"send"}))
    lock.ports = replace(lock.cloud.ports, queues=queues)
    records = records_of("Argo", "Bark", *(f"b{n}" for n in range(100)))
    assert lock.invoke(records) == ids_of(records[:1])
    assert len(lock.passages()) == 101
    assert len(queues.given) == 1
    assert answering_is_left(lock)


def test_a_dead_letter_queue_that_never_answers_to_a_whole_batch_does_not_hold_up_the_answer(
    open_lock: OpenLock,
) -> None:
    async def refuse(name: str) -> None:
        raise PoisonMessage("it leaks")

    lock = open_lock(act=refuse)
    lock.ports = replace(lock.cloud.ports, queues=Silent(lock.cloud.queues, frozenset({"send"})))
    records = records_of(*(f"b{n}" for n in range(500)))
    assert lock.invoke(records) == ids_of(records)
    assert answering_is_left(lock)


@pytest.mark.parametrize("count", [1, 60, 5_000])
def test_a_visibility_that_cannot_be_changed_does_not_hold_up_the_answer(
    open_lock: OpenLock, count: int
) -> None:
    lock = open_lock(act=never)
    queues = Silent(lock.cloud.queues, frozenset({"change_visibility"}))
    lock.ports = replace(lock.cloud.ports, queues=queues)
    records = records_of(*(f"b{n}" for n in range(count)))
    assert lock.invoke(records) == ids_of(records)
    assert queues.given
    assert answering_is_left(lock)


@pytest.mark.parametrize("count", [3, 150])
def test_a_failure_whose_delay_cannot_be_set_holds_up_no_other(
    open_lock: OpenLock, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(name: str) -> None:
        if name.startswith("bad"):
            raise LookupError(name)

    caplog.set_level(logging.ERROR)
    lock = open_lock(act=fail)
    queues = Silent(lock.cloud.queues, frozenset({"change_visibility"}))
    lock.ports = replace(lock.cloud.ports, queues=queues)
    bad = records_of(*(f"bad{n}" for n in range(count)))
    good = records_of(*(f"good{n}" for n in range(count)))
    assert lock.invoke([*bad, *good]) == ids_of(bad)
    assert len(lock.passages()) == count
    assert answering_is_left(lock)


@pytest.mark.parametrize("call", ["transact", "get"])
def test_a_table_that_does_not_answer_leaves_nothing_half_done(
    open_lock: OpenLock, call: str
) -> None:
    lock = open_lock()
    store = Silent(lock.cloud.store, frozenset({call}))
    lock.ports = replace(lock.cloud.ports, store=store)
    records = records_of(*(f"b{n}" for n in range(60)))
    assert lock.invoke(records) == ids_of(records)
    assert lock.passages() == {}
    assert lock.recorded() == 0
    assert answering_is_left(lock)
    store.healed.set()
    assert lock.invoke(records) == []
    assert lock.passages() == {f"b{n}": 1 for n in range(60)}


def test_a_bus_that_does_not_answer_leaves_records_that_the_next_delivery_sends(
    open_lock: OpenLock,
) -> None:
    lock = open_lock()
    bus = Silent(lock.cloud.bus, frozenset({"put"}))
    lock.ports = replace(lock.cloud.ports, bus=bus)
    records = records_of("Argo", "Dove")
    assert lock.invoke(records) == ids_of(records)
    assert lock.passages() == {"Argo": 1, "Dove": 1}
    assert answering_is_left(lock)
    bus.healed.set()
    assert lock.invoke(records) == []
    assert lock.passages() == {"Argo": 1, "Dove": 1}
    statuses = {item["status"]["S"] for item in lock.cloud.store.items("lock") if "status" in item}
    assert statuses == {"done"}


def test_a_note_that_is_not_answered_does_not_hold_up_the_answer(open_lock: OpenLock) -> None:
    lock = open_lock()
    store = Silent(lock.cloud.store, frozenset({"write"}))
    lock.ports = replace(lock.cloud.ports, store=store)
    records = records_of(*(f"b{n}" for n in range(60)))
    assert lock.invoke(records) == []
    assert len(lock.passages()) == 60
    assert answering_is_left(lock)


def test_nothing_of_aws_answers_and_the_answer_still_leaves_in_time(open_lock: OpenLock) -> None:
    lock = open_lock()
    everything = frozenset({"transact", "get", "change", "write", "query"})
    lock.ports = replace(
        lock.cloud.ports,
        store=Silent(lock.cloud.store, everything),
        queues=Silent(lock.cloud.queues, frozenset({"change_visibility", "send"})),
        bus=Silent(lock.cloud.bus, frozenset({"put"})),
    )
    records = records_of(*(f"b{n}" for n in range(3_000)))
    assert lock.invoke(records) == ids_of(records)
    assert answering_is_left(lock)
