"""The commands that read services and say something about them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from headrace.topology import derive
from headrace.topology.model import Table, Topology
from tests.unit.cli.conftest import Headrace

BOTH = ("shop.app:till", "shop.app:store")


# --- topology --------------------------------------------------------------------------


def test_the_topology_reads_as_text(headrace: Headrace) -> None:
    lines = headrace("topology", *BOTH).out.splitlines()

    assert lines[0] == "buses   shop"
    assert lines[1] == "tables  store, till"
    said = "given up by headrace after 5 receives, by SQS itself after 10"
    assert f"        to store-dlq: {said}" in lines
    assert "          cli.shop: Bought" in lines


LATE = """
from datetime import timedelta
from headrace import Policy, Service
from headrace.service import QueueSettings
from shop.app import Bought, Shipped

late = Service("late", policy=Policy(attempts=3))

@late.on(Bought)
async def early(event: Bought) -> None: ...

@late.on(Bought, policy=Policy(attempts=7))
async def later(event: Bought) -> None: ...

@late.on(Bought, queue="never", policy=Policy(attempts=20))
async def never(event: Bought) -> None: ...

@late.on(Bought, queue="orders.fifo")
async def ordered(event: Bought) -> None: ...

@late.on(Shipped, queue="leased.fifo", lease=timedelta(seconds=9))
async def leased(event: Shipped) -> None: ...
"""


def test_the_topology_says_who_gives_up_after_how_many_receives(
    headrace: Headrace, project: Path
) -> None:
    (project / "late.py").write_text(LATE)

    lines = headrace("topology", "late:late").out.splitlines()

    given_up = [line.partition("given up ")[2] for line in lines if "given up" in line]
    assert sorted(given_up) == [
        "by SQS itself after 10 receives",
        "by headrace after 3 receives, by SQS itself after 10",
        "by headrace after 3 to 7 receives, by SQS itself after 10",
        "by headrace after 9 receives, by SQS itself after 10",
    ]


def test_the_topology_names_the_indexes_of_a_table(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = (Table("store", indexes=("due", "owned")), Table("till"))
    monkeypatch.setattr(derive, "topology", lambda *services: Topology(tables=tables))

    lines = headrace("topology", *BOTH).out.splitlines()
    found = json.loads(headrace("topology", *BOTH, "--json").out)

    assert lines[1] == "tables  store (indexed by due, owned), till"
    assert [table["indexes"] for table in found["tables"]] == [["due", "owned"], []]


def test_the_topology_is_json_for_other_programs(headrace: Headrace) -> None:
    found = json.loads(headrace("topology", *BOTH, "--json").out)

    assert found.keys() == Topology().as_json().keys()
    assert [rule["name"] for rule in found["rules"]] == ["store", "till"]


# --- graph -----------------------------------------------------------------------------


def test_a_graph_is_mermaid_by_default(headrace: Headrace) -> None:
    assert headrace("graph", *BOTH).out.startswith("flowchart LR\n")


def test_a_graph_is_what_its_file_name_says(headrace: Headrace, project: Path) -> None:
    headrace("graph", *BOTH, "--output", "shop.svg")

    assert ElementTree.parse(project / "shop.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize("name", ["shop.png", "drawing", "shop.svg.gz"])
def test_a_file_whose_name_says_no_format_is_refused_and_not_written(
    headrace: Headrace, project: Path, name: str
) -> None:
    ended = headrace("graph", *BOTH, "--output", name)

    assert ended.code == 2
    assert "name a file that ends in .svg, or in .mmd" in ended.err
    assert not (project / name).exists()


def test_a_file_of_any_name_is_written_in_the_format_that_is_chosen(
    headrace: Headrace, project: Path
) -> None:
    headrace("graph", *BOTH, "--output", "shop.mmd")
    headrace("graph", *BOTH, "--output", "shop.txt", "--format", "mermaid")

    assert (project / "shop.mmd").read_text() == (project / "shop.txt").read_text()


def test_the_format_can_be_chosen(headrace: Headrace) -> None:
    assert headrace("graph", *BOTH, "--format", "svg").out.startswith("<svg")


# --- check -----------------------------------------------------------------------------


def test_services_in_order_pass(headrace: Headrace) -> None:
    ended = headrace("check", *BOTH)

    assert (ended.code, ended.out) == (0, "Nothing found.\n")


def test_a_warning_passes_unless_it_is_strict(headrace: Headrace) -> None:
    ended = headrace("check", "shop.app:till")
    strict = headrace("check", "shop.app:till", "--strict")

    assert (ended.code, strict.code) == (0, 1)
    assert ended.out.endswith("2 warnings.\n")
    assert "warning: Shipped: " in ended.out


def test_an_error_fails(headrace: Headrace, project: Path) -> None:
    (project / "bad.py").write_text(
        "from headrace import Service\n"
        "from shop.app import Bought\n"
        'bad = Service("bad", table=None)\n'
        "@bad.on(Bought)\n"
        "async def note(event: Bought) -> None: ...\n"
    )

    ended = headrace("check", "bad:bad")

    assert ended.code == 1
    assert "error: bad: has no table" in ended.out
    assert ended.out.endswith("1 error and 1 warning.\n")


# --- schemas ---------------------------------------------------------------------------


def test_each_event_and_command_has_a_schema_file(headrace: Headrace, project: Path) -> None:
    ended = headrace("schemas", "export", "shop", "--to", "out")

    assert ended.code == 0
    names = sorted(path.name for path in (project / "out").iterdir())
    assert names == ["Bought.v1.json", "Pack.v1.json", "Shipped.v1.json"]
    schema = json.loads((project / "out" / "Bought.v1.json").read_text())
    assert schema["properties"].keys() == {"sku", "pieces"}


def test_schemas_that_are_up_to_date_pass_the_check(headrace: Headrace) -> None:
    headrace("schemas", "export", "shop", "--to", "out")

    ended = headrace("schemas", "export", "shop", "--to", "out", "--check")

    assert (ended.code, ended.out) == (0, "3 schemas, 0 out of date.\n")


def test_a_schema_that_drifted_fails_the_check_and_is_left_alone(
    headrace: Headrace, project: Path
) -> None:
    headrace("schemas", "export", "shop", "--to", "out")
    drifted = project / "out" / "Bought.v1.json"
    drifted.write_text("{}")

    ended = headrace("schemas", "export", "shop", "--to", "out", "--check")

    assert ended.code == 1
    assert ended.out.startswith(f"{Path('out/Bought.v1.json')} differs\n")
    assert drifted.read_text() == "{}"


def test_schemas_of_older_versions_stay(headrace: Headrace, project: Path) -> None:
    (project / "out").mkdir()
    old = project / "out" / "Bought.v0.json"
    old.write_text("{}")

    headrace("schemas", "export", "shop", "--to", "out")

    assert old.exists()


def test_a_module_without_events_has_no_schemas(headrace: Headrace, project: Path) -> None:
    (project / "empty.py").write_text("")

    ended = headrace("schemas", "export", "empty", "--to", "out")

    assert ended.code == 2
    assert "empty defines no events" in ended.err
