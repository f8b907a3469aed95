"""What a saga does about everything that may come, at any time, in any order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from headrace.events import Message
from headrace.saga.machine import Action, woken
from headrace.saga.progress import Progress, Status, StepStatus
from tests.unit.saga.voyage import (
    DEFINITION,
    NOON,
    BerthBooked,
    BerthFreed,
    BerthRefused,
    BerthStays,
    GuideDismissed,
    GuideHired,
    GuideIll,
    HarbourBusy,
    Log,
    LogMissing,
    LogOpened,
    SailTorn,
    ShipSailed,
    StormSeen,
    VoyagePlanned,
)

# --- forward ---------------------------------------------------------------------------


def test_it_sends_its_first_commands_when_it_begins() -> None:
    log = Log.begun(with_guide=True)
    assert log.names == ["BookBerth", "HireGuide"]
    assert log.at.status is Status.RUNNING


def test_a_step_waits_for_all_that_it_stands_after() -> None:
    log = Log.begun(with_guide=True).hears(GuideHired)
    assert "SetSail" not in log.names
    assert log.hears(BerthBooked).names[-1] == "SetSail"


def test_what_is_not_needed_is_skipped() -> None:
    log = Log.begun()
    assert log.names == ["BookBerth"]
    assert log.status("guide") is StepStatus.SKIPPED


def test_what_an_answer_says_is_in_the_state() -> None:
    assert Log.begun().hears(BerthBooked).state().pier == 4


def test_it_is_completed_when_its_last_step_is_done() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed, LogOpened)
    assert log.at.status is Status.COMPLETED
    assert log.names == ["BookBerth", "SetSail", "OpenLog", "VoyageAnnounced"]
    assert log.at.timer is None


def test_a_transition_leaves_what_it_began_with_as_it_was() -> None:
    log = Log.begun()
    before = log.at
    log.hears(BerthBooked)
    assert before.step("berth").status is StepStatus.SENT
    assert before.state.model_dump()["pier"] is None


# --- answers that are not what was waited for --------------------------------------------

PATHS: dict[str, list[type[Message]]] = {
    "running": [],
    "sailing": [BerthBooked],
    "completed": [BerthBooked, ShipSailed, LogOpened],
    "compensating": [BerthBooked, SailTorn],
    "compensated": [BerthBooked, SailTorn, BerthFreed],
}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("running", ShipSailed),  # before it is asked for
        ("running", BerthFreed),
        ("running", VoyagePlanned),
        ("sailing", BerthBooked),
        ("sailing", BerthRefused),
        ("sailing", HarbourBusy),
        ("sailing", VoyagePlanned),
        ("completed", ShipSailed),
        ("completed", BerthRefused),
        ("completed", StormSeen),
        ("completed", VoyagePlanned),
        ("compensating", BerthBooked),
        ("compensating", SailTorn),
        ("compensated", BerthFreed),
        ("compensated", BerthBooked),
        ("compensated", StormSeen),
        ("compensated", VoyagePlanned),
    ],
)
def test_an_answer_that_nothing_waits_for_changes_nothing_and_is_told(
    path: str, message: type[Message]
) -> None:
    log = Log.begun().hears(*PATHS[path])
    before, sent = log.at, list(log.sent)
    log.hears(message)
    assert log.at is before
    assert log.sent == sent
    assert "ignored" in log.changed[0]


def test_answers_of_parallel_steps_may_come_in_any_order() -> None:
    one = Log.begun(with_guide=True).hears(BerthBooked, GuideHired)
    other = Log.begun(with_guide=True).hears(GuideHired, BerthBooked)
    assert one.names == other.names


# --- no answer -------------------------------------------------------------------------


def test_a_step_that_is_not_answered_is_sent_again_after_a_pause() -> None:
    log = Log.begun().wakes()
    assert log.names == ["BookBerth"]
    assert log.now == NOON + timedelta(minutes=1)
    log.wakes()
    assert log.names == ["BookBerth", "BookBerth"]
    assert timedelta(seconds=5) <= log.now - NOON - timedelta(minutes=1) <= timedelta(seconds=10)


def test_a_step_that_is_busy_is_sent_again_after_a_pause() -> None:
    log = Log.begun().hears(HarbourBusy)
    assert log.status("berth") is StepStatus.PAUSED
    assert log.wakes().names == ["BookBerth", "BookBerth"]


def test_what_timed_out_can_be_taken_into_the_state() -> None:
    assert Log.begun().wakes().state().sorrows == ["no word from the harbour"]


def test_a_step_that_was_never_answered_is_undone_because_it_may_have_happened() -> None:
    log = Log.begun().wakes().wakes().wakes()
    assert log.names == ["BookBerth", "BookBerth", "FreeBerth"]
    assert log.hears(BerthFreed).at.status is Status.COMPENSATED


def test_a_step_that_was_busy_to_the_last_has_nothing_to_undo() -> None:
    log = Log.begun().hears(HarbourBusy).wakes().hears(HarbourBusy)
    assert log.status("berth") is StepStatus.FAILED
    assert log.at.status is Status.COMPENSATED
    assert "FreeBerth" not in log.names


def test_an_answer_that_comes_while_it_is_to_be_sent_again_is_welcome() -> None:
    log = Log.begun().wakes().hears(BerthBooked)
    assert log.names == ["BookBerth", "SetSail"]


def test_an_answer_that_is_too_late_leaves_the_undo_as_it_is() -> None:
    log = Log.begun().wakes().wakes().wakes().hears(BerthBooked)
    assert log.status("berth") is StepStatus.UNDOING
    assert log.names.count("FreeBerth") == 1


def test_a_timer_that_is_not_the_last_one_does_nothing() -> None:
    log = Log.begun()
    first = log.at.timer
    assert first is not None
    log.hears(BerthBooked, ShipSailed, LogOpened)
    transition = woken(DEFINITION, log.at, first.turn, first.at)
    assert transition.progress is log.at
    assert (transition.changes, transition.sent, transition.arm) == ((), (), None)


def test_a_timer_that_is_early_for_the_next_step_is_set_anew() -> None:
    log = Log.begun()
    log.now += timedelta(seconds=30)
    log.hears(BerthBooked)
    early = log.at.timer
    assert early is not None
    assert early.at == NOON + timedelta(minutes=1)
    log.wakes()
    assert log.status("sail") is StepStatus.SENT
    later = log.at.timer
    assert later is not None
    assert later.at == NOON + timedelta(seconds=90)


# --- back ------------------------------------------------------------------------------


def test_what_was_done_is_undone_the_last_first_and_one_after_the_other() -> None:
    log = Log.begun(with_guide=True).hears(BerthBooked, GuideHired, SailTorn)
    assert log.names[-1] == "DismissGuide"
    assert "FreeBerth" not in log.names
    log.hears(GuideDismissed)
    assert log.names[-1] == "FreeBerth"
    log.hears(BerthFreed)
    assert log.at.status is Status.COMPENSATED
    assert log.at.reason == "sail failed by SailTorn"


def test_steps_that_were_done_in_another_order_are_undone_in_another_order() -> None:
    log = Log.begun(with_guide=True).hears(GuideHired, BerthBooked, SailTorn)
    assert log.hears(BerthFreed).names[-2:] == ["FreeBerth", "DismissGuide"]


def test_nothing_is_undone_while_an_answer_is_on_its_way() -> None:
    log = Log.begun(with_guide=True).hears(BerthBooked, GuideIll)
    assert log.names[-1] == "FreeBerth"
    log = Log.begun(with_guide=True).hears(GuideIll)
    assert "FreeBerth" not in log.names
    assert log.hears(BerthBooked).names[-1] == "FreeBerth"


def test_what_fails_while_it_is_undone_has_nothing_to_undo() -> None:
    log = Log.begun(with_guide=True).hears(GuideIll, BerthRefused)
    assert log.at.status is Status.COMPENSATED
    assert log.names == ["BookBerth", "HireGuide"]


def test_an_undo_that_is_refused_is_sent_again_and_then_stuck() -> None:
    log = Log.begun().hears(BerthBooked, SailTorn, BerthStays)
    assert log.at.status is Status.COMPENSATING
    log.wakes()
    assert log.names.count("FreeBerth") == 2
    log.hears(BerthStays)
    assert (log.at.status, log.at.stuck) == (Status.STUCK, "berth")
    assert log.at.timer is None


def test_an_undo_that_is_not_answered_is_stuck_in_the_end() -> None:
    log = Log.begun().hears(BerthBooked, SailTorn).exhausted()
    assert log.at.status is Status.STUCK
    assert log.names.count("FreeBerth") == 2


def test_a_step_that_is_done_after_it_failed_is_undone_even_after_the_end() -> None:
    log = Log.begun().hears(BerthRefused)
    assert log.at.ended
    log.hears(BerthBooked)
    assert log.at.status is Status.COMPENSATING
    assert log.names[-1] == "FreeBerth"
    assert log.hears(BerthFreed).changed[-1].startswith("compensated")


def test_a_free_form_handler_may_have_it_undone() -> None:
    log = Log.begun().hears(BerthBooked, StormSeen)
    assert log.at.reason == "There is a storm."
    # The ship may have sailed: that is waited for.
    assert log.names[-1] == "SetSail"
    assert log.hears(SailTorn).names[-1] == "FreeBerth"


def test_a_point_of_no_return_that_is_passed_meanwhile_has_it_go_on() -> None:
    log = Log.begun().hears(BerthBooked, StormSeen, ShipSailed)
    assert log.at.status is Status.RUNNING
    assert log.at.reason is None
    assert log.names[-1] == "OpenLog"


# --- after the point of no return --------------------------------------------------------


def test_nothing_is_undone_after_the_point_of_no_return() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed, StormSeen, LogMissing)
    assert log.at.status is Status.RUNNING
    assert log.status("log") is StepStatus.PAUSED
    assert any("too late" in change for change in log.hears(StormSeen).changed)


def test_a_step_after_it_is_sent_until_its_attempts_are_exhausted_and_is_stuck_then() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed).exhausted()
    assert log.names.count("OpenLog") == 2
    assert (log.at.status, log.at.stuck) == (Status.STUCK, "log")


def test_an_answer_that_comes_after_all_has_a_stuck_saga_go_on() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed).exhausted().hears(LogOpened)
    assert log.at.status is Status.COMPLETED


# --- the deadline ------------------------------------------------------------------------


def test_past_its_deadline_it_is_undone_with_what_nobody_has_answered() -> None:
    log = Log.begun(with_guide=True).hears(BerthBooked)
    log.progress = _due_at_once(log)
    log.wakes()
    assert log.at.reason == "its deadline has passed"
    assert log.status("guide") is StepStatus.UNDOING
    log.hears(GuideDismissed, BerthFreed)
    assert log.at.status is Status.COMPENSATED


def test_the_deadline_means_nothing_after_the_point_of_no_return() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed)
    log.progress = _due_at_once(log)
    log.wakes()
    assert log.at.status is Status.RUNNING


def _due_at_once(log: Log) -> Progress:
    timer = log.at.timer
    assert timer is not None
    return replace(log.at, deadline=timer.at)


# --- an operator -------------------------------------------------------------------------


def test_a_resumed_step_has_all_its_attempts_again() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed).exhausted().told(Action.RESUME)
    assert log.at.status is Status.RUNNING
    assert log.names.count("OpenLog") == 3
    log.exhausted()
    assert log.names.count("OpenLog") == 4


def test_a_resumed_undo_goes_on() -> None:
    log = Log.begun().hears(BerthBooked, SailTorn).exhausted().told(Action.RESUME)
    assert log.at.status is Status.COMPENSATING
    assert log.hears(BerthFreed).at.status is Status.COMPENSATED


def test_a_step_that_is_skipped_counts_as_done() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed).exhausted().told(Action.SKIP)
    assert log.at.status is Status.COMPLETED
    assert log.status("log") is StepStatus.SKIPPED


def test_an_undo_that_is_skipped_counts_as_undone() -> None:
    log = Log.begun().hears(BerthBooked, SailTorn).exhausted().told(Action.SKIP)
    assert log.at.status is Status.COMPENSATED


def test_an_operator_may_have_it_undone() -> None:
    log = Log.begun().told(Action.COMPENSATE).hears(BerthBooked, BerthFreed)
    assert log.at.status is Status.COMPENSATED
    assert log.at.reason == "compensate by ahab"


@pytest.mark.parametrize(
    ("path", "action", "why"),
    [
        ("running", Action.RESUME, "not stuck"),
        ("running", Action.SKIP, "not stuck"),
        ("completed", Action.COMPENSATE, "over"),
        ("compensating", Action.COMPENSATE, "already"),
        ("compensated", Action.RESUME, "over"),
    ],
)
def test_what_an_operator_cannot_have_is_refused_with_the_reason(
    path: str, action: Action, why: str
) -> None:
    log = Log.begun().hears(*PATHS[path])
    before = log.at
    log.told(action)
    assert log.at is before
    assert why in log.changed[0]


def test_an_operator_cannot_have_it_undone_after_the_point_of_no_return() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed).told(Action.COMPENSATE)
    assert "no way back" in log.changed[0]


def test_a_step_that_is_skipped_is_the_one_that_was_seen() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed).exhausted()
    before = log.at
    log.told(Action.SKIP, "announce")
    assert log.at is before
    assert "stuck at log by now, and not at announce" in log.changed[0]
    assert log.told(Action.SKIP, "log").at.ended


def test_an_operator_may_wake_one_whose_timer_never_came() -> None:
    log = Log.begun().hears(BerthBooked, ShipSailed)
    log.now += timedelta(minutes=2)
    log.told(Action.RESUME)
    assert log.status("log") is StepStatus.PAUSED
    assert "its timer is overdue" in log.changed


def test_an_operator_may_wake_one_whose_deadline_nobody_told_of() -> None:
    """Its step may wait for days still."""
    log = Log.begun()
    soon = log.now + timedelta(seconds=1)
    log.progress = replace(log.at, deadline=soon)
    assert all(step.due is None or step.due > soon for step in log.at.steps.values())
    log.now += timedelta(seconds=2)
    log.told(Action.RESUME)
    assert log.at.reason == "its deadline has passed"


# --- timers ------------------------------------------------------------------------------


def test_one_timer_serves_steps_that_follow_one_another() -> None:
    """A message for every step would cost as much as the step."""
    log = Log.begun()
    timer = log.at.timer
    log.now += timedelta(seconds=1)
    log.hears(BerthBooked)
    assert log.at.timer is timer
    log.hears(ShipSailed)
    assert log.at.timer is timer


def test_a_timer_that_is_overdue_is_set_anew_by_whatever_comes() -> None:
    """It may be a dead letter, and nobody else would wake the saga."""
    log = Log.begun()
    lost = log.at.timer
    assert lost is not None
    log.now = lost.at + timedelta(hours=3)
    log.hears(BerthBooked)
    timer = log.at.timer
    assert timer is not None
    assert timer.turn != lost.turn


def test_a_saga_that_is_over_wants_no_timer() -> None:
    assert Log.begun().hears(BerthRefused).at.timer is None
