"""The mill on the worker, with a faulty network between it and the emulators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session

from headrace import Ack, Outcome, Retry, Service
from headrace.aws.client import LOCAL_CREDENTIALS, Clients, open_clients
from headrace.aws.config import AwsConfig
from headrace.aws.dynamodb import DynamoDbStore
from headrace.aws.eventbridge import EventBridgeBus
from headrace.aws.provision import provision
from headrace.aws.scheduler import EventBridgeScheduler
from headrace.aws.sqs import SqsQueues
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import Worker
from headrace.observer import Unobserved
from headrace.pipeline import running
from headrace.ports import Delivery, Ports, QueueEntry
from headrace.system import SystemClock, SystemRandomness
from headrace.topology.derive import topology
from tests.integration.commit.mill import (
    Said,
    Told,
    a_mill,
    bakery,
    body_of,
    broom,
    hoppers,
    require_said_once,
    sacks_in,
    said_in,
    statuses,
)
from tests.integration.commit.proxy import FaultyProxy, faulty_proxy

if TYPE_CHECKING:
    from headrace.aws.config import Client

PATIENCE: Final = 60.0
"""Seconds after which a test that waits in vain is ended."""
VISIBILITY: Final = timedelta(seconds=2)
POLL: Final = timedelta(seconds=1)
_DELETES: Final = 0.2
READ_SECONDS: Final[Mapping[str, float]] = {"sqs": 1.6, "events": 1.0, "dynamodb": 1.0}
"""How long a client waits for an answer. SQS is silent for as long as the worker polls."""


class Watch(Unobserved):
    """Keeps every outcome, and says when there is a new one."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Delivery, Outcome]] = []
        self._new = asyncio.Event()

    def settled(self, service: str, delivery: Delivery, outcome: Outcome) -> None:
        self.outcomes.append((delivery, outcome))
        self._new.set()

    async def news(self, known: int) -> int:
        """Wait until there are more outcomes than are known; how many there are."""
        while len(self.outcomes) <= known:
            self._new.clear()
            await self._new.wait()
        return len(self.outcomes)

    @property
    def any_settled(self) -> bool:
        return bool(self.outcomes)

    @property
    def acked(self) -> set[str]:
        return {d.message_id for d, outcome in self.outcomes if isinstance(outcome, Ack)}

    def kinds(self) -> set[type[Outcome]]:
        return {type(outcome) for _, outcome in self.outcomes}


@dataclass(slots=True)
class EmulatedMill:
    """`outside` are ports on `clients` that reach the emulators without the proxy."""

    service: Service
    config: AwsConfig
    proxy: FaultyProxy
    clients: Clients
    outside: Ports
    watch: Watch = field(default_factory=Watch)
    told: dict[str, Told] = field(default_factory=dict)

    async def tell(self, **told: Told) -> None:
        """Put events into the mill's queue, by their ids."""
        entries = [QueueEntry(body_of(message, id)) for id, message in told.items()]
        assert await self.outside.queues.send("mill", entries) == []
        self.told |= told

    async def work(self, *, attempts: int | None = None) -> None:
        """Run the worker until everything is handled and the queue is empty. A call has the
        attempts that headrace's clients give it, unless others are given."""
        stop = asyncio.Event()
        async with (
            asyncio.timeout(PATIENCE),
            impatient(self.clients, self.proxy.url, attempts) as clients,
            running(self.service, ports_on(clients, self.config), self.watch) as pipeline,
            asyncio.TaskGroup() as group,
        ):
            worker = Worker([pipeline], settings=WorkerSettings(wait=POLL), observer=self.watch)
            group.create_task(worker.run(stop))
            await self._all_done()
            stop.set()

    async def require_effects_once(self) -> None:
        """Every counter is exact, everything is out under one id, every record is done."""
        expected = sacks_in(self.told.values())
        assert await hoppers(self.outside.store, expected) == expected
        require_said_once(await self.said(), self.told)
        assert set((await statuses(self.outside.store, self.told)).values()) == {"done"}
        assert (await self._left("mill"), await self._left("mill-dlq")) == (0, 0)

    async def said(self) -> Said:
        """What reached the bakery and the broom, which is taken from there."""
        return said_in([*await self._take_all("bakery"), *await self._take_all("broom")])

    async def _all_done(self) -> None:
        known = 0
        while len(self.watch.acked) < len(self.told) or await self._left("mill"):
            # Deletes leave a little later than what they follow is settled, and say nothing.
            with suppress(TimeoutError):
                async with asyncio.timeout(_DELETES):
                    known = await self.watch.news(known)
            assert self.watch.kinds() <= {Ack, Retry}, self.watch.outcomes

    async def _left(self, queue: str) -> int:
        depth = await self.outside.queues.depth(queue)
        return depth.visible + depth.in_flight + depth.delayed

    async def _take_all(self, queue: str) -> list[str]:
        bodies: list[str] = []
        while found := await self.outside.queues.receive(queue, limit=10, wait=timedelta(0)):
            bodies += [delivery.body for delivery in found]
        return bodies


@asynccontextmanager
async def emulated_mill(ministack_url: str, dynoxide_url: str) -> AsyncIterator[EmulatedMill]:
    """A mill in a namespace of its own, nothing in its queue."""
    routes = {
        "AmazonSQS": ministack_url,
        "AWSEvents": ministack_url,
        "DynamoDB_20120810": dynoxide_url,
    }
    config = AwsConfig(
        namespace=f"test{uuid4().hex[:10]}",
        endpoints={"sqs": ministack_url, "events": ministack_url, "dynamodb": dynoxide_url},
    )
    mill = a_mill(visibility=VISIBILITY)
    await provision(topology(mill, bakery, broom), config)
    async with faulty_proxy(routes) as proxy, open_clients(config) as clients:
        yield EmulatedMill(mill, config, proxy, clients, ports_on(clients, config))


@asynccontextmanager
async def impatient(clients: Clients, url: str, attempts: int | None) -> AsyncIterator[Clients]:
    """Clients like these, but for where they call, how long they wait for an answer and, if so
    wanted, how often they try."""
    session = get_session()
    async with AsyncExitStack() as stack:

        async def reopened(client: Client) -> Any:
            opening = _impatient(session, client, url, attempts)
            return await stack.enter_async_context(opening)

        sqs, events = await reopened(clients.sqs), await reopened(clients.events)
        yield Clients(sqs, events, await reopened(clients.dynamodb), clients.scheduler)


def _impatient(session: AioSession, client: Client, url: str, attempts: int | None) -> Any:
    service = client.meta.service_model.service_name
    changes: dict[str, Any] = {"read_timeout": READ_SECONDS[service]}
    if attempts is not None:
        changes["retries"] = {"mode": "standard", "total_max_attempts": attempts}
    key, secret = LOCAL_CREDENTIALS
    return session.create_client(
        service,
        region_name=client.meta.region_name,
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=client.meta.config.merge(AioConfig(**changes)),
    )


def ports_on(clients: Clients, config: AwsConfig) -> Ports:
    """What `open_ports` makes of the clients that it opens."""
    clock, randomness = SystemClock(), SystemRandomness()
    return Ports(
        queues=SqsQueues(clients.sqs, config, randomness),
        bus=EventBridgeBus(clients.events, config),
        store=DynamoDbStore(clients.dynamodb, config, randomness),
        scheduler=EventBridgeScheduler(clients.scheduler, clients.sqs, config, clock),
        clock=clock,
        randomness=randomness,
    )
