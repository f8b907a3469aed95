"""What the in-memory bus does beyond the contract of every bus."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from headrace.errors import NotProvisioned, Refused
from headrace.limits import PUT_EVENTS_BYTES
from headrace.ports import BusEntry, Delivery
from headrace.testing import ManualClock, MemoryCloud, memory_ports
from headrace.topology.model import Bus, Queue, Rule, Topology

QUEUE = Queue("orders", visibility=timedelta(seconds=30), retention=timedelta(days=1))


def cloud(pattern: dict[str, Any] | None = None) -> MemoryCloud[ManualClock]:
    rule = Rule("orders", "shop", pattern or {"source": [{"exists": True}]}, "orders")
    found = memory_ports()
    found.provision(Topology(buses=(Bus("shop"),), queues=(QUEUE,), rules=(rule,)))
    return found


async def received(aws: MemoryCloud[ManualClock]) -> list[Delivery]:
    return await aws.queues.receive("orders", limit=10, wait=timedelta(0))


async def test_the_detail_arrives_to_the_letter() -> None:
    aws = cloud()
    detail = '{"total": 1.10, "big": 12345678901234567890123, "text": "\\u00fc ü"}'

    await aws.bus.put("shop", [BusEntry("shop.order", "OrderPlaced", detail)])

    (delivery,) = await received(aws)
    assert delivery.body.endswith(f'"detail":{detail}}}')


async def test_characters_that_sqs_does_not_carry_arrive_escaped() -> None:
    aws = cloud()

    await aws.bus.put("shop", [BusEntry("shop.order", "OrderPlaced", '{"text": "\uffff"}')])

    (delivery,) = await received(aws)
    assert "\uffff" not in delivery.body
    assert json.loads(delivery.body)["detail"] == {"text": "\uffff"}


async def test_the_time_of_an_event_is_that_of_the_clock() -> None:
    aws = cloud()
    aws.clock.advance(timedelta(days=1, seconds=5))

    await aws.bus.put("shop", [BusEntry("shop.order", "OrderPlaced", "{}")])

    (delivery,) = await received(aws)
    assert json.loads(delivery.body)["time"] == "2026-01-02T00:00:05Z"


async def test_a_pattern_can_ask_for_any_part_of_the_envelope() -> None:
    aws = cloud({"account": ["000000000000"], "detail": {"total": [{"numeric": [">", 100]}]}})

    for total in (100, 101):
        entry = BusEntry("shop.order", "OrderPlaced", json.dumps({"total": total}))
        await aws.bus.put("shop", [entry])

    assert [json.loads(each.body)["detail"]["total"] for each in await received(aws)] == [101]


@pytest.mark.parametrize("detail", ["", "[]", "null", '"x"', "{", '{"a": NaN}', "{} {}"])
async def test_a_detail_that_is_no_json_object_fails(detail: str) -> None:
    aws = cloud()
    good = BusEntry("shop.order", "OrderPlaced", "{}")

    (failure,) = await aws.bus.put("shop", [good, BusEntry("shop.order", "OrderPlaced", detail)])

    expected = "MalformedDetail" if detail else "InvalidArgument"
    assert (failure.index, failure.code, failure.retryable) == (1, expected, False)


async def test_only_aws_puts_events_of_aws() -> None:
    aws = cloud()
    entry = BusEntry("aws.s3", "Object Created", '{"key": "x"}')

    (failure,) = await aws.bus.put("shop", [entry])
    aws.bus.emit("shop", entry, resources=["arn:aws:s3:::photos"])

    assert failure.code == "NotAuthorizedForSourceException"
    (delivery,) = await received(aws)
    assert json.loads(delivery.body)["resources"] == ["arn:aws:s3:::photos"]
    assert aws.bus.calls == {"put": 1}


def test_what_aws_emits_has_to_be_well_formed_too() -> None:
    with pytest.raises(Refused, match="malformed"):
        cloud().bus.emit("shop", BusEntry("aws.s3", "Object Created", "[]"))


async def test_the_size_of_a_call_is_that_of_its_texts() -> None:
    aws = cloud()
    rest = len("s" + "t" + '{"x": ""}')
    largest = BusEntry("s", "t", '{"x": "%s"}' % ("x" * (PUT_EVENTS_BYTES - rest - 1)))

    assert await aws.bus.put("shop", [largest]) == []
    with pytest.raises(Refused, match=str(PUT_EVENTS_BYTES)):
        await aws.bus.put("shop", [BusEntry("ss", largest.detail_type, largest.detail)])


async def test_events_for_a_bus_that_is_not_there_are_not_lost_in_silence() -> None:
    with pytest.raises(NotProvisioned, match="nowhere"):
        await cloud().bus.put("nowhere", [BusEntry("s", "t", "{}")])


async def test_the_default_bus_needs_no_provisioning() -> None:
    aws = memory_ports()
    rule = Rule("orders", "default", {"source": ["shop.order"]}, "orders")
    aws.provision(Topology(queues=(QUEUE,), rules=(rule,)))

    await aws.bus.put("default", [BusEntry("shop.order", "OrderPlaced", "{}")])

    assert len(await received(aws)) == 1


def test_a_rule_needs_its_bus_and_its_queue() -> None:
    rules = {
        "no-bus": Rule("r", "no-bus", {"source": ["x"]}, "orders"),
        "no-queue": Rule("r", "default", {"source": ["x"]}, "no-queue"),
    }
    for missing, rule in rules.items():
        with pytest.raises(NotProvisioned, match=missing):
            memory_ports().provision(Topology(queues=(QUEUE,), rules=(rule,)))
