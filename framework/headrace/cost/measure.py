"""Doing some work on services in memory, and counting what it would be billed for."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from headrace.cost.account import OUTSIDE, Account
from headrace.cost.cloud import CountedCloud
from headrace.cost.hosts import EventSource, Host, at_work
from headrace.cost.meter import Meter
from headrace.cost.usage import Usage
from headrace.cost.work import Work
from headrace.errors import ConfigurationError, HeadraceError
from headrace.relay import Relay
from headrace.service import Service
from headrace.testing.harness.definitions import refuse_unsound, with_resources
from headrace.testing.letters import Letter, letter_of
from headrace.testing.simulation.loop import SimulatedLoop, simulated_loop
from headrace.testing.simulation.quiet import undisturbed
from headrace.testing.simulation.trace import Trace
from headrace.text import counted
from headrace.topology.derive import topology
from headrace.topology.model import Topology, dead_letter_queue

LONGEST: Final = timedelta(days=1)
"""What is due later than that after the work, a schedule for instance, is not waited for."""

RESTLESS: Final = timedelta(hours=1)
"""How long the services may have something in hand without a pause. Retries take minutes."""

_RESTING: Final = 0.25
"""Seconds, of no real time, between two looks that find the services at rest."""


class Unfinished(HeadraceError):
    """The work did not come to an end that could be paid for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much work there is, and how it comes. Raises `ConfigurationError`.

    Of `times` units, `at_a_time` are in flight together: 1 is the quiet end, where every call has
    one message, and many are the busy one. A call to AWS takes `call`.
    """

    times: int = 100
    at_a_time: int = 10
    call: timedelta = timedelta(milliseconds=8)
    source: EventSource = field(default_factory=EventSource)

    def __post_init__(self) -> None:
        if self.times < 1 or self.at_a_time < 1:
            raise ConfigurationError("Work is done at least once, and at least one at a time.")
        if not timedelta(0) <= self.call <= timedelta(seconds=10):
            raise ConfigurationError("A call to AWS takes 0 to 10,000 milliseconds.")


@dataclass(frozen=True, slots=True)
class Sweep:
    """One look of a service's relay through its index, which finds nothing."""

    read_units: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What `units` units of work used on a host.

    `usage` is by service, and that of what the work sent itself under an empty name. `queues` are
    those of each service, `sweeps` what a relay does all the time. `elsewhere` are owners of
    commands that are not among the services, and `later` the schedules that are still to fire.
    """

    host: Host
    units: int
    usage: Mapping[str, Usage]
    queues: Mapping[str, Sequence[str]]
    sweeps: Mapping[str, Sweep]
    log_lines: int = 0
    elsewhere: tuple[str, ...] = ()
    later: int = 0


def measure(host: Host, services: Sequence[Service], work: Work, load: Load) -> Measured:
    """Do the work on this host, on a loop whose time is not real, and without a network.

    Raises `DefinitionError` for what `headrace check` calls an error, `ConfigurationError` for
    services that handle nothing, and `Unfinished` for work that is not done as often as it should
    be, becomes a dead letter, or has no end.
    """
    _refuse_idle(services)
    refuse_unsound(services)
    loop = simulated_loop(None)
    with loop, undisturbed(loop, Trace(False, loop.time), 0), _plain(), _lines() as lines:
        return loop.run_until_complete(_Measuring(loop, host, services, work, load, lines).run())


def _refuse_idle(services: Sequence[Service]) -> None:
    for service in services:
        if not service.queues:
            raise ConfigurationError(
                f"The service {service.name!r} has no queue, as none of its handlers takes "
                "anything: import the module with its handlers, or leave it out."
            )


class _Measuring:
    def __init__(
        self,
        loop: SimulatedLoop,
        host: Host,
        services: Sequence[Service],
        work: Work,
        load: Load,
        lines: _Lines,
    ) -> None:
        self._loop = loop
        self._host = host
        self._services = services
        self._work = work
        self._load = load
        self._lines = lines
        derived = topology(*services)
        seconds = load.call.total_seconds()
        names = [OUTSIDE, *(service.name for service in services)]
        self._meters = {name: Meter(service=name, seconds=seconds) for name in names}
        self._owners = _owners(derived)
        self._cloud = CountedCloud(loop, derived, lambda queue: self._meters[self._owners[queue]])
        self._ports = {
            name: meter.measured(self._cloud.ports) for name, meter in self._meters.items()
        }
        self._working: asyncio.Task[None] | None = None

    async def run(self) -> Measured:
        services = with_resources(self._services, self._work.resources)
        account = Account(
            self._services,
            self._ports,
            self._cloud.store,
            self._cloud.bus,
            self._load.times,
            self._load.at_a_time,
            self._settled,
            self._begin,
        )
        sweeps = {s.name: await self._swept(s) for s in self._services if s.emits}
        async with at_work(
            self._host, services, self._ports, self._meters, self._load.source
        ) as self._working:
            await self._work.run(account)
            self._refuse_undone(account)
            await self._settled(later=True)
            self._refuse_letters()
            # Before the services close: what that takes is not of the work.
            used = {name: meter.usage() for name, meter in self._meters.items()}
        return Measured(
            host=self._host,
            units=account.done,
            usage=used,
            queues={service.name: tuple(service.queues) for service in self._services},
            sweeps=sweeps,
            log_lines=self._lines.count,
            elsewhere=tuple(sorted(self._cloud.elsewhere)),
            later=len(self._cloud.scheduler.peek()),
        )

    def _begin(self) -> None:
        for meter in self._meters.values():
            meter.reset()
        self._lines.count = 0

    async def _swept(self, service: Service) -> Sweep:
        meter, began = self._meters[service.name], self._loop.time()
        await Relay(service, self._ports[service.name]).sweep()
        sweep = Sweep(meter.index_read_units, self._loop.time() - began)
        meter.reset()
        return sweep

    # --- rest ---

    async def _settled(self, *, later: bool = False) -> None:
        """Until nothing can be received or is in hand; with `later`, nothing is due within
        `LONGEST` either. Raises `Unfinished`."""
        now = self._cloud.clock.now
        ends = now() + LONGEST
        since: datetime | None = None
        rests = 0
        while rests < 2:
            self._refuse_ended()
            due = self._next_due() if later else None
            waits = due is not None and due <= ends
            if self._is_moving():
                since, rests = since or now(), 0
                self._refuse_endless(now() - since)
            else:
                since, rests = None, 0 if waits else rests + 1
            left = self._loop.seconds_until(due) if due is not None and waits else 0.0
            await asyncio.sleep(max(left, _RESTING))

    def _is_moving(self) -> bool:
        depths = map(self._cloud.queues.depth_now, self._sources())
        return any(depth.visible or depth.in_flight for depth in depths)

    def _next_due(self) -> datetime | None:
        times = [self._cloud.queues.next_due(queue) for queue in self._sources()]
        times.append(self._cloud.scheduler.next_due())
        return min((time for time in times if time is not None), default=None)

    def _sources(self) -> Iterator[str]:
        return (queue for service in self._services for queue in service.queues)

    def _left(self) -> str:
        depths = {queue: self._cloud.queues.depth_now(queue) for queue in self._sources()}
        held = {queue: depth.visible + depth.in_flight for queue, depth in depths.items()}
        return "; ".join(
            f"the queue {queue!r} holds {counted(count, 'message')}"
            for queue, count in held.items()
            if count
        )

    # --- what cannot be paid for ---

    def _refuse_endless(self, moving: timedelta) -> None:
        if moving > RESTLESS:
            raise Unfinished(f"An hour was not enough for the work: {self._left()}.")

    def _refuse_ended(self) -> None:
        if self._working is not None and self._working.done():
            self._working.result()

    def _refuse_undone(self, account: Account) -> None:
        if account.done != account.times:
            raise Unfinished(
                f"{account.done} of {account.times} units of work were done: have the function do "
                "one for each number of `async for number in aws.units():`, to the end."
            )

    def _refuse_letters(self) -> None:
        letters = [letter for service in self._services for letter in self._letters(service)]
        if letters:
            raise Unfinished(
                f"{counted(len(letters), 'message')} of the work became dead letters, which is "
                f"not what it costs: {letters[0]}"
            )

    def _letters(self, service: Service) -> Iterator[Letter]:
        for queue in service.queues:
            for entry in self._cloud.queues.peek(dead_letter_queue(queue)):
                yield letter_of(service, queue, entry)


def _owners(derived: Topology) -> dict[str, str]:
    return {queue.name: queue.service for queue in derived.queues}


class _Lines(logging.Handler):
    """Counts the lines that a host writes at its usual level."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


@contextmanager
def _lines() -> Iterator[_Lines]:
    """Lines of the log are counted, and not written."""
    root, lines = logging.getLogger(), _Lines()
    level, disabled = root.level, root.manager.disable
    root.handlers[:] = [lines]
    root.setLevel(logging.INFO)
    logging.disable(logging.NOTSET)
    try:
        yield lines
    finally:
        root.setLevel(level)
        logging.disable(disabled)


@contextmanager
def _plain() -> Iterator[None]:
    """A Lambda function asks the environment what it is to tell, and here that is nothing."""
    told = ("HEADRACE_TRACING", "HEADRACE_METRICS", "HEADRACE_LOGS", "HEADRACE_LOG_PAYLOADS")
    kept = {name: os.environ.pop(name) for name in told if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
