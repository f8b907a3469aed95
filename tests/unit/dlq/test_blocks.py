"""Message groups that wait for a letter: seeing them, and letting them go on without it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from headrace import Service
from headrace.cli import main
from headrace.dlq.blocks import Blocks, Head
from headrace.errors import ConfigurationError
from headrace.ports import Ports
from headrace.testing.memory import MemoryCloud
from headrace.yard import Replayed
from tests.unit.cli.conftest import Ended
from tests.unit.dlq import siding

SERVICE = "tests.unit.dlq.siding:siding"

Headrace: TypeAlias = Callable[..., Ended]


@pytest.fixture
def cloud() -> MemoryCloud[Any]:
    """Two tracks that wait: the letter of `b` is gone."""
    cloud = siding.made("a", "b")
    siding.run(siding.letter_goes(cloud, "b"))
    return cloud


@pytest.fixture
def headrace(
    cloud: MemoryCloud[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Headrace:
    """`headrace("blocked")`, about the siding, with a worker beside the command."""

    @asynccontextmanager
    async def opened(config: object) -> AsyncIterator[Ports]:
        yield cloud.ports

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("headrace.aws.client.open_ports", opened)
    monkeypatch.setattr("headrace.cli.dlq.run", partial(siding.run_beside_a_worker, cloud))

    def call(command: str, *arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main(("dlq", command, SERVICE, *arguments))
        captured = capsys.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ended(code, captured.out, captured.err)

    return call


def test_every_group_that_waits_is_listed_with_what_became_of_its_letter(
    headrace: Headrace,
) -> None:
    ended = headrace("blocked", "--json")
    a, b = [json.loads(line) for line in ended.out.splitlines()]

    assert (a["consumer"], a["group"], a["queue"]) == ("siding.shunt", "a", siding.QUEUE)
    assert (a["event_id"], a["waiting"], a["letter"]) == ("a-1", 2, "there")
    assert (b["event_id"], b["waiting"], b["letter"]) == ("b-1", 2, "gone")
    assert a["reason"] == "Car 1 has no brakes."
    assert a["since"]
    assert a["message_id"] != b["message_id"]


def test_a_list_of_groups_that_wait_says_what_to_run_next(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    ended = headrace("blocked")
    letter = siding.run(Blocks(siding.siding, cloud.ports).one("shunt", "a")).letter_id

    assert ended.code == 0
    assert ended.out.count("Car 1 has no brakes.") == 2
    assert f"a: Mend what the reason says, then `headrace dlq redrive {SERVICE} --id {letter}`" in (
        ended.out
    )
    assert (
        "b: Its letter is no longer in the dead-letter queue: "
        f"`headrace dlq free {SERVICE} --consumer siding.shunt --group b`." in ended.out
    )


def test_a_service_of_which_no_group_waits_says_so(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    headrace("free", "--consumer", "shunt", "--group", "b", "--yes")
    headrace("redrive", "--yes")

    assert headrace("blocked").out == "No message group waits for a letter.\n"
    assert siding.numbers(cloud, "a") == [1, 2, 3]


def test_a_group_whose_letter_is_gone_goes_on_in_its_order(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    ended = headrace("free", "--consumer", "siding.shunt", "--group", "b", "--yes")

    assert ended.code == 0
    assert "Car 1 has no brakes." in ended.out
    assert ended.out.endswith("The message group b goes on: 2 parked.\n")
    assert siding.numbers(cloud, "b") == [2, 3]
    assert siding.numbers(cloud, "a") == []


def test_a_group_whose_letter_is_there_is_not_freed_unless_it_is_to_be_anyway(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    refused = headrace("free", "--consumer", "shunt", "--group", "a", "--yes")

    assert refused.code == 1
    assert "`headrace dlq redrive` or `drop` with --id" in refused.err
    assert siding.numbers(cloud, "a") == []

    freed = headrace("free", "--consumer", "shunt", "--group", "a", "--yes", "--anyway")

    assert freed.code == 0
    assert siding.numbers(cloud, "a") == [2, 3]
    assert len(cloud.queues.peek(siding.DEAD_LETTERS)) == 1


def test_a_group_whose_letter_may_be_hidden_is_not_freed(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    hidden = cloud.queues.receive(siding.DEAD_LETTERS, limit=10, wait=timedelta(0))
    assert len(siding.run(hidden)) == 1

    ended = headrace("free", "--consumer", "shunt", "--group", "b", "--yes")

    assert ended.code == 1
    assert "cannot be seen" in ended.err
    assert "b: Whether its letter is there cannot be seen" in headrace("blocked").out


def test_a_message_that_fails_after_its_group_was_freed_blocks_it_again(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    siding.broken.add(2)
    ended = headrace("free", "--consumer", "shunt", "--group", "b", "--yes")
    siding.broken.clear()

    assert ended.code == 1
    assert ended.out.endswith("The message group b waits again, behind another message.\n")
    assert siding.numbers(cloud, "b") == []


def test_a_queue_that_is_not_empty_may_hold_what_the_group_waits_for(
    cloud: MemoryCloud[Any],
) -> None:
    async def scenario() -> int:
        blocks = Blocks(siding.siding, cloud.ports)
        await siding.come(cloud, "c", 1)
        return await blocks.in_the_queue(await blocks.one("shunt", "b"))

    assert siding.run(scenario()) == 1


def test_a_group_that_does_not_wait_cannot_be_freed(headrace: Headrace) -> None:
    ended = headrace("free", "--consumer", "shunt", "--group", "z", "--yes")

    assert ended.code == 1
    assert "'z' of siding.shunt does not wait for anything" in ended.err


def test_no_group_is_freed_unasked_where_nobody_can_be_asked(headrace: Headrace) -> None:
    ended = headrace("free", "--consumer", "shunt", "--group", "b")

    assert ended.code == 2
    assert "add --yes" in ended.err


def test_a_group_whose_letter_is_done_goes_on_with_the_next_redrive(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    from headrace.ports import Put

    record = {
        "pk": {"S": "inbox#siding.shunt#b-1"},
        "sk": {"S": "-"},
        "commit_id": {"S": "c-1"},
        "status": {"S": "done"},
    }
    siding.run(cloud.store.write([Put("siding", record)]))

    assert f"`headrace dlq redrive {SERVICE}` goes on with the group" in headrace("blocked").out


def test_a_group_is_free_only_when_a_worker_has_handled_what_waited(
    cloud: MemoryCloud[Any],
) -> None:
    blocks = Blocks(siding.siding, cloud.ports)

    async def free() -> Replayed:
        return await blocks.free(await blocks.one("shunt", "b"))

    assert siding.run(free()) is Replayed.GOING_ON
    assert [waiting.head for waiting in siding.run(blocks.of())] == [Head.THERE, Head.SETTLED]
    assert siding.run_beside_a_worker(cloud, free()) is Replayed.FREE
    assert siding.numbers(cloud, "b") == [2, 3]


# --- handlers that are no more -----------------------------------------------------------


async def freed(service: Service, cloud: MemoryCloud[Any], consumer: str) -> Replayed:
    blocks = Blocks(service, cloud.ports)
    async with siding.at_work(cloud, service):
        replayed = await blocks.free(await blocks.one(consumer, "a"))
        await siding.emptied(cloud)
    return replayed


def test_what_waits_for_a_handler_of_a_former_name_is_seen_and_goes_to_the_new_one() -> None:
    cloud = siding.made("a", by=siding.service("old"))
    siding.run(siding.letter_goes(cloud, "a"))
    blocks = Blocks(siding.siding, cloud.ports)

    assert siding.run(blocks.of()) == []
    (waiting,) = siding.run(blocks.of("old"))
    assert (waiting.head, waiting.parks, waiting.queue) == (Head.GONE, False, siding.QUEUE)
    assert siding.run(freed(siding.siding, cloud, "siding.old")) is Replayed.FREE
    assert siding.numbers(cloud, "a") == [2, 3]
    assert siding.run(blocks.of("old")) == []


def test_what_waits_for_a_handler_that_parks_no_more_is_seen_without_being_named() -> None:
    cloud = siding.made("a")
    siding.run(siding.letter_goes(cloud, "a"))
    plain = siding.service(park=False)

    (waiting,) = siding.run(Blocks(plain, cloud.ports).of())
    assert (waiting.block.group, waiting.parks) == ("a", False)
    assert siding.run(freed(plain, cloud, "shunt")) is Replayed.FREE
    assert siding.numbers(cloud, "a") == [2, 3]


def test_the_letter_of_a_handler_that_is_no_more_comes_first(
    headrace: Headrace, cloud: MemoryCloud[Any]
) -> None:
    siding.broken.add(1)
    old = siding.service("old")

    async def fail() -> None:
        await siding.come(cloud, "c", 1, 2)
        async with siding.at_work(cloud, old):
            await siding.emptied(cloud)

    siding.run(fail())
    siding.broken.clear()

    listed = headrace("blocked", "--consumer", "old").out
    refused = headrace("free", "--consumer", "old", "--group", "c", "--yes")

    assert "; then `headrace dlq free" in listed
    assert "comes first" in refused.err
    headrace("redrive", "--yes")
    assert headrace("free", "--consumer", "old", "--group", "c", "--yes").code == 0
    assert siding.numbers(cloud, "c") == [1, 2]


def test_a_service_without_a_table_has_nothing_parked(cloud: MemoryCloud[Any]) -> None:
    blocks = Blocks(Service("bare", table=None), cloud.ports)

    with pytest.raises(ConfigurationError, match="bare has no table"):
        siding.run(blocks.of("bare.shunt"))
