"""What `simulate` runs, what it finds without being asked, and what it says."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import logging
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from headrace import Command, Event, PoisonMessage, RetryLater, Service, Transaction
from headrace.errors import ConfigurationError, DecodeError
from headrace.hosts.worker import Worker
from headrace.inbox import Inbox
from headrace.outcome import Ack, DeadLetter, Outcome
from headrace.pipeline import Pipeline
from headrace.ports import Delivery
from headrace.testing import Faults, Letter, Report, Violation, World, simulate
from tests.unit.testing.simulation.ferry import (
    CARS,
    CarBoarded,
    Deck,
    Purse,
    broken,
    everybody_is_aboard,
    ferry,
    toll,
    violation_of,
)

CALM = Faults.none()


class FloatRaft(Command, owner="raft"):
    name: str = "driftwood"


class RaftSunk(Event, source="harbour.raft"):
    name: str


def raft_that(does: Callable[[], None], **options: Any) -> Service:
    """A service whose one handler does this."""
    raft = Service("raft", bus="harbour", **options)

    @raft.on(FloatRaft)
    async def float_raft(command: FloatRaft, tx: Transaction) -> None:
        does()

    return raft


def sinks() -> None:
    raise PoisonMessage("It does not float.")


def not_this_one(aws: World) -> None:
    raise AssertionError("The deck is full.")


# --- what is right ---


def test_services_that_are_right_pass_with_everything_going_wrong_around_them() -> None:
    def everybody_has_paid(aws: World) -> None:
        assert aws.get(Purse, "main", service=toll).coins == len(CARS)

    report = simulate([ferry, toll], CARS, [everybody_is_aboard, everybody_has_paid], seeds=30)
    assert report.seeds == 30
    assert len(report.faults) > 10


def test_a_scenario_may_be_a_function_that_is_given_the_world() -> None:
    async def a_convoy(aws: World) -> None:
        for car in CARS:
            await aws.send(car)
            await asyncio.sleep(1)

    simulate([ferry], a_convoy, [everybody_is_aboard], seeds=3)


def test_what_a_scenario_asserts_is_an_invariant() -> None:
    async def a_hopeful_driver(aws: World) -> None:
        await aws.send(*CARS)
        await aws.settled()
        assert aws.find(Deck, "upper", service=ferry), "There is no upper deck."

    violation = violation_of([ferry], a_hopeful_driver)
    assert str(violation).startswith("a hopeful driver: There is no upper deck.")


def test_one_worker_does_what_two_do() -> None:
    assert simulate([ferry], CARS, [everybody_is_aboard], seeds=10, workers=1).seeds == 10


# --- which seeds ---


@pytest.mark.parametrize(
    ("seeds", "run"), [(3, [0, 1, 2]), (range(5, 7), [5, 6]), ([4711, 3], [4711, 3])]
)
def test_seeds_are_a_number_of_them_or_those_that_are_named(seeds: Any, run: list[int]) -> None:
    def drawn(which: Any) -> list[float]:
        draws = []

        async def scenario(aws: World) -> None:
            draws.append(aws.random.random())

        assert simulate([ferry], scenario, seeds=which, faults=CALM).seeds == len(run)
        return draws

    # The first one runs twice, to see that it can be repeated.
    assert drawn(seeds) == [drawn_alone(seed) for seed in (run[0], *run)]


def drawn_alone(seed: int) -> float:
    draws = []

    async def scenario(aws: World) -> None:
        draws.append(aws.random.random())

    simulate([ferry], scenario, seeds=[seed], faults=CALM)
    return draws[0]


@pytest.mark.parametrize("seeds", [0, [], range(0)])
def test_no_seed_at_all_is_refused(seeds: Any) -> None:
    with pytest.raises(ConfigurationError, match="give at least one"):
        simulate([ferry], CARS, seeds=seeds)


# --- what must hold without being asked for ---


def test_a_message_that_nobody_receives_is_a_service_that_does_not_settle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(self: Worker, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        await stop.wait()

    monkeypatch.setattr(Worker, "run", nothing)
    violation = violation_of([raft_that(lambda: None)], [FloatRaft()])
    assert broken(violation) == "settled"
    assert "the queue 'raft' holds 1 messages (FloatRaft)" in str(violation)


def test_a_handler_that_asks_for_hours_has_them() -> None:
    calls = itertools.count()

    def wait() -> None:
        if next(calls) % 4 < 3:
            raise RetryLater("There is no wind.", delay=timedelta(hours=6))

    report = simulate([raft_that(wait)], [FloatRaft()], seeds=[1], faults=CALM, workers=1)
    assert report.virtual_seconds > 18 * 3600


def test_an_event_that_takes_effect_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "_inbox_of", lambda self, handler: self._unrecorded)
    violation = violation_of([toll], [CarBoarded(plate="A")], faults=Faults.only(duplicate=1.0))
    assert broken(violation) == "exactly once"
    assert "took effect" in str(violation)


def two_clerks() -> Service:
    """Two handlers of one event, each with a record of its own."""
    office = Service("office", bus="harbour")

    @office.on(CarBoarded)
    async def write(event: CarBoarded, tx: Transaction) -> None:
        return None

    @office.on(CarBoarded)
    async def copy(event: CarBoarded, tx: Transaction) -> None:
        return None

    return office


def test_a_record_that_is_made_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Inbox._claim
    monkeypatch.setattr(
        Inbox, "_claim", lambda self, record: replace(claim(self, record), condition=None)
    )
    boarded = [CarBoarded(plate="A")]
    violation = violation_of([two_clerks()], boarded, faults=Faults.only(duplicate=1.0))
    assert broken(violation) == "exactly once"
    assert re.search(r"took effect \d times in 'office\.(write|copy)'", str(violation))


def test_two_handlers_of_one_event_take_effect_once_each() -> None:
    boarded = [CarBoarded(plate="A"), CarBoarded(plate="B")]
    simulate([two_clerks()], boarded, seeds=20, faults=Faults(duplicate=0.5, crash=0.05))


def test_an_idempotent_handler_may_take_effect_twice() -> None:
    raft = Service("raft", bus="harbour")

    @raft.on(FloatRaft, idempotent=True)
    async def float_raft(command: FloatRaft) -> None:
        return None

    simulate([raft], [FloatRaft()], seeds=3, faults=Faults.only(duplicate=1.0))


def moorings_that_hold_the_second_time(error: Exception) -> Any:
    """Resources that fail to open for the first process."""

    @asynccontextmanager
    async def moorings(aws: World) -> AsyncIterator[None]:
        aws.ledger("opened").append(1)
        if len(aws.ledger("opened")) == 1:
            raise error
        yield

    return moorings


def test_a_worker_that_ends_by_itself_is_found() -> None:
    raft = raft_that(lambda: None)
    moorings = moorings_that_hold_the_second_time(LookupError("There is no rope."))
    violation = violation_of([raft], [FloatRaft()], resources={raft: moorings})
    assert broken(violation) == "worker"
    assert "raft/1 ended with LookupError('There is no rope.')" in str(violation)
    assert isinstance(violation.__cause__, LookupError)


def test_a_worker_that_cannot_reach_something_is_started_again() -> None:
    raft = raft_that(lambda: None)
    moorings = moorings_that_hold_the_second_time(ConnectionError("The radio is silent."))
    simulate([raft], [FloatRaft()], seeds=1, faults=CALM, resources={raft: moorings}, workers=1)


def test_a_dead_letter_that_nobody_expects_is_found() -> None:
    violation = violation_of([raft_that(sinks)], [FloatRaft()])
    assert broken(violation) == "dead letters"
    assert "is a dead letter of 'raft': It does not float." in str(violation)


def test_a_dead_letter_that_is_expected_is_none_to_speak_of() -> None:
    def is_sunk(letter: Letter) -> bool:
        return letter.queue == "raft" and letter.reason == "It does not float."

    raft = raft_that(sinks)
    simulate([raft], [FloatRaft()], seeds=3, faults=CALM, expected_letter=is_sunk)


def test_a_message_that_nobody_can_read_and_that_is_gone_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consume = Pipeline.consume

    async def lenient(self: Pipeline, delivery: Delivery) -> Outcome:
        outcome = await consume(self, delivery)
        unreadable = isinstance(outcome, DeadLetter) and isinstance(outcome.error, DecodeError)
        return Ack() if unreadable else outcome

    async def half_a_minute(aws: World) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(Pipeline, "consume", lenient)
    violation = violation_of([ferry], half_a_minute, faults=Faults.only(poison=1.0))
    assert broken(violation) == "dead letters"
    assert "was lost: it is nowhere" in str(violation)


def test_a_message_that_nobody_can_read_is_an_expected_dead_letter() -> None:
    async def half_a_minute(aws: World) -> None:
        await asyncio.sleep(30)

    report = simulate([ferry], half_a_minute, seeds=5, faults=Faults.only(poison=1.0))
    assert report.faults == {"poison": 5}


# --- invariants ---


def test_an_invariant_that_does_not_hold_is_named_as_its_function() -> None:
    assert broken(violation_of([ferry], CARS, [not_this_one])) == "not this one"


def test_an_invariant_that_says_nothing_is_named_all_the_same() -> None:
    def aboard(aws: World) -> None:
        raise AssertionError

    assert str(violation_of([ferry], CARS, [aboard])).startswith("aboard: it does not hold.")


def test_an_invariant_may_be_a_coroutine_function() -> None:
    async def stays_full(aws: World) -> None:
        await asyncio.sleep(3600)
        assert aws.get(Deck, "main", service=ferry).cars == 0, "Nobody leaves at night."

    violation = violation_of([ferry], CARS, [everybody_is_aboard, stays_full])
    assert broken(violation) == "stays full"
    assert violation.run.seconds > 3600


def test_what_always_holds_is_asked_after_every_write() -> None:
    looks: list[int] = []

    def the_deck_grows(aws: World) -> None:
        deck = aws.find(Deck, "main", service=ferry)
        looks.append(0 if deck is None else deck.cars)

    simulate([ferry], CARS, always=[the_deck_grows], seeds=1, faults=CALM, workers=1)
    # The first seed runs twice.
    assert looks[: len(looks) // 2] == looks[len(looks) // 2 :]
    del looks[: len(looks) // 2]
    assert looks[-1] == len(CARS)
    assert sorted(looks) == looks
    assert len(looks) > len(CARS)


def test_what_does_not_hold_for_a_moment_only_is_found_by_always() -> None:
    def is_never_alone(aws: World) -> None:
        deck = aws.find(Deck, "main", service=ferry)
        assert deck is None or deck.cars != 1, "One car is alone."

    async def one_by_one(aws: World) -> None:
        for car in CARS:
            await aws.send(car)
            await asyncio.sleep(1)

    simulate([ferry], one_by_one, [is_never_alone], seeds=1, faults=CALM)
    violation = violation_of([ferry], one_by_one, always=[is_never_alone])
    assert broken(violation) == "is never alone"
    assert violation.run.seconds < 2


def test_what_is_asked_after_every_write_cannot_wait() -> None:
    async def is_patient(aws: World) -> None:
        await asyncio.sleep(1)

    with pytest.raises(TypeError, match="cannot be awaited"):
        simulate([ferry], CARS, always=[is_patient], seeds=1, faults=CALM)


def a_slip(aws: World) -> None:
    raise LookupError("upper deck")


@pytest.mark.parametrize(
    "mistaken", [{"invariants": [a_slip]}, {"always": [a_slip]}], ids=["in the end", "always"]
)
def test_a_mistake_in_an_invariant_is_raised_as_it_is(mistaken: dict[str, Any]) -> None:
    with pytest.raises(LookupError, match="upper deck"):
        simulate([ferry], CARS, seeds=1, faults=CALM, **mistaken)


def test_a_mistake_in_a_scenario_is_raised_as_it_is() -> None:
    async def at_low_tide(aws: World) -> None:
        a_slip(aws)

    with pytest.raises(LookupError, match="upper deck"):
        simulate([ferry], at_low_tide, seeds=1, faults=CALM)


# --- resources ---


class Radio:
    def __init__(self, heard: list[str]) -> None:
        self.heard = heard


def test_resources_are_opened_with_the_world_in_place_of_the_services_own() -> None:
    @asynccontextmanager
    async def real_radio() -> AsyncIterator[Radio]:
        yield Radio(["real waves"])

    @asynccontextmanager
    async def simulated_radio(aws: World) -> AsyncIterator[Radio]:
        yield Radio(aws.ledger("heard"))

    beacon = Service("beacon", bus="harbour", resources=real_radio)

    @beacon.on(CarBoarded)
    async def announce(event: CarBoarded, radio: Radio) -> None:
        radio.heard.append(event.plate)

    def it_was_heard(aws: World) -> None:
        assert aws.ledger("heard") == ["A-1"]

    simulate(
        [beacon],
        [CarBoarded(plate="A-1")],
        [it_was_heard],
        seeds=2,
        faults=CALM,
        resources={beacon: simulated_radio},
    )
    assert beacon.resources is real_radio


def test_resources_for_a_service_that_is_not_there_are_refused() -> None:
    @asynccontextmanager
    async def nothing(aws: World) -> AsyncIterator[None]:
        yield

    with pytest.raises(ConfigurationError, match=r"resources for 'toll', which is not among"):
        simulate([ferry], CARS, seeds=1, resources={toll: nothing})


# --- what is said ---


def test_a_report_counts_runs_time_and_faults() -> None:
    async def a_minute(aws: World) -> None:
        await asyncio.sleep(60)

    report = simulate([ferry], a_minute, seeds=4, faults=Faults.only(deploy=1.0))
    assert report.seeds == 4
    assert 4 * 60 <= report.virtual_seconds < 4 * 70
    assert report.faults == {"deploy": 4}
    assert report.per_minute == pytest.approx(60 * 4 / report.seconds)
    assert Report().per_minute == 0


def test_a_violation_has_the_seed_the_run_and_the_report_until_then() -> None:
    async def on_a_bad_day(aws: World) -> None:
        await aws.send(*CARS)
        luck = aws.random.random()
        assert luck > 0.5, "Bad luck."

    violation = violation_of([ferry], on_a_bad_day, seeds=50)
    assert violation.seed == violation.run.plan.seed > 0
    assert violation.report.seeds == violation.seed + 1
    assert violation.page is None
    again = violation_of([ferry], on_a_bad_day, seeds=[violation.seed])
    assert str(again) == str(violation)


def test_a_violation_says_how_to_run_it_again_and_what_happened() -> None:
    text = str(violation_of([ferry], CARS, [not_this_one], seeds=[7]))
    assert text.startswith("not this one: The deck is full.")
    assert "--headrace-seed 7" in text
    assert "seeds=[7]" in text
    assert "receives BoardCar" in text
    assert "in not_this_one" in text


def test_the_cause_of_a_violation_is_the_assertion_itself() -> None:
    cause = violation_of([ferry], CARS, [not_this_one]).__cause__
    assert isinstance(cause, AssertionError)
    assert str(cause) == "The deck is full."


def test_the_folder_of_pages_is_hidden_from_git_and_another_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    violation_of([ferry], CARS, [not_this_one], pages=Path(".headrace"))
    assert (tmp_path / ".headrace" / ".gitignore").read_text() == "*\n"
    violation_of([ferry], CARS, [not_this_one], pages=tmp_path)
    assert not (tmp_path / ".gitignore").exists()


def test_a_violation_is_written_as_a_page(tmp_path: Path) -> None:
    async def a_busy_day(aws: World) -> None:
        await aws.send(*CARS)

    pages = tmp_path / "found" / "pages"
    violation = violation_of([ferry], a_busy_day, [not_this_one], seeds=[7], pages=pages)
    assert violation.page == pages / "a_busy_day-7.html"
    assert "The deck is full." in violation.page.read_text(encoding="utf-8")
    assert str(violation.page) in str(violation)


def test_pages_are_written_to_the_current_folder_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Violation) as caught:
        simulate([ferry], CARS, [not_this_one], seeds=1, faults=CALM)
    assert caught.value.page is not None
    assert caught.value.page.resolve().parent == tmp_path / ".headrace"


def test_nothing_is_written_without_a_folder_or_without_a_violation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    simulate([ferry], CARS, seeds=1, faults=CALM)
    violation_of([ferry], CARS, [not_this_one], pages=None)
    assert list(tmp_path.iterdir()) == []


# --- services that cannot be run again ---


def sinks_the_first(times: int, drawn: Callable[[], object]) -> Callable[[], None]:
    """What a handler does that draws something no seed decides, and fails on the first ones."""
    seen: set[object] = set()

    def does() -> None:
        seen.add(drawn())
        if len(seen) <= times:
            sinks()

    return does


@pytest.mark.parametrize(
    "drawn",
    [uuid4, random.SystemRandom().random, time.perf_counter_ns, itertools.count().__next__],
    ids=["uuid4", "system random", "clock", "counter"],
)
def test_a_service_that_does_something_else_every_time_is_told_why(
    drawn: Callable[[], object],
) -> None:
    raft = raft_that(sinks_the_first(1, drawn))
    with pytest.raises(ConfigurationError, match="did not a second time") as caught:
        simulate([raft], [FloatRaft()], seeds=1, faults=CALM, pages=None)
    assert "datetime.now, uuid4, a thread" in str(caught.value)
    assert "a global variable" in str(caught.value)


def test_so_is_one_that_does_so_only_later(tmp_path: Path) -> None:
    raft = raft_that(sinks_the_first(2, itertools.count().__next__))
    with pytest.raises(ConfigurationError, match="did not a second time"):
        simulate([raft], [FloatRaft()], seeds=1, faults=CALM, pages=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_so_is_one_that_goes_wrong_in_another_way_the_second_time() -> None:
    raft = raft_that(sinks_the_first(1, itertools.count().__next__))
    with pytest.raises(ConfigurationError, match="did not a second time"):
        simulate([raft], [FloatRaft()], [not_this_one], seeds=1, faults=CALM, pages=None)


def test_chance_from_the_module_random_is_the_same_every_time() -> None:
    floated: list[float] = []

    def does() -> None:
        floated.append(random.random())

    raft = raft_that(does)
    for _ in range(2):
        simulate([raft], [FloatRaft()], seeds=[1, 2], faults=CALM, workers=1)
    # The first one of each time runs twice.
    first, same, second, *again = floated
    assert first == same != second
    assert again == [first, first, second]


# --- progress ---


class Screen(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def shown(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> str:
    async def crossing(aws: World) -> None:
        await aws.send(*CARS)

    screen = Screen(is_terminal)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        simulate([ferry], crossing, seeds=3, faults=CALM)
    return screen.getvalue()


def test_a_terminal_shows_how_far_it_is_and_is_clean_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown(monkeypatch, is_terminal=True)
    assert "crossing ━━━" in text
    assert "3/3 seeds" in text
    assert text.endswith("\r\x1b[K")


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, is_terminal=False) == ""


# --- what is left behind ---


def state() -> tuple[Any, ...]:
    """All that a simulation decides for its runs, and that is not its own."""
    root = logging.getLogger()
    return (
        random.getstate(),
        root.manager.disable,
        list(root.handlers),
        gc.isenabled(),
        gc.get_freeze_count(),
        sys.get_asyncgen_hooks(),
        asyncio._get_running_loop(),
    )


@pytest.fixture(params=[True, False], ids=["as usual", "all otherwise"])
def as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """The global state, as it mostly is, and set otherwise by somebody else."""
    if request.param:
        yield
        return
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    logging.disable(logging.INFO)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
        root.removeHandler(handler)


def passes() -> None:
    simulate([ferry], CARS, seeds=2)


def finds_something() -> None:
    violation_of([ferry], CARS, [not_this_one])


def is_mistaken() -> None:
    with pytest.raises(LookupError):
        simulate([ferry], CARS, [a_slip], seeds=1)


END = pytest.mark.parametrize("ends", [passes, finds_something, is_mistaken])


@END
@pytest.mark.usefixtures("as_found")
def test_a_simulation_leaves_the_process_as_it_was(ends: Callable[[], None]) -> None:
    before = state()
    ends()
    assert state() == before


@END
async def test_a_simulation_inside_of_a_coroutine_leaves_its_loop_alone(
    ends: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    ends()
    assert asyncio.get_running_loop() is loop
    await asyncio.sleep(0.001)
