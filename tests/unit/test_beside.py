"""One handler, delivery or observer does not hurt another, nor the host that they run on."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

import pytest

from headrace import Ack, DeadLetter, Event, PoisonMessage, Retry, RetryLater, Service, Transaction
from headrace.aws.config import AwsConfig
from headrace.batch import Batch
from headrace.connection import connect
from headrace.envelope import Outgoing
from headrace.errors import Throttled
from headrace.hosts.deadline import Deadline
from headrace.hosts.lambda_ import LambdaHandler
from headrace.hosts.worker import run_worker
from headrace.observer import Observer, Unobserved
from headrace.outcome import Outcome
from headrace.pipeline import running
from headrace.ports import (
    BusEntry,
    Delete,
    Delivery,
    EntryFailure,
    Item,
    ItemKey,
    Ports,
    Put,
)
from headrace.relay import Relay
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.testing.runtime_api import sqs_event
from headrace.topology.derive import topology
from headrace.tracing import Step
from headrace.turns import Turns
from tests.crash.skipping import LoopClock
from tests.unit.depot import Bus, CrateMoved, CrateSeen, Depot, Shelf, Through, open_depot
from tests.unit.timeless import timeless


class CratesCounted(Event, source="depot.office"):
    number: int = 0


# --- handlers ---


async def settled_at_once(delivery: Delivery, outcome: Outcome) -> Outcome:
    return outcome


def batch(depot: Depot, consume: Any, observer: Observer | None = None, **host: Any) -> Batch:
    return Batch(
        "depot",
        consume,
        settled_at_once,
        turns=Turns(),
        observer=observer or Unobserved(),
        **host,
    )


@timeless
async def test_a_handler_that_hangs_until_the_deadline_keeps_no_other_from_its_effect() -> None:
    depot = open_depot(LoopClock())

    @depot.service.on(CrateMoved)
    async def hang(event: CrateMoved, tx: Transaction) -> None:
        await asyncio.Event().wait()

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
        tx.update(Shelf, "a", change="ADD #count :n", values={"n": 1})
        return CrateSeen(note="moved")

    bus = Bus()
    async with depot.pipeline(bus=bus) as pipeline:
        for receive in (1, 2):
            delivered = [depot.delivery(receive_count=receive)]
            deadline = Deadline(depot.cloud.clock, timedelta(seconds=10), timedelta(seconds=1))
            hurried = batch(depot, pipeline.consume, stay=deadline.stay)
            (outcome,) = (await hurried.run(delivered)).values()
            assert isinstance(outcome, Retry)
            # It took effect at the first delivery, and at no other.
            assert (await depot.shelf(), bus.notes) == (1, ["moved"])


async def test_a_handler_that_fails_keeps_no_other_from_its_effect(depot: Depot) -> None:
    @depot.service.on(CrateMoved)
    async def fail(event: CrateMoved) -> None:
        raise ValueError("no")

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        tx.put(Shelf(sku="a"))

    async with depot.pipeline() as pipeline:
        assert isinstance(await pipeline.consume(depot.delivery()), Retry)
    assert await depot.shelf() == 0


# --- a handler's own error, and a record that cannot be looked at ---


class Unreadable(Through):
    async def get(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        raise Throttled("slow down")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PoisonMessage("never"), DeadLetter("never")),
        (RetryLater("later", delay=timedelta(hours=1)), Retry("later", timedelta(hours=1))),
    ],
)
async def test_a_record_that_cannot_be_seen_hides_no_error_of_the_handler(
    depot: Depot, error: Exception, expected: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> None:
        raise error

    async with depot.pipeline(store=Unreadable(depot)) as pipeline:
        outcome = await pipeline.consume(depot.delivery())
    assert type(outcome) is type(expected)
    assert not isinstance(outcome, Ack)
    assert outcome.error is error
    assert getattr(outcome, "delay", None) == getattr(expected, "delay", None)
    assert "Whether e-1 stands could not be seen: slow down" in caplog.text


# --- observers ---


class Broken(Unobserved):
    """An observer that raises whenever it is told of this."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def received(self, service: str, delivery: Delivery) -> None:
        self.fail("received")

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self.fail("settled")

    def sent(self, service: str, outgoing: Outgoing) -> None:
        self.fail("sent")

    def fail(self, moment: str) -> None:
        if moment == self.moment:
            raise RuntimeError(f"{moment} is not counted")


