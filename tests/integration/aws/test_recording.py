"""What recording ports say that a worker needs, beside what it does ask of AWS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from unittest.mock import patch
from uuid import uuid4

import pytest
from aiobotocore.client import AioBaseClient

from headrace import Ack, DeadLetter, Delivery, Outcome
from headrace.aws.client import open_ports
from headrace.aws.config import SERVICES, AwsConfig
from headrace.aws.provision import provision
from headrace.client import send
from headrace.entity import key_of, to_item
from headrace.hosts.worker import run_worker
from headrace.observer import Unobserved
from headrace.ports import Ports, Put, QueueEntry
from headrace.relay import Relay
from headrace.testing.recording import Call, Recorder
from headrace.topology.access import Resource
from headrace.topology.derive import topology
from tests.infra.small import Level, OpenSluice, ShowerCame, levels, sluice, watch

pytestmark = pytest.mark.emulator

_PATIENCE: Final = 30.0
_WORKED: Final = (sluice, levels)


@dataclass(slots=True)
class Done(Unobserved):
    """Says when so many messages were done, and so many given up."""

    acks: int
    letters: int
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self.acks -= isinstance(outcome, Ack)
        self.letters -= isinstance(outcome, DeadLetter)
        if self.acks == self.letters == 0:
            self.stop.set()


async def test_a_worker_asks_aws_for_what_recording_ports_say(ministack_url: str) -> None:
    namespace = f"test{uuid4().hex[:10]}"
    config = AwsConfig(
        namespace=namespace,
        endpoints=dict.fromkeys(SERVICES, ministack_url),
        scheduler_role=f"arn:aws:iam::000000000000:role/{namespace}-sluice-scheduler",
    )
    await provision(topology(*_WORKED, watch), config)
    async with open_ports(config) as ports:
        await _begin(ports)
    recorder, asked = Recorder("sluice"), set[Call]()
    with _overheard(config, asked):
        async with open_ports(config) as ports:
            await _work(recorder.recorded(ports))
    assert asked == recorder.needed
    assert {call.action for call in asked} == _ALL


async def _begin(ports: Ports) -> None:
    """What there is to do: a command, an event, and a message that nobody can read."""
    for hour in ("old", "seen", "sum"):
        level = Level(place="here", hour=hour)
        await ports.store.change(Put("levels", to_item(level, key_of(level, "levels"), 1)))
    await send(ports, [OpenSluice(), ShowerCame()], bus="weather")
    await ports.queues.send("levels", [QueueEntry("rain")])


async def _work(ports: Ports) -> None:
    # Of the sluice, one command is there and one comes of it.
    done = Done(acks=3, letters=1)
    async with asyncio.timeout(_PATIENCE):
        await run_worker(_WORKED, ports, observer=done, stop=done.stop)
        await Relay(watch, ports).sweep()


_ALL: Final = {
    *("dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:ConditionCheckItem"),
    *("dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"),
    *("events:DescribeEventBus", "events:PutEvents", "iam:PassRole"),
    *("scheduler:CreateSchedule", "scheduler:DeleteSchedule"),
    *("sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueUrl"),
    *("sqs:ReceiveMessage", "sqs:SendMessage"),
}
"""Everything that a worker ever does but to look how deep a queue is."""


# --- what botocore is asked ---------------------------------------------------------------


def _overheard(config: AwsConfig, asked: set[Call]) -> Any:
    """While this is open, what any client of this process asks is put into `asked`."""
    original: Any = vars(AioBaseClient)["_make_api_call"]

    async def overheard(client: Any, operation: str, request: Mapping[str, Any]) -> Any:
        service = client.meta.service_model.service_name
        asked.update(_OF[service](_Names(config), operation, request))
        return await original(client, operation, request)

    return patch.object(AioBaseClient, "_make_api_call", overheard)


@dataclass(frozen=True, slots=True)
class _Names:
    """What is called how in code, by what it is called in AWS."""

    config: AwsConfig

    def call(self, action: str, kind: Resource, physical: str) -> Call:
        return Call(action, (kind, self.config.logical(physical)))


def _of_sqs(names: _Names, operation: str, request: Mapping[str, Any]) -> Iterator[Call]:
    queue = request.get("QueueName") or request["QueueUrl"].rpartition("/")[2]
    yield names.call(f"sqs:{operation.removesuffix('Batch')}", Resource.QUEUE, queue)


def _of_events(names: _Names, operation: str, request: Mapping[str, Any]) -> Iterator[Call]:
    entries: Sequence[Mapping[str, Any]] = request.get("Entries", [])
    for bus in {request.get("Name"), *(each["EventBusName"] for each in entries)} - {None}:
        yield names.call(f"events:{operation}", Resource.BUS, str(bus))


def _of_scheduler(names: _Names, operation: str, request: Mapping[str, Any]) -> Iterator[Call]:
    yield names.call(f"scheduler:{operation}", Resource.SCHEDULE, request["Name"])
    if "Target" in request:
        role = request["Target"]["RoleArn"].rpartition("/")[2].removesuffix("-scheduler")
        yield names.call("iam:PassRole", Resource.SCHEDULER_ROLE, role)


def _of_dynamodb(names: _Names, operation: str, request: Mapping[str, Any]) -> Iterator[Call]:
    match operation:
        case "TransactWriteItems":
            for each in request["TransactItems"]:
                ((verb, part),) = each.items()
                verb = "ConditionCheckItem" if verb == "ConditionCheck" else f"{verb}Item"
                yield names.call(f"dynamodb:{verb}", Resource.TABLE, part["TableName"])
        case "BatchGetItem" | "BatchWriteItem":
            for table in request["RequestItems"]:
                yield names.call(f"dynamodb:{operation}", Resource.TABLE, table)
        case "Query" if "IndexName" in request:
            index = f"{request['TableName']}/{request['IndexName']}"
            yield names.call("dynamodb:Query", Resource.INDEX, index)
        case _:
            yield names.call(f"dynamodb:{operation}", Resource.TABLE, request["TableName"])


_OF: Final = {
    "sqs": _of_sqs,
    "events": _of_events,
    "scheduler": _of_scheduler,
    "dynamodb": _of_dynamodb,
}
