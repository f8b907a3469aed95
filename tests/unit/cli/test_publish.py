"""Publishing by hand: what is sent, and that nothing is sent unless all of it is valid."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.limits import SQS_MESSAGE_BYTES
from headrace.ports import Ports
from headrace.testing.memory import MemoryCloud, memory_ports
from headrace.topology.derive import topology
from tests.unit.cli.conftest import Ended, Headrace

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cloud(project: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryCloud[Any]:
    """AWS in memory, with what the shop needs, in place of the one that is far away."""
    from headrace.cli.loading import load_services

    cloud = memory_ports()
    cloud.provision(topology(*load_services(["shop.app:till", "shop.app:store"])))

    @asynccontextmanager
    async def opened(config: object) -> AsyncIterator[Ports]:
        yield cloud.ports

    monkeypatch.setattr("headrace.aws.client.open_ports", opened)
    return cloud


def inbox(cloud: MemoryCloud[Any]) -> list[dict[str, Any]]:
    """What arrived in the queue of the store: by the bus, and as a command."""
    return [json.loads(entry.body) for entry in cloud.queues.peek("store")]


def publish(headrace: Headrace, *arguments: str, bus: str | None = "shop") -> Ended:
    given = () if bus is None else ("--bus", bus)
    return headrace("publish", *arguments, "--module", "shop", *given)


def write(project: Path, *lines: str) -> str:
    (project / "lines.jsonl").write_text("\n".join(lines))
    return "lines.jsonl"


# --- one message -----------------------------------------------------------------------


def test_an_event_goes_to_the_bus(headrace: Headrace, cloud: MemoryCloud[Any]) -> None:
    ended = publish(headrace, "Bought", "--data", '{"sku": "A-1"}')

    (arrived,) = inbox(cloud)
    assert arrived["detail"]["data"] == {"sku": "A-1", "pieces": 1}
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"Sent Bought {arrived['detail']['metadata']['id']} to the bus shop.\n"


def test_a_command_goes_to_its_owner(headrace: Headrace, cloud: MemoryCloud[Any]) -> None:
    ended = publish(headrace, "Pack", "--data", '{"sku": "A-1"}')

    assert [body["detail-type"] for body in inbox(cloud)] == ["Pack"]
    assert ended.out.endswith("to the queue of store.\n")


def test_the_fields_can_come_from_stdin(
    headrace: Headrace, cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"sku": "A-2"}'))

    publish(headrace, "Bought", "--data", "-")

    assert inbox(cloud)[0]["detail"]["data"]["sku"] == "A-2"


def test_the_fields_can_come_from_a_file(
    headrace: Headrace, cloud: MemoryCloud[Any], project: Path
) -> None:
    (project / "one.json").write_text('{"sku": "A-3"}')

    publish(headrace, "Bought", "--data", "@one.json")

    assert inbox(cloud)[0]["detail"]["data"]["sku"] == "A-3"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["Bought", "--data", '{"pieces": 1}'], 1, "no valid Bought: sku: Field required"),
        (["Bought", "--data", "{"], 1, "no valid Bought: the JSON: Invalid JSON"),
        (["Bougth", "--data", "{}"], 2, "Did you mean Bought?"),
        (
            ["Bought", "--data", '{"sku": "A", "peices": 2}'],
            1,
            "'peices'. Did you mean pieces?",
        ),
        (["Pack", "--data", '{"sku": "A", "colour": 2}'], 1, "no field 'colour'. The only one is"),
        (["???", "--data", "{}"], 2, "'???' in shop, where --module says to look. There are "),
        (["Bought", "--data", "@nowhere.json"], 2, "nowhere.json cannot be read"),
        ([], 2, "Say what to publish"),
        (["--data", "{}"], 2, "Say what to publish"),
        (["Bought", "--data", "{}", "--file", "x"], 2, "Say what to publish"),
    ],
)
def test_what_is_not_valid_is_not_sent(
    headrace: Headrace, cloud: MemoryCloud[Any], arguments: list[str], code: int, said: str
) -> None:
    ended = publish(headrace, *arguments)

    assert ended.code == code
    assert said in ended.err
    assert inbox(cloud) == []


def test_a_bus_that_is_not_there_ends_with_3(headrace: Headrace, cloud: MemoryCloud[Any]) -> None:
    ended = publish(headrace, "Bought", "--data", '{"sku": "A-1"}', bus="nowhere")

    assert ended.code == 3
    assert "nowhere" in ended.err
    assert ended.err.count("\n") == 1


# --- which bus -------------------------------------------------------------------------

A_BOUGHT = ("Bought", "--data", '{"sku": "A-1"}')


@pytest.fixture
def no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_BUS", raising=False)


@pytest.mark.usefixtures("no_bus")
def test_without_a_bus_events_go_to_that_of_the_services_in_their_modules(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    ended = publish(headrace, *A_BOUGHT, bus=None)

    assert (len(inbox(cloud)), ended.err) == (1, "")
    assert ended.out.endswith(" to the bus shop.\n")


def test_the_environment_names_a_bus_and_the_option_wins_over_it(
    headrace: Headrace, cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_BUS", "nowhere")

    ended = publish(headrace, *A_BOUGHT, bus=None)

    assert (ended.code, "'nowhere'" in ended.err) == (3, True)
    assert publish(headrace, *A_BOUGHT, bus="shop").out.endswith(" to the bus shop.\n")


@pytest.mark.usefixtures("no_bus")
def test_where_services_are_on_several_buses_events_go_to_the_default_one_with_a_warning(
    headrace: Headrace, cloud: MemoryCloud[Any], project: Path
) -> None:
    (project / "shop" / "more.py").write_text(
        'from headrace import Service\nmore = Service("more", bus="mall")'
    )

    ended = publish(headrace, *A_BOUGHT, bus=None)

    assert ended.out.endswith(" to the bus default.\n")
    assert "no --bus is given, and the services of shop are on mall and shop" in ended.err
    assert publish(headrace, "Pack", "--data", '{"sku": "A-1"}', bus=None).err == ""


@pytest.mark.usefixtures("no_bus")
def test_modules_without_services_leave_the_default_bus(
    headrace: Headrace, cloud: MemoryCloud[Any], project: Path
) -> None:
    (project / "facts.py").write_text(
        'from headrace import Event\nclass Sunrise(Event, source="cli.sky"): ...'
    )

    ended = headrace("publish", "Sunrise", "--module", "facts")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith(" to the bus default.\n")


# --- beside ----------------------------------------------------------------------------


def test_without_a_module_the_option_for_one_is_named(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if f"{name}.".startswith("schemas.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(ROOT)])

    ended = headrace("publish", *A_BOUGHT)

    assert ended.code == 2
    assert "name the one that defines them, as in --module shop." in ended.err


def test_a_misspelled_variable_is_warned_of_once(
    headrace: Headrace,
    cloud: MemoryCloud[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HEADRACE_BUSS", "shop")

    publish(headrace, *A_BOUGHT)

    assert [record.getMessage() for record in caplog.records] == [
        "The variable HEADRACE_BUSS means nothing to headrace: did you mean HEADRACE_BUS?"
    ]


# --- files -----------------------------------------------------------------------------


def test_each_line_of_a_file_can_be_one_event(
    headrace: Headrace, cloud: MemoryCloud[Any], project: Path
) -> None:
    file = write(project, '{"sku": "A-1"}', "", '{"sku": "A-2"}')

    ended = publish(headrace, "Bought", "--file", file)

    assert [body["detail"]["data"]["sku"] for body in inbox(cloud)] == ["A-1", "A-2"]
    assert ended.out == "Sent 2 messages.\n"


def test_lines_can_say_their_type_and_id(
    headrace: Headrace, cloud: MemoryCloud[Any], project: Path
) -> None:
    file = write(
        project,
        '{"type": "Bought", "id": "one", "data": {"sku": "A-1"}}',
        '{"type": "Pack", "id": "two", "data": {"sku": "A-1"}}',
    )

    publish(headrace, "--file", file)

    arrived = {body["detail-type"]: body["detail"]["metadata"]["id"] for body in inbox(cloud)}
    assert arrived == {"Bought": "one", "Pack": "two"}


def test_more_lines_than_one_batch_all_arrive(
    headrace: Headrace, cloud: MemoryCloud[Any], project: Path
) -> None:
    file = write(project, *(f'{{"sku": "A-{number}"}}' for number in range(250)))

    ended = publish(headrace, "Bought", "--file", file)

    assert len(inbox(cloud)) == 250
    assert ended.out == "Sent 250 messages.\n"


def test_one_bad_line_stops_all_and_every_bad_line_is_named(
    headrace: Headrace, cloud: MemoryCloud[Any], project: Path
) -> None:
    file = write(
        project,
        '{"type": "Bought", "data": {"sku": "A-1"}}',
        '{"type": "Bought", "data": {}}',
        "nonsense",
        '{"type": "Nothing", "data": {}}',
        '{"type": "Bought", "data": {"sku": "A-1"}, "id": ""}',
    )

    ended = publish(headrace, "--file", file)

    assert ended.code == 1
    lines = ended.err.splitlines()
    assert lines[0] == "headrace: nothing was sent:"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "line 2",
        "line 3",
        "line 4",
        "line 5",
    ]
    assert inbox(cloud) == []


def test_of_many_bad_lines_the_first_ten_are_named(
    headrace: Headrace, cloud: MemoryCloud[Any], project: Path
) -> None:
    ended = publish(headrace, "Bought", "--file", write(project, *["{}"] * 25))

    assert len(ended.err.splitlines()) == 12
    assert ended.err.endswith("… and 15 more\n")


def test_a_message_that_aws_would_refuse_for_its_size_stops_all(
    headrace: Headrace, cloud: MemoryCloud[Any], project: Path
) -> None:
    huge = json.dumps({"sku": "x" * SQS_MESSAGE_BYTES})

    ended = publish(headrace, "Pack", "--file", write(project, '{"sku": "A-1"}', huge))

    assert ended.code == 1
    assert "line 2: Pack has " in ended.err
    assert inbox(cloud) == []
