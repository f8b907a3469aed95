"""`headrace cost`: two hosts, one bill."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from headrace.cost.prices import PRICES
from tests.unit.cli.conftest import Headrace

BOTH = ("shop.app:till", "shop.app:store")

WORK = """
from headrace.cost import Account, work
from shop.app import Bought, till

limit = 3

async def buying(aws: Account) -> None:
    async for number in aws.units():
        await aws.publish(Bought(sku=f"sku-{number}"))

@work(resources={})
async def shopping(aws: Account) -> None:
    await buying(aws)

async def looking(aws: Account) -> None: ...
"""


@pytest.fixture(autouse=True)
def work(project: Path) -> None:
    (project / "shop" / "work.py").write_text(WORK)


def options(*more: str, work: str = "shop.work:buying") -> tuple[str, ...]:
    return (*BOTH, "--work", work, "--times", "5", *more)


def test_the_bill_has_lines_for_both_hosts_and_ends_in_one_for_programs(
    headrace: Headrace,
) -> None:
    ended = headrace("cost", *options())

    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].startswith("5 units of work, 10 at a time, on till, store. Prices of us-east-1")
    [events] = [line for line in lines if line.startswith("EventBridge events")]
    assert re.split(r"\s{2,}", events) == [
        *("EventBridge events", "measured", "$1/M events", "1", "1.00", "1", "1.00")
    ]
    assert "dollars for a million = count for one unit of work × price × 1,000,000" in lines
    figure = r"\d+\.\d\d"
    assert re.fullmatch(
        rf"lambda_usd_per_million={figure} fargate_usd_per_million={figure} "
        rf"lambda_idle_usd_per_month={figure} fargate_idle_usd_per_month={figure} "
        rf"lambda_usd_per_month={figure} fargate_usd_per_month={figure}",
        lines[-1],
    )


def test_what_was_assumed_is_said_with_the_option_that_changes_it(headrace: Headrace) -> None:
    out = headrace("cost", *options("--ms-per-message", "3", "--memory", "1769")).out
    assert "3 ms of a vCPU for a message (--ms-per-message), which is 3 ms with 1769 MB" in out
    assert "not in it: free tiers" in out


def test_the_bill_is_json_for_other_programs(headrace: Headrace) -> None:
    found = json.loads(headrace("cost", *options("--json")).out)

    assert found["load"]["times"] == 5
    assert found["assumed"]["memory"] == 512
    assert found["measured"]["lambda"]["services"]["store"]["messages"] == 5
    total = sum(line["lambda"]["usd"] for line in found["lines"] if line["lambda"])
    assert found["lambda_usd_per_million"] == pytest.approx(total)
    assert {line["price"]["page"] for line in found["lines"]} >= {"AWS Lambda pricing"}


def test_work_may_be_a_function_or_have_resources(headrace: Headrace) -> None:
    plain, decorated = (
        headrace("cost", *options(work=f"shop.work:{name}")).out for name in ("buying", "shopping")
    )
    assert plain == decorated


def test_own_prices_change_the_bill(headrace: Headrace, project: Path) -> None:
    prices = json.loads(PRICES.read_text())
    prices["prices"]["events"]["usd"] = 1000.0
    (project / "own.json").write_text(json.dumps(prices))

    ended = headrace("cost", *options("--prices", "own.json", "--json"))

    assert json.loads(ended.out)["fargate_usd_per_million"] > 1000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (options("--region", "eu-west-1"), "has the prices of us-east-1, and this is to be for"),
        (options("--prices", "none.json"), "none.json cannot be read"),
        (options("--vcpu", "3"), "A task has 0.25, 0.5, 1, 2, 4, 8, 16 vCPUs, not 3"),
        (options("--batch", "50"), "give --window 1 with --batch 50"),
        (options("--at-a-time", "0"), "at least one at a time"),
        (options("--per-month", "0"), "more than 0 units of work"),
        (options(work="shop.wrk:buying"), "There is no module 'shop.wrk'"),
        (options(work="shop/work.py:buying"), "is a path, and not the name of a module"),
        (options(work=":buying"), "names no module"),
        (options(work="shop.work"), "does not say which function"),
        (options(work="shop.work:buy"), "names nothing. shop.work has this work: buying, looking,"),
        (options(work="shop.work:limit"), "is no `async def` function"),
        (options(work="shop.app:till"), "shop.app has this work: pack, thank."),
    ],
)
def test_what_is_used_wrongly_is_refused(
    headrace: Headrace, arguments: tuple[str, ...], says: str
) -> None:
    ended = headrace("cost", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


def test_work_that_does_nothing_fails(headrace: Headrace) -> None:
    ended = headrace("cost", *options(work="shop.work:looking"))
    assert ended.code == 1
    assert "0 of 5 units of work were done" in ended.err


def test_a_service_without_a_queue_is_refused(headrace: Headrace, project: Path) -> None:
    (project / "quiet.py").write_text(
        "from headrace import Service\nquiet = Service('quiet', bus='shop')\n"
    )
    ended = headrace("cost", "quiet:quiet", "--work", "shop.work:buying")
    assert ended.code == 2
    assert "The service 'quiet' has no queue" in ended.err
