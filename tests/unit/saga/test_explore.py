"""The walk through all that can become of a saga: what it finds, and what it does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from headrace.errors import DefinitionError
from headrace.events import Message
from headrace.saga import Retries, TimedOut, machine, on, step
from headrace.saga.definition import Definition
from headrace.saga.explore import Exploration, Problem, explore
from headrace.saga.machine import Transition
from headrace.saga.outline import Outline
from headrace.saga.progress import OVER, Direction, Progress, Status, StepStatus
from tests.unit.saga.carnival import (
    MINUTE,
    AskPermit,
    BuildFloat,
    Carnival,
    CarnivalCalled,
    CarnivalCancelled,
    DrummersHired,
    DrummersHome,
    DrummersIll,
    FloatBroken,
    FloatBuilt,
    HireDrummers,
    MayorAsleep,
    ParadeForbidden,
    ParadeStarted,
    PermitDenied,
    PermitGiven,
    PermitReturned,
    ReturnPermit,
    SendDrummersHome,
    StartParade,
    StreetSwept,
    SweepStreet,
    TakeFloatApart,
    Town,
)


class Permitted(Town):
    """It begins with a permit, which can be given back."""

    @step(done=PermitGiven, failed=PermitDenied, timeout=MINUTE)
    def permit(self) -> AskPermit:
        return AskPermit(town=self.town)

    @permit.undo(done=PermitReturned)
    def give_back(self) -> ReturnPermit:
        return ReturnPermit(town=self.town)


class Fair(Town, starts_on=CarnivalCalled, key="town"):
    """A small carnival, in which every step can be undone, and the mayor may be asleep."""

    @step(
        done=PermitGiven,
        failed=PermitDenied,
        again=MayorAsleep,
        timeout=MINUTE,
        retries=Retries(attempts=2),
    )
    def permit(self) -> AskPermit:
        return AskPermit(town=self.town)

    @permit.undo(done=PermitReturned)
    def give_back(self) -> ReturnPermit:
        return ReturnPermit(town=self.town)

    @step(done=DrummersHired, failed=DrummersIll, timeout=MINUTE)
    def drummers(self) -> HireDrummers:
        return HireDrummers(town=self.town)

    @drummers.undo(done=DrummersHome)
    def send_home(self) -> SendDrummersHome:
        return SendDrummersHome(town=self.town)

    @step(done=ParadeStarted, failed=ParadeForbidden, timeout=MINUTE, pivot=True)
    def parade(self) -> StartParade:
        return StartParade(town=self.town)


def whats(found: Exploration) -> set[str]:
    return {problem.what for problem in found.problems}


def problem(found: Exploration, what: str) -> Problem:
    """The one that says this. Fails with what there is."""
    return next(p for p in found.problems if what in p.what or pytest.fail(str(whats(found))))


# --- what is right ---------------------------------------------------------------------


def test_a_saga_with_all_that_there_is_has_no_problems() -> None:
    found = explore(Carnival)

    assert found.problems == ()
    assert set(found.ends) == {Status.COMPLETED, Status.COMPENSATED, Status.STUCK}
    assert found.states > 1000
    assert found.transitions > found.states


def test_two_walks_through_one_saga_find_the_same() -> None:
    assert explore(Patient) == explore(Patient)


class Cart(Town, starts_on=CarnivalCalled, key="town"):
    """Only many guests need a wagon."""

    @step(done=FloatBuilt, failed=FloatBroken, timeout=MINUTE)
    def wagon(self) -> BuildFloat | None:
        return BuildFloat(town=self.town) if self.guests > 500 else None

    @wagon.undo()
    def take_apart(self) -> TakeFloatApart:
        return TakeFloatApart(town=self.town)


def test_both_branches_of_a_conditional_step_are_walked_without_examples() -> None:
    assert explore(Cart).notes == ()


def test_a_branch_that_no_example_leads_to_is_noted() -> None:
    found = explore(Cart, starts=[CarnivalCalled(town="Basel", guests=9)])

    assert found.notes == ("wagon was never sent: give examples that lead there",)


def test_a_step_that_all_examples_need_is_noted() -> None:
    found = explore(Cart, starts=[CarnivalCalled(town="Basel", guests=900)])

    assert found.notes == ("wagon was needed in all examples: give one in which it is not",)


def test_the_examples_of_the_class_are_its_branches() -> None:
    class Examined(Cart, starts_on=CarnivalCalled, key="town"):
        @classmethod
        def examples(cls) -> Iterable[Message]:
            yield CarnivalCalled(town="Basel", guests=1)

    assert explore(Examined).notes == ("wagon was never sent: give examples that lead there",)


class Bold(Permitted, starts_on=CarnivalCalled, key="town", deadline=timedelta(hours=1)):
    """A parade leaves nothing behind, but cannot be called off either."""

    @step(done=ParadeStarted, timeout=MINUTE, pivot=True, nothing_to_undo=True)
    def parade(self) -> StartParade:
        return StartParade(town=self.town)

    @step(done=StreetSwept, timeout=MINUTE)
    def sweep(self) -> SweepStreet:
        return SweepStreet(town=self.town)


def test_what_is_due_with_the_deadline_is_not_sent_again_only_to_be_undone() -> None:
    assert explore(Bold).problems == ()


class Moody(Permitted, starts_on=CarnivalCalled, key="town"):
    """The mayor, who was asleep twice, is heard of once more."""

    @step(done=ParadeStarted, again=MayorAsleep, timeout=MINUTE, pivot=True)
    def parade(self) -> StartParade:
        return StartParade(town=self.town)


def test_a_point_of_no_return_that_is_done_after_all_is_not_compensated() -> None:
    found = explore(Moody)

    assert found.problems == ()
    assert Status.STUCK in found.ends


# --- definitions that are wrong --------------------------------------------------------


class Unkept(Town, starts_on=CarnivalCalled, key="town"):
    """Nobody gives the permit back."""

    @step(done=PermitGiven, failed=PermitDenied, timeout=MINUTE)
    def permit(self) -> AskPermit:
        return AskPermit(town=self.town)

    @step(done=DrummersHired, failed=DrummersIll, timeout=MINUTE)
    def drummers(self) -> HireDrummers:
        return HireDrummers(town=self.town)

    @drummers.undo(done=DrummersHome)
    def send_home(self) -> SendDrummersHome:
        return SendDrummersHome(town=self.town)


def test_a_compensation_that_is_missing_is_found_with_its_path() -> None:
    found = explore(Unkept)

    (missing,) = found.problems
    assert missing.what.startswith("it is compensated, and permit happened and has no undo")
    assert missing.path[1:] == (
        "permit is done, and PermitGiven is on its way",
        "the time is over for permit: permit unknown: permit: no answer in time; it is undone: "
        "permit: no answer in time; stuck: whether permit happened is not known",
        "PermitGiven comes: permit done by PermitGiven; compensated: permit: no answer in time",
    )


class Patient(Permitted, starts_on=CarnivalCalled, key="town"):
    """The drummers may take as long as they want."""

    @step(done=DrummersHired, failed=DrummersIll)
    def drummers(self) -> HireDrummers:
        return HireDrummers(town=self.town)

    @drummers.undo(done=DrummersHome)
    def send_home(self) -> SendDrummersHome:
        return SendDrummersHome(town=self.town)


class Punctual(Patient, starts_on=CarnivalCalled, key="town", deadline=timedelta(hours=1)):
    """They may, but not beyond the deadline."""


def test_a_timeout_that_is_missing_is_found_with_its_path() -> None:
    waiting = problem(explore(Patient), "does not end: it is running, and waits for drummers")

    assert waiting.path == (
        "CarnivalCalled comes: begun with CarnivalCalled; permit sent",
        "permit is done, and PermitGiven is on its way",
        "PermitGiven comes: permit done by PermitGiven; drummers sent",
        "nothing more comes: drummers is never answered",
    )


def test_a_deadline_stands_for_timeouts() -> None:
    assert explore(Punctual).problems == ()


class Clumsy(Town, starts_on=CarnivalCalled, key="town"):
    """It cannot take what it gets."""

    @step(done=PermitGiven, failed=PermitDenied, timeout=MINUTE)
    def permit(self) -> AskPermit:
        return AskPermit(town=self.town)

    @permit.on(PermitDenied)
    def denied(self, event: PermitDenied) -> None:
        raise LookupError("no such mayor")


def test_code_of_the_saga_that_raises_is_a_problem() -> None:
    raising = problem(explore(Clumsy), "PermitDenied comes: LookupError: no such mayor")

    assert raising.path[-2:] == (
        "permit fails, and PermitDenied is on its way",
        "PermitDenied comes: it raises LookupError: no such mayor",
    )


def test_a_saga_that_cannot_begin_with_an_example_is_refused() -> None:
    class Choosy(Fair, starts_on=CarnivalCalled, key="town"):
        @classmethod
        def begin(cls, event: CarnivalCalled) -> Choosy:
            raise ValueError("no such town")

    with pytest.raises(DefinitionError, match=r"Choosy\.begin raises ValueError: no such town"):
        explore(Choosy)


class Counting(Town, starts_on=CarnivalCalled, key="town"):
    """Everything adds to its state."""

    cancelled: int = 0
    late: int = 0

    @step(done=PermitGiven, timeout=MINUTE, retries=Retries(attempts=2))
    def permit(self) -> AskPermit:
        return AskPermit(town=self.town)

    @permit.on(TimedOut)
    def late_permit(self, event: TimedOut) -> None:
        self.late += 1

    @permit.undo(done=PermitReturned)
    def give_back(self) -> ReturnPermit:
        return ReturnPermit(town=self.town)

    @on(CarnivalCancelled)
    def not_now(self, event: CarnivalCancelled) -> None:
        self.cancelled += 1


def test_a_state_that_counts_what_comes_has_an_end() -> None:
    found = explore(Counting)

    assert found.problems == ()
    assert found.ends.keys() == {Status.COMPLETED, Status.COMPENSATED, Status.STUCK}


def test_a_walk_that_is_cut_says_so() -> None:
    found = explore(Fair, limit=50)

    assert found.states == 50
    assert "the walk was cut at 50 states" in whats(found)


# --- machines that are wrong -----------------------------------------------------------


def test_an_undo_in_the_order_of_completion_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_one_first(self: Any) -> None:
        steps = self.definition.steps.values()
        if {self._status(s.name) for s in steps} & (machine._ON_ITS_WAY | machine._BEING_UNDONE):
            return
        left = [step for step in steps if self._status(step.name) in machine._TO_UNDO]
        self._ended = not left
        for each in sorted(left, key=lambda s: self._at(s).place)[:1]:
            if each.reverse is not None:
                self._send_undo(each, each.reverse, 1)

    monkeypatch.setattr(machine._Turn, "_undo_next", first_one_first)

    found = problem(explore(Fair), "permit is undone before drummers, which was done later")
    assert found.path[-1].endswith("give_back sent")


def test_timers_that_are_ignored_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(definition: Definition, before: Progress, turn: int, now: datetime) -> Transition:
        return Transition(before, ())

    monkeypatch.setattr(machine, "woken", deaf)

    waiting = problem(explore(Fair), "it does not end: it is running, and waits for permit")
    assert waiting.path == (
        "CarnivalCalled comes: begun with CarnivalCalled; permit sent",
        "nothing more comes: permit is never answered",
    )


def test_a_circle_of_timers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Any, step: Any, because: str) -> None:
        self._pause(step, StepStatus.PAUSED, step.retries)
        self._steps[step.name] = replace(self._at(step), attempt=0, unanswered=False)

    monkeypatch.setattr(machine._Turn, "_again", forgetful)

    assert "it does not end: it is running, and waits for permit" in whats(explore(Fair))


def test_timers_that_are_not_set_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Any, after: Progress) -> tuple[None, None]:
        self.timer = None
        return None, None

    monkeypatch.setattr(machine._Turn, "_timing", careless)

    assert "nothing wakes it when permit is due" in whats(explore(Fair))


def test_late_answers_that_are_ignored_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = machine._Turn.done

    def proud(self: Any, step: Any, message: Message) -> Transition:
        if self._direction is Direction.BACK:
            return machine._Turn.ignored(self, "too late")
        return honest(self, step, message)

    monkeypatch.setattr(machine._Turn, "done", proud)

    left = problem(explore(Fair), "it is compensated, and permit happened and is not undone")
    assert "permit is done, and PermitGiven is on its way" in left.path
    assert "compensated" in left.path[-1]


def test_an_undo_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = machine._Turn._is_to_undo

    def lazy(self: Any, step: Any) -> bool:
        return step.name != "permit" and honest(self, step)

    monkeypatch.setattr(machine._Turn, "_is_to_undo", lazy)

    assert "it is compensated, and permit happened and is not undone" in whats(explore(Fair))


class Cautious(Permitted, starts_on=CarnivalCalled, key="town"):
    """It asks for a permit, and no more."""


def test_what_is_undone_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_TO_UNDO", machine._TO_UNDO | {StepStatus.UNDONE})

    twice = problem(explore(Cautious), "permit is undone twice")
    assert twice.path[-1] == "PermitReturned comes: permit undone by PermitReturned; give_back sent"


def test_a_step_that_does_not_wait_for_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "OVER", OVER | {StepStatus.SENT})

    assert "drummers is sent before permit is over" in whats(explore(Fair))


def test_an_undo_beside_what_is_on_its_way_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_BEING_UNDONE", frozenset())
    monkeypatch.setattr(machine, "_ON_ITS_WAY", frozenset({StepStatus.PAUSED}))

    assert "permit is undone while drummers is on its way" in whats(explore(Fair))


def test_an_undo_after_the_point_of_no_return_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(self: Any) -> bool:
        return self._direction is Direction.FORWARD and not self._ended

    monkeypatch.setattr(machine._Turn, "_can_turn_back", always)

    late = problem(explore(Bold), "it turns back, and parade was done, the point of no return")
    assert any(line.startswith("ParadeStarted comes: parade done") for line in late.path)


def test_a_step_that_is_taken_for_done_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def optimistic(self: Any, step: Any, message: Message, *, for_good: bool) -> Transition:
        done: Transition = self.done(step, message)
        return done

    monkeypatch.setattr(machine._Turn, "refused", optimistic)

    assert "it is completed, and permit never happened" in whats(explore(Fair))


class Sweeping(Town, starts_on=CarnivalCalled, key="town"):
    """Two steps side by side, after the point of no return."""

    @step(done=ParadeStarted, failed=ParadeForbidden, timeout=MINUTE, pivot=True)
    def parade(self) -> StartParade:
        return StartParade(town=self.town)

    @step(done=StreetSwept, timeout=MINUTE, after=parade)
    def sweep(self) -> SweepStreet:
        return SweepStreet(town=self.town)

    @step(done=DrummersHome, timeout=MINUTE, after=parade)
    def send_home(self) -> SendDrummersHome:
        return SendDrummersHome(town=self.town)


def test_of_two_steps_that_are_exhausted_none_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert explore(Sweeping).problems == ()

    monkeypatch.setattr(machine._Turn, "_see_who_is_exhausted", lambda self: None)

    forgotten = problem(explore(Sweeping), "does not end: it is running, and waits for s")
    assert any("skip-step" in line or "resume" in line for line in forgotten.path)


def test_what_makes_no_difference_is_left_out_and_changes_no_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def walks() -> Iterator[Exploration]:
        yield from (explore(saga) for saga in (Unkept, Patient, Sweeping))

    short = list(walks())
    monkeypatch.setattr(Outline, "look_ahead", lambda self: None)
    long = list(walks())

    assert [whats(found) for found in short] == [whats(found) for found in long]
    assert sum(found.states for found in short) < sum(found.states for found in long) / 2
