"""The table under pytest, and what holds the table itself."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from headrace.hosts.emulator import ministack
from tests.parity.acts import ACTS
from tests.parity.case import (
    ACKED,
    DEAD,
    DONE,
    LATER,
    NONE,
    SOON,
    Case,
    Difference,
    Note,
    Sent,
)
from tests.parity.contracts import Book, Booked, BookedInOrder, Booking
from tests.parity.faults import KINDS
from tests.parity.hosts import HOSTS, Host, InMemory, all_hosts
from tests.parity.play import play
from tests.parity.table import CASES, DIFFERENCES
from tests.parity.verdict import findings

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "hosts.md"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mapping[str, Host]]:
    async with ministack() as url, all_hosts(url, tmp_path_factory.mktemp("parity")) as all:
        yield all


@pytest.mark.emulator
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_case_is_the_same_on_every_host(
    case: Case, host: str, hosts: Mapping[str, Host]
) -> None:
    assert findings(case, await play(case, hosts[host])) == []


# --- the table -----------------------------------------------------------------------------------


def test_no_two_cases_have_one_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60


def test_every_difference_is_shown_by_a_case_and_no_case_has_another() -> None:
    assert {case.difference for case in CASES if case.difference} == set(DIFFERENCES)


def test_every_fault_and_every_act_is_in_the_table() -> None:
    sent = [each for case in CASES for each in case.sent if isinstance(each, Sent)]
    assert {re.split("[*@]", each.fault)[0] for each in sent if each.fault} == set(KINDS)
    acts = {act for each in sent if isinstance(each.what, (Booking, Book)) for act in each.what.do}
    assert acts == set(ACTS)


def test_every_dead_letter_has_a_note() -> None:
    sent = [each for case in CASES for each in case.sent if isinstance(each, Sent)]
    assert [each for each in sent if (each.fates[-1] is DEAD) != (each.note is not None)] == []


def test_the_page_lists_the_differences_of_the_table() -> None:
    def row(each: Difference) -> str:
        return f"| {each.what} | {each.on_lambda} | {each.on_worker} | {each.why} |"

    _, _, listed = PAGE.read_text().partition("| what differs |")
    rows = [line for line in listed.splitlines()[2:] if line.startswith("|")]
    assert rows == list(map(row, DIFFERENCES))


# --- the verdict ---------------------------------------------------------------------------------

RIGHT = Case("right", [Sent(Booked(), ACKED)], accounts={"A": "a"})
FAILING = Case("failing", [Sent(Booked(do=["fail"]), LATER)])
POISON = Case(
    "poison", [Sent(Booked(do=["poison"]), DEAD, note=Note(handler="books.book", reason="never"))]
)


def changed(case: Case, **changes: object) -> Case:
    """The case with another expectation for its one message."""
    (sent,) = case.sent
    return replace(case, sent=[replace(sent, **changes)])  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize("case", [RIGHT, FAILING, POISON], ids=lambda case: case.name)
async def test_what_is_right_is_not_found_wrong(case: Case) -> None:
    assert findings(case, await play(case, InMemory())) == []


@pytest.mark.parametrize(
    ("case", "found"),
    [
        (changed(RIGHT, fate=LATER), "its fate is acked, not comes again later"),
        (changed(FAILING, fate=SOON), "its fate is comes again later, not comes again at once"),
        (changed(FAILING, fate=SOON), "0 visible and 1 hidden messages are left, not 1 and 0"),
        (changed(FAILING, fate=[LATER, ACKED]), "comes again later, comes again later, not"),
        (changed(POISON, fate=ACKED), "there are 1 dead letters, not 0"),
        (changed(POISON, letters=2), "there are 1 dead letters, not 2"),
        (changed(POISON, note=None), "does not say what stands on its dead letter"),
        (changed(POISON, note=Note(handler=None, reason="")), "its letter says"),
        (changed(POISON, note=Note(handler="books.book", reason="soon")), "the reason is"),
        (changed(FAILING, hidden=timedelta(minutes=1)), "it was hidden for [3600.0], not 0:01:00"),
        (changed(RIGHT, fault="bus-down@0"), "bus-down@0 never bit"),
        (changed(RIGHT, runs=2), "book ran 1 times, not 2"),
        (changed(RIGHT, inbox=NONE), "the record of book is done, not none"),
        (changed(FAILING, inbox=DONE), "the record of book is none, not done"),
        (changed(RIGHT, out=()), "what book sends is out 1 times, not nothing"),
        (changed(RIGHT, out=(2,)), "what book sends is out 1, 0 times, not 2"),
        (changed(RIGHT, out=(1, 1)), "what book sends is out 1, 0, 0 times, not 1, 1"),
        (replace(RIGHT, accounts={}), "account A: a is booked, not nothing"),
        (replace(RIGHT, accounts={"A": "a a"}), "account A: a is booked, not a, a"),
        (replace(RIGHT, accounts={"A": "a", "B": "a"}), "account B: nothing is booked, not a"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_wrong_is_found(case: Case, found: str) -> None:
    assert found in "\n".join(findings(case, await play(case, InMemory())))


async def test_an_order_that_is_wrong_is_found() -> None:
    sent = [Sent(BookedInOrder(), ACKED, group="A"), Sent(BookedInOrder(), ACKED, group="A")]
    case = Case("order", sent, accounts={"A": "b a"})
    assert findings(case, await play(case, InMemory())) == [
        "account A: a, b is booked, not b, a",
    ]


async def test_a_copy_that_takes_effect_again_is_found() -> None:
    facts = await play(RIGHT, InMemory())
    facts.details *= 2
    facts.accounts["A"] = ["a", "a"]
    assert findings(RIGHT, facts) == [
        "account A: a, a is booked, not a",
        "a: what book sends is out 2, 0 times, not 1",
    ]


async def test_an_event_that_is_nobodys_is_found() -> None:
    facts = await play(RIGHT, InMemory())
    (detail,) = facts.details
    stray = {**detail, "metadata": {**detail["metadata"], "id": "stray"}}
    facts.details.append(stray)
    assert findings(RIGHT, facts) == [f"nobody should have sent {stray}"]


async def test_an_event_with_another_cause_is_found() -> None:
    facts = await play(RIGHT, InMemory())
    (detail,) = facts.details
    facts.details = [{**detail, "metadata": {**detail["metadata"], "causation_id": "stranger"}}]
    assert findings(RIGHT, facts) == ["a: what it caused names stranger as its cause"]
