"""What is said of the rounds, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.side.contest import CONTENDERS, Run, contenders
from benchmarks.side.figures import sample
from benchmarks.side.plot import Bar, Bars, svg
from benchmarks.side.protocol import Job
from benchmarks.side.report import (
    Findings,
    compared,
    last_line,
    markdown,
    text,
    write_between_marks,
)
from benchmarks.side.run import cpu_beside, rate_beside_best

NOTHING = {"effects": 0, "events": 0, "deleted": 0}


def run(contender: str, cpu_s: float, *, wall_s: float = 1.0, **counts: Any) -> Run:
    job = Job("drain", "http://127.0.0.1:1", 100)
    result = {
        "messages": 100,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "peak_rss_kb": 51_200,
        "notes": "as advised",
        "versions": {"library": "1.2"},
    }
    seen = {
        "all_calls": 50,
        "queue_chunks": 20,
        "event_chunks": 100,
        "write_units": 400.0,
        "read_units": 0.0,
        "effects": 100,
        "events": 100,
        "sent": 0,
        "lost": NOTHING,
        "doubled": NOTHING,
        "wrong": NOTHING,
    }
    return Run(contender, job, result, seen | counts, exec_s=2.0)


def row(findings: Findings, contender: str) -> dict[str, str]:
    (table,) = findings.tables
    (cells,) = (cells for cells in table.rows if cells[0] == contender)
    return dict(zip(table.columns, cells, strict=True))


def test_a_ratio_is_taken_within_each_round() -> None:
    ratio = sample([2.0, 40.0]).over(sample([1.0, 20.0]))

    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.0)


def test_rounds_that_do_not_agree_which_is_more_are_not_told_apart() -> None:
    assert sample([1.1, 0.9]).over(sample([1.0, 1.0])).straddles_one
    assert not sample([1.1, 1.2]).over(sample([1.0, 1.0])).straddles_one


def test_a_row_has_the_cost_of_one_message_beside_headraces() -> None:
    found = compared(
        "b", {"headrace": [run("headrace", 0.02)] * 3, "celery_sqs": [run("celery_sqs", 0.2)] * 3}
    )

    cells = row(found, "celery_sqs")

    assert (cells["CPU µs"], cells["x headrace"]) == ("2,000", "10.00 (10.00–10.00)")
    assert (cells["calls"], cells["messages/s"], cells["MiB"]) == ("0.50", "100", "50")
    assert cells["remarks"] == "as advised"
    assert found.versions == {"headrace: library": "1.2", "celery_sqs: library": "1.2"}


def test_figures_that_differ_too_much_from_round_to_round_are_said_to_be_worthless() -> None:
    found = compared("b", {"headrace": [run("headrace", cpu) for cpu in (0.02, 0.03, 0.02)]})

    assert row(found, "headrace")["CPU µs"] == "200!"
    assert "worthless" in text(found)


def test_two_that_cannot_be_told_apart_are_named() -> None:
    found = compared(
        "b",
        {
            "headrace": [run("headrace", cpu) for cpu in (0.020, 0.021)],
            "wire": [run("wire", cpu) for cpu in (0.021, 0.020)],
        },
    )

    assert "?" in row(found, "wire")["x headrace"]
    assert "wire and headrace cannot be told apart" in text(found)


def test_lost_messages_are_remarked_in_place_of_everything_else() -> None:
    lost = run("celery_sqs", 0.2, lost={**NOTHING, "events": 3})
    found = compared("b", {"celery_sqs": [run("celery_sqs", 0.2), lost]})

    assert row(found, "celery_sqs")["remarks"] == "3 events lost"
    assert "the other figures mean nothing" in text(found)


def test_the_last_line_has_a_place_for_each_figure() -> None:
    line = last_line(Findings(figures={"calls_per_message": 0.51234, "cpu_vs_wire": 5.0}))

    assert line == (
        "cpu_vs_powertools=n/a cpu_vs_bare_loop=n/a drain_vs_best_peer=n/a "
        "cold_vs_powertools=n/a calls_per_message=0.512"
    )


def test_throughput_is_compared_with_the_fastest_peer_and_not_with_a_floor() -> None:
    rounds = {
        "headrace": [run("headrace", 1, wall_s=0.5)],
        "bare_loop": [run("bare_loop", 1, wall_s=0.1)],
        "boto3_plain": [run("boto3_plain", 1, wall_s=2.0)],
        "celery_sqs": [run("celery_sqs", 1, wall_s=1.0)],
    }

    assert rate_beside_best(rounds, "drain") == {"drain": 2.0}
    assert rate_beside_best({"headrace": rounds["headrace"]}, "drain") == {}


def test_a_figure_is_left_out_where_a_contender_is_missing() -> None:
    assert cpu_beside({"headrace": [run("headrace", 1)]}, "powertools", "cpu") == {}


def test_what_stands_between_the_marks_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- table -->\nold \\1\n<!-- /table -->\nafter\n")

    write_between_marks(page, "new \\1")
    write_between_marks(page, "newer \\1")

    assert page.read_text() == ("before\n<!-- table -->\n\nnewer \\1\n\n<!-- /table -->\nafter\n")


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("nothing")

    with pytest.raises(ValueError, match="put them in"):
        write_between_marks(page, "new")


def test_the_markdown_names_the_machine_the_versions_and_the_command() -> None:
    found = compared("b", {"headrace": [run("headrace", 0.02)]})

    page = markdown(found, "make bench", "side.svg")

    assert "by `make bench` on " in page
    assert "headrace with library 1.2" in page
    assert "| headrace | 200 |" in page


def test_the_plot_is_xml_with_a_bar_for_each_contender() -> None:
    bars = [Bar("headrace", 200, 190, 210), Bar("a < b", 2000, 1900, 2100)]

    drawn = ElementTree.fromstring(svg([Bars("b", "µs", bars)]))

    rects = drawn.findall("{http://www.w3.org/2000/svg}rect")
    assert [rect.get("class") for rect in rects] == ["own", "bar"]
    assert float(rects[1].get("width", 0)) == pytest.approx(
        10 * float(rects[0].get("width", 0)), abs=1
    )


def test_every_contender_has_a_module_and_a_job() -> None:
    folder = Path(__file__).parents[3] / "benchmarks" / "side" / "contenders"

    assert all((folder / f"{each.module}.py").exists() for each in CONTENDERS)
    assert [each.name for each in contenders("lambda", ["powertools", "celery_sqs"])] == [
        "powertools"
    ]
