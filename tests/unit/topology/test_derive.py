"""The topology of services: queues, tables and rules, and that no event comes twice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from pydantic import create_model

from headrace import Command, Event, QueueSettings, Service, Transaction
from headrace.errors import DuplicateName
from headrace.filters.patterns import length_of
from headrace.limits import EVENT_PATTERN_CHARACTERS
from headrace.testing.memory import memory_ports
from headrace.testing.patterns import matches
from headrace.topology.derive import topology
from headrace.topology.model import Bus, Table


class Opened(Event, source="derive.account"):
    country: str
    balance: int = 0


class Closed(Event, source="derive.account", version=2):
    country: str


class Rated(Event, source="derive.rating"):
    score: int


class Uploaded(Event, source="aws.s3", name="Derive Object Created", native=True):
    size: int


class Freeze(Command, owner="ledger"):
    account: str


def on_bus(event: type[Event], data: Mapping[str, Any], *, version: int = 1) -> dict[str, Any]:
    """What EventBridge sees of an event that headrace sent."""
    contract = event.__contract__
    assert contract is not None
    detail = {"metadata": {"id": "1", "version": version}, "data": dict(data)}
    return {"source": contract.source, "detail-type": contract.name, "detail": detail}


def takes(service: Service, queue: str, event: Mapping[str, Any]) -> int:
    """How many rules put the event into the queue."""
    return sum(matches(rule.pattern, event) for rule in topology(service).rules_into(queue))


# --- queues and tables -----------------------------------------------------------------


def test_a_service_has_its_queue_with_a_dead_letter_queue() -> None:
    settings = QueueSettings(
        visibility=timedelta(seconds=90),
        retention=timedelta(days=1),
        dead_letter_retention=timedelta(days=7),
        max_receive_count=8,
    )
    ledger = Service("ledger", queues=settings)

    @ledger.on(Opened)
    async def book(event: Opened) -> None: ...

    queue, dead_letters = topology(ledger).queues
    assert (queue.name, queue.dead_letters, queue.max_receive_count) == ("ledger", "ledger-dlq", 8)
    assert (queue.visibility, queue.retention) == (timedelta(seconds=90), timedelta(days=1))
    assert (dead_letters.name, dead_letters.dead_letters) == ("ledger-dlq", None)
    assert dead_letters.retention == timedelta(days=7)
    assert {queue.service, dead_letters.service} == {"ledger"}


def test_a_service_has_only_queues_that_a_handler_reads() -> None:
    ledger = Service("ledger")

    @ledger.on(Opened, queue="slow")
    async def book(event: Opened) -> None: ...

    names = [queue.name for queue in topology(ledger).queues]
    assert names == ["ledger-slow", "ledger-slow-dlq"]


def test_a_fifo_queue_has_a_fifo_dead_letter_queue() -> None:
    ledger = Service("ledger")

    @ledger.on(Opened, queue="ordered.fifo")
    async def book(event: Opened) -> None: ...

    derived = topology(ledger)
    assert derived.queue("ledger-ordered.fifo").dead_letters == "ledger-ordered-dlq.fifo"
    assert derived.queue("ledger-ordered.fifo").fifo
    assert derived.queue("ledger-ordered-dlq.fifo").fifo


def test_a_service_without_handlers_needs_no_queue() -> None:
    assert topology(Service("api")).queues == ()


def test_only_a_service_that_stores_something_needs_a_table() -> None:
    idle, keeper, reader = Service("idle"), Service("keeper", table="kept"), Service("reader")

    @idle.on(Opened, idempotent=True)
    async def look(event: Opened) -> None: ...

    @keeper.on(Opened)
    async def keep(event: Opened) -> None: ...

    @reader.on(Opened, idempotent=True)
    async def read(event: Opened, tx: Transaction) -> None: ...

    assert topology(idle, keeper, reader).tables == (Table("kept"), Table("reader"))


def test_the_default_bus_is_not_made() -> None:
    assert topology(Service("a"), Service("b", bus="shop")).buses == (Bus("shop"),)


def test_two_services_of_one_name_are_refused() -> None:
    with pytest.raises(DuplicateName, match="service named 'ledger'"):
        topology(Service("ledger"), Service("ledger"))


def test_two_queues_of_one_name_are_refused() -> None:
    ledger, other = Service("ledger"), Service("ledger-slow")

    @ledger.on(Opened, queue="slow")
    async def book(event: Opened) -> None: ...

    @other.on(Opened)
    async def copy(event: Opened) -> None: ...

    with pytest.raises(DuplicateName, match="queue named 'ledger-slow'"):
        topology(ledger, other)


def test_the_same_services_in_another_order_have_the_same_topology() -> None:
    ledger, audit = Service("ledger", bus="b"), Service("audit", bus="a")

    @ledger.on(Opened, Rated)
    async def book(event: Opened | Rated) -> None: ...

    @audit.on(Rated, Opened)
    async def note(event: Opened | Rated) -> None: ...

    assert topology(ledger, audit) == topology(audit, ledger)


# --- rules -----------------------------------------------------------------------------


def test_one_rule_lists_all_that_a_queue_takes_from_one_source() -> None:
    ledger = Service("ledger", bus="bank")

    @ledger.on(Opened)
    async def book(event: Opened) -> None: ...

    @ledger.on(Closed, Opened)
    async def note(event: Closed | Opened) -> None: ...

    (rule,) = topology(ledger).rules
    assert (rule.name, rule.bus, rule.queue) == ("ledger", "bank", "ledger")
    assert rule.pattern == {"source": ["derive.account"], "detail-type": ["Closed", "Opened"]}


def test_a_command_needs_no_rule() -> None:
    ledger = Service("ledger")

    @ledger.on(Freeze)
    async def freeze(command: Freeze) -> None: ...

    assert topology(ledger).rules == ()


def test_the_name_of_an_event_under_another_source_is_not_taken() -> None:
    ledger = Service("ledger")

    @ledger.on(Opened, Rated)
    async def book(event: Opened | Rated) -> None: ...

    foreign = {**on_bus(Opened, {}), "source": "derive.rating"}
    assert takes(ledger, "ledger", on_bus(Opened, {})) == 1
    assert takes(ledger, "ledger", on_bus(Rated, {})) == 1
    assert takes(ledger, "ledger", foreign) == 0


def test_a_filter_decides_what_the_queue_takes() -> None:
    ledger = Service("ledger")

    @ledger.on(Opened, where=lambda e: e.country == "DE")
    async def book(event: Opened) -> None: ...

    assert takes(ledger, "ledger", on_bus(Opened, {"country": "DE"})) == 1
    assert takes(ledger, "ledger", on_bus(Opened, {"country": "FR"})) == 0


def test_two_filters_of_one_event_take_what_either_wants_once() -> None:
    ledger = Service("ledger")

    @ledger.on(Opened, where=lambda e: e.country == "DE")
    async def book(event: Opened) -> None: ...

    @ledger.on(Opened, where=lambda e: e.balance > 100)
    async def welcome(event: Opened) -> None: ...

    assert takes(ledger, "ledger", on_bus(Opened, {"country": "DE", "balance": 500})) == 1
    assert takes(ledger, "ledger", on_bus(Opened, {"country": "FR", "balance": 500})) == 1
    assert takes(ledger, "ledger", on_bus(Opened, {"country": "FR", "balance": 5})) == 0


def test_a_handler_without_a_filter_opens_the_queue_to_every_such_event() -> None:
    ledger = Service("ledger")

    @ledger.on(Opened, where=lambda e: e.country == "DE")
    async def book(event: Opened) -> None: ...

    @ledger.on(Opened)
    async def note(event: Opened) -> None: ...

    (rule,) = topology(ledger).rules
    assert rule.pattern == {"source": ["derive.account"], "detail-type": ["Opened"]}


def test_a_filter_lets_other_versions_through_as_it_speaks_of_the_current_one() -> None:
    ledger = Service("ledger")

    @ledger.on(Closed, where=lambda e: e.country == "DE")
    async def book(event: Closed) -> None: ...

    assert takes(ledger, "ledger", on_bus(Closed, {"country": "FR"}, version=2)) == 0
    assert takes(ledger, "ledger", on_bus(Closed, {"land": "FR"}, version=1)) == 1
    assert takes(ledger, "ledger", on_bus(Closed, {"nation": "FR"}, version=3)) == 1


def test_a_filter_lets_an_event_without_metadata_through() -> None:
    ledger = Service("ledger")

    @ledger.on(Opened, where=lambda e: e.country == "DE")
    async def book(event: Opened) -> None: ...

    bare = {**on_bus(Opened, {}), "detail": {"country": "FR"}}
    assert takes(ledger, "ledger", bare) == 1


def test_the_filter_of_a_native_event_looks_into_the_detail_itself() -> None:
    ledger = Service("ledger")

    @ledger.on(Uploaded, where=lambda e: e.size > 10)
    async def scan(event: Uploaded) -> None: ...

    (rule,) = topology(ledger).rules
    assert rule.pattern["detail"] == {"size": [{"numeric": [">", 10]}]}


def test_events_of_aws_itself_come_from_the_default_bus() -> None:
    ledger = Service("ledger", bus="bank")

    @ledger.on(Opened, Uploaded)
    async def book(event: Opened | Uploaded) -> None: ...

    rules = {rule.bus: rule for rule in topology(ledger).rules}
    assert rules["bank"].pattern["source"] == ["derive.account"]
    assert rules["default"].pattern["source"] == ["aws.s3"]
    assert {rule.queue for rule in rules.values()} == {"ledger"}


def test_a_pattern_over_the_limit_is_split_so_that_each_event_matches_one_part() -> None:
    events = [
        create_model(
            f"DeriveLongNamedEventNumber{number:03}OfMany",
            __base__=Event,
            __cls_kwargs__={"source": f"derive.source{number % 3}"},
        )
        for number in range(120)
    ]
    ledger = Service("ledger")

    @ledger.on(*events)
    async def book(event: Event) -> None: ...

    rules = topology(ledger).rules
    assert len({rule.name for rule in rules}) == len(rules) > 1
    assert all(length_of(rule.pattern) <= EVENT_PATTERN_CHARACTERS for rule in rules)
    for event in events:
        assert sum(matches(rule.pattern, on_bus(event, {})) for rule in rules) == 1


def test_a_rule_of_a_long_queue_name_is_cut_to_what_eventbridge_takes() -> None:
    ledger = Service("l" * 64)

    @ledger.on(Opened, queue="first-of-two")
    async def book(event: Opened) -> None: ...

    @ledger.on(Opened, queue="second-of-two")
    async def note(event: Opened) -> None: ...

    names = [rule.name for rule in topology(ledger).rules]
    assert [len(name) for name in names] == [64, 64]
    assert len(set(names)) == 2


async def test_what_is_derived_can_be_provisioned() -> None:
    ledger = Service("ledger", bus="bank")

    @ledger.on(Opened, where=lambda e: (e.balance > 1) | (e.country == "DE"))
    async def book(event: Opened) -> None: ...

    @ledger.on(Rated, Uploaded, queue="ordered.fifo")
    async def note(event: Rated | Uploaded) -> None: ...

    cloud = memory_ports()
    cloud.provision(topology(ledger))
    depth = await cloud.queues.depth("ledger-ordered.fifo")
    assert depth.visible == 0
