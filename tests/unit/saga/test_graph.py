"""The picture of a saga: what it says, and that it can be read."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from headrace.saga import Saga, step
from headrace.saga.graph import mermaid, svg
from tests.unit.saga.carnival import (
    MINUTE,
    Carnival,
    CarnivalCalled,
    DrummersHired,
    DrummersIll,
    HireDrummers,
    Town,
)

SVG = "{http://www.w3.org/2000/svg}"


class Rehearsal(Town, starts_on=CarnivalCalled, key="town"):
    """One step, and no way back."""

    @step(done=DrummersHired, failed=DrummersIll, timeout=MINUTE * 1.5)
    def drummers(self) -> HireDrummers:
        return HireDrummers(town=self.town)


@pytest.fixture
def lines() -> list[str]:
    return [line.strip() for line in mermaid(Carnival).splitlines()]


def texts(saga: type[Saga]) -> list[str]:
    root = ElementTree.fromstring(svg(saga))
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def box(saga: type[Saga], name: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the box with this title."""
    for group in ElementTree.fromstring(svg(saga)).iter(f"{SVG}g"):
        rect, title = group.find(f"{SVG}rect"), group.find(f"{SVG}text")
        if rect is not None and title is not None and title.text == name:
            x, y = float(rect.attrib["x"]), float(rect.attrib["y"])
            return x, y, x + float(rect.attrib["width"]), y + float(rect.attrib["height"])
    raise AssertionError(f"nothing is called {name}")


def test_a_step_says_what_it_sends_what_answers_mean_and_how_long_it_waits(
    lines: list[str],
) -> None:
    assert lines[0] == "flowchart TD"
    assert (
        's0["<b>permit</b><br/>AskPermit<br/>done: PermitGiven<br/>fails: PermitDenied<br/>'
        'again: MayorAsleep<br/>sent 3 times<br/>waits 1 min"]' in lines
    )


def test_steps_stand_behind_those_that_they_wait_for(lines: list[str]) -> None:
    for arrow in ("begin --> s0", "s0 --> s1", "s0 --> s2", "s1 --> s3", "s2 --> s3"):
        assert arrow in lines
    assert "s1 --> s2" not in lines
    assert "s5 --> completed" in lines


def test_what_fails_leads_to_what_is_undone_first(lines: list[str]) -> None:
    assert 's0 -. "PermitDenied" .-> compensated' in lines
    assert 's0 -. "no answer" .-> u0' in lines
    assert 's3 -. "ParadeForbidden" .-> u2' in lines
    assert [line for line in lines if line.startswith("u") and "-.->" in line] == [
        "u2 -.-> u1",
        "u1 -.-> u0",
        "u0 -.-> compensated",
    ]


def test_what_is_exhausted_leads_to_an_operator(lines: list[str]) -> None:
    stuck = [line for line in lines if line.endswith("-. exhausted .-> stuck")]

    assert [line.split()[0] for line in stuck] == ["u1", "u0", "s4"]


def test_what_is_special_of_a_saga_is_said(lines: list[str]) -> None:
    assert 'begin(["CarnivalCalled<br/>deadline 4 h"])' in lines
    assert any(line.startswith('s2{{"<b>wagon</b><br/>maybe BuildFloat') for line in lines)
    assert any("<i>point of no return</i>" in line and line.startswith("s3") for line in lines)
    assert any("CarnivalCancelled: cancelled" in line for line in lines)


def test_a_saga_without_a_way_back_is_drawn_without_one() -> None:
    drawn = mermaid(Rehearsal)

    assert "stuck" not in drawn
    assert "pivot" not in drawn
    assert "waits 90 s" in drawn
    assert texts(Rehearsal).count("drummers") == 1


def test_the_image_says_what_the_chart_says() -> None:
    said = texts(Carnival)

    assert {"carnival version 1", "permit", "give_back", "maybe BuildFloat"} <= set(said)
    assert {"completed", "compensated", "deadline 4 h", "point of no return"} <= set(said)
    assert "at any time: CarnivalCancelled: cancelled" in said


def test_steps_go_to_the_right_and_what_undoes_them_stands_below() -> None:
    permit, drummers, wagon = (box(Carnival, n) for n in ("permit", "drummers", "wagon"))
    back, home = box(Carnival, "give_back"), box(Carnival, "send_home")

    assert permit[2] < drummers[0] < wagon[0]
    assert wagon[1] > drummers[3]
    assert back[0] == permit[0]
    assert home[0] == drummers[0]
    assert min(back[1], home[1]) > wagon[3]


def test_nothing_stands_outside_the_image() -> None:
    root = ElementTree.fromstring(svg(Carnival))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])

    for rect in root.iter(f"{SVG}rect"):
        if "x" in rect.attrib:
            assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width
            assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= height
