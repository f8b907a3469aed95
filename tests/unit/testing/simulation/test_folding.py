"""What says little takes little room in a timeline, and nothing is hidden by it."""

from __future__ import annotations

from headrace.testing.simulation.timeline import as_text
from headrace.testing.simulation.trace import Entry, Kind
from tests.unit.testing.simulation.told import (
    ORDERED,
    OTHER,
    body,
    entry,
    fault,
    made,
    received,
    starts,
)


def test_processes_that_start_at_once_are_one_line() -> None:
    lines = body(starts("kitchen/1"), starts("kitchen/2"), starts("waiter/1"))
    assert lines == ["0.000 3 processes start: kitchen/1, kitchen/2, waiter/1"]


def test_a_wrong_clock_is_told_with_the_start_and_is_a_fault() -> None:
    skew = fault(0.0, "its clock is off by +1.20 s")
    assert body(skew, starts("kitchen/1")) == [
        "0.000 kitchen/1 ! starts, its clock is off by +1.20 s"
    ]
    assert body(skew, starts("kitchen/1"), starts("kitchen/2")) == [
        "0.000 2 processes ! start: kitchen/1 (its clock is off by +1.20 s), kitchen/2"
    ]


def test_a_process_that_dies_again_and_again_is_two_lines() -> None:
    lives = [(fault(at, "the process dies"), starts("kitchen/1", at + 1)) for at in (1.0, 4.0)]
    assert body(*lives[0], *lives[1]) == [
        "1.000 kitchen/1 ! the process dies (2 times, until 4.000)",
        "2.000 kitchen/1 starts (2 times, until 5.000)",
    ]


def test_faults_that_repeat_are_one_line_as_long_as_no_event_comes_between() -> None:
    query = [fault(at, "Query is throttled") for at in (1.0, 3.0, 5.0)]
    assert body(*query, received(6.0), fault(7.0, "Query is throttled")) == [
        "1.000 kitchen/1 ! Query is throttled (3 times, until 5.000)",
        "6.000 kitchen/1 receives OrderDish a from kitchen",
        "7.000 kitchen/1 ! Query is throttled",
    ]


def test_what_repeats_in_another_process_is_another_line() -> None:
    lines = body(fault(1.0, "Query is throttled"), fault(1.1, "Query is throttled", "kitchen/2"))
    assert len(lines) == 2


def test_a_message_received_twice_is_never_folded() -> None:
    assert len(body(received(1.0), received(1.0))) == 2


def test_a_long_time_without_anything_is_a_gap() -> None:
    lines = body(received(1.0), received(39.4), received(140.0), received(144.0))
    assert [line for line in lines if line.startswith("…")] == [
        "… 38 s later",
        "… 1 min 41 s later",
    ]


def test_what_was_folded_up_to_then_is_no_gap() -> None:
    query = [fault(at, "Query is throttled") for at in (1.0, 30.0)]
    assert not any("later" in line for line in body(*query, received(31.0)))


def test_an_ack_and_its_deletion_are_one_line() -> None:
    deletes = entry(1.0, "kitchen/1", Kind.SETTLED, "deletes 1 message from kitchen")
    ack = entry(1.01, "kitchen/1", Kind.SETTLED, "ack of OrderDish", ORDERED)
    between = received(1.005, lane="kitchen/2")
    assert body(deletes, between, ack)[1:] == [
        "1.010 kitchen/1 ack of OrderDish a, deleted from kitchen"
    ]


def test_a_deletion_stays_where_a_fault_comes_before_the_ack() -> None:
    deletes = entry(1.0, "kitchen/1", Kind.SETTLED, "deletes 1 message from kitchen")
    ack = entry(1.01, "kitchen/1", Kind.SETTLED, "ack of OrderDish", ORDERED)
    assert len(body(deletes, fault(1.005, "the process stands still"), ack)) == 3


def test_a_deletion_long_before_an_ack_is_that_of_another_message() -> None:
    deletes = entry(1.0, "kitchen/1", Kind.SETTLED, "deletes 1 message from kitchen")
    ack = entry(3.0, "kitchen/1", Kind.SETTLED, "ack of OrderDish", ORDERED)
    assert len(body(deletes, ack)) == 2


def test_a_reason_is_told_once() -> None:
    log = entry(1.0, "kitchen/1", Kind.LOG, "Message 1 comes again (handler cook): No salt.")
    retry = entry(1.1, "kitchen/1", Kind.SETTLED, "Retry (No salt.) of OrderDish", ORDERED)
    assert len(body(log, retry)) == 1
    assert len(body(log, entry(1.1, "kitchen/2", *_rest(retry)))) == 2


def _rest(of: Entry) -> tuple[Kind, str]:
    return of.kind, of.text


def test_records_marked_as_done_are_only_counted() -> None:
    text = "writes the record of kitchen.cook (done), the record of kitchen.fry (done)"
    done = entry(1.2, "kitchen/1", Kind.WRITTEN, text, ORDERED, OTHER)
    told = as_text(made(received(1.0), done))
    assert "Left out: 1 × a record that is marked as done" in told
    assert "(done)" not in told


def test_a_record_that_is_refused_as_done_is_told() -> None:
    text = "is refused (ConditionalCheckFailed) the record of kitchen.cook (done)"
    assert len(body(entry(1.0, "kitchen/1", Kind.WRITTEN, text, ORDERED))) == 1
