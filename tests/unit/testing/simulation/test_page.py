"""A run is shown as one page of HTML that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from headrace.testing.simulation.plan import Run, Wrong
from headrace.testing.simulation.timeline.page import as_page
from headrace.testing.simulation.trace import Kind
from tests.unit.testing.simulation.parsed import Element, Page
from tests.unit.testing.simulation.told import (
    COOKED,
    ORDERED,
    OTHER,
    a_real_run,
    broken,
    entry,
    fault,
    made,
    received,
    sent,
    starts,
)


def page(run: Run, title: str = "tavern") -> Page:
    return Page(as_page(run, title))


def shares(one: Element, other: Element) -> bool:
    """Whether the page's script highlights one with the other."""
    ids = [str(each.attributes["data-about"]).split() for each in (one, other)]
    return not set(ids[0]).isdisjoint(ids[1])


STORY = made(
    starts("kitchen/1"),
    starts("waiter/1"),
    entry(0.5, "AWS", Kind.FAULT, "kitchen is looked through in another order"),
    sent(1.0),
    received(2.0),
    fault(2.5, "the process dies"),
    entry(3.0, "kitchen/2", Kind.SENT, "puts DishCooked on the bus tavern", COOKED, ORDERED),
    sent(60.0, OTHER, type_="Bill"),
    wrong=broken(),
)


def test_every_tag_is_closed_in_its_turn() -> None:
    for run in (STORY, made(), made(*STORY.entries), hostile()):
        assert len(page(run).all("html")) == 1


def test_each_lane_is_a_column_with_the_scenario_first_and_aws_last() -> None:
    assert page(STORY).columns() == [
        "Time",
        "scenario",
        "kitchen/1",
        "kitchen/2",
        "waiter/1",
        "AWS",
    ]


def test_what_is_no_process_comes_after_all_that_are() -> None:
    lanes = ("world", "AWS", "kitchen/1", "scenario")
    assert page(made(*(received(1.0, lane=lane) for lane in lanes))).columns() == [
        "Time",
        "scenario",
        "kitchen/1",
        "AWS",
        "world",
    ]


def test_all_requests_to_a_service_share_a_column() -> None:
    lanes = [f"kitchen/request {number}" for number in (1, 2, 3)]
    run = made(*(entry(1.0, lane, Kind.PROCESS, "serves a request") for lane in lanes))
    assert page(run).columns() == ["Time", "kitchen/requests"]


def test_a_box_stands_in_the_column_of_its_lane_and_the_row_of_its_time() -> None:
    found = page(STORY)
    [row] = [row for row in found.rows() if "receives OrderDish a" in row.text]
    assert row.all("th")[0].text == "2.000"
    cells = [cell.text for cell in row.all("td")]
    assert cells[found.columns().index("kitchen/1") - 1] == "receives OrderDish a from kitchen"
    assert sum(map(bool, cells)) == 1


def test_rows_are_in_the_order_of_what_happened() -> None:
    times = [float(row.all("th")[0].text) for row in page(STORY).rows() if row.all("th")]
    assert times == sorted(times)


def test_processes_that_start_at_once_share_a_row() -> None:
    assert [box.text for box in page(STORY).rows()[0].all("div")] == ["starts", "starts"]


def test_a_box_has_the_class_of_its_kind() -> None:
    found = page(STORY)
    assert found.box("sends OrderDish a").classes == ["box", "sent"]
    assert found.box("the process dies").classes == ["box", "fault"]


def test_a_fault_is_marked_by_more_than_its_colour() -> None:
    assert page(STORY).box("the process dies").text.startswith("! ")


def test_a_long_time_without_anything_is_a_gap() -> None:
    gaps = [row.text for row in page(STORY).rows() if "gap" in row.classes]
    assert gaps == ["… 57 s later"]


def test_what_shares_an_id_is_highlighted_together() -> None:
    found = page(STORY)
    ordered, cooked = found.box("sends OrderDish a"), found.box("puts DishCooked a")
    assert shares(ordered, cooked)
    assert not shares(ordered, found.box("sends Bill b"))


def test_a_story_goes_on_where_ids_are_no_longer_shared() -> None:
    write = entry(4.0, "kitchen/2", Kind.WRITTEN, "writes soup", COOKED)
    found = page(made(*STORY.entries, write))
    ordered, written = found.box("sends OrderDish a"), found.box("writes soup")
    assert not shares(ordered, written)
    assert ordered.attributes["data-story"] == written.attributes["data-story"] == "a"


