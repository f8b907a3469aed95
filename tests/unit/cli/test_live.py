"""What `headrace dev` shows of the counts: a table, or lines."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from headrace import Ack, DeadLetter, Delivery, Outcome, Retry
from headrace.cli.live import Announced, view
from headrace.envelope import Outgoing
from headrace.observe.tally import Counts, Tally


def delivery(body: str = '{"detail-type": "Bought"}') -> Delivery:
    return Delivery(message_id="m", receipt_handle="r", body=body, queue="till")


def shown(tally: Tally) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as captured:
        console.print(view(tally))
    return captured.get().splitlines()


def test_each_service_has_a_row_with_its_counts() -> None:
    tally = Tally({"till": Counts(received=1200, in_flight=3, done=1190), "store": Counts()})

    lines = shown(tally)

    (row,) = (line.split() for line in lines if "till" in line)
    assert row == ["till", "1,200", "3", "1,190", "0", "0", "0", "0"]
    assert any(line.split()[:1] == ["store"] for line in lines)


def test_the_last_events_stand_below_the_table() -> None:
    tally = Tally()
    tally.settled("till", delivery(), DeadLetter("The body is [not] JSON."))

    assert any("till gives up: The body is [not] JSON." in line for line in shown(tally))


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Ack(), "till: Bought is done"),
        (Ack(duplicate=True), "till: Bought is a duplicate"),
        (Retry("The till is shut."), "till: Bought comes again: The till is shut."),
        (DeadLetter("No such SKU."), "till: Bought goes to the dead letters: No such SKU."),
    ],
)
def test_each_outcome_is_announced_in_a_line(
    outcome: Outcome, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Announced().settled("till", delivery(), outcome)

    assert capsys.readouterr().out == f"{said}\n"


@pytest.mark.parametrize("body", ["not json", "[]", '{"detail": {}}'])
def test_a_body_without_a_type_is_announced_as_something(
    body: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Announced().settled("till", delivery(body), Ack())

    assert capsys.readouterr().out == "till: something is done\n"


def test_what_is_announced_is_counted_too(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Announced()
    message = Outgoing("1", "Bought", "{}", datetime.now(UTC), source="cli.shop")

    tally.received("till", delivery())
    tally.settled("till", delivery(), Ack())
    tally.sent("till", message)

    assert capsys.readouterr().out.splitlines()[-1] == "till: sent Bought 1"
    assert list(tally.summary()) == [
        "till: 1 received, 0 in flight, 1 done, 0 duplicates, 0 retried, 0 dead letters, "
        "1 published"
    ]
