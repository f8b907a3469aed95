"""A place where a worker runs, dies and is started again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from copy import copy
from datetime import timedelta
from typing import Any, Final, TypeAlias

from headrace.errors import CloudError
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import run_worker
from headrace.middleware import Call, Invocation
from headrace.observer import Observer
from headrace.ports import Ports
from headrace.service import Service
from headrace.testing.simulation.chance import Chance, DrawnRandomness
from headrace.testing.simulation.cloud import Cloud
from headrace.testing.simulation.loop import LoopClock, Owner, SimulatedLoop
from headrace.testing.simulation.ports import wired_ports
from headrace.testing.simulation.trace import Kind, Trace
from headrace.testing.simulation.wire import Wire

OpenResources: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]

_LATER: Final = 20.0
"""Steps by which the end of a process is put off while it is spared."""
_SKEW: Final = 2.0
_RESTART: Final = 5.0
_SLOWEST: Final = 60.0
_SETTINGS: Final = WorkerSettings()
"""Not the environment's: a seed says all."""


class Life(Owner):
    """One process from its start to its end, with its own way to AWS, clock and chance."""

    def __init__(self, name: str, cloud: Cloud, chance: Chance, trace: Trace, number: int) -> None:
        super().__init__(name)
        loop = cloud.loop
        self.wire = Wire(loop, self, chance, cloud.network, trace, chance.stream(f"way {number}"))
        skew = chance.strikes("skew")
        off = timedelta(0) if skew is None else timedelta(seconds=_SKEW * (2 * skew - 1))
        if off:
            self.wire.fault(f"its clock is off by {off.total_seconds():+.2f} s")
        self.ports: Ports = wired_ports(
            self.wire,
            cloud,
            LoopClock(loop, off),
            DrawnRandomness(chance.stream(f"life {number}")),
        )
        self._end_some_time(chance)

    @property
    def has_started(self) -> bool:
        """Whether it has looked for messages."""
        return self.wire.has_polled

    def _end_some_time(self, chance: Chance) -> None:
        """Draw the step that will be its last, if there is to be one."""
        drawn = chance.drawn("crash")
        if drawn is None:
            return
        fault, number = drawn
        rate = chance.rate("crash")
        self.steps_left = math.log1p(-number) // math.log1p(-rate) if rate < 1 else 0.0

        def crash() -> None:
            if self.spared:
                self.steps_left = _LATER
            elif not chance.healed:
                chance.strike(fault)
                self.wire.fault("the process dies")
                self.kill()

        self.on_last_step = crash


class Place:
    """Where one worker of a service runs: started again, a few seconds later, when it dies."""

    def __init__(
        self,
        name: str,
        service: Service,
        resources: OpenResources | None,
        cloud: Cloud,
        chance: Chance,
        trace: Trace,
        observer: Observer,
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        """`on_error` is told of what a life has ended with, if that was no fault's doing."""
        self.name = name
        self._cloud = cloud
        self._chance = chance
        self._trace = trace
        self._observer = observer
        self._on_error = on_error
        self._random = chance.stream(f"place {name}")
        self._service = _as_simulated(service, resources, chance, trace, cloud.loop)
        self._life: Life | None = None
        self._stop = asyncio.Event()
        self._closed = False

    def start(self) -> None:
        """Begin a life."""
        if self._closed:
            return
        cloud = self._cloud
        life = self._life = Life(self.name, cloud, self._chance, self._trace, cloud.next_number())
        life.at_rest = True
        self._trace.note(self.name, Kind.PROCESS, "starts")
        crash = life.on_last_step

        def ended() -> None:
            crash()
            if not life.alive:
                self._start_again()

        life.on_last_step = ended
        self._stop = asyncio.Event()
        cloud.loop.begin_as(life, self._work(life, self._stop))

    @property
    def has_started(self) -> bool:
        """Whether it looks for messages, or is not to do so any more."""
        return self._closed or (self._life is not None and self._life.has_started)

    def stop(self) -> None:
        """SIGTERM: the worker finishes what runs, and is not started again."""
        self._closed = True
        if self._life is not None:
            self._trace.note(self.name, Kind.PROCESS, "is told to stop")
            self._cloud.loop.call_as(self._life, 0.0, self._stop.set)

    async def _work(self, life: Life, stop: asyncio.Event) -> None:
        loop = self._cloud.loop
        try:
            await run_worker(
                [self._service],
                life.ports,
                settings=_SETTINGS,
                observer=self._observer,
                stop=stop,
            )
        except BaseException as error:  # whatever ended it, it is a process that ended
            if not life.alive:
                raise
            self._trace.note(self.name, Kind.PROCESS, f"ends with {error!r}")
            # Where AWS cannot be reached, a worker does not start, and is started again.
            if life.has_started or not is_of_network(error):
                self._on_error(self.name, error)
        else:
            self._trace.note(self.name, Kind.PROCESS, "has stopped")
        loop.call_as(loop.world, 0.0, self._end, life)

    def _end(self, life: Life) -> None:
        life.kill()
        self._start_again()

    def _start_again(self) -> None:
        self._life = None
        if not self._closed:
            loop = self._cloud.loop
            loop.call_as(loop.world, 0.1 + _RESTART * self._random.random(), self.start)


def is_of_network(error: BaseException) -> bool:
    """Whether an exception, or one in a group, says that something could not be reached."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_of_network, error.exceptions))
    return isinstance(error, CloudError | OSError)


def _as_simulated(
    service: Service,
    resources: OpenResources | None,
    chance: Chance,
    trace: Trace,
    loop: SimulatedLoop,
) -> Service:
    """The service as it is, with handlers that may be slow, and resources of the simulation."""

    async def slow(invocation: Invocation, call_next: Call) -> Any:
        hard = chance.strikes("slow_handler")
        if hard is None:
            return await call_next(invocation)
        seconds = hard * hard * _SLOWEST
        trace.note(
            loop.current.name,
            Kind.FAULT,
            f"{invocation.service}.{invocation.handler} takes {seconds:.1f} s longer",
            (invocation.envelope.metadata.id,),
        )
        # Half of it before its reads, half of it between them and the commit.
        await asyncio.sleep(seconds / 2)
        result = await call_next(invocation)
        await asyncio.sleep(seconds / 2)
        return result

    simulated = copy(service)
    simulated.middleware = (slow, *service.middleware)
    if resources is not None:
        simulated.resources = resources
    return simulated
