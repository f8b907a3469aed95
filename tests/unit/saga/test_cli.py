"""`headrace saga`, called in this process, on an account in memory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from headrace.ports import Ports
from headrace.testing.memory import memory_ports
from headrace.topology.model import Table, Topology
from tests.unit.cli.conftest import Ended, Headrace, calling
from tests.unit.saga import removal
from tests.unit.saga.removal import SERVICE, Site


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Movers and cranes in memory, in place of what is far away."""
    site = Site()

    @asynccontextmanager
    async def opened(config: object) -> AsyncIterator[Ports]:
        yield site.cloud.ports

    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr("headrace.aws.client.open_ports", opened)
    monkeypatch.setattr("headrace.cli.saga.run", site.run)
    monkeypatch.setattr("headrace.cli.check.run", site.run)
    with removal.trouble():
        yield site


@pytest.fixture
def headrace(site: Site, capsys: pytest.CaptureFixture[str]) -> Headrace:
    """`headrace("saga", "list", SERVICE)`"""
    return calling(capsys)


@pytest.fixture
def stuck(site: Site) -> None:
    """P1 was dropped, and its crane does not come off."""
    removal.heavy.add("P1")
    removal.jammed.add("P1")
    site.begin("P1")


@pytest.fixture
def waiting(site: Site) -> None:
    """Nobody answers for P2."""
    removal.busy.add("P2")
    site.begin("P2")


