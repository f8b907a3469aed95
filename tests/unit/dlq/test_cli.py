"""`headrace dlq`, called in this process, on an account in memory."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import main
from headrace.dlq.moving import Move, Moves
from headrace.ports import Ports, QueueEntry
from headrace.testing.memory import MemoryCloud
from headrace.testing.memory.moves import MemoryMoves
from tests.unit.cli.conftest import Ended, Headrace
from tests.unit.dlq import desk

SERVICE = "tests.unit.dlq.desk:desk"
LETTERS = 3


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryCloud[Any]:
    """Dead letters in memory, in place of what is far away, and a worker beside the command."""
    cloud = desk.made(LETTERS)

    @asynccontextmanager
    async def opened(config: object) -> AsyncIterator[Ports]:
        yield cloud.ports

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("headrace.aws.client.open_ports", opened)
    monkeypatch.setattr("headrace.cli.dlq.run", partial(desk.run_beside_a_worker, cloud))
    return cloud


@pytest.fixture
def headrace(cloud: MemoryCloud[Any], capsys: pytest.CaptureFixture[str]) -> Headrace:
    """`headrace("list")`, about the desk."""
    capsys.readouterr()

    def call(command: str, *arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(("dlq", command, SERVICE, *arguments))
        captured = capsys.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ended(code, captured.out, captured.err)

    return call


def lines(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def a_ticket(headrace: Headrace) -> dict[str, Any]:
    (letter, *_) = lines(headrace("list", "--json", "--event", "TicketOpened"))
    return letter


def the_unread(headrace: Headrace) -> dict[str, Any]:
    letters = lines(headrace("list", "--json"))
    return next(letter for letter in letters if letter["event"] is None)


def there(cloud: MemoryCloud[Any]) -> int:
    return len(cloud.queues.peek("desk-dlq"))


# --- looking -----------------------------------------------------------------------------


def test_a_list_has_a_line_for_each_letter(headrace: Headrace) -> None:
    ended = headrace("list")

    assert ended.code == 0
    assert ended.out.count("desk.answer") == LETTERS
    assert ended.out.count("Nobody can answer ticket") == LETTERS
    assert "The body is not JSON" in ended.out


def test_a_list_is_json_for_other_programs(headrace: Headrace) -> None:
    letters = lines(headrace("list", "--json", "--event", "TicketOpened"))

    assert [letter["event_id"] for letter in letters] == [f"ticket-{n}" for n in range(LETTERS)]
    assert {letter["handler"] for letter in letters} == {"desk.answer"}
    assert len({letter["group"] for letter in letters}) == 1


def test_groups_say_how_many_letters_have_a_cause(headrace: Headrace) -> None:
    groups = lines(headrace("group", "--json"))
    shown = headrace("group").out

    assert [(group["error"], group["count"]) for group in groups] == [
        ("PoisonMessage", LETTERS),
        ("NotJson", 1),
    ]
    assert all(group["group"] in shown for group in groups)
    assert "PoisonMessage in desk.answer, TicketOpened v1" in shown


def test_a_group_says_how_many_different_reasons_it_has(headrace: Headrace) -> None:
    groups = lines(headrace("group", "--json"))
    tickets, header = groups[0]["group"], headrace("group").out.splitlines()[1].split()

    (row,) = [line for line in headrace("group").out.splitlines() if tickets in line]

    assert [group["reasons"] for group in groups] == [LETTERS, 1]
    assert header[:6] == ["group", "letters", "first", "last", "what", "reasons"]
    assert f" {LETTERS}   Nobody can answer ticket 2." in row


def test_looking_at_letters_leaves_them_there(headrace: Headrace, cloud: MemoryCloud[Any]) -> None:
    headrace("list")
    headrace("group")

    assert desk.run(cloud.queues.depth("desk-dlq")).visible == LETTERS + 1


def test_a_letter_is_shown_without_what_is_sensitive(headrace: Headrace) -> None:
    letter = a_ticket(headrace)
    ended = headrace("show", letter["id"])

    assert "ada@example.com" not in ended.out
    assert '"email": "***"' in ended.out
    assert "Nobody can answer ticket 0." in ended.out
    assert "desk.answer: no record, so it has not committed" in ended.out
    assert f"headrace dlq redrive {SERVICE} --id {letter['id']}" in ended.out
    assert "desk.py:answer" in ended.out


def test_a_letter_is_shown_raw_when_it_is_asked_for(headrace: Headrace) -> None:
    letter, unread = a_ticket(headrace), the_unread(headrace)

    assert '"email": "ada@example.com"' in headrace("show", letter["id"], "--raw").out
    assert "--raw shows it" in headrace("show", unread["id"]).out
    assert headrace("show", unread["id"], "--raw").out.endswith("{\n")


def test_a_letter_that_is_shown_as_json_has_its_records_and_its_body(headrace: Headrace) -> None:
    letter = a_ticket(headrace)
    (shown,) = lines(headrace("show", letter["id"], "--json"))

    assert list(shown["records"]) == ["desk.answer"]
    assert shown["body"]["data"] == {"number": 0, "email": "***", "good": False}


def test_a_letter_is_shown_by_how_its_id_begins(headrace: Headrace) -> None:
    letter = a_ticket(headrace)

    assert headrace("show", letter["id"][:8]).out == headrace("show", letter["id"]).out


def test_a_beginning_that_several_letters_share_is_answered_with_their_ids(
    headrace: Headrace,
) -> None:
    ids = sorted(letter["id"] for letter in lines(headrace("list", "--json")))

    ended = headrace("show", "")

    assert ended.code == 1
    assert f"Several letters begin with '': {', '.join(ids)}. Give more" in ended.err


def test_a_letter_that_is_not_there_is_an_error(headrace: Headrace) -> None:
    ended = headrace("show", "nothing")

    assert ended.code == 1
    assert "There is no letter 'nothing' to be seen" in ended.err


def test_what_sqs_moved_is_explained_by_the_logs(
    headrace: Headrace, cloud: MemoryCloud[Any], tmp_path: Path
) -> None:
    desk.run(cloud.queues.send("desk-dlq", [QueueEntry("[]")]))
    (letter,) = [each for each in lines(headrace("list", "--json")) if each["reconstructed"]]
    logs = tmp_path / "logs.jsonl"
    logs.write_text(
        json.dumps({"message_id": letter["id"], "level": "ERROR", "message": "Out of memory."})
    )

    (told,) = [
        each
        for each in lines(headrace("list", "--json", "--logs", str(logs)))
        if each["reconstructed"]
    ]

    assert "Out of memory." in told["reason"]


def test_letters_that_somebody_else_hides_are_told_of(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    desk.run(cloud.queues.receive("desk-dlq", limit=1, wait=timedelta(0)))

    assert "1 more letter is hidden in desk-dlq by somebody else" in headrace("list").err


def test_a_queue_that_the_service_does_not_read_is_wrong_use(headrace: Headrace) -> None:
    ended = headrace("list", "--queue", "other")

    assert ended.code == 2
    assert "it reads desk." in ended.err


# --- filters that match nothing ----------------------------------------------------------

WRONG = (
    ("--event", "TicketOpend", "No letter has the event 'TicketOpend' (4 letters looked at). Did"),
    ("--event", "Other", "The only one is TicketOpened."),
    (
        "--handler",
        "anser",
        "No letter has the handler 'anser' (4 letters looked at). Did you mean an",
    ),
    ("--group", "ffffffff", "No letter has the group 'ffffffff' (4 letters looked at). "),
    ("--id", "m-1", "No letter has the id 'm-1' (4 letters looked at). There are "),
)


@pytest.mark.parametrize(("option", "value", "said"), WRONG)
def test_a_filter_that_matches_nothing_is_answered_with_what_there_is(
    headrace: Headrace, option: str, value: str, said: str
) -> None:
    for command in ("list", "group"):
        ended = headrace(command, option, value)
        assert (ended.code, ended.err) == (0, "")
        assert said in ended.out


def test_filters_that_match_something_each_and_nothing_together_are_told_of(
    headrace: Headrace,
) -> None:
    unread = the_unread(headrace)

    ended = headrace("list", "--event", "TicketOpened", "--id", unread["id"])

    assert f"No letter has all of this at once: id {unread['id']}, event TicketOpened" in ended.out


def test_what_another_program_reads_stays_empty_when_a_filter_matches_nothing(
    headrace: Headrace,
) -> None:
    ended = headrace("list", "--event", "TicketOpend", "--json")

    assert (ended.code, ended.out) == (0, "")
    assert "Did you mean TicketOpened?" in ended.err


@pytest.mark.parametrize("command", [("redrive",), ("redrive", "--dry-run"), ("drop",)])
@pytest.mark.parametrize("yes", [("--yes",), ()])
def test_what_would_act_on_nothing_that_was_asked_for_fails(
    headrace: Headrace,
    cloud: MemoryCloud[Any],
    command: tuple[str, ...],
    yes: tuple[str, ...],
) -> None:
    ended = headrace(*command, "--event", "TicketOpend", *yes)

    assert ended.code == 1
    assert "Did you mean TicketOpened?" in ended.err
    assert there(cloud) == LETTERS + 1


def test_what_was_asked_for_and_may_be_hidden_does_not_fail(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    """So a run that was killed can be run again until it ends with 0."""
    desk.run(cloud.queues.receive("desk-dlq", limit=1, wait=timedelta(0)))

    ended = headrace("redrive", "--group", "ffffffff", "--yes")

    assert ended.code == 0
    assert "No letter has the group 'ffffffff' (3 letters looked at)." in ended.out
    assert "1 more letter is hidden" in ended.err


@pytest.mark.parametrize("command", [("redrive",), ("drop", "--event", "TicketOpened"), ("list",)])
def test_where_there_are_no_letters_nobody_has_to_be_asked(
    headrace: Headrace, cloud: MemoryCloud[Any], command: tuple[str, ...]
) -> None:
    for event in ("TicketOpened", None):
        selected = ("--event", event) if event else ("--id", the_unread(headrace)["id"])
        headrace("drop", *selected, "--yes")

    ended = headrace(*command)

    assert (ended.code, ended.out) == (0, "There are no dead letters to be seen.\n")


# --- sending back ------------------------------------------------------------------------


def test_what_is_mended_is_sent_back_through_a_canary(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    desk.mended.update(range(LETTERS))

    ended = headrace("redrive", "--event", "TicketOpened", "--yes")

    assert ended.code == 0
    assert "canary of" in ended.out
    assert ended.out.endswith("desk: 3 done.\n")
    assert there(cloud) == 1


def test_on_a_terminal_there_is_a_bar(
    headrace: Headrace, cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    desk.mended.update(range(LETTERS))

    ended = headrace("redrive", "--event", "TicketOpened", "--yes")

    assert ended.code == 0
    assert "3/3" in ended.out
    assert ended.out.endswith("desk: 3 done.\n")


def test_what_is_not_mended_stops_at_the_canary(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    ended = headrace("redrive", "--handler", "answer", "--yes")

    assert ended.code == 1
    assert "1 failed again:" in ended.out
    assert "Nobody can answer ticket" in ended.out
    assert ended.out.endswith("Stopped. 2 more were not sent back, and stay as they are.\n")
    assert there(cloud) == LETTERS + 1


def test_nothing_is_sent_back_unasked_where_nobody_can_be_asked(headrace: Headrace) -> None:
    ended = headrace("redrive")

    assert ended.code == 2
    assert "add --yes" in ended.err


def test_a_dry_run_says_what_would_be_sent_back(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    ended = headrace("redrive", "--dry-run")

    assert ended.code == 0
    assert ended.out.endswith("4 letters would be sent back to desk; nothing was.\n")
    assert there(cloud) == LETTERS + 1


def test_a_field_can_be_set_on_the_way_back(headrace: Headrace, cloud: MemoryCloud[Any]) -> None:
    ended = headrace("redrive", "--event", "TicketOpened", "--set", "good=true", "--yes")

    assert ended.code == 0
    assert there(cloud) == 1


def test_an_edit_that_is_not_valid_is_refused_with_its_reason(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    ended = headrace("redrive", "--event", "TicketOpened", "--set", 'number="x"', "--yes")

    assert ended.code == 1
    assert "number: Input should be a valid integer" in ended.err
    assert there(cloud) == LETTERS + 1


def test_a_field_that_the_event_does_not_have_cannot_be_set(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    ended = headrace("redrive", "--event", "TicketOpened", "--set", "nummber=7", "--yes")

    assert ended.code == 1
    assert "TicketOpened has no field 'nummber'. Did you mean number?" in ended.err
    assert there(cloud) == LETTERS + 1


def test_a_field_of_a_newer_sender_does_not_keep_another_from_being_set(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    ended = headrace("redrive", "--event", "TicketOpened", "--set", "good=true", "--dry-run")
    (body,) = {entry.body for entry in cloud.queues.peek("desk-dlq") if "ticket-0" in entry.body}
    newer = body.replace('"number":0', '"number":0,"colour":"red"')
    desk.run(cloud.queues.send("desk-dlq", [QueueEntry(newer)]))

    newest = headrace("redrive", "--event", "TicketOpened", "--set", "good=true", "--dry-run")

    assert '"colour"' in newer
    assert (ended.code, newest.code) == (0, 0)
    assert "4 letters would be sent back" in newest.out


def test_a_body_can_be_given_for_what_could_not_be_read(
    headrace: Headrace, cloud: MemoryCloud[Any], tmp_path: Path
) -> None:
    from headrace.testing import delivery_of

    ticket = desk.TicketOpened(number=9, email="eve@example.com", good=True)
    body = tmp_path / "body.json"
    body.write_text(delivery_of(ticket, "desk", id="ticket-9").body)
    unread = the_unread(headrace)

    ended = headrace("redrive", "--id", unread["id"], "--body", str(body), "--yes")

    assert ended.code == 0
    assert there(cloud) == LETTERS


def test_sqs_is_let_to_move_all(
    headrace: Headrace, cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    moves_with(MemoryMoves(cloud.queues), monkeypatch)
    desk.mended.update(range(LETTERS))

    ended = headrace("redrive", "--all", "--yes")

    assert ended.code == 0
    assert ended.out.endswith("completed: about 4 of about 4 moved\n")


def test_where_sqs_cannot_move_all_they_go_step_by_step(
    headrace: Headrace, cloud: MemoryCloud[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    moves_with(_Unable(), monkeypatch)

    ended = headrace("redrive", "--all", "--yes")

    assert ended.code == 1
    assert "This SQS does not move messages by itself" in ended.out
    assert "1 failed again" in ended.out


def test_all_cannot_be_selected_or_changed(headrace: Headrace) -> None:
    for option in (("--event", "TicketOpened"), ("--set", "good=true")):
        ended = headrace("redrive", "--all", "--yes", *option)
        assert (ended.code, "leave out --all" in ended.err) == (2, True)


# --- letting go --------------------------------------------------------------------------


def test_what_is_dropped_is_in_a_file(
    headrace: Headrace, cloud: MemoryCloud[Any], tmp_path: Path
) -> None:
    ended = headrace("drop", "--event", "TicketOpened", "--yes")

    assert ended.code == 0
    assert ended.out.endswith("Dropped 3 letters. They are in dropped-desk.jsonl.\n")
    assert len((tmp_path / "dropped-desk.jsonl").read_text().splitlines()) == LETTERS
    assert there(cloud) == 1


def test_what_is_to_be_dropped_has_to_be_named(headrace: Headrace) -> None:
    ended = headrace("drop", "--yes")

    assert ended.code == 2
    assert "Say which letters" in ended.err


# --- asking ------------------------------------------------------------------------------


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Answers a question, as from a terminal."""
    master, slave = os.openpty()
    with os.fdopen(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        # A loop that skips time does not wait for a terminal.
        yield lambda text: (os.write(master, text.encode()), None)[1]
    os.close(master)


@pytest.mark.parametrize(
    ("answer", "left"), [("y\n", 1), ("n\n", LETTERS + 1), ("\n", LETTERS + 1)]
)
def test_only_a_yes_is_a_yes(
    headrace: Headrace,
    cloud: MemoryCloud[Any],
    type_in: Callable[[str], None],
    answer: str,
    left: int,
) -> None:
    type_in(answer)

    ended = headrace("drop", "--event", "TicketOpened")

    assert ended.code == 0
    assert "Drop 3 letters of desk, and keep them in dropped-desk.jsonl? [y/N]" in ended.out
    assert there(cloud) == left


# --- beside ------------------------------------------------------------------------------


def moves_with(moves: Moves, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def opened(config: object) -> AsyncIterator[Moves]:
        yield moves

    monkeypatch.setattr("headrace.aws.dead_letters.open_moves", opened)


class _Unable:
    """An SQS that does not know the calls."""

    async def start(self, dead_letters: str, queue: str) -> None:
        await asyncio.sleep(0)

    async def recent(self, dead_letters: str) -> Sequence[Move]:
        return ()
