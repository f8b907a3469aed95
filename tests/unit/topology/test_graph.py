"""The graph of events and commands: what it holds, and how it is drawn."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from headrace import Command, Event, Service
from headrace.topology.graph import Graph, graph, mermaid, svg


class Asked(Event, source="graph.front"):
    question: str


class Answered(Event, source="graph.back", version=3):
    answer: str


class Stored(Event, source="aws.s3", name="Graph <Object> Created", native=True):
    size: int


class Explain(Command, owner="back"):
    question: str


class Publish(Command, owner="press"):
    answer: str


@pytest.fixture
def drawn() -> Graph:
    front, back = Service("front"), Service("back")

    @front.on(Answered)
    async def show(event: Answered) -> Explain | Publish | None: ...

    @back.on(Explain)
    async def explain(command: Explain) -> Answered | None: ...

    @back.on(Stored)
    async def index(event: Stored) -> Asked | None: ...

    return graph(front, back)


def test_a_link_names_who_emits_it_and_who_takes_it(drawn: Graph) -> None:
    links = {link.name: link for link in drawn.links}

    answered = links["Answered"]
    assert (answered.emitters, answered.consumers) == (("back",), ("front",))
    assert (answered.handlers, answered.version) == (("front.show",), 3)
    assert (links["Explain"].command, links["Explain"].party) == (True, "back")


def test_what_comes_from_outside_and_what_nobody_takes_are_links_too(drawn: Graph) -> None:
    links = {link.name: link for link in drawn.links}

    assert (links["Graph <Object> Created"].emitters, links["Asked"].consumers) == ((), ())
    assert links["Publish"].consumers == ()


def test_the_order_of_services_does_not_matter() -> None:
    front, back = Service("front"), Service("back")

    assert graph(front, back) == graph(back, front)
    assert graph(front, back).services == ("back", "front")


def test_the_graph_is_json_with_the_kind_and_party_of_each_link(drawn: Graph) -> None:
    links = {link["name"]: link for link in drawn.as_json()["links"]}

    assert links["Explain"]["kind"] == "command"
    assert links["Explain"]["owner"] == "back"
    assert links["Answered"]["source"] == "graph.back"


def test_mermaid_leads_from_the_emitter_through_the_event_to_the_consumer(drawn: Graph) -> None:
    lines = [line.strip() for line in mermaid(drawn).splitlines()]

    assert lines[0] == "flowchart LR"
    back, front = 's0["back"]', 's1["front"]'
    assert {back, front} <= set(lines)
    (node,) = (line for line in lines if "Answered v3" in line)
    assert node == 'm0(["Answered v3"])'
    assert {"s0 --> m0", "m0 --> s1"} <= set(lines)


def test_mermaid_draws_commands_and_strangers_differently(drawn: Graph) -> None:
    text = mermaid(drawn)

    assert '{{"Explain"}}' in text
    assert '(["Asked"]):::outside' in text
    assert '["aws.s3"]:::outside' in text
    assert "classDef outside" in text


def test_the_svg_is_well_formed_and_names_everyone(drawn: Graph) -> None:
    root = ElementTree.fromstring(svg(drawn))

    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("back") == 2  # it emits and takes
    assert {"front", "Answered v3", "Graph <Object> Created", "aws.s3"} <= set(texts)
    assert {"nobody here", "press (not here)"} <= set(texts)


def test_in_the_svg_nothing_overlaps_in_its_column(drawn: Graph) -> None:
    root = ElementTree.fromstring(svg(drawn))

    columns: dict[str, list[tuple[float, float]]] = {}
    for box in root.findall("{http://www.w3.org/2000/svg}rect"):
        if box.get("x"):
            top = float(box.attrib["y"])
            columns.setdefault(box.attrib["x"], []).append((top, float(box.attrib["height"])))
    assert len(columns) == 2
    for boxes in columns.values():
        ordered = sorted(boxes)
        assert all(a + height <= b for (a, height), (b, _) in pairwise(ordered))


def test_a_second_emitter_of_one_event_is_drawn_too() -> None:
    services = Service("first"), Service("second")
    for service in services:

        @service.on(Stored)
        async def index(event: Stored) -> Asked | None: ...

    root = ElementTree.fromstring(svg(graph(*services)))

    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert (texts.count("first"), texts.count("second")) == (2, 2)


def test_a_graph_of_nothing_can_be_drawn() -> None:
    ElementTree.fromstring(svg(graph()))

    assert mermaid(graph()) == "flowchart LR\n"
