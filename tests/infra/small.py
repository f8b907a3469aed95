"""Small services for what the sample shop has none of, each with all that its handlers ever do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Final

from headrace import Command, Entity, Event, Service, Transaction
from headrace.connection import Connection
from headrace.errors import PoisonMessage, RetryLater
from headrace.middleware import Call as Next
from headrace.middleware import Invocation
from headrace.pipeline import running
from headrace.ports import Attribute, Delivery
from headrace.saga import Saga, step
from headrace.testing import World, delivery_of, memory_ports
from headrace.testing.recording import Recorder
from headrace.topology.access import Host
from headrace.topology.derive import topology
from tests.infra.playing import Needs, play

FAR: Final = timedelta(minutes=20)
"""Further ahead than a queue can hide a message."""


async def stumble(invocation: Invocation, call_next: Next) -> Any:
    """Every message is wanted again once, as a handler may want any."""
    if invocation.delivery.receive_count == 1:
        raise RetryLater(delay=timedelta(seconds=1))
    return await call_next(invocation)


def small(name: str, **options: Any) -> Service:
    return Service(name, bus="weather", middleware=[stumble], **options)


class ShowerCame(Event, source="weather.sky"):
    place: str = "here"


class BaroRead(Event, source="weather.gauge"):
    place: str = "here"


class ReadGauge(Command, owner="gauge-reader"):
    place: str = "here"


class OpenSluice(Command, owner="sluice"):
    place: str = "here"


class CloseSluice(Command, owner="sluice"):
    place: str = "here"


class EmptyBasin(Command, owner="basin"):
    place: str = "here"


class TestSiren(Command, owner="siren"):
    __test__ = False
    place: str = "here"


class SluiceOpened(Event, source="weather.sluice"):
    place: str = "here"


class Level(Entity, pk="level#{place}", sk="at#{hour}"):
    place: str
    hour: str = "0"
    height: int = 0


def _ask_all(found: Sequence[Level], tx: Transaction) -> None:
    """Each kind of write."""
    hours = {level.hour: level for level in found}
    if "seen" in hours:
        tx.check(hours["seen"])
    if "old" in hours:
        tx.delete(hours["old"])
    if "new" not in hours:
        place = found[0].place if found else "nowhere"
        tx.put(Level(place=place, hour="new"))
        tx.update(Level, place, "sum", change="ADD #height :one", values={"one": 1})


# --- what they do ----------------------------------------------------------------------

listener = small("listener")
"""Keeps records, and does nothing that AWS would hear of."""


@listener.on(ShowerCame)
async def hear(event: ShowerCame) -> None: ...


crier = small("crier")
"""Events only."""


@crier.on(ShowerCame)
async def cry(event: ShowerCame) -> BaroRead:
    return BaroRead(place=event.place)


gauge_reader = small("gauge-reader")
"""Commands only: takes one, and sends another."""


@gauge_reader.on(ReadGauge)
async def read_gauge(command: ReadGauge) -> EmptyBasin:
    return EmptyBasin(place=command.place)


basin = small("basin", table=None)
"""Has no table."""


@basin.on(EmptyBasin, idempotent=True)
async def empty(command: EmptyBasin) -> BaroRead:
    return BaroRead(place=command.place)


echo = small("echo")
"""Could have a table, and needs none."""


@echo.on(ShowerCame, idempotent=True)
async def repeat(event: ShowerCame) -> None: ...


siren = small("siren")
"""Works under a lease, on what no transaction undoes."""


@siren.on(TestSiren, lease=timedelta(seconds=10))
async def howl(command: TestSiren) -> None: ...


levels = small("levels")
"""Asks of its transaction all that one can do, but to schedule."""


@levels.on(ShowerCame)
async def measure(event: ShowerCame, tx: Transaction) -> None:
    _ask_all(await tx.query(Level, event.place), tx)


keeper = small("keeper")
"""Keeps no record of what is harmless to do again, and writes."""


@keeper.on(ShowerCame, idempotent=True)
async def keep(event: ShowerCame, tx: Transaction) -> None:
    await tx.get(Level, event.place, "0")
    _ask_all(await tx.query(Level, event.place), tx)


sluice = small("sluice")
"""Sends itself something later, and calls it off."""


@sluice.on(OpenSluice, emits=[CloseSluice])
async def open_sluice(command: OpenSluice, tx: Transaction) -> SluiceOpened:
    tx.schedule(CloseSluice(place=command.place), at=tx.now + FAR, name=f"far-{command.place}")
    tx.schedule(CloseSluice(place=command.place), at=tx.now, name=f"near-{command.place}")
    tx.unschedule("another")
    return SluiceOpened(place=command.place)


@sluice.on(CloseSluice)
async def close_sluice(command: CloseSluice, tx: Transaction) -> None: ...


watch = small("watch", emits=[OpenSluice])
"""Sends commands outside of its handlers, some of them later."""


@watch.on(SluiceOpened, idempotent=True)
async def see(event: SluiceOpened) -> None: ...


dam = small("dam")
"""Has a saga and nothing else."""


class Flood(Saga, service=dam, starts_on=ShowerCame, key="place", deadline=2 * FAR):
    place: str

    @classmethod
    def begin(cls, event: ShowerCame) -> Flood:
        return cls(place=event.place)

    @step(done=SluiceOpened, timeout=FAR, nothing_to_undo=True)
    def open(self) -> OpenSluice:
        return OpenSluice(place=self.place)


locks = small("locks")
"""Keeps the order of message groups, and has those wait that stand behind one that was given up."""


@locks.on(ShowerCame, queue="lane.fifo", park=True)
async def fill(event: ShowerCame) -> None:
    if event.place == "broken":
        raise PoisonMessage("It is broken.")


SMALL: Final = (
    *(listener, crier, gauge_reader, basin, echo, siren),
    *(levels, keeper, sluice, watch, dam, locks),
)


# --- what happens to them --------------------------------------------------------------


async def rain(aws: World) -> None:
    """Everything that one of them takes, and something that nobody can read in each queue."""
    for hour in ("old", "seen", "sum"):
        for service in (levels, keeper, watch):
            await aws.put(Level(place="here", hour=hour), service=service)
    for place in ("here", "broken", "there"):
        await aws.publish(ShowerCame(place=place))
        await aws.send(ReadGauge(place=place), TestSiren(place=place), OpenSluice(place=place))
    await aws.request(watch, _watched)
    for service in SMALL:
        for queue in service.queues:
            await aws.put_message(queue, "rain", group="g" if queue.endswith(".fifo") else None)
    await aws.settled()


async def _watched(service: Connection) -> bool:
    async with service.transaction() as tx:
        _ask_all(await tx.query(Level, "here"), tx)
        tx.publish(OpenSluice(place="tower"))
        tx.schedule(OpenSluice(place="tower"), at=tx.now + FAR, name="watch")
        tx.unschedule("not-to-be-watched")
    return await service.get(Level, "here", "new") is not None


async def come_back_too_early(recorder: Recorder) -> None:
    """A message that stands behind another one which was given up, was a letter itself because
    there was no room for a note beside it, and is sent back before its turn."""
    cloud = memory_ports()
    cloud.provision(topology(locks))
    async with running(locks, recorder.recorded(cloud.ports)) as pipeline:
        await pipeline.consume(_lock("broken", sequence="1"))
        crowd = {f"plate-{number}": Attribute("x") for number in range(10)}
        await pipeline.consume(_lock("behind", sequence="2", attributes=crowd))
        await pipeline.consume(_lock("behind", sequence="2"))


def _lock(
    place: str, *, sequence: str, attributes: Mapping[str, Attribute] | None = None
) -> Delivery:
    (queue,) = locks.queues
    sent = delivery_of(ShowerCame(place=place), queue, id=place)
    return Delivery(
        message_id=place,
        receipt_handle=place,
        body=sent.body,
        queue=queue,
        receive_count=2,
        group_id="lane",
        fifo=True,
        sequence=sequence,
        attributes=attributes or {},
    )


@cache
def small_services(host: Host) -> Needs:
    """What the small services need on a host."""
    needs = play(host, SMALL, rain)
    recorder = Recorder(locks.name)
    asyncio.run(come_back_too_early(recorder))
    needs.calls[locks.name] |= recorder.needed
    return needs