@pytest.mark.parametrize("moment", ["received", "settled", "sent"])
async def test_an_observer_that_raises_hurts_nobody_and_is_logged(
    depot: Depot, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    bus, observer = Bus(), Broken(moment)

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
        tx.put(Shelf(sku=event.sku))
        return CrateSeen(note=event.sku)

    async with running(depot.service, replace(depot.cloud.ports, bus=bus), observer) as pipeline:
        outcomes = await batch(depot, pipeline.consume, observer).run(
            [depot.delivery(CrateMoved(sku=sku), id=sku) for sku in "abc"]
        )
    assert list(outcomes.values()) == [Ack()] * 3
    assert sorted(bus.notes) == ["a", "b", "c"]
    failures = [record for record in caplog.records if record.exc_info]
    assert [str(failure.exc_info[1]) for failure in failures if failure.exc_info] == [
        f"{moment} is not counted"
    ] * 3
    assert {failure.levelno for failure in failures} == {logging.ERROR}


class Tripping:
    """A tracer, and all that it gives, which raises at one moment."""

    def __init__(self, moment: str) -> None:
        self.moment = moment

    def fail(self, moment: str) -> None:
        if moment == self.moment:
            raise RuntimeError(f"{moment} is not traced")

    @contextmanager
    def _block(self, name: str) -> Iterator[Tripping]:
        self.fail(f"begin {name}")
        try:
            yield self
        finally:
            self.fail(f"end {name}")

    def delivery(self, *args: object) -> AbstractContextManager[Tripping]:
        self.fail("delivery")
        return self._block("delivery")

    @property
    def traceparent(self) -> str | None:
        self.fail("traceparent")
        return None

    def step(self, name: str, consumer: str) -> AbstractContextManager[Tripping]:
        return self._block(name)

    def ended(self, outcome: Outcome) -> None:
        self.fail("ended")

    def received(self, *args: object) -> None: ...

    def current(self) -> str | None:
        return None

    def flush(self) -> None: ...


@pytest.mark.parametrize(
    "moment",
    [
        "delivery",
        "traceparent",
        "ended",
        *(f"{at} {what}" for at in ("begin", "end") for what in ("delivery", *get_args(Step))),
    ],
)
async def test_a_tracer_that_raises_hurts_no_delivery_and_is_logged(
    depot: Depot, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
        tx.put(Shelf(sku=event.sku))
        return CrateSeen(note=event.sku)

    bus, tracer = Bus(), Tripping(moment)
    ports = replace(depot.cloud.ports, bus=bus)
    async with running(depot.service, ports, tracer=tracer) as pipeline:
        outcome = await pipeline.consume(depot.delivery(CrateMoved(sku="a"), id="a"))
    assert outcome == Ack()
    assert bus.notes == ["a"]
    failures = [record for record in caplog.records if record.exc_info]
    assert {str(record.exc_info[1]) for record in failures if record.exc_info} == {
        f"{moment} is not traced"
    }


async def test_an_observer_that_raises_fails_no_transaction_from_outside(depot: Depot) -> None:
    service, bus = Service("depot", bus="yard", emits=[CrateSeen]), Bus()
    ports = replace(depot.cloud.ports, bus=bus)
    async with (
        connect(service, ports, Broken("sent")) as connection,
        connection.transaction(key="k") as tx,
    ):
        tx.publish(CrateSeen(note="said"))
    assert bus.notes == ["said"]
    (record,) = depot.cloud.store.items("depot")
    assert record["status"] == {"S": "done"}


# --- Lambda ---


class Slow(Through):
    """The store of an account that is slow to note what is out."""

    def __init__(self, depot: Depot) -> None:
        super().__init__(depot)
        self.noted = False

    async def write(self, actions: Sequence[Put | Delete]) -> list[int]:
        for _ in range(1000):
            await asyncio.sleep(0)
        self.noted = True
        return await self.store.write(actions)


class Remaining:
    aws_request_id = "request-1"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


def on_lambda(depot: Depot, store: Any) -> LambdaHandler:
    @asynccontextmanager
    async def opened(config: AwsConfig) -> AsyncIterator[Ports]:
        yield replace(depot.cloud.ports, store=store, bus=Bus())

    return LambdaHandler(depot.service, ports=opened)


def batch_event(depot: Depot) -> Any:
    return sqs_event("arn:aws:sqs:us-east-1:000000000000:depot", depot.delivery())


def moving(depot: Depot, *, seconds: float) -> None:
    """A handler after which so many seconds are gone."""

    @depot.service.on(CrateMoved)
    async def move(event: CrateMoved, tx: Transaction) -> CrateSeen:
        depot.advance(seconds)
        return CrateSeen()


def test_a_note_that_takes_longer_than_there_is_time_does_not_hold_up_the_answer() -> None:
    depot = open_depot()
    store = Slow(depot)
    moving(depot, seconds=29.9)
    handler = on_lambda(depot, store)
    try:
        answer = handler(batch_event(depot), Remaining(30))
        assert answer == {"batchItemFailures": []}
        assert not store.noted
    finally:
        handler.close()


def test_what_was_not_noted_before_the_answer_is_noted_after_it() -> None:
    depot = open_depot()
    store = Slow(depot)
    moving(depot, seconds=29.9)
    handler = on_lambda(depot, store)
    handler(batch_event(depot), Remaining(30))
    handler.close()
    assert status(depot) == {"S": "done"}


@pytest.mark.parametrize("direct", [False, True])
def test_what_is_out_is_noted_before_the_answer_if_there_is_time(direct: bool) -> None:
    """From the answer on, the process may be frozen for good."""
    depot = open_depot()
    store = Slow(depot)
    moving(depot, seconds=1)
    handler = on_lambda(depot, store)
    event = batch_event(depot)
    try:
        handler(unwrapped(event) if direct else event, Remaining(30))
        assert store.noted
        assert status(depot) == {"S": "done"}
    finally:
        handler.close()


def unwrapped(event: Any) -> Any:
    """The event of a batch as a direct invocation brings it."""
    return json.loads(event["Records"][0]["body"])


def status(depot: Depot) -> Any:
    (record,) = depot.cloud.store.items("depot")
    return record["status"]


# --- workers and relays ---


def office() -> tuple[Service, MemoryCloud[Any]]:
    """A service that publishes from outside of handlers, on the loop's time."""
    service = Service("office", bus="yard", emits=[CratesCounted])
    cloud: MemoryCloud[Any] = memory_ports(clock=LoopClock())
    cloud.provision(topology(service))
    return service, cloud


@timeless
async def test_a_worker_of_a_service_without_handlers_stops_when_it_is_told() -> None:
    service, cloud = office()
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(1, stop.set)
    await run_worker([service], cloud.ports, stop=stop)
    assert stop.is_set()


class Unsteady:
    """A store whose index cannot be read at first, for a reason that nobody thought of."""

    def __init__(self, cloud: MemoryCloud[Any]) -> None:
        self.store = cloud.store
        self.queries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def query(self, *args: Any, **how: Any) -> Any:
        self.queries += 1
        if self.queries == 1:
            raise RuntimeError("once, by the driver")
        return await self.store.query(*args, **how)


class Awaited(Bus):
    """A bus that says when it was given something."""

    def __init__(self) -> None:
        super().__init__()
        self.given = asyncio.Event()

    async def put(self, bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
        self.given.set()
        return await super().put(bus, entries)


@timeless
async def test_a_sweep_that_raises_something_unforeseen_is_logged_and_the_worker_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service, cloud = office()
    async with (
        connect(service, replace(cloud.ports, bus=Bus(down=True))) as connection,
        connection.transaction(key="k") as tx,
    ):
        tx.publish(CratesCounted())
    bus, store = Awaited(), Unsteady(cloud)
    ports = replace(cloud.ports, bus=bus, store=store)
    await run_worker([service], ports, stop=bus.given)
    assert len(bus.details) == 1
    assert "What office has left to send was not sent." in caplog.text
    assert "once, by the driver" in caplog.text


async def test_a_sweep_by_itself_still_says_what_went_wrong() -> None:
    service, cloud = office()
    relay = Relay(service, replace(cloud.ports, store=Unsteady(cloud)))
    with pytest.raises(RuntimeError, match="once, by the driver"):
        await relay.sweep()
