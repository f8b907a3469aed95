"""The soak, from its command line to its last line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from services.soak.workers import WorkerEnded, WorkerProcess
from tests.e2e.program import run

pytestmark = [pytest.mark.emulator, pytest.mark.slow]

LAST_LINE = re.compile(r"orders=(\d+) kills=(\d+) lost=(\d+) doubled=(\d+) unfinished=(\d+)")
DYNOXIDE = {name: os.environ[name] for name in ("HEADRACE_DYNOXIDE",) if name in os.environ}


def last_line(output: str) -> list[int]:
    found = LAST_LINE.fullmatch(output.strip().split("\n")[-1])
    assert found is not None, output
    return [int(count) for count in found.groups()]


def test_orders_end_once_each_while_workers_are_killed(tmp_path: Path) -> None:
    # `make soak` takes 10,000, some of them with banks that never answer, which takes long.
    ended = run(
        "services.soak",
        "--orders=16",
        "--seed=1",
        *("--kill-every", "1", "2"),
        environ=DYNOXIDE,
        scratch=tmp_path,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    orders, kills, lost, doubled, unfinished = last_line(ended.stdout)
    assert (orders, lost, doubled, unfinished) == (16, 0, 0, 0)
    assert kills > 0
    assert "wrong" not in ended.stdout
    assert list(tmp_path.glob("headrace-soak-*")) == []


def test_a_run_in_which_nothing_changes_any_more_fails_and_says_what_is_missing(
    tmp_path: Path,
) -> None:
    ended = run(
        "services.soak", "--orders=5", "--patience=0.01", environ=DYNOXIDE, scratch=tmp_path
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "Nothing has changed for 0.01 s: 5 of 5 orders have not ended" in ended.stdout
    assert "wrong: every order ended" in ended.stdout
    orders, _, lost, doubled, _ = last_line(ended.stdout)
    assert (orders, lost, doubled) == (5, 5, 0)
    named = re.search(r"mail and logs are in (\S+)", ended.stdout)
    assert named is not None
    assert Path(named[1], "order.log").exists()


async def test_a_worker_that_ends_by_itself_is_an_error_that_shows_its_log(tmp_path: Path) -> None:
    where = "services.order.app:nobody"
    worker = WorkerProcess("nobody", where, os.environ, tmp_path / "log")
    with pytest.raises(WorkerEnded, match=r"status 2(.|\n)*names nothing"):
        await worker.run()
    assert worker.kills == 0
