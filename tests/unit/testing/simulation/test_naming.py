"""Events have names in a timeline, the same wherever they turn up."""

from __future__ import annotations

from headrace.testing.simulation.plan import Wrong
from headrace.testing.simulation.timeline import as_text
from headrace.testing.simulation.trace import Entry, Kind
from tests.unit.testing.simulation.told import (
    COOKED,
    ORDERED,
    OTHER,
    body,
    entry,
    made,
    received,
    sent,
)

STRANGE = "99999999-0000-4000-8000-000000000009"


def cooked(at: float, lane: str = "kitchen/1") -> Entry:
    return entry(at, lane, Kind.SENT, "puts DishCooked on the bus tavern", COOKED, ORDERED)


def test_what_one_message_led_to_has_one_letter() -> None:
    lines = body(sent(1.0), cooked(2.0))
    assert lines[1].endswith("puts DishCooked a on the bus tavern")


def test_messages_that_have_nothing_to_do_with_each_other_have_different_letters() -> None:
    lines = body(sent(1.0, ORDERED), sent(2.0, OTHER))
    assert [line[-11:] for line in lines] == ["OrderDish a", "OrderDish b"]


def test_the_same_event_has_the_same_name_wherever_it_turns_up() -> None:
    lines = body(sent(1.0, OTHER), sent(1.1), received(2.0), received(3.0, lane="kitchen/2"))
    assert [("OrderDish b" in line) for line in lines] == [False, True, True, True]


def test_the_second_event_of_a_type_in_a_story_has_a_number() -> None:
    lines = body(
        sent(1.0, ORDERED),
        received(2.0, COOKED, ORDERED, type_="Bill"),
        received(2.1, OTHER, ORDERED, type_="Bill"),
    )
    assert [line.split(" receives ")[1] for line in lines[1:]] == [
        "Bill a from kitchen",
        "Bill a2 from kitchen",
    ]


def test_the_letters_go_on_after_z() -> None:
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(28)]
    lines = body(*(sent(1.0, id) for id in ids))
    assert [line.split()[-1] for line in lines[24:]] == ["y", "z", "aa", "ab"]


def test_what_is_written_says_for_which_events() -> None:
    write = entry(2.0, "kitchen/1", Kind.WRITTEN, "writes soup#1, soup#2", ORDERED, OTHER)
    assert body(sent(1.0), sent(1.1, OTHER), write)[-1].endswith(
        "writes soup#1, soup#2 [OrderDish a, OrderDish b]"
    )


def test_events_written_at_once_stay_two_stories() -> None:
    write = entry(2.0, "kitchen/1", Kind.WRITTEN, "writes", ORDERED, OTHER)
    assert body(write, sent(3.0), sent(3.1, OTHER))[-1].endswith("OrderDish b")


def test_the_type_of_the_event_is_named_and_not_the_one_in_the_reason() -> None:
    text = "Retry (OrderDish was refused) of OrderDish"
    line = body(sent(1.0), entry(2.0, "kitchen/1", Kind.SETTLED, text, ORDERED))[-1]
    assert line.endswith("Retry (OrderDish was refused) of OrderDish a")


def test_an_event_is_named_where_a_text_has_its_id() -> None:
    log = entry(2.0, "kitchen/1", Kind.LOG, f"inbox#kitchen.cook#{ORDERED} was not marked.")
    line = body(sent(1.0), log)[-1]
    assert line.endswith("the record of kitchen.cook for OrderDish a was not marked.")


def test_an_id_of_which_nothing_is_known_is_cut() -> None:
    log = entry(2.0, "kitchen/1", Kind.LOG, f"Message {STRANGE} was not deleted.")
    assert body(log)[-1].endswith("Message 99999999 was not deleted.")


def test_cut_ids_can_still_be_told_apart() -> None:
    twin = STRANGE.replace("0000", "1000", 1)
    logs = [entry(2.0, "kitchen/1", Kind.LOG, f"Message {id}.") for id in (STRANGE, twin)]
    assert [line.split()[-1] for line in body(*logs)] == ["99999999-0.", "99999999-1."]


def test_what_was_wrong_names_events_as_the_lines_above_do() -> None:
    wrong = Wrong("exactly once", f"The event {ORDERED} took effect twice.")
    assert "The event OrderDish a took effect twice." in as_text(made(sent(1.0), wrong=wrong))