def lines(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def shown(headrace: Headrace, key: str = "P1") -> dict[str, Any]:
    (found,) = lines(headrace("saga", "show", SERVICE, key, "--json"))
    return found


# --- looking -----------------------------------------------------------------------------


@pytest.mark.usefixtures("stuck", "waiting")
def test_a_list_has_a_line_for_each_saga_that_is_not_over(headrace: Headrace) -> None:
    ended = headrace("saga", "list", SERVICE)

    assert ended.code == 0
    first, second = (line.split() for line in ended.out.splitlines() if "removal" in line)
    assert first[:5] == ["removal", "P1", "1", "stuck", "hire"]
    assert second[:6] == ["removal", "P2", "1", "running", "hire", "sent"]


@pytest.mark.usefixtures("stuck", "waiting")
def test_a_list_may_have_those_that_are_stuck_alone(headrace: Headrace) -> None:
    (row,) = lines(headrace("saga", "list", SERVICE, "--stuck", "--json"))

    assert row["since"] > row["begun"]
    assert row["age"] > 0
    assert {name: row[name] for name in ("saga", "key", "version", "status", "steps")} == {
        "saga": "removal",
        "key": "P1",
        "version": 1,
        "status": "stuck",
        "steps": ["hire"],
    }
    assert row["reason"] == "lift failed by PianoDropped"


def test_a_list_of_nothing_says_so(headrace: Headrace, site: Site) -> None:
    site.begin("P1")

    assert headrace("saga", "list", SERVICE).out == "There are no sagas that are not over.\n"
    assert headrace("saga", "list", SERVICE, "--stuck").out == "No saga is stuck.\n"
    assert headrace("saga", "list", SERVICE, "--json").out == ""


@pytest.mark.usefixtures("stuck", "waiting")
def test_a_list_that_is_cut_says_so(headrace: Headrace) -> None:
    ended = headrace("saga", "list", SERVICE, "--limit", "1", "--json")

    assert [row["key"] for row in lines(ended)] == ["P1"]
    assert ended.err == "There are more than these 1: see --limit.\n"


@pytest.mark.usefixtures("stuck")
def test_a_saga_is_shown_with_its_steps_and_its_whole_history(headrace: Headrace) -> None:
    ended = headrace("saga", "show", SERVICE, "P1")

    assert ended.code == 0
    for text in (
        "movers.removal P1",
        "stuck at hire",
        f"`headrace saga resume {SERVICE} P1 --saga removal`",
        "hire sent",
        "sent: HireCrane",
        "hire done by CraneHired",
        "lift failed by PianoDropped",
        "give_back sent, attempt 2",
        "stuck: give_back is exhausted: CraneJammed",
    ):
        assert text in ended.out


@pytest.mark.usefixtures("stuck")
def test_a_saga_is_shown_without_what_is_sensitive(headrace: Headrace) -> None:
    assert shown(headrace)["state"] == {"piano": "P1", "owner": "***"}
    assert "Ada" not in headrace("saga", "show", SERVICE, "P1").out


@pytest.mark.usefixtures("waiting")
def test_a_saga_that_is_shown_as_json_has_its_steps(headrace: Headrace) -> None:
    found = shown(headrace, "P2")

    assert list(found["steps"]) == ["hire", "lift", "tell"]
    assert found["steps"]["hire"]["status"] == "sent"
    assert found["steps"]["hire"]["attempt"] == 1
    assert found["steps"]["hire"]["due"] is not None
    assert [entry["event"] for entry in found["history"]] == ["PianoSold"]


def test_a_saga_that_is_over_is_shown_too(headrace: Headrace, site: Site) -> None:
    site.begin("P1")
    ended = headrace("saga", "show", SERVICE, "P1")

    assert "It is over." in ended.out
    assert "tell done" in ended.out


@pytest.mark.usefixtures("waiting")
def test_a_saga_that_waits_for_an_answer_needs_nobody(headrace: Headrace) -> None:
    assert "It waits for hire, until" in headrace("saga", "show", SERVICE, "P2").out


@pytest.mark.usefixtures("waiting")
def test_a_saga_whose_timer_is_overdue_can_be_resumed(headrace: Headrace, site: Site) -> None:
    site.works = False
    site.cloud.clock.advance(timedelta(hours=2))
    shown = headrace("saga", "show", SERVICE, "P2").out

    assert ", 1 h 59 min ago, and nothing woke it." in shown
    assert f"dead letter: `headrace saga resume {SERVICE} P2 --saga removal` wakes it." in shown


@pytest.mark.usefixtures("waiting")
def test_a_timer_that_is_a_little_late_is_not_overdue(headrace: Headrace, site: Site) -> None:
    site.works = False
    site.cloud.clock.advance(timedelta(minutes=1))

    assert "there is nothing to do" in headrace("saga", "show", SERVICE, "P2").out


def test_a_saga_whose_deadline_woke_nobody_can_be_undone(headrace: Headrace, site: Site) -> None:
    async def offer() -> None:
        async with removal.deployed(site.cloud, removal.keepers) as aws:
            await aws.publish(removal.PianoStored(piano="P1"))
            await aws.elapsed(timedelta(0))

    site.run(offer())
    site.works = False
    site.cloud.clock.advance(timedelta(hours=7))
    keepers = "tests.unit.saga.removal:keepers"
    shown = headrace("saga", "show", keepers, "P1").out

    assert " ago, and nothing woke it." in shown
    assert f"`headrace saga compensate {keepers} P1 --saga storage` does what" in shown


# --- helping on --------------------------------------------------------------------------


@pytest.mark.usefixtures("stuck")
def test_a_saga_is_resumed_and_ends(headrace: Headrace) -> None:
    removal.jammed.clear()
    ended = headrace("saga", "resume", SERVICE, "P1", "--why", "oiled", "--by", "ada", "--yes")

    assert ended.code == 0
    assert "movers.removal P1 is stuck at hire" in ended.out
    assert "  resume by ada: oiled\n  give_back sent\nIt is compensating.\n" in ended.out
    assert shown(headrace)["status"] == "compensated"


@pytest.mark.usefixtures("stuck")
def test_a_step_that_was_seen_to_by_hand_is_skipped(headrace: Headrace) -> None:
    ended = headrace("saga", "skip-step", SERVICE, "P1", "--saga", "removal", "--yes")

    assert (ended.code, shown(headrace)["status"]) == (0, "compensated")
    assert "It is compensated." in ended.out


@pytest.mark.usefixtures("waiting")
def test_a_saga_is_undone_when_that_is_wanted(headrace: Headrace) -> None:
    ended = headrace("saga", "compensate", SERVICE, "P2", "--yes")

    assert ended.code == 0
    assert shown(headrace, "P2")["reason"].startswith("compensate by ")


@pytest.mark.usefixtures("waiting")
def test_what_cannot_be_had_ends_with_1(headrace: Headrace) -> None:
    ended = headrace("saga", "resume", SERVICE, "P2", "--by", "ada", "--yes")

    assert ended.code == 1
    assert "resume by ada, and is refused: it is not stuck" in ended.out


@pytest.mark.usefixtures("stuck")
def test_without_a_worker_the_wish_is_in_the_queue(headrace: Headrace, site: Site) -> None:
    site.works = False
    ended = headrace("saga", "resume", SERVICE, "P1", "--patience", "3", "--yes")
    site.works = True

    assert ended.code == 1
    assert "No worker has taken it within 3 s: it is in the queue movers" in ended.out
    site.begin()
    assert shown(headrace)["history"][6]["changes"][0].startswith("resume by ")


@pytest.mark.usefixtures("stuck")
def test_who_wants_it_is_the_user_of_the_system(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "grace")
    ended = headrace("saga", "skip-step", SERVICE, "P1", "--yes")

    assert "skip-step by grace" in ended.out


def test_nothing_is_done_where_nobody_can_be_asked(headrace: Headrace, stuck: None) -> None:
    ended = headrace("saga", "resume", SERVICE, "P1")

    assert ended.code == 2
    assert "add --yes" in ended.err
    assert shown(headrace)["status"] == "stuck"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`answer("y")`: what somebody types when they are asked."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)

        def type_in(text: str) -> None:
            os.write(writing, f"{text}\n".encode())

        yield type_in
    os.close(writing)


@pytest.mark.usefixtures("stuck")
@pytest.mark.parametrize(("said", "status"), [("n", "stuck"), ("", "stuck"), ("y", "compensated")])
def test_who_is_asked_decides(
    headrace: Headrace, answer: Callable[[str], None], said: str, status: str
) -> None:
    answer(said)
    ended = headrace("saga", "skip-step", SERVICE, "P1")

    assert ended.code == 0
    assert "Let hire count as undone, and go on? [y/N] " in ended.out
    assert ("Nothing was done." in ended.out) is (status == "stuck")
    assert shown(headrace)["status"] == status


@pytest.mark.usefixtures("waiting")
def test_a_saga_that_is_not_stuck_can_only_be_woken(
    headrace: Headrace, answer: Callable[[str], None]
) -> None:
    answer("n")

    assert (
        "Wake it, if something is overdue? [y/N] " in headrace("saga", "resume", SERVICE, "P2").out
    )


# --- what is wrong -----------------------------------------------------------------------


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("command", ["show", "resume", "skip-step", "compensate"])
def test_a_saga_that_is_not_there_is_an_error(headrace: Headrace, command: str) -> None:
    yes = [] if command == "show" else ["--yes"]
    ended = headrace("saga", command, SERVICE, "P9", *yes)

    assert ended.code == 1
    assert "There is no saga movers.removal 'P9'" in ended.err


def test_a_saga_that_the_service_does_not_have_is_an_error(headrace: Headrace) -> None:
    ended = headrace("saga", "list", SERVICE, "--saga", "tuning")

    assert ended.code == 2
    assert "movers has no saga 'tuning': it has removal." in ended.err


def test_one_saga_of_several_has_to_be_named(headrace: Headrace) -> None:
    ended = headrace("saga", "show", "tests.unit.saga.removal:tuners", "P1")

    assert ended.code == 2
    assert "tuners has several sagas: name one of polish, tuning with --saga." in ended.err


def test_a_service_without_sagas_is_an_error(headrace: Headrace) -> None:
    ended = headrace("saga", "list", "tests.unit.saga.removal:porters")

    assert ended.code == 2
    assert "porters has no sagas" in ended.err


@pytest.mark.parametrize("tables", [(), (Table("movers"),)], ids=["no table", "no index"])
def test_what_is_not_provisioned_says_what_to_run(
    headrace: Headrace, site: Site, tables: tuple[Table, ...]
) -> None:
    site.works, site.cloud = False, memory_ports()
    site.cloud.provision(Topology(tables=tables))
    ended = headrace("saga", "list", SERVICE)

    assert ended.code == 3
    assert "provision" in ended.err


# --- in flight ---------------------------------------------------------------------------

EVERYBODY = (SERVICE, "tests.unit.saga.removal:cranes")


@pytest.mark.usefixtures("stuck", "waiting")
def test_sagas_of_a_version_that_is_there_are_no_finding(headrace: Headrace) -> None:
    offline = headrace("check", *EVERYBODY)
    ended = headrace("check", *EVERYBODY, "--in-flight")

    assert (ended.code, ended.out) == (0, offline.out)


@pytest.mark.parametrize("tables", [(), (Table("movers"),)], ids=["no table", "no index"])
def test_before_the_first_deployment_nothing_can_be_in_flight(
    headrace: Headrace, site: Site, tables: tuple[Table, ...]
) -> None:
    site.works, site.cloud = False, memory_ports()
    site.cloud.provision(Topology(tables=tables))
    ended = headrace("check", *EVERYBODY, "--in-flight")

    assert ended.code == 0
    assert "warning: movers: can have no sagas in flight here" in ended.out
    assert headrace("check", *EVERYBODY, "--in-flight", "--strict").code == 1


def test_a_check_that_is_offline_asks_nothing_of_aws(headrace: Headrace, site: Site) -> None:
    site.cloud = memory_ports()
    assert "in flight" not in headrace("check", *EVERYBODY).out
