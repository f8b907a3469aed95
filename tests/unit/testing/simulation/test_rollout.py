"""Two versions of a service beside each other, while messages are on their way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace import Command, Entity, Event, PoisonMessage, Service, Transaction
from headrace.errors import ConfigurationError
from headrace.events import registry, upcaster
from headrace.testing import Faults, Rollout, World, simulate
from headrace.testing.simulation.plan import Plan, Setting
from headrace.testing.simulation.run import run
from headrace.testing.simulation.trace import Kind
from tests.unit.testing.simulation.ferry import broken, violation_of


class StowCrate(Command, owner="stevedore"):
    crate: str


class CountStores(Command, owner="stevedore"):
    crate: str


class CrateStowed(Event, source="harbour.stevedore"):
    crate: str


class StoredCrate(Entity, pk="stored#{crate}"):
    crate: str
    times: int = 0


CRATES = [f"crate-{number}" for number in range(10)]


def stevedore(handler: str = "stow") -> Service:
    """A version of the service, whose handler has this name."""
    service = Service("stevedore", bus="harbour")

    @service.on(StowCrate, name=handler)
    async def stow(command: StowCrate, tx: Transaction) -> CrateStowed:
        crate = await tx.get(StoredCrate, command.crate) or StoredCrate(crate=command.crate)
        crate.times += 1
        tx.put(crate)
        return CrateStowed(crate=command.crate)

    return service


BEFORE = stevedore()


def counting() -> Service:
    """The next version, which handles another command as well."""
    service = stevedore()

    @service.on(CountStores)
    async def count_stores(command: CountStores, tx: Transaction) -> None:
        await tx.get(StoredCrate, command.crate)

    return service


async def crates_come(aws: World) -> None:
    """For long enough that every rollout falls in between."""
    for crate in CRATES:
        await aws.send(StowCrate(crate=crate))
        await asyncio.sleep(4)


def every_crate_is_stowed_once(aws: World) -> None:
    stored = aws.all(StoredCrate, BEFORE)
    assert Counter({crate.crate: crate.times for crate in stored}) == Counter(CRATES)
    assert Counter(event.crate for event in aws.published(CrateStowed)) == Counter(CRATES)


def starts(setting: Setting, seed: int) -> list[str]:
    found = run(setting, Plan(seed), traced=True)
    assert found.wrong is None
    return [e.lane for e in found.entries if e.kind is Kind.PROCESS and e.text == "starts"]


# --- what happens ---


def test_a_rollout_happens_in_every_run_even_without_faults() -> None:
    setting = Setting((Rollout(BEFORE, counting()),), crates_come, faults=Faults.none(), workers=1)
    for seed in range(5):
        assert starts(setting, seed) == ["stevedore/1", "stevedore/2"]


def test_a_service_without_a_next_version_is_not_deployed_unless_by_a_fault() -> None:
    setting = Setting((BEFORE,), crates_come, faults=Faults.none(), workers=1)
    assert starts(setting, 0) == ["stevedore/1"]


def test_every_worker_is_replaced() -> None:
    setting = Setting((Rollout(BEFORE, counting()),), crates_come, faults=Faults.none(), workers=3)
    assert starts(setting, 0) == [f"stevedore/{number}" for number in range(1, 7)]


def test_both_versions_handle_messages_and_the_old_one_stops() -> None:
    setting = Setting((Rollout(BEFORE, counting()),), crates_come, faults=Faults.none(), workers=1)
    entries = run(setting, Plan(1), traced=True).entries
    received = {e.lane for e in entries if e.kind is Kind.RECEIVED}
    stopped = {e.lane for e in entries if e.kind is Kind.PROCESS and e.text == "has stopped"}
    assert received == {"stevedore/1", "stevedore/2"}
    assert stopped == {"stevedore/1"}


# --- compatible ---


def test_a_next_version_that_handles_more_loses_nothing() -> None:
    simulate([Rollout(BEFORE, counting())], crates_come, [every_crate_is_stowed_once], seeds=15)


async def what_only_the_next_version_knows(aws: World) -> None:
    await asyncio.sleep(40)
    await aws.send(CountStores(crate="crate-0"))


def test_what_the_next_version_adds_is_handled_once_it_is_there_alone() -> None:
    rollout = Rollout(BEFORE, counting())
    simulate([rollout], what_only_the_next_version_knows, seeds=5, faults=Faults.none())


def test_resources_of_the_service_are_those_of_both_versions() -> None:
    opened: list[str] = []

    def open_log(aws: World) -> Any:
        opened.append("log")
        return _Nothing()

    simulate(
        [Rollout(BEFORE, counting())],
        crates_come,
        seeds=1,
        faults=Faults.none(),
        resources={BEFORE: open_log},
        workers=1,
    )
    # Twice, as the first seed is.
    assert opened == ["log", "log"] * 2


class _Nothing:
    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


def test_resources_are_given_for_the_version_before() -> None:
    after = Service("another", bus="harbour")
    with pytest.raises(ConfigurationError, match="not among the services"):
        simulate([Rollout(BEFORE, after)], crates_come, resources={after: lambda _: _Nothing()})


def test_a_queue_that_the_next_version_adds_is_looked_at_as_well() -> None:
    after = stevedore()

    @after.on(CrateStowed, queue="audit")
    async def audit(event: CrateStowed) -> None:
        raise PoisonMessage("It is not on the list.")

    violation = violation_of([Rollout(BEFORE, after)], crates_come)
    assert broken(violation) == "dead letters"
    assert "'stevedore-audit': It is not on the list." in str(violation)


# --- a change of an event ---


class Weighed:
    """An event in its two versions, each of which one of two services publishes or reads."""

    def __init__(self, *, upcasts: bool) -> None:
        with registry.scratch(empty=True):

            class CrateWeighed(Event, source="harbour.scale", version=1):
                pounds: int

        self.first = CrateWeighed
        with registry.scratch(empty=True):

            class CrateWeighedInKilos(
                Event, source="harbour.scale", version=2, name="CrateWeighed"
            ):
                kilos: int

        self.second = CrateWeighedInKilos
        if upcasts:

            @upcaster(CrateWeighedInKilos, from_version=1)
            def in_kilos(payload: dict[str, Any]) -> dict[str, Any]:
                return {"kilos": payload["pounds"] // 2}

    def ledger(self, version: int) -> Service:
        service = Service("ledger", bus="harbour")
        handled = self.first if version == 1 else self.second

        @service.on(handled)
        async def enter(event: handled, tx: Transaction) -> None:  # type: ignore[valid-type]  # one of the two
            return None

        return service

    def scale(self, version: int) -> Callable[[World], Awaitable[None]]:
        """A scenario in which so old a scale weighs."""

        async def crates_are_weighed(aws: World) -> None:
            for weight in range(2, 12):
                event = self.first(pounds=weight) if version == 1 else self.second(kilos=weight)
                await aws.publish(event)
                await asyncio.sleep(4)

        return crates_are_weighed


def test_a_next_version_that_upcasts_reads_what_the_old_one_is_sent() -> None:
    weighed = Weighed(upcasts=True)
    rollout = Rollout(weighed.ledger(1), weighed.ledger(2))
    simulate([rollout], weighed.scale(1), seeds=10, faults=Faults.none())


def test_a_next_version_that_cannot_read_the_old_event_is_caught() -> None:
    weighed = Weighed(upcasts=False)
    rollout = Rollout(weighed.ledger(1), weighed.ledger(2))
    violation = violation_of([rollout], weighed.scale(1))
    assert broken(violation) == "dead letters"
    assert "CrateWeighed" in str(violation)


def test_an_old_version_that_cannot_read_the_next_event_is_caught() -> None:
    weighed = Weighed(upcasts=True)
    rollout = Rollout(weighed.ledger(1), weighed.ledger(2))
    violation = violation_of([rollout], weighed.scale(2))
    assert broken(violation) == "dead letters"
    assert "version 2" in str(violation)


# --- not compatible ---


def test_a_next_version_that_drops_a_handler_with_messages_on_their_way_is_caught() -> None:
    violation = violation_of([Rollout(counting(), BEFORE)], counted_all_along, seeds=5)
    assert broken(violation) == "dead letters"
    assert "CountStores" in str(violation)


async def counted_all_along(aws: World) -> None:
    for crate in CRATES:
        await aws.send(CountStores(crate=crate))
        await asyncio.sleep(4)


def test_a_handler_that_is_renamed_is_a_new_consumer_that_repeats_what_was_done() -> None:
    """The inbox knows a handler by its name: a message that comes again after the rollout is a
    new one to it."""
    violation = violation_of(
        [Rollout(BEFORE, stevedore("stow_away"))],
        crates_come,
        [every_crate_is_stowed_once],
        faults=Faults.only(duplicate=0.5),
        seeds=30,
    )
    assert broken(violation) == "exactly once"


def test_a_handler_that_keeps_its_name_remembers_across_the_rollout() -> None:
    simulate(
        [Rollout(BEFORE, counting())],
        crates_come,
        [every_crate_is_stowed_once],
        faults=Faults.only(duplicate=0.5),
        seeds=30,
    )
