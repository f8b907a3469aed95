"""Thousands of records in one invocation, and three seconds for them, in a real Lambda runtime.

`make flood` takes 10,000 of them, which is as many as Lambda hands out.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeAlias
from uuid import uuid4

import pytest

from headrace.aws.client import Clients, open_clients, open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.ports import Delivery, Ports, QueueEntry
from headrace.testing.runtime_api import PAYLOAD_BYTES, LambdaFunction, lambda_runtime, sqs_event
from headrace.topology.derive import topology
from tests.integration.hosts import flood
from tests.integration.hosts.emulated_hosts import collected, environment_of

pytestmark = pytest.mark.emulator

COUNT: Final = int(os.environ.get("RECORDS", "2000"))
FIRST: Final = 300
"""These are of all kinds, are in the queue, and come again. The others are there for the number of
them: the emulator takes half a minute to hand out so many."""
TIMEOUT: Final = timedelta(seconds=3)

Table: TypeAlias = dict[str, dict[str, Any]]


def body_of(gauge: int) -> str:
    """Of every 50 of the first: some that do not end, some that swallow that they are cancelled,
    some that block a thread, and some that take two seconds."""
    detail: dict[str, Any] = {"gauge": gauge}
    match gauge % 50 if gauge < FIRST else None:
        case 0 | 1:
            kind = "WaterStood"
        case 2 | 3:
            kind = "WaterRaged"
        case 4 | 5 | 6:
            kind = "WaterBlocked"
        case 7 | 8:
            kind, detail["seconds"] = "WaterRose", 2
        case _:
            kind, detail["seconds"] = "WaterRose", 0.05
    return json.dumps({"detail-type": kind, "detail": detail}, separators=(",", ":"))


HANDLERS: Final = {
    "WaterRose": "rise",
    "WaterStood": "stand",
    "WaterRaged": "rage",
    "WaterBlocked": "block",
}


@dataclass(slots=True)
class River:
    """The service, its function, and what became of the messages it had."""

    config: AwsConfig
    ports: Ports
    clients: Clients
    function: LambdaFunction
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def arn(self) -> str:
        return f"arn:aws:sqs:us-east-1:000000000000:{self.config.physical('flood')}"

    async def rise(self) -> None:
        """What a mapping has collected: first what was sent and received."""
        bodies = [body_of(gauge) for gauge in range(COUNT)]
        for start in range(0, FIRST, 10):
            entries = [QueueEntry(body) for body in bodies[start : start + 10]]
            assert await self.ports.queues.send("flood", entries) == []
        self.deliveries = await collected(self.ports, "flood", FIRST)
        self.deliveries += [
            Delivery(str(uuid4()), str(uuid4()), body, "flood") for body in bodies[FIRST:]
        ]

    async def invoke(self, deliveries: Sequence[Delivery], allowed: timedelta) -> list[str]:
        event = sqs_event(self.arn, *deliveries)
        answer = await self.function.invoke(event, timeout=allowed)
        assert list(answer) == ["batchItemFailures"]
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    async def table(self) -> Table:
        """Every item, by its partition key."""
        found: Table = {}
        pages = self.clients.dynamodb.get_paginator("scan").paginate(
            TableName=self.config.physical("flood"), ConsistentRead=True
        )
        async for page in pages:
            found |= {item["pk"]["S"]: dict(item) for item in page["Items"]}
        return found

    async def published(self) -> Counter[str]:
        """How often each event was published, by what caused it; resends have the same id."""
        depth = await self.ports.queues.depth("office")
        found = await collected(self.ports, "office", depth.visible)
        details = [json.loads(each.body)["detail"] for each in found]
        causes = {detail["metadata"]["id"]: detail["data"]["cause"] for detail in details}
        return Counter(causes.values())


@asynccontextmanager
async def flooded(url: str) -> AsyncIterator[River]:
    endpoints = {"sqs": url, "events": url, "dynamodb": url}
    config = AwsConfig(namespace=f"t{uuid4().hex[:6]}", endpoints=endpoints)
    await provision(topology(flood.flood, flood.office), config)
    environment = environment_of(url, config)
    async with (
        open_ports(config) as ports,
        open_clients(config) as clients,
        lambda_runtime(
            f"{flood.__name__}.handler", environment=environment, name="flood"
        ) as function,
    ):
        yield River(config, ports, clients, function)


def record_key(delivery: Delivery) -> str:
    handler = HANDLERS[json.loads(delivery.body)["detail-type"]]
    return f"inbox#flood.{handler}#{delivery.message_id}"


def gauge_key(delivery: Delivery) -> str:
    return f"gauge#{json.loads(delivery.body)['detail']['gauge']}"


def half_done(deliveries: Sequence[Delivery], *, before: Table, after: Table) -> Iterator[str]:
    """Deliveries of which one of state and record stands without the other. What is on its way may
    commit between the two looks, which are at all items, one after the other."""
    for delivery in deliveries:
        record, gauge = record_key(delivery), gauge_key(delivery)
        if record in before and gauge not in after:
            yield f"{delivery.body} has a record and no effect"
        if gauge in before and record not in after:
            yield f"{delivery.body} has an effect and no record"


async def test_thousands_of_records_in_three_seconds_lose_nothing_and_do_nothing_by_halves(
    ministack_url: str,
) -> None:
    async with flooded(ministack_url) as river:
        await river.rise()
        everything = river.deliveries
        assert len(json.dumps(sqs_event(river.arn, *everything))) < PAYLOAD_BYTES

        # Raises if the function is ended at its timeout.
        reported = await river.invoke(everything, TIMEOUT)

        ids = [delivery.message_id for delivery in everything]
        assert Counter(reported) == Counter(set(reported) & set(ids))
        assert 0 < len(reported) < COUNT
        before = await river.table()
        published = await river.published()
        after = await river.table()
        assert list(half_done(everything, before=before, after=after)) == []
        for delivery in everything:
            record = after.get(record_key(delivery))
            if delivery.message_id not in reported:
                assert record is not None, f"{delivery.body} is said to be done"
                assert before[gauge_key(delivery)]["readings"] == {"N": "1"}
                assert published[delivery.message_id] == 1
            if delivery.message_id in published:
                assert record is not None, f"{delivery.body} was published and is not recorded"
            if record is not None and record["status"]["S"] == "pending":
                assert "outgoing" in record

        # Lambda deletes what is not reported; the rest comes again, in smaller batches.
        left = [delivery for delivery in everything[:FIRST] if delivery.message_id in reported]
        again = [replaced(delivery) for delivery in left]
        for start in range(0, len(again), 100):
            batch = again[start : start + 100]
            assert await river.invoke(batch, timedelta(seconds=30)) == []

        table = await river.table()
        published += await river.published()
        for delivery in everything[:FIRST]:
            assert table[gauge_key(delivery)]["readings"] == {"N": "1"}
            assert table[record_key(delivery)]["status"] == {"S": "done"}
            assert published[delivery.message_id] >= 1


def replaced(delivery: Delivery) -> Delivery:
    """The message as it is received again."""
    return Delivery(
        delivery.message_id, delivery.receipt_handle, delivery.body, "flood", receive_count=2
    )


async def test_the_same_environment_answers_in_time_to_one_such_batch_after_the_other(
    ministack_url: str,
) -> None:
    async with flooded(ministack_url) as river:
        await river.rise()
        await river.invoke(river.deliveries, TIMEOUT)
        # What swallowed its cancellation, and what was on its way, goes on in this one.
        reported = await river.invoke(river.deliveries, TIMEOUT)
        assert len(set(reported)) == len(reported) > 0
        table = await river.table()
        done = [d for d in river.deliveries if d.message_id not in reported]
        assert done
        assert {table[gauge_key(delivery)]["readings"]["N"] for delivery in done} == {"1"}