def test_what_concerns_no_event_cannot_be_followed() -> None:
    assert "data-about" not in page(STORY).box("the process dies").attributes


def test_what_was_wrong_stands_on_top_and_at_the_end() -> None:
    found = page(STORY)
    [verdict] = found.all("section")
    assert verdict.attributes["id"] == "verdict"
    assert "no soup" in verdict.text
    assert "There is soup." in verdict.text
    assert "raise AssertionError(sentence)" in verdict.text
    last = found.rows()[-1]
    assert last.classes == ["violation"]
    assert last.all("a")[0].attributes["href"] == "#verdict"


def test_a_run_in_which_nothing_was_wrong_says_so() -> None:
    found = page(made(received(1.0)))
    assert "Nothing was wrong." in found.root.text
    assert not found.all("section")


def test_a_run_without_entries_says_how_to_have_some() -> None:
    assert "traced=True" in page(made()).all("main")[0].text


def test_the_ids_behind_the_names_can_be_looked_up() -> None:
    [details] = page(STORY).all("details")
    rows = [[cell.text for cell in row.all("td")] for row in details.all("tr")]
    assert rows[1:] == [["OrderDish a", ORDERED], ["DishCooked a", COOKED], ["Bill b", OTHER]]


def test_records_marked_as_done_are_shown_but_faint() -> None:
    text = "writes the record of kitchen.cook (done)"
    found = page(made(received(1.0), entry(1.1, "kitchen/1", Kind.WRITTEN, text, ORDERED)))
    assert [row.classes for row in found.rows()] == [[], ["bookkeeping"]]


HOSTILE = '</td></script><script>alert("x")</script>&amp;'


def hostile() -> Run:
    wrong = Wrong(HOSTILE, HOSTILE)
    lines = [entry(1.0, HOSTILE, Kind.SENT, f"sends {HOSTILE}", f"1 {HOSTILE}", HOSTILE)]
    return made(*lines, wrong=wrong)


def test_nothing_that_is_shown_can_become_part_of_the_page() -> None:
    html = as_page(hostile(), HOSTILE)
    found = Page(html)
    assert "alert(" not in re.sub(r"&lt;script&gt;alert\(", "", html)
    assert len(found.all("script")) == 1
    assert found.all("h1")[0].text == HOSTILE
    assert found.columns() == ["Time", HOSTILE]
    assert HOSTILE in found.all("section")[0].text


def test_a_dollar_in_a_text_stays_one() -> None:
    run = made(entry(1.0, "kitchen/1", Kind.LOG, "$title costs $5"))
    assert page(run).box("costs").text == "$title costs $5"


def test_what_has_no_utf_8_is_spelled_out() -> None:
    html = as_page(made(entry(1.0, "kitchen/1", Kind.LOG, "half \udc00")), "\udc00")
    assert html.encode().count(rb"\udc00") == 3


def loaded(found: Page) -> Sequence[tuple[str, str | None]]:
    """Whatever of a page names something outside of it."""
    elements = [each for tag in ("a", "img", "link", "script") for each in found.all(tag)]
    return [
        (name, value)
        for each in elements
        for name, value in each.attributes.items()
        if name in ("href", "src") and value != "#verdict"
    ]


def test_the_page_loads_nothing() -> None:
    html = as_page(STORY, "tavern")
    assert loaded(Page(html)) == []
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_what_only_the_script_can_do_is_hidden_without_it() -> None:
    [form] = page(STORY).all("form")
    assert "hidden" in form.attributes


@pytest.fixture(scope="module")
def real() -> Run:
    return a_real_run()


def test_a_real_run_is_shown_whole(real: Run) -> None:
    found = page(real, "nothing is cooked")
    assert {"scenario", "kitchen/1", "kitchen/2", "waiter/1", "waiter/2"} <= set(found.columns())
    assert any("receives DishCooked a from waiter" in box.text for box in found.boxes())
    assert "There is soup." in found.all("section")[0].text


def test_the_same_run_gives_the_same_page_byte_for_byte(real: Run) -> None:
    assert as_page(a_real_run(), "soup").encode() == as_page(real, "soup").encode()
