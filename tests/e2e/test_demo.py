"""The demo, from its command line to its last line."""

from __future__ import annotations

import re
from collections import Counter
from email import message_from_bytes
from pathlib import Path

import pytest

from headrace.hosts.emulator import endpoints_environment, ministack
from tests.e2e.program import run

pytestmark = [pytest.mark.emulator, pytest.mark.slow]

LAST_LINE = re.compile(
    r"orders=(\d+) confirmed=(\d+) cancelled=(\d+) notified=(\d+) "
    r"lost=(\d+) doubled=(\d+) dead_letters=(\d+)"
)
COUNT = re.compile(r"^ +([a-z ]+?) +(\d+) *$", re.MULTILINE)
WHYS = ("out of stock", "declined by the bank", "not in time")
NOBODY = "http://127.0.0.1:1"


def last_line(output: str) -> list[int]:
    found = LAST_LINE.fullmatch(output.strip().split("\n")[-1])
    assert found is not None, output
    return [int(count) for count in found.groups()]


def test_40_orders_end_and_the_bad_messages_are_dead_letters(tmp_path: Path) -> None:
    # The endpoint of the shell leads nowhere: the demo must have one of its own.
    ended = run(
        "services.demo",
        "--orders=40",
        environ={"AWS_ENDPOINT_URL": NOBODY, "AWS_PROFILE": "not-a-profile"},
        scratch=tmp_path,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    orders, confirmed, cancelled, notified, lost, doubled, dead_letters = last_line(ended.stdout)
    assert (orders, notified, lost, doubled, dead_letters) == (40, 40, 0, 0, 2)
    assert confirmed + cancelled == 40
    assert min(confirmed, cancelled) > 0
    assert "The body is not JSON" in ended.stdout
    assert ended.stderr == ""
    counts = {name: int(number) for name, number in COUNT.findall(ended.stdout)}
    assert confirmed == counts["paid"] + counts["free"]
    assert cancelled == sum(counts[why] for why in WHYS)
    assert min(counts[why] for why in WHYS) > 0
    assert counts["captured"] == counts["paid"]
    assert counts["declined"] == counts["declined by the bank"]
    assert counts["voided"] > 0
    assert counts["free"] > 0


def test_there_is_one_mail_for_each_order_in_the_folder_that_the_demo_names(
    tmp_path: Path,
) -> None:
    ended = run("services.demo", "--orders=10", environ={}, scratch=tmp_path)
    named = re.search(r"mail and log are in (\S+)", ended.stdout)
    assert named is not None, ended.stdout + ended.stderr
    mails = Path(named[1], "mail").glob("*.eml")
    orders = Counter(message_from_bytes(mail.read_bytes())["X-Order-Id"] for mail in mails)
    assert len(orders) == 10
    assert set(orders.values()) == {1}


def test_a_run_that_does_not_end_in_time_fails_and_says_what_is_missing(tmp_path: Path) -> None:
    ended = run("services.demo", "--orders=40", "--timeout=0.01", environ={}, scratch=tmp_path)
    assert ended.returncode == 1
    assert "It took longer than 0.01 s: 40 of 40 orders have not ended" in ended.stdout
    assert "wrong: every order ended" in ended.stdout
    assert last_line(ended.stdout)[4] == 40


async def test_a_second_run_on_one_emulator_is_as_good_as_the_first(tmp_path: Path) -> None:
    async with ministack() as endpoint:
        for _ in range(2):
            ended = run(
                "services.demo",
                "--orders=5",
                "--emulator=none",
                environ=endpoints_environment(endpoint),
                scratch=tmp_path,
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr


def test_without_an_emulator_nothing_is_done_to_aws(tmp_path: Path) -> None:
    ended = run("services.demo", "--orders=1", "--emulator=none", environ={}, scratch=tmp_path)
    assert ended.returncode == 1
    assert "nothing here may touch an AWS account" in " ".join(ended.stdout.split())
