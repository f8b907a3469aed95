"""A run is told as text, line by line, as a person follows it."""

from __future__ import annotations

import re

import pytest

from headrace.testing.simulation.chance import Fault
from headrace.testing.simulation.plan import Run, Wrong
from headrace.testing.simulation.timeline import as_text
from headrace.testing.simulation.trace import Kind
from tests.unit.testing.simulation.told import (
    ORDERED,
    a_real_run,
    body,
    broken,
    entry,
    fault,
    made,
    received,
    without_some,
)


def test_a_line_says_when_where_and_what() -> None:
    assert body(received(1.25)) == ["1.250 kitchen/1 receives OrderDish a from kitchen"]


def test_a_fault_has_a_mark_and_nothing_else_has() -> None:
    lines = body(fault(1.0, "the process dies"), received(2.0))
    assert [("!" in line) for line in lines] == [True, False]
    assert lines[0] == "1.000 kitchen/1 ! the process dies"


# --- width ---


@pytest.mark.parametrize("width", [50, 72, 100, 200])
def test_no_line_is_wider_than_asked_for(width: int) -> None:
    text = "writes " + ", ".join(f"soup#{number} (salt={number})" for number in range(40))
    write = entry(2.0, "kitchen/1", Kind.WRITTEN, text, ORDERED)
    run = made(received(1.0), write, wrong=Wrong("no soup", text))
    assert max(map(len, as_text(run, width=width).splitlines())) == width


def test_a_long_text_goes_on_under_itself_and_ends_after_three_lines() -> None:
    text = "writes " + ", ".join(f"soup#{number}" for number in range(100))
    told = as_text(made(entry(2.0, "kitchen/1", Kind.WRITTEN, text)), width=80)
    first, second, third = told.split("\n\n")[1].splitlines()
    assert first.index("writes") + 2 == len(second) - len(second.lstrip())
    assert third.endswith(" …")


def test_a_name_is_never_broken_over_two_lines() -> None:
    for width in range(50, 80):
        lines = body(received(1.0), width=width)
        assert any("OrderDish a" in line for line in lines)


def test_a_long_lane_is_cut() -> None:
    lane = "a-service-with-a-very-long-name/1"
    assert body(received(1.0, lane=lane))[0].startswith("1.000 a-service-with-a-very-l… ")


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    log = entry(1.0, "kitchen/1", Kind.LOG, "\x1b[2Jgone\udc00")
    assert body(log) == [r"1.000 kitchen/1 \x1b[2Jgone\udc00"]


# --- before and after ---


def test_the_header_says_under_what_circumstances() -> None:
    struck = (Fault("crash", 1), Fault("delay", 2), Fault("crash", 5))
    header = as_text(made(received(1.0), struck=struck)).split("\n\n")[0]
    assert header.splitlines() == [
        "Seed: 7",
        "Faults: 3 (2 × crash, 1 × delay)",
        "Sent: 2",
        "Took: 1 min 15 s of simulated time",
    ]


def test_the_header_says_what_was_not_sent() -> None:
    assert "Sent: 1 of 2" in as_text(without_some(made(received(1.0))))


def test_a_run_without_entries_says_how_to_have_some() -> None:
    assert "traced=True" in as_text(made())


def test_a_run_in_which_nothing_was_wrong_says_so() -> None:
    assert as_text(made(received(1.0))).endswith("\n\nNothing was wrong.\n")


def test_what_was_wrong_stands_at_the_end_with_the_line_that_found_it() -> None:
    end = as_text(made(received(1.0), wrong=broken("a\n  + b"))).split("\n\n")[-1]
    rule, one, two, where, code, _ = end.splitlines()
    assert rule.startswith("━━ WRONG: no soup ━━")
    assert (one, two) == ("  a", "    + b")
    assert re.fullmatch(r"  .*simulation/told\.py:\d+ in broken", where)
    assert code == "    raise AssertionError(sentence)"


def test_an_error_in_a_group_is_shown_where_it_was_raised() -> None:
    inner = broken().error
    assert isinstance(inner, AssertionError)
    wrong = Wrong("worker", "It ended.", ExceptionGroup("two", [inner]))
    assert "raise AssertionError(sentence)" in as_text(made(received(1.0), wrong=wrong))


def test_there_are_no_colours_unless_asked_for() -> None:
    run = made(fault(1.0, "the process dies"), wrong=broken())
    assert "\x1b" not in as_text(run)
    assert "\x1b[31m" in as_text(run, colour=True)


def test_the_colours_are_all_that_they_change() -> None:
    run = made(fault(1.0, "the process dies"), received(40.0), wrong=broken())
    assert re.sub(r"\x1b\[[0-9;]*m", "", as_text(run, colour=True)) == as_text(run)


# --- a real one ---


@pytest.fixture(scope="module")
def real() -> Run:
    return a_real_run()


def test_a_real_run_tells_who_received_what(real: Run) -> None:
    told = as_text(real)
    assert re.search(r"scenario +sends OrderDish a\n", told)
    assert re.search(r"kitchen/\d +receives OrderDish a from kitchen\n", told)
    assert re.search(r"kitchen/\d +puts DishCooked a on the bus tavern\n", told)
    assert re.search(r"waiter/\d +receives DishCooked a from waiter\n", told)


def test_a_real_run_is_told_without_a_single_long_id(real: Run) -> None:
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", as_text(real))


def test_a_real_run_ends_with_the_assertion_that_failed(real: Run) -> None:
    end = as_text(real).split("\n\n")[-1]
    assert "WRONG: nothing is cooked" in end
    assert end.count(".py:") == 1
    assert 'assert aws.published(DishCooked) == [], "There is soup."' in end


def test_the_same_run_is_told_the_same_way(real: Run) -> None:
    assert as_text(a_real_run()) == as_text(real)
