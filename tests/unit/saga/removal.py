"""Moving pianos by a crane that may not come off: a saga for operators, and an account for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar

from headrace import Command, Event, Service, Transaction
from headrace.observe.redaction import Sensitive
from headrace.pipeline import running
from headrace.saga import Abort, Retries, Saga, on, step
from headrace.testing.harness import Harness
from headrace.testing.harness.pump import Pump
from headrace.testing.harness.sendings import Sendings
from headrace.testing.memory import ManualClock, MemoryCloud, memory_ports
from headrace.topology.derive import topology
from tests.crash.skipping import SkippingLoop

T = TypeVar("T")

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
SERVICE: Final = "tests.unit.saga.removal:movers"
SAGA: Final = "removal"


class PianoSold(Event, source="saga.stage"):
    piano: str
    owner: str = "Ada"


class SaleCalledOff(Event, source="saga.stage"):
    piano: str


class HireCrane(Command, owner="cranes"):
    piano: str


class CraneHired(Event, source="saga.cranes"):
    piano: str


class CraneTaken(Event, source="saga.cranes"):
    piano: str


class ReturnCrane(Command, owner="cranes"):
    piano: str


class CraneReturned(Event, source="saga.cranes"):
    piano: str


class CraneJammed(Event, source="saga.cranes"):
    piano: str


class LiftPiano(Command, owner="cranes"):
    piano: str


class PianoLifted(Event, source="saga.cranes"):
    piano: str


class PianoDropped(Event, source="saga.cranes"):
    piano: str


class PianoInPlace(Event, source="saga.stage"):
    piano: str


class PianoStored(Event, source="saga.stage"):
    piano: str


class PianoOffered(Event, source="saga.stage"):
    piano: str


movers = Service("movers", bus="stage")
cranes = Service("cranes", bus="stage")
porters = Service("porters", bus="stage")
"""Who has no sagas."""

tuners = Service("tuners", bus="stage")
"""Who has two."""

keepers = Service("keepers", bus="stage")
"""Who has one that waits without a timeout."""


class Removal(Saga, service=movers, starts_on=PianoSold, key="piano", deadline=6 * HOUR):
    """Hire a crane, and lift the piano with it."""

    piano: str
    owner: Annotated[str, Sensitive]

    @classmethod
    def begin(cls, event: PianoSold) -> Removal:
        return cls(piano=event.piano, owner=event.owner)

    @step(done=CraneHired, failed=CraneTaken, timeout=MINUTE)
    def hire(self) -> HireCrane:
        return HireCrane(piano=self.piano)

    @hire.undo(
        done=CraneReturned,
        failed=CraneJammed,
        retries=Retries(attempts=2, base=timedelta(seconds=1)),
    )
    def give_back(self) -> ReturnCrane:
        return ReturnCrane(piano=self.piano)

    @step(done=PianoLifted, failed=PianoDropped, timeout=MINUTE, nothing_to_undo=True)
    def lift(self) -> LiftPiano:
        return LiftPiano(piano=self.piano)

    @step()
    def tell(self) -> PianoInPlace:
        return PianoInPlace(piano=self.piano)

    @on(SaleCalledOff)
    def call_off(self, event: SaleCalledOff) -> Abort:
        return Abort("Nobody wants the piano any more.")


class Tuning(Saga, service=tuners, starts_on=PianoInPlace, key="piano"):
    piano: str

    @classmethod
    def begin(cls, event: PianoInPlace) -> Tuning:
        return cls(piano=event.piano)

    @step()
    def tune(self) -> None:
        """By ear."""


class Polish(Tuning, service=tuners, starts_on=PianoInPlace, key="piano"):
    @classmethod
    def begin(cls, event: PianoInPlace) -> Polish:
        return cls(piano=event.piano)


class Storage(Saga, service=keepers, starts_on=PianoStored, key="piano", deadline=6 * HOUR):
    """Offer a piano until somebody buys it."""

    piano: str

    @classmethod
    def begin(cls, event: PianoStored) -> Storage:
        return cls(piano=event.piano)

    @step(done=PianoSold, failed=SaleCalledOff, nothing_to_undo=True)
    def offer(self) -> PianoOffered:
        return PianoOffered(piano=self.piano)


jammed: set[str] = set()
heavy: set[str] = set()
busy: set[str] = set()
"""Pianos whose crane does not come off, that are too heavy, and that nobody answers for."""


@cranes.on(HireCrane)
async def hire_out(command: HireCrane, tx: Transaction) -> CraneHired | CraneTaken | None:
    return None if command.piano in busy else CraneHired(piano=command.piano)


@cranes.on(ReturnCrane)
async def take_back(command: ReturnCrane, tx: Transaction) -> CraneReturned | CraneJammed:
    if command.piano in jammed:
        return CraneJammed(piano=command.piano)
    return CraneReturned(piano=command.piano)


@cranes.on(LiftPiano)
async def lift_it(command: LiftPiano, tx: Transaction) -> PianoLifted | PianoDropped:
    if command.piano in heavy:
        return PianoDropped(piano=command.piano)
    return PianoLifted(piano=command.piano)


@contextmanager
def trouble() -> Iterator[None]:
    """What goes wrong within ends with it."""
    try:
        yield
    finally:
        for pianos in (jammed, heavy, busy):
            pianos.clear()


@asynccontextmanager
async def deployed(cloud: MemoryCloud[ManualClock], *services: Service) -> AsyncIterator[Harness]:
    """A harness on an account that was there before, with what stands in its tables."""
    cloud.provision(topology(*services))
    sendings = Sendings(cloud, services)
    async with AsyncExitStack() as stack:
        pipelines = [
            await stack.enter_async_context(running(service, sendings.ports))
            for service in services
        ]
        yield Harness(services, cloud, sendings, Pump(cloud, pipelines, {}))


class Site:
    """Movers and cranes at work in memory, beside whatever an operator does."""

    def __init__(self) -> None:
        self.cloud = memory_ports()
        self.works = True

    def begin(self, *pianos: str) -> None:
        """Sell these, and let everything come of it that can within half a minute."""

        async def sell() -> None:
            async with deployed(self.cloud, movers, cranes) as aws:
                for piano in pianos:
                    await aws.publish(PianoSold(piano=piano))
                    await aws.elapsed(timedelta(seconds=1))
                await aws.elapsed(timedelta(seconds=30))

        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            runner.run(sell())

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """As a command of the command line, without waiting for anybody."""
        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            return runner.run(self._beside(main))

    async def _beside(self, main: Coroutine[Any, Any, T]) -> T:
        command = asyncio.ensure_future(main)
        if not self.works:
            return await command
        async with deployed(self.cloud, movers, cranes) as aws:
            while not command.done():
                await aws.elapsed(timedelta(0))
                await asyncio.wait([command], timeout=0.01)
            await aws.elapsed(timedelta(0))
        return await command
