"""The log of one order is found by its correlation id, among those of many at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

import orjson
import pytest

from tests.integration.observe.shop_logs import (
    NUMBER,
    ORDER_ID,
    ORDERS,
    Day,
    a_day,
    fails_first,
    is_changed,
    is_poison,
    is_short,
    number_of,
)

CALLS = "botocore.endpoint"


def mentions(line: dict[str, Any]) -> set[int]:
    """The orders that a line names anywhere but in what headrace says of its delivery."""
    own = {"correlation_id", "event_id"}
    rest = {name: value for name, value in line.items() if name not in own}
    return {int(number) for number in NUMBER.findall(orjson.dumps(rest).decode())}


def belongs_to(line: dict[str, Any]) -> int | None:
    correlation_id = line.get("correlation_id")
    if correlation_id is None or not NUMBER.search(correlation_id):
        return None
    return number_of(correlation_id)


@pytest.fixture(scope="module")
def day() -> Day:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return asyncio.run(a_day(monkeypatch))


def talk(day: Day) -> list[dict[str, Any]]:
    """What is not a call of the AWS library."""
    return [line for line in day.lines if line["logger"] != CALLS]


def test_a_line_names_no_order_but_the_one_it_belongs_to(day: Day) -> None:
    assert [line for line in talk(day) if not mentions(line) <= {belongs_to(line)}] == []


def test_a_line_about_a_message_belongs_to_the_order_of_that_message(day: Day) -> None:
    of_messages = [line for line in talk(day) if "message_id" in line]
    assert {day.owners.get(line["message_id"]) for line in of_messages} >= set(range(ORDERS))
    wrong = [line for line in of_messages if belongs_to(line) != day.owners.get(line["message_id"])]
    assert wrong == []


def test_a_batched_call_is_about_many_orders_and_belongs_to_none(day: Day) -> None:
    calls = [line for line in day.lines if line["logger"] == CALLS]
    assert any(len(mentions(line)) > 1 for line in calls)
    own = {"timestamp", "level", "logger", "message"}
    assert [line for line in calls if line.keys() != own] == []


def test_all_that_an_order_went_through_stands_in_its_log(day: Day) -> None:
    said: dict[int, Counter[str]] = defaultdict(Counter)
    for line in talk(day):
        owner = belongs_to(line)
        if owner is not None:
            said[owner][ORDER_ID.sub("…", line["message"])] += 1
    assert said.keys() == set(range(ORDERS))
    for number, messages in said.items():
        fate = "cancelled" if is_short(number) else "confirmed"
        assert messages[f"Handing in: Your order … is {fate}"] >= 1
        assert messages["… later"] == messages["… in a thread of a task"] >= 1
        assert (messages["audit of … ends"] == 0) is is_poison(number)
        failures = [message for message in messages if message.startswith("Message ")]
        assert any("comes again" in message for message in failures) >= fails_first(number)
        buried = sum("dead-letter queue" in message for message in failures)
        assert buried == is_poison(number) + is_changed(number)


def test_what_could_not_be_read_belongs_to_no_order_and_names_its_message(day: Day) -> None:
    (line,) = [line for line in talk(day) if "not JSON" in line["message"]]
    assert (line["service"], line["attempt"]) == ("inventory", 1)
    assert "message_id" in line
    assert "correlation_id" not in line


def test_a_failed_delivery_is_logged_with_its_handler_and_its_exception(day: Day) -> None:
    failed = [line for line in day.lines if line.get("outcome") is not None]
    retried = [line for line in failed if line.get("handler") == "notify_customer"]
    assert {number_of(line["correlation_id"]) for line in retried} == {
        number for number in range(ORDERS) if fails_first(number)
    }
    for line in retried:
        assert (line["service"], line["queue"]) == ("notification", "notification")
        assert (line["outcome"], line["attempt"]) == ("retry", 1)
        assert line["exception"]["type"] == "ConnectionError"
        assert "Traceback" in line["exception"]["stack"]
    buried = [line for line in failed if line["outcome"] == "dead_letter"]
    assert Counter(line.get("handler") for line in buried) == {
        "in_a_thread": sum(map(is_poison, range(ORDERS))),
        "place_order": sum(map(is_changed, range(ORDERS))),
        None: 1,
    }


def test_the_check_finds_a_line_that_belongs_to_another_order() -> None:
    line = {"message": "order-0001 is done", "correlation_id": "corr-0002"}
    assert not mentions(line) <= {belongs_to(line)}
