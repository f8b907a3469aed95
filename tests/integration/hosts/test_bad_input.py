"""Whatever arrives: it meets its own fate, and the messages before and after it theirs."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest

from headrace import Delivery
from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.limits import SQS_ATTRIBUTES, SQS_MESSAGE_BYTES
from headrace.ports import QueueEntry
from tests.integration.hosts.app import auditor, ledger
from tests.integration.hosts.bank import Account
from tests.integration.hosts.cases import CASES, HANDLED, REFUSED, Case, good
from tests.integration.hosts.memory_hosts import MemoryHost, OnLambda, OnWorker, Watch, cloud_for

HOSTS = (OnLambda, OnWorker)


@pytest.fixture(params=HOSTS, ids=lambda cls: cls.__name__)
def host(request: pytest.FixtureRequest) -> MemoryHost:
    made: MemoryHost = request.param(ledger, cloud_for(ledger, auditor))
    return made


def named(case: Case) -> str:
    return case.name


def noted(letter: QueueEntry) -> dict[str, Any]:
    note = letter.attributes[NOTE_ATTRIBUTE]
    assert note.type == "String.json"
    said: dict[str, Any] = json.loads(note.value)
    return said


async def between_good_ones(host: MemoryHost, case: Case) -> Watch:
    """Handle the case's message in one batch with a good one before and one after it, and see
    that both are handled."""
    await host.send(good("before"))
    await host.send(case.body, attributes=case.attributes)
    await host.send(good("after"))
    watch = await host.handle(3)
    for account in ("before", "after"):
        assert await host.entity(Account, account) == Account(
            number=account, balance=5, movements=1
        )
    return watch


def test_every_case_is_a_message_that_sqs_takes_and_no_two_are_alike() -> None:
    assert len({case.name for case in CASES}) == len({case.body for case in CASES}) == len(CASES)
    for case in CASES:
        assert 1 <= len(case.body.encode()) <= SQS_MESSAGE_BYTES
        assert len(case.attributes) <= SQS_ATTRIBUTES


@pytest.mark.parametrize("case", REFUSED, ids=named)
async def test_what_cannot_be_handled_goes_to_the_dead_letter_queue_with_a_reason(
    host: MemoryHost, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    await between_good_ones(host, case)

    assert host.left() == []
    (letter,) = host.dead_letters()
    assert letter.body == case.body
    assert {k: v for k, v in letter.attributes.items() if k != NOTE_ATTRIBUTE} == case.attributes
    assert (NOTE_ATTRIBUTE in letter.attributes) == case.noted
    if case.noted:
        note = noted(letter)
        assert re.search(str(case.reason), note["reason"])
        assert (note["queue"], note["handler"], note["attempts"]) == ("ledger", None, 1)
    else:
        # It has no room for the reason, which stands in the log instead.
        assert re.search(str(case.reason), caplog.text)


@pytest.mark.parametrize("case", HANDLED, ids=named)
async def test_what_is_unusual_but_right_is_handled(host: MemoryHost, case: Case) -> None:
    await between_good_ones(host, case)

    assert (host.left(), host.dead_letters()) == ([], [])
    assert await host.entity(Account, case.account) is not None


async def test_all_bad_input_in_one_queue_leaves_the_good_ones_between_alone(
    host: MemoryHost,
) -> None:
    for number, case in enumerate(CASES):
        await host.send(case.body, attributes=case.attributes)
        await host.send(good(f"number {number}"))
    await host.handle(2 * len(CASES))

    assert host.left() == []
    assert sorted(letter.body for letter in host.dead_letters()) == sorted(
        case.body for case in REFUSED
    )
    for number, case in enumerate(CASES):
        assert await host.entity(Account, f"number {number}") is not None
        assert (await host.entity(Account, case.account) is None) == (case in REFUSED)


@pytest.mark.parametrize("body", ["", "\ud800", '{"detail-type": "\ud800"}'], ids=ascii)
async def test_a_body_that_sqs_does_not_carry_comes_again_beside_good_ones(body: str) -> None:
    """Only a record made by hand has one. Its copy is refused, so the message is kept."""
    host = OnLambda(ledger, cloud_for(ledger, auditor))
    await host.send(good("before"), good("after"))
    before, after = await host.cloud.queues.receive("ledger", limit=10, wait=timedelta(0))
    bad = Delivery("m-bad", "r-bad", body, "ledger")

    reported = await host.invoke([before, bad, after], watch=Watch(3))

    assert reported == [bad.message_id]
    assert host.dead_letters() == []
    for account in ("before", "after"):
        assert await host.entity(Account, account) is not None
