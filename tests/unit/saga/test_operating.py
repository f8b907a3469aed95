"""What operators see of sagas, and what they can do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio

from headrace.errors import ConfigurationError, HeadraceError, NotProvisioned
from headrace.saga.item import course_of
from headrace.saga.machine import Action
from headrace.saga.operating import Answer, InFlight, Sagas
from headrace.saga.progress import Status, StepStatus
from headrace.testing.harness import Harness, harness
from headrace.testing.memory import MemoryStore, memory_ports
from headrace.testing.memory.latitude import Latitude
from headrace.topology.model import Table, Topology
from tests.unit.saga import removal
from tests.unit.saga.removal import (
    SAGA,
    CraneHired,
    PianoSold,
    SaleCalledOff,
    cranes,
    movers,
    porters,
    tuners,
)

pytestmark = pytest.mark.usefixtures("soon_mended")

MINUTE = timedelta(minutes=1)


@pytest.fixture
def soon_mended() -> Iterator[None]:
    with removal.trouble():
        yield


@pytest_asyncio.fixture
async def aws() -> AsyncIterator[Harness]:
    async with harness(movers, cranes) as aws:
        yield aws


@pytest.fixture
def sagas(aws: Harness) -> Sagas:
    return Sagas(movers, aws.ports)


async def sell(aws: Harness, *pianos: str) -> None:
    for piano in pianos:
        await aws.publish(PianoSold(piano=piano))
        await aws.elapsed(timedelta(seconds=1))


async def stick(aws: Harness, *pianos: str) -> None:
    """Sell these, drop them, and have the crane jam."""
    removal.heavy.update(pianos)
    removal.jammed.update(pianos)
    await sell(aws, *pianos)
    await aws.elapsed(MINUTE)


async def keys(sagas: Sagas, *, stuck: bool = False) -> list[str]:
    return [item.key async for item in sagas.open(SAGA, stuck=stuck)]


async def done(aws: Harness, sagas: Sagas, key: str, action: Action) -> Answer:
    """Have it done, while the services go on."""
    asked = asyncio.ensure_future(
        sagas.intervene(SAGA, key, action, by="ada", why="the crane is oiled")
    )
    while not asked.done():
        await aws.elapsed(timedelta(0))
        await asyncio.wait([asked], timeout=0.01)
    return await asked


# --- looking -----------------------------------------------------------------------------


async def test_sagas_that_are_not_over_are_listed_oldest_first(aws: Harness, sagas: Sagas) -> None:
    pianos = [f"P{number}" for number in range(12)]
    removal.busy.update(pianos)
    await sell(aws, *pianos)

    assert await keys(sagas) == pianos


async def test_more_sagas_than_one_read_takes_are_all_listed(aws: Harness, sagas: Sagas) -> None:
    pianos = [f"P{number:03}" for number in range(230)]
    removal.busy.update(pianos)
    for piano in pianos:
        await aws.publish(PianoSold(piano=piano))
    await aws.elapsed(timedelta(0))

    assert sorted(await keys(sagas)) == pianos


async def test_a_saga_that_is_over_is_not_listed(aws: Harness, sagas: Sagas) -> None:
    await sell(aws, "P1")

    found = await sagas.get(SAGA, "P1")
    assert (found.status, await keys(sagas)) == (Status.COMPLETED, [])


async def test_stuck_sagas_are_listed_alone_and_among_the_others(
    aws: Harness, sagas: Sagas
) -> None:
    await stick(aws, "P1")
    removal.busy.add("P2")
    await sell(aws, "P2")

    assert await keys(sagas, stuck=True) == ["P1"]
    assert await keys(sagas) == ["P1", "P2"]


class Lagging(Latitude):
    """An index that hears of nothing any more, once it is told to."""

    lag = timedelta(0)

    def index_lag(self, table: str, index: str) -> timedelta:
        return self.lag


async def test_what_the_index_does_not_know_yet_is_known_from_the_table() -> None:
    cloud, latitude = memory_ports(), Lagging()
    cloud = replace(cloud, store=MemoryStore(cloud.clock, latitude))
    removal.busy.update({"P1", "P2"})
    async with removal.deployed(cloud, movers, cranes) as aws:
        await sell(aws, "P1", "P2")
        latitude.lag = timedelta(hours=1)
        await aws.publish(CraneHired(piano="P1"))
        await aws.elapsed(timedelta(0))

        assert [item.key async for item in Sagas(movers, cloud.ports).open(SAGA)] == ["P2"]


async def test_steps_are_in_the_order_of_the_class(aws: Harness, sagas: Sagas) -> None:
    removal.busy.add("P1")
    await sell(aws, "P1")
    item = await sagas.get(SAGA, "P1")

    course = course_of(item)
    steps = course.all_steps(sagas.definition_of(item))
    assert [(name, step.status) for name, step in steps.items()] == [
        ("hire", StepStatus.SENT),
        ("lift", StepStatus.WAITING),
        ("tell", StepStatus.WAITING),
    ]
    assert steps["hire"].due == item.begun + MINUTE
    assert course.deadline == item.begun + timedelta(hours=6)


async def test_a_saga_that_is_not_there_is_said_to_be_so(sagas: Sagas) -> None:
    assert await sagas.find(SAGA, "P9") is None
    with pytest.raises(HeadraceError, match=r"no saga movers\.removal 'P9': `headrace saga list`"):
        await sagas.get(SAGA, "P9")


# --- history -----------------------------------------------------------------------------


async def test_a_history_tells_of_every_message_in_order(aws: Harness, sagas: Sagas) -> None:
    await stick(aws, "P1")

    told = [(e.turn, e.event, e.status, e.sent) for e in await sagas.history(SAGA, "P1")]
    assert told == [
        (1, "PianoSold", Status.RUNNING, ("HireCrane",)),
        (2, "CraneHired", Status.RUNNING, ("LiftPiano",)),
        (3, "PianoDropped", Status.COMPENSATING, ("ReturnCrane",)),
        (4, "CraneJammed", Status.COMPENSATING, ()),
        (5, "SagaTimer", Status.COMPENSATING, ("ReturnCrane",)),
        (6, "CraneJammed", Status.STUCK, ()),
    ]


async def test_what_was_ignored_stands_where_it_came(aws: Harness, sagas: Sagas) -> None:
    removal.busy.add("P1")
    await sell(aws, "P1", "P1")

    first, second = await sagas.history(SAGA, "P1")
    assert (first.turn, second.turn) == (1, 1)
    assert first.time < second.time
    assert second.changes == ("PianoSold came again, and is ignored: it began before",)


async def test_a_long_history_is_read_to_its_end(aws: Harness, sagas: Sagas) -> None:
    removal.busy.add("P1")
    for _ in range(130):
        await aws.publish(PianoSold(piano="P1"))
    await aws.elapsed(timedelta(0))

    assert len(await sagas.history(SAGA, "P1")) == 130


# --- in flight ---------------------------------------------------------------------------


async def test_sagas_in_flight_are_counted_by_version(aws: Harness, sagas: Sagas) -> None:
    await stick(aws, "P1")
    removal.busy.update({"P2", "P3"})
    await sell(aws, "P2", "P3", "P4")

    assert await sagas.in_flight() == [InFlight(SAGA, 1, 3, 1, known=True)]


# --- helping on --------------------------------------------------------------------------


async def test_a_saga_that_is_resumed_ends_and_says_who_wanted_it(
    aws: Harness, sagas: Sagas
) -> None:
    await stick(aws, "P1")
    removal.jammed.clear()

    answer = await done(aws, sagas, "P1", Action.RESUME)
    await aws.settled()

    assert answer.entry is not None
    assert answer.entry.changes[0] == "resume by ada: the crane is oiled"
    assert answer.entry.sent == ("ReturnCrane",)
    assert (await sagas.get(SAGA, "P1")).status is Status.COMPENSATED
    assert answer.entry in await sagas.history(SAGA, "P1")


async def test_a_step_that_is_skipped_counts_as_undone(aws: Harness, sagas: Sagas) -> None:
    await stick(aws, "P1")

    answer = await done(aws, sagas, "P1", Action.SKIP)

    assert answer.entry is not None
    assert answer.entry.status is Status.COMPENSATED
    assert not answer.refused


async def test_a_saga_that_is_under_way_can_be_undone(aws: Harness, sagas: Sagas) -> None:
    removal.busy.add("P1")
    await sell(aws, "P1")

    answer = await done(aws, sagas, "P1", Action.COMPENSATE)

    assert answer.entry is not None
    assert answer.entry.status is Status.COMPENSATING


async def test_what_cannot_be_had_is_refused_and_told(aws: Harness, sagas: Sagas) -> None:
    removal.busy.add("P1")
    await sell(aws, "P1")

    answer = await done(aws, sagas, "P1", Action.RESUME)

    assert answer.refused
    assert answer.entry is not None
    assert answer.entry.changes == (
        "resume by ada: the crane is oiled, and is refused: it is not stuck",
    )


async def test_an_intervention_that_no_worker_takes_waits_in_the_queue(
    aws: Harness, sagas: Sagas
) -> None:
    await stick(aws, "P1")

    answer = await sagas.intervene(
        SAGA, "P1", Action.SKIP, by="ada", patience=timedelta(seconds=0.01)
    )

    assert (answer.entry, answer.queue) == (None, "movers")
    assert (await aws.cloud.queues.depth("movers")).visible == 1
    await aws.settled()
    assert answer.message_id in [entry.id for entry in await sagas.history(SAGA, "P1")]


async def test_nothing_is_sent_to_a_saga_that_is_not_there(aws: Harness, sagas: Sagas) -> None:
    with pytest.raises(HeadraceError, match="There is no saga"):
        await sagas.intervene(SAGA, "P9", Action.RESUME, by="ada")
    assert aws.cloud.queues.is_empty("movers")


async def test_an_abort_by_an_event_is_told_like_any_other(aws: Harness, sagas: Sagas) -> None:
    removal.busy.add("P1")
    await sell(aws, "P1")
    await aws.publish(SaleCalledOff(piano="P1"))
    await aws.elapsed(timedelta(0))

    *_, last = await sagas.history(SAGA, "P1")
    assert (last.event, last.status) == ("SaleCalledOff", Status.COMPENSATING)


# --- what is wrong -----------------------------------------------------------------------


async def test_a_service_without_sagas_is_told_how_to_have_one(aws: Harness) -> None:
    with pytest.raises(ConfigurationError, match=r"porters has no sagas: write class"):
        Sagas(porters, aws.ports)


async def test_one_saga_of_several_has_to_be_named(aws: Harness) -> None:
    two = Sagas(tuners, aws.ports)

    assert two.named("tuning") is two.named("tuners.tuning")
    with pytest.raises(ConfigurationError, match=r"several sagas: name one of polish, tuning"):
        two.named()
    with pytest.raises(ConfigurationError, match=r"no saga 'removal': it has polish, tuning"):
        two.named("removal")


async def test_a_table_without_the_index_is_not_provisioned() -> None:
    cloud = memory_ports()
    cloud.provision(Topology(tables=(Table("movers"),)))

    with pytest.raises(NotProvisioned, match=r"no index 'relay', .* run `headrace provision`"):
        await keys(Sagas(movers, cloud.ports))


async def test_a_table_that_is_not_there_is_not_provisioned() -> None:
    with pytest.raises(NotProvisioned):
        await Sagas(movers, memory_ports().ports).in_flight()
