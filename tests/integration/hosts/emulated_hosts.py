"""Lambda and the worker on an emulator of AWS, and what became of the messages they had.

Lambda is the runtime's own client in a process, and the event source mapping is played here.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import ModuleType
from typing import Any, Literal, TypeAlias
from uuid import UUID, uuid4

from headrace import Ack, DeadLetter, Delivery, Outcome, Retry, Service
from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.entity import EntityT, from_item, key_for
from headrace.hosts.emulator import endpoints_environment
from headrace.hosts.worker import run_worker
from headrace.ports import Attribute, Item, ItemKey, Ports, QueueEntry
from headrace.testing.runtime_api import LambdaFunction, lambda_runtime, sqs_event
from headrace.topology.derive import topology
from tests.integration.hosts.memory_hosts import PATIENCE, Watch

Fate: TypeAlias = Literal["acked", "comes again", "dead letter"]

_SOON = timedelta(seconds=1)


@dataclass(slots=True)
class EmulatedHost(ABC):
    """One service in a namespace of its own, on one host. `app` is its module, which has the
    service as `ledger`, and `auditor`, which takes what it publishes."""

    app: ModuleType
    url: str
    ports: Ports
    config: AwsConfig
    letters: dict[str, Delivery] = field(default_factory=dict, kw_only=True)

    @property
    def service(self) -> Service:
        service: Service = self.app.ledger
        return service

    @abstractmethod
    async def handle(self, count: int) -> dict[str, Fate]:
        """Receive `count` messages and settle them; the fate of each, by its body."""

    async def send(self, body: str, attributes: Mapping[str, Attribute] | None = None) -> None:
        entry = QueueEntry(body, attributes=attributes or {})
        assert await self.ports.queues.send("ledger", [entry]) == []

    async def dead_letters(self) -> dict[str, Delivery]:
        """Every message of the dead-letter queue so far, by its body."""
        depth = await self.ports.queues.depth("ledger-dlq")
        new = await collected(self.ports, "ledger-dlq", depth.visible)
        self.letters.update((letter.body, letter) for letter in new)
        return self.letters

    async def published(self) -> list[dict[str, Any]]:
        """The details of all that reached the auditor through the bus, by id."""
        depth = await self.ports.queues.depth("auditor")
        found = await collected(self.ports, "auditor", depth.visible)
        details: list[dict[str, Any]] = [json.loads(each.body)["detail"] for each in found]
        return sorted(details, key=lambda detail: str(detail["metadata"]["id"]))

    async def entities(self, cls: type[EntityT], *names: str) -> dict[str, EntityT | None]:
        keys = [key_for(cls, "ledger", (name,), {}) for name in names]
        items = await self._items(keys)
        return {
            name: None if item is None else from_item(cls, item)
            for name, item in zip(names, items, strict=True)
        }

    async def statuses(self, *consumed: tuple[str, str]) -> list[str | None]:
        """The status of the inbox record of each pair of handler and event id."""
        keys = [ItemKey("ledger", f"inbox#ledger.{h}#{event_id}", "-") for h, event_id in consumed]
        return [None if item is None else item["status"]["S"] for item in await self._items(keys)]

    async def _items(self, keys: Sequence[ItemKey]) -> list[Item | None]:
        return await self.ports.store.get(keys)


@dataclass(slots=True)
class EmulatedLambda(EmulatedHost):
    function: LambdaFunction

    async def handle(self, count: int) -> dict[str, Fate]:
        fates: dict[str, Fate] = {}
        while len(fates) < count:
            batch = await collected(self.ports, "ledger", min(10, count - len(fates)))
            reported = await self.invoke(batch)
            handled = [d for d in batch if d.message_id not in reported]
            for delivery in handled:
                # What Lambda does with the messages that a function does not report.
                assert await self.ports.queues.delete("ledger", [delivery.receipt_handle]) == []
            letters = await self.dead_letters()
            fates |= {d.body: "comes again" for d in batch if d not in handled}
            fates |= {d.body: "dead letter" if d.body in letters else "acked" for d in handled}
        return fates

    async def invoke(self, batch: Iterable[Delivery], **options: Any) -> list[str]:
        queue = self.config.physical("ledger")
        event = sqs_event(f"arn:aws:sqs:us-east-1:000000000000:{queue}", *batch)
        answer = await self.function.invoke(event, **options)
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


@dataclass(slots=True)
class EmulatedWorker(EmulatedHost):
    async def handle(self, count: int) -> dict[str, Fate]:
        watch = Watch(count)
        ports = replace(self.ports, randomness=Longest())
        async with asyncio.timeout(PATIENCE):
            await run_worker([self.service], ports, observer=watch, stop=watch.done)
        return {delivery.body: fate_of(outcome) for delivery, outcome in watch.outcomes}


def fate_of(outcome: Outcome) -> Fate:
    match outcome:
        case Ack():
            return "acked"
        case Retry():
            return "comes again"
        case DeadLetter():
            return "dead letter"


class Longest:
    """Chance that never makes a delay short, so that nothing comes again within a test."""

    def uuid(self) -> UUID:
        return uuid4()

    def uniform(self, low: float, high: float) -> float:
        return high


@asynccontextmanager
async def on_lambda(app: ModuleType, url: str) -> AsyncIterator[EmulatedLambda]:
    async with _provisioned(app, url) as (config, ports):
        environment = environment_of(url, config)
        handler = f"{app.__name__}.handler"
        async with lambda_runtime(handler, environment=environment, name="ledger") as function:
            yield EmulatedLambda(app, url, ports, config, function)


@asynccontextmanager
async def on_worker(app: ModuleType, url: str) -> AsyncIterator[EmulatedWorker]:
    async with _provisioned(app, url) as (config, ports):
        yield EmulatedWorker(app, url, ports, config)


def environment_of(url: str, config: AwsConfig) -> dict[str, str]:
    return {**endpoints_environment(url), "HEADRACE_NAMESPACE": config.namespace}


@asynccontextmanager
async def _provisioned(app: ModuleType, url: str) -> AsyncIterator[tuple[AwsConfig, Ports]]:
    config = AwsConfig(
        namespace=f"test{uuid4().hex[:10]}",
        endpoints={"sqs": url, "events": url, "dynamodb": url},
    )
    await provision(topology(app.ledger, app.auditor), config)
    async with open_ports(config) as ports:
        yield config, ports


async def collected(ports: Ports, queue: str, count: int) -> list[Delivery]:
    """So many messages of a queue, which has them."""
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            limit = min(10, count - len(found))
            found += await ports.queues.receive(queue, limit=limit, wait=_SOON)
    return found


def note_in(letter: Delivery) -> Mapping[str, Any]:
    """Why a message is in the dead-letter queue."""
    note: Mapping[str, Any] = json.loads(str(letter.attributes[NOTE_ATTRIBUTE].value))
    return note
