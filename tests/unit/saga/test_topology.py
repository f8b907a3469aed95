"""What services with sagas need, how they are drawn, and what is wrong between them."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from headrace import Command, Event, Service, Transaction
from headrace.record import RELAY_INDEX
from headrace.saga import Saga, on, step
from headrace.topology.check import check
from headrace.topology.derive import needs_index, needs_table, topology
from headrace.topology.graph import graph
from headrace.topology.model import Table
from tests.unit.saga.removal import cranes, movers, porters

HOUR = timedelta(hours=1)


class HoneyWanted(Event, source="saga.hive"):
    hive: str


class SmokeHive(Command, owner="smokers"):
    hive: str


class HiveSmoked(Event, source="saga.smokers"):
    hive: str


class HiveAsleep(Event, source="saga.smokers"):
    hive: str


class SmokerEmpty(Event, source="saga.smokers"):
    smoker: str


class AirHive(Command, owner="smokers"):
    hive: str


class HiveAired(Event, source="saga.smokers"):
    hive: str


class OfHoney(Saga):
    """What harvests have in common."""

    hive: str

    @classmethod
    def begin(cls, event: HoneyWanted) -> Self:
        return cls(hive=event.hive)


def beekeeping(*, hears_of_sleep: bool = False) -> Service:
    """A service whose saga waits for HiveSmoked, and undoes it until HiveAired."""
    keeper = Service("keeper", bus="hive")

    class Harvest(OfHoney, service=keeper, starts_on=HoneyWanted, key="hive"):
        @step(done=HiveSmoked, timeout=HOUR)
        def smoke(self) -> SmokeHive:
            return SmokeHive(hive=self.hive)

        @smoke.undo(done=HiveAired)
        def air(self) -> AirHive:
            return AirHive(hive=self.hive)

        if hears_of_sleep:

            @on(HiveAsleep)
            def asleep(self, event: HiveAsleep) -> None: ...

    return keeper


def smokers_who_answer() -> Service:
    smokers = Service("smokers", bus="hive")

    @smokers.on(SmokeHive, AirHive)
    async def work(
        command: SmokeHive | AirHive, tx: Transaction
    ) -> HiveSmoked | HiveAired | HiveAsleep | SmokerEmpty | None:
        return None

    return smokers


def of_the_saga(*services: Service) -> list[str]:
    return [finding.sentence for finding in check(*services) if finding.subject == "keeper.harvest"]


# --- what is needed ----------------------------------------------------------------------


def test_a_service_with_a_saga_has_a_table_with_the_index() -> None:
    assert topology(movers, cranes).tables == (
        Table("cranes"),
        Table("movers", indexes=(RELAY_INDEX,)),
    )
    assert (needs_index(movers), needs_table(movers)) == (True, True)
    assert (needs_index(porters), needs_table(porters)) == (False, False)


def test_what_headrace_sends_to_sagas_needs_no_rule_and_no_queue_of_its_own() -> None:
    derived = topology(movers)

    assert [queue.name for queue in derived.queues] == ["movers", "movers-dlq"]
    assert "Saga" not in str(derived.rules)


# --- how it is drawn ---------------------------------------------------------------------


def test_what_headrace_sends_to_sagas_is_not_drawn() -> None:
    names = [link.name for link in graph(movers, cranes).links]

    assert "HireCrane" in names
    assert [name for name in names if "Saga" in name] == []


# --- what is wrong -----------------------------------------------------------------------


def test_a_saga_whose_answers_all_come_has_no_findings() -> None:
    assert "movers.removal" not in [finding.subject for finding in check(movers, cranes)]


def test_a_step_that_would_stay_done_is_a_warning() -> None:
    keeper = Service("keeper", bus="hive")

    class Harvest(OfHoney, service=keeper, starts_on=HoneyWanted, key="hive"):
        @step(done=HiveSmoked, timeout=HOUR)
        def smoke(self) -> SmokeHive:
            return SmokeHive(hive=self.hive)

        @step(done=HiveAired, timeout=HOUR)
        def air(self) -> AirHive:
            return AirHive(hive=self.hive)

    (sentence,) = of_the_saga(keeper)
    assert sentence.startswith("its step smoke has no undo, so it stays done when a later step")


def test_an_answer_that_nobody_emits_is_a_warning_where_its_sender_is_known() -> None:
    keeper, smokers = beekeeping(), Service("smokers", bus="hive")

    @smokers.on(SmokeHive)
    async def smoke(command: SmokeHive) -> HiveSmoked | None: ...

    (sentence,) = of_the_saga(keeper, smokers)
    assert sentence == (
        "waits in Harvest.air for HiveAired, which none of these services emits: return it from "
        "the handler in smokers, or declare there what tx.publish sends with emits=."
    )


def test_who_is_not_here_may_answer() -> None:
    assert of_the_saga(beekeeping()) == []


def test_a_reply_that_nobody_maps_is_a_warning() -> None:
    (sentence,) = of_the_saga(beekeeping(), smokers_who_answer())

    assert sentence.startswith(
        "does not know HiveAsleep, by which smokers.work may answer SmokeHive of Harvest.smoke"
    )


def test_a_reply_that_a_free_form_handler_takes_is_mapped() -> None:
    assert of_the_saga(beekeeping(hears_of_sleep=True), smokers_who_answer()) == []


def test_what_is_said_of_a_saga_is_not_said_again_of_its_event() -> None:
    found = check(beekeeping(), smokers_who_answer())

    assert [finding.subject for finding in found] == [
        "HoneyWanted",
        "SmokerEmpty",
        "keeper.harvest",
    ]
