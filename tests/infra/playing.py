"""Services at work on a simulated AWS, on either host, with what they ask of AWS written down.

The worker is the worker. A function is `LambdaHandler`, with the event source mapping played in
front of it and the relay swept beside it. The mapping's own calls are Lambda's, and are not
written down: see `excused.py`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from unittest.mock import patch

from headrace.errors import CloudError
from headrace.hosts.lambda_ import LambdaHandler
from headrace.hosts.settings import LambdaSettings
from headrace.hosts.worker import run_worker
from headrace.observer import Observer
from headrace.pipeline import Pipeline, running
from headrace.ports import Delivery, Ports, Queues
from headrace.relay import Relay
from headrace.service import Service
from headrace.testing import Faults, World
from headrace.testing.recording import Call, Recorder
from headrace.testing.runtime_api import sqs_event
from headrace.testing.simulation import process, world
from headrace.testing.simulation.plan import Plan, ResourcesOf, Scenario, Setting
from headrace.testing.simulation.process import Life
from headrace.testing.simulation.run import run
from headrace.topology.access import Host

FAULTS: Final = Faults.only(
    throttle=0.08, timeout=0.03, lost_answer=0.03, conflict=0.1, partial=0.05, duplicate=0.1
)
"""Enough for everything to be tried again."""
CALM: Final = Faults.none()

_TIMEOUT: Final = timedelta(seconds=30)
_SWEEP: Final = 60.0
_WAIT: Final = timedelta(seconds=20)


@dataclass(slots=True)
class Needs:
    """What each service has asked for, by its name, whichever of its processes it was."""

    host: Host
    calls: dict[str, set[Call]] = field(default_factory=lambda: defaultdict(set))


def play(
    host: Host,
    services: Sequence[Service],
    scenario: Scenario,
    *,
    resources: Mapping[Service, ResourcesOf] | None = None,
    faults: Faults = FAULTS,
    look: Callable[[World], None] = lambda aws: None,
) -> Needs:
    """Play a scenario on a host, and show `look` how it ended."""
    setting = Setting(
        services=tuple(services),
        scenario=scenario,
        invariants=(look,),
        faults=faults,
        resources={service.name: opened for service, opened in (resources or {}).items()},
        # What becomes of messages is for other tests to say.
        expected_letter=lambda letter: True,
        workers=1,
    )
    with _recorded(host) as recorders:
        played = run(setting, Plan(seed=1))
    assert played.wrong is None, played.wrong.sentence
    needs = Needs(host)
    for recorder in recorders:
        needs.calls[recorder.service] |= recorder.needed
    return needs


@contextmanager
def _recorded(host: Host) -> Iterator[list[Recorder]]:
    """Every process of a simulation has ports that are written down."""
    recorders: list[Recorder] = []
    unrecorded: dict[Queues, Queues] = {}

    class Recorded(Life):
        def __init__(self, name: str, *rest: Any) -> None:
            super().__init__(name, *rest)
            recorder = Recorder(name.partition("/")[0])
            recorders.append(recorder)
            bare, self.ports = self.ports, recorder.recorded(self.ports)
            unrecorded[self.ports.queues] = bare.queues

    async def run_functions(services: Sequence[Service], ports: Ports, **options: Any) -> None:
        (service,) = services
        await _run_function(service, ports, unrecorded[ports.queues], **options)

    with (
        patch.object(process, "Life", Recorded),
        patch.object(world, "Life", Recorded),
        patch.object(process, "run_worker", run_functions if host is Host.LAMBDA else run_worker),
    ):
        yield recorders


async def _run_function(
    service: Service,
    ports: Ports,
    polled: Queues,
    *,
    observer: Observer,
    stop: asyncio.Event,
    settings: object,
) -> None:
    """One execution environment of each function of a service."""
    async with running(service, ports, observer) as pipeline:
        mappings = [_Mapping(pipeline, polled, queue, observer) for queue in service.queues]
        running_ = [asyncio.create_task(mapping.run(stop)) for mapping in mappings]
        if service.emits:
            running_.append(asyncio.create_task(_sweep(Relay(service, ports, observer))))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((stopped, *running_), return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, *running_):
            task.cancel()
        for ended in await asyncio.gather(*running_, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


async def _sweep(relay: Relay) -> None:
    """What a schedule does with the relay's function."""
    while True:
        await asyncio.sleep(_SWEEP)
        with suppress(CloudError):
            await relay.sweep(limit=_TIMEOUT)


class _Mapping:
    """Lambda's poller: receives, invokes, and deletes what the function did not report."""

    def __init__(self, pipeline: Pipeline, polled: Queues, queue: str, observer: Observer) -> None:
        self._pipeline = pipeline
        self._polled = polled
        self._queue = queue
        self._function = _Function(pipeline.service, settings=LambdaSettings(), observer=observer)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                batch = await self._polled.receive(self._queue, limit=10, wait=_WAIT)
                if batch:
                    await self._invoke(batch)
            except CloudError:
                await asyncio.sleep(1)

    async def _invoke(self, batch: Sequence[Delivery]) -> None:
        event = sqs_event(f"arn:aws:sqs:us-east-1:000000000000:{self._queue}", *batch)
        failed = await self._function.invoked(self._pipeline, event)
        done = [each.receipt_handle for each in batch if each.message_id not in failed]
        if done:
            await self._polled.delete(self._queue, done)


class _Function(LambdaHandler):
    """The handler of a function, on the loop of the simulation."""

    async def invoked(self, pipeline: Pipeline, event: Mapping[str, Any]) -> set[str]:
        """The ids of the messages that it reports as failed."""
        answer = await self.invoke(pipeline, event, _Context())
        return {failure["itemIdentifier"] for failure in (answer or {})["batchItemFailures"]}


class _Context:
    aws_request_id = "request"

    def get_remaining_time_in_millis(self) -> int:
        return int(_TIMEOUT.total_seconds() * 1000)
