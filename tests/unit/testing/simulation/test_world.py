"""What a scenario can do to a simulated account, and what can be seen of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import pytest

from headrace import Command, Entity, Event, PoisonMessage, RetryLater, Service, Transaction
from headrace.connection import Connection
from headrace.errors import AlreadyDone, DefinitionError
from headrace.testing import Faults, Letter, World, simulate
from tests.unit.testing.simulation.ferry import (
    CARS,
    BoardCar,
    CarBoarded,
    Deck,
    Purse,
    ferry,
    toll,
)

T = TypeVar("T")

CALM = Faults.none()


class GuideShip(Command, owner="pilot"):
    ship: str


class FuelShip(Command, owner="bunker"):
    ship: str


class ShipGuided(Event, source="harbour.pilot"):
    ship: str


class Berth(Entity, pk="berth#{harbour}", sk="place#{number}"):
    harbour: str
    number: int
    ship: str | None = None


pilot = Service("pilot", bus="harbour", emits=[ShipGuided])


@pilot.on(GuideShip, emits=[FuelShip])
async def guide(command: GuideShip, tx: Transaction) -> ShipGuided:
    if command.ship == "a wreck":
        raise PoisonMessage("It lies on the ground.")
    tx.publish(FuelShip(ship=command.ship))
    return ShipGuided(ship=command.ship)


bunker = Service("bunker", bus="harbour")


@bunker.on(FuelShip)
async def fuel(command: FuelShip) -> None:
    return None


def seen(
    scenario: Callable[[World], Awaitable[T]],
    *,
    seed: int = 0,
    faults: Faults = CALM,
    expected_letter: Callable[[Letter], bool] = lambda letter: False,
) -> T:
    """What a scenario has found out in one run."""
    answers: list[T] = []

    async def finds_out(aws: World) -> None:
        answers.append(await scenario(aws))

    simulate(
        [ferry, toll, pilot, bunker],
        finds_out,
        seeds=[seed],
        faults=faults,
        expected_letter=expected_letter,
        workers=1,
        pages=None,
    )
    return answers[0]


# --- sending ---


def test_what_is_sent_is_handled_once_the_world_is_settled() -> None:
    async def crossing(aws: World) -> tuple[Any, ...]:
        before = aws.find(Deck, "main", service=ferry)
        sent = await aws.send(*CARS)
        await aws.settled()
        return before, sent, aws.get(Deck, "main", service=ferry).cars

    assert seen(crossing) == (None, CARS, 3)


def test_events_are_published_to_whoever_listens() -> None:
    async def a_car_has_boarded(aws: World) -> tuple[Any, ...]:
        published = await aws.publish(CarBoarded(plate="A-1"), CarBoarded(plate="B-2"))
        await aws.settled()
        return published, aws.get(Purse, "main", service=toll).coins

    assert seen(a_car_has_boarded) == ([CarBoarded(plate="A-1"), CarBoarded(plate="B-2")], 2)


def test_nothing_is_sent_twice_by_the_scenario_whatever_goes_wrong() -> None:
    async def crossing(aws: World) -> int:
        await aws.send(*CARS)
        await aws.settled()
        return aws.get(Deck, "main", service=ferry).cars

    worst = Faults.only(timeout=0.2, lost_answer=0.2, throttle=0.2, partial=0.2)
    assert [seen(crossing, seed=seed, faults=worst) for seed in range(3)] == [3, 3, 3]


def test_a_message_can_be_put_into_a_queue_as_it_is() -> None:
    async def a_scribble(aws: World) -> list[tuple[str, str]]:
        await aws.put_message("ferry", "a scribble")
        await aws.settled()
        return [(letter.queue, letter.body) for letter in aws.dead_letters(ferry)]

    def is_scribbled(letter: Letter) -> bool:
        return letter.body == "a scribble"

    assert seen(a_scribble, expected_letter=is_scribbled) == [("ferry", "a scribble")]


def test_services_on_several_buses_have_none_to_publish_on() -> None:
    inland = Service("lock", bus="canal")

    @inland.on(CarBoarded)
    async def note(event: CarBoarded) -> None:
        return None

    with pytest.raises(DefinitionError, match=r"several buses \(harbour, canal\)"):
        simulate([ferry, inland], CARS, seeds=1, faults=CALM)


# --- settling ---


def test_settling_waits_for_what_comes_again_much_later() -> None:
    lighthouse = Service("lighthouse", bus="harbour")

    @lighthouse.on(CarBoarded)
    async def flash(event: CarBoarded, tx: Transaction) -> None:
        if await tx.get(Purse, "main") is None:
            raise RetryLater("There is no oil.", delay=timedelta(minutes=20))

    async def oil_comes_late(aws: World) -> None:
        await aws.publish(CarBoarded(plate="A-1"))
        await asyncio.sleep(600)
        await aws.put(Purse(), service=lighthouse)
        before = aws.now()
        await aws.settled()
        assert timedelta(minutes=9) < aws.now() - before < timedelta(minutes=11)

    simulate([lighthouse], oil_comes_late, seeds=2, faults=CALM, pages=None)


def test_a_scenario_may_settle_several_times() -> None:
    async def two_tides(aws: World) -> list[int]:
        found = []
        for car in CARS:
            await aws.send(car)
            await aws.settled()
            found.append(aws.get(Deck, "main", service=ferry).cars)
        return found

    assert seen(two_tides, faults=Faults()) == [1, 2, 3]


# --- looking ---


def test_what_the_services_published_and_sent_is_seen_without_what_the_scenario_did() -> None:
    async def a_ship_comes(aws: World) -> tuple[Any, ...]:
        await aws.send(GuideShip(ship="Argo"))
        await aws.publish(ShipGuided(ship="Beagle"))
        await aws.send(FuelShip(ship="Beagle"))
        await aws.settled()
        return aws.published(ShipGuided), aws.sent(FuelShip), aws.sent(GuideShip)

    assert seen(a_ship_comes) == ([ShipGuided(ship="Argo")], [FuelShip(ship="Argo")], [])


def test_traffic_is_all_there_was_whoever_sent_it() -> None:
    async def a_ship_comes(aws: World) -> tuple[Any, ...]:
        await aws.publish(ShipGuided(ship="Beagle"))
        await asyncio.sleep(1)
        await aws.send(GuideShip(ship="Argo"))
        await aws.settled()
        guided = aws.traffic(ShipGuided)
        return [event.ship for _, event in guided], len({id for id, _ in guided})

    assert seen(a_ship_comes) == (["Beagle", "Argo"], 2)


def test_traffic_has_each_id_once_however_often_it_was_sent() -> None:
    async def a_ship_comes(aws: World) -> int:
        await aws.send(GuideShip(ship="Argo"))
        await aws.settled()
        return len(aws.traffic(ShipGuided))

    again = Faults.only(lost_answer=0.3, partial=0.3)
    assert {seen(a_ship_comes, seed=seed, faults=again) for seed in range(5)} == {1}


def test_entities_are_put_and_found_by_their_keys() -> None:
    async def berths(aws: World) -> tuple[Any, ...]:
        first, second = (Berth(harbour="Riga", number=n, ship=f"ship-{n}") for n in (1, 2))
        await aws.put(second, first, service=pilot)
        return (
            aws.get(Berth, "Riga", 1, service=pilot) == first,
            aws.find(Berth, harbour="Riga", number=2, service=pilot) == second,
            aws.find(Berth, "Riga", 3, service=pilot),
            aws.all(Berth, pilot) == [first, second],
            aws.all(Deck, pilot),
        )

    assert seen(berths) == (True, True, None, True, [])


def test_what_is_put_stands_there_whatever_stood_there_before() -> None:
    async def twice(aws: World) -> str | None:
        for ship in ("Argo", "Beagle"):
            await aws.put(Berth(harbour="Riga", number=1, ship=ship), service=pilot)
        return aws.get(Berth, "Riga", 1, service=pilot).ship

    assert seen(twice) == "Beagle"


def test_an_entity_that_is_missing_fails_the_scenario() -> None:
    async def nobody_is_there(aws: World) -> str:
        with pytest.raises(AssertionError) as caught:
            aws.get(Berth, "Riga", number=7, service=pilot)
        return str(caught.value)

    assert seen(nobody_is_there) == "There is no Berth ('Riga', 7)."


def test_items_are_all_that_is_in_the_table_with_the_records_of_the_inbox() -> None:
    async def crossing(aws: World) -> list[str]:
        await aws.send(BoardCar(plate="A-1"))
        await aws.settled()
        return sorted(item["pk"]["S"].split("#")[0] for item in aws.items(ferry))

    assert seen(crossing) == ["deck", "inbox"]


def test_a_service_without_a_table_has_nothing_to_look_at() -> None:
    signal = Service("signal", bus="harbour", table=None)

    @signal.on(CarBoarded, idempotent=True)
    async def wave(event: CarBoarded) -> None:
        return None

    async def looks(aws: World) -> None:
        for look in (partial(aws.items, signal), partial(aws.all, Deck, signal)):
            with pytest.raises(DefinitionError, match="'signal' has no table"):
                look()
        with pytest.raises(DefinitionError, match="'signal' has no table"):
            await aws.put(Deck(), service=signal)

    simulate([signal], looks, seeds=1, faults=CALM)


def test_dead_letters_are_those_of_one_service_or_of_all() -> None:
    async def a_wreck(aws: World) -> tuple[Any, ...]:
        await aws.send(GuideShip(ship="a wreck"))
        await aws.settled()
        [letter] = aws.dead_letters()
        return (
            letter.reason,
            letter.message,
            aws.dead_letters(pilot) == [letter],
            aws.dead_letters(toll),
        )

    wreck = GuideShip(ship="a wreck")
    found = seen(a_wreck, expected_letter=lambda letter: letter.queue == "pilot")
    assert found == ("It lies on the ground.", wreck, True, [])


# --- time and chance ---


def test_time_begins_on_the_same_day_and_passes_without_being_waited_for() -> None:
    async def an_hour(aws: World) -> tuple[datetime, datetime]:
        began = aws.now()
        await asyncio.sleep(3600)
        return began, aws.now()

    assert seen(an_hour) == (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 1, tzinfo=UTC),
    )


def test_the_chance_of_a_scenario_is_decided_by_the_seed() -> None:
    async def draws(aws: World) -> list[float]:
        return [aws.random.random() for _ in range(3)]

    assert seen(draws, seed=1) == seen(draws, seed=1) != seen(draws, seed=2)


def test_the_chance_of_a_scenario_does_not_depend_on_what_goes_wrong() -> None:
    async def draws(aws: World) -> float:
        await aws.send(*CARS)
        await aws.settled()
        return aws.random.random()

    assert seen(draws, faults=Faults()) == seen(draws)


# --- requests ---


async def moor(ship: str, service: Connection) -> str:
    async with service.transaction(key=f"moor-{ship}") as tx:
        tx.put(Berth(harbour="Riga", number=1, ship=ship))
        tx.publish(ShipGuided(ship=ship))
    return f"{ship} is moored"


async def moor_again(tries: list[str], ship: str, service: Connection) -> str:
    tries.append(ship)
    try:
        return await moor(ship, service)
    except AlreadyDone:
        return f"{ship} was moored"


def test_a_request_is_served_by_the_service_and_answered() -> None:
    async def a_request(aws: World) -> tuple[Any, ...]:
        answer = await aws.request(pilot, partial(moor, "Argo"))
        await aws.settled()
        return answer, aws.published(ShipGuided), aws.get(Berth, "Riga", 1, service=pilot).ship

    assert seen(a_request) == ("Argo is moored", [ShipGuided(ship="Argo")], "Argo")


def test_an_answer_may_be_none() -> None:
    async def looks_for_a_berth(service: Connection) -> Berth | None:
        return await service.get(Berth, "Riga", 1)

    async def a_request(aws: World) -> Berth | None:
        return await aws.request(pilot, looks_for_a_berth)

    assert seen(a_request) is None


@pytest.mark.parametrize(
    "faults",
    [
        Faults.only(crash=0.15),
        Faults.only(timeout=0.3),
        Faults.only(lost_answer=0.3),
        Faults.only(throttle=0.4),
        Faults.only(late=0.3),
    ],
    ids=["crash", "timeout", "lost answer", "throttle", "late"],
)
def test_a_request_is_made_again_until_it_is_answered_and_takes_effect_once(
    faults: Faults,
) -> None:
    tries: list[str] = []

    async def a_request(aws: World) -> tuple[Any, ...]:
        answer = await aws.request(pilot, partial(moor_again, tries, "Argo"))
        await aws.settled()
        assert answer in ("Argo is moored", "Argo was moored")
        return aws.published(ShipGuided), aws.get(Berth, "Riga", 1, service=pilot).ship

    found = [seen(a_request, seed=seed, faults=faults) for seed in range(8)]
    assert found == [([ShipGuided(ship="Argo")], "Argo")] * 8
    assert len(tries) > 8


def test_a_request_that_died_after_its_commit_is_known_when_it_is_made_again() -> None:
    answers = set()

    async def a_request(aws: World) -> None:
        answers.add(await aws.request(pilot, partial(moor_again, [], "Argo")))

    for seed in range(10):
        seen(a_request, seed=seed, faults=Faults.only(crash=0.15))
    assert answers == {"Argo is moored", "Argo was moored"}


def test_what_a_request_raises_for_its_client_is_raised_in_the_scenario() -> None:
    async def is_refused(service: Connection) -> None:
        raise PermissionError("The harbour is closed.")

    async def a_request(aws: World) -> str:
        with pytest.raises(PermissionError) as caught:
            await aws.request(pilot, is_refused)
        return str(caught.value)

    assert seen(a_request) == "The harbour is closed."


def test_requests_may_be_made_side_by_side() -> None:
    async def two_ships(aws: World) -> int:
        async with asyncio.TaskGroup() as group:
            for ship in ("Argo", "Beagle"):
                serve = partial(announce, ship)
                group.create_task(aws.request(pilot, serve))
        await aws.settled()
        return len(aws.published(ShipGuided))

    assert seen(two_ships, faults=Faults()) == 2


async def announce(ship: str, service: Connection) -> None:
    try:
        async with service.transaction(key=ship) as tx:
            tx.publish(ShipGuided(ship=ship))
    except AlreadyDone:
        return


# --- the world outside ---


def calls_of_mayday(faults: Faults) -> list[tuple[bool, bool]]:
    """For calls of something outside: whether each was answered, and whether it had its effect
    by then."""
    found = []

    async def call(aws: World, number: int) -> tuple[bool, bool]:
        mayday = aws.ledger("mayday")
        try:
            await aws.outside("mayday", partial(mayday.append, number))
        except ConnectionError:
            return False, number in mayday
        return True, number in mayday

    async def a_request(aws: World) -> None:
        async def serve(service: Connection) -> None:
            found.extend([await call(aws, number) for number in range(20)])

        await aws.request(pilot, serve)

    seen(a_request, faults=faults)
    return found


def test_a_call_to_the_outside_has_its_effect() -> None:
    assert set(calls_of_mayday(CALM)) == {(True, True)}


def test_a_call_to_the_outside_that_does_not_arrive_raises() -> None:
    assert set(calls_of_mayday(Faults.only(timeout=0.3))) == {(True, True), (False, False)}


def test_a_call_to_the_outside_whose_answer_is_lost_raises_after_its_effect() -> None:
    assert set(calls_of_mayday(Faults.only(lost_answer=0.3))) == {(True, True), (False, True)}


def test_a_call_to_the_outside_that_is_refused_raises_without_an_effect() -> None:
    assert set(calls_of_mayday(Faults.only(throttle=0.3))) == {(True, True), (False, False)}


def test_a_call_to_the_outside_that_is_late_raises_and_has_its_effect_a_minute_later() -> None:
    async def a_request(aws: World) -> tuple[set[int], set[int]]:
        lost: set[int] = set()

        async def serve(service: Connection) -> None:
            for number in range(10):
                try:
                    await aws.outside("mayday", partial(aws.ledger("mayday").append, number))
                except ConnectionError:
                    lost.add(number)
                    assert number not in aws.ledger("mayday")

        await aws.request(pilot, serve)
        await asyncio.sleep(65)
        assert sorted(aws.ledger("mayday")) == list(range(10))
        return lost, set(aws.ledger("mayday")) & lost

    lost, arrived = seen(a_request, faults=Faults.only(late=0.3))
    assert lost == arrived != set()


def test_a_scenario_calls_the_outside_without_a_network() -> None:
    async def at_once(aws: World) -> Any:
        began = aws.now()
        answer = await aws.outside("mayday", lambda: "heard")
        return answer, aws.now() - began

    assert seen(at_once, faults=Faults.only(timeout=1.0)) == ("heard", timedelta(0))


def test_what_the_outside_raises_itself_comes_back_to_its_caller() -> None:
    def refuse() -> None:
        raise PermissionError("This channel is closed.")

    async def a_request(aws: World) -> str:
        async def serve(service: Connection) -> str:
            with pytest.raises(PermissionError) as caught:
                await aws.outside("mayday", refuse)
            return str(caught.value)

        return str(await aws.request(pilot, serve))

    assert seen(a_request) == "This channel is closed."


def test_a_ledger_outlives_processes_and_not_runs() -> None:
    async def lines(aws: World) -> int:
        async def serve(service: Connection) -> None:
            aws.ledger("log").append("a line")

        await aws.request(pilot, serve)
        await aws.request(pilot, serve)
        return len(aws.ledger("log"))

    assert [seen(lines), seen(lines)] == [2, 2]


def test_what_a_scenario_says_is_in_the_timeline() -> None:
    async def says(aws: World) -> None:
        aws.say("the tide turns")
        raise AssertionError("It is too late.")

    with pytest.raises(AssertionError, match="the tide turns"):
        seen(says)
