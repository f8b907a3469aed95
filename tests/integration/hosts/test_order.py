"""FIFO queues and deadlines: what may not be handled yet, or not any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from headrace import Delivery, PoisonMessage, Service, Transaction
from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.hosts.settings import LambdaSettings
from headrace.testing import ManualClock
from tests.integration.hosts.app import PATIENT
from tests.integration.hosts.bank import Account, Deposited
from tests.integration.hosts.bodies import event
from tests.integration.hosts.memory_hosts import (
    MemoryHost,
    OnLambda,
    OnWorker,
    cloud_for,
    received,
)

HOSTS: Sequence[type[OnLambda] | type[OnWorker]] = (OnLambda, OnWorker)

both_hosts = pytest.mark.parametrize("on", HOSTS, ids=lambda cls: cls.__name__)


def deposited(account: str) -> str:
    return event(Deposited(account=account, amount=5), id=f"d-{account}")


def ordered(
    handled: list[str], fail: Callable[[Deposited, Delivery], None] = lambda event, delivery: None
) -> Service:
    """A service with a FIFO queue, which notes what it has handled."""
    service = Service("ledger", bus="bank", policy=PATIENT)

    @service.on(Deposited, queue="lane.fifo")
    async def credit(event: Deposited, delivery: Delivery, tx: Transaction) -> None:
        fail(event, delivery)
        handled.append(event.account)
        tx.put(Account(number=event.account))

    return service


@both_hosts
async def test_a_failed_message_holds_back_those_behind_it_in_its_group_and_no_others(
    on: type[MemoryHost],
) -> None:
    def fail(event: Deposited, delivery: Delivery) -> None:
        if event.account == "A2" and delivery.receive_count == 1:
            raise RuntimeError("not yet")

    handled: list[str] = []
    service = ordered(handled, fail)
    host = on(service, cloud_for(service))
    await host.send(*map(deposited, ("A1", "A2", "A3", "A4")), group="A")
    await host.send(*map(deposited, ("B1", "B2")), group="B")

    await host.handle(6, held_back=2)

    assert sorted(handled) == ["A1", "B1", "B2"]
    assert host.left() == [deposited(account) for account in ("A2", "A3", "A4")]

    host.later()
    await host.handle(3)
    assert handled[3:] == ["A2", "A3", "A4"]
    assert (host.left(), host.dead_letters()) == ([], [])


@both_hosts
async def test_a_dead_letter_holds_back_nobody_and_stays_in_its_group(
    on: type[MemoryHost],
) -> None:
    def fail(event: Deposited, delivery: Delivery) -> None:
        if event.account == "A1":
            raise PoisonMessage("never")

    handled: list[str] = []
    service = ordered(handled, fail)
    host = on(service, cloud_for(service))
    await host.send(deposited("A1"), deposited("A2"), "no json", deposited("A3"), group="A")

    await host.handle(4)

    assert handled == ["A2", "A3"]
    assert host.left() == []
    letters = host.dead_letters()
    assert [letter.body for letter in letters] == [deposited("A1"), "no json"]
    assert {letter.group_id for letter in letters} == {"A"}
    assert json.loads(str(letters[0].attributes[NOTE_ATTRIBUTE].value))["reason"] == "never"


@both_hosts
async def test_a_cancelled_handler_loses_nothing_of_its_group(on: type[MemoryHost]) -> None:
    def fail(event: Deposited, delivery: Delivery) -> None:
        if event.account == "A1" and delivery.receive_count == 1:
            raise asyncio.CancelledError

    handled: list[str] = []
    service = ordered(handled, fail)
    host = on(service, cloud_for(service))
    await host.send(deposited("A1"), deposited("A2"), group="A")

    await host.handle(2, held_back=1)
    assert (handled, host.left()) == ([], [deposited("A1"), deposited("A2")])

    host.later()
    await host.handle(2)
    assert (handled, host.left()) == (["A1", "A2"], [])


# --- deadlines of Lambda ------------------------------------------------------------------------


def until_the_deadline(
    clock: ManualClock, remaining: timedelta, queue: str | None, begun: list[str]
) -> Service:
    """A service whose `slow` handling outlasts the invocation. The clock moves only here: to a
    twentieth of a second before nothing more may be started, and then beyond that."""
    service = Service("ledger", bus="bank")

    @service.on(Deposited, queue=queue)
    async def credit(event: Deposited, tx: Transaction) -> None:
        begun.append(event.account)
        tx.put(Account(number=event.account))
        if event.account == "almost":
            clock.advance(remaining - LambdaSettings().margin - timedelta(seconds=0.05))
        if event.account == "slow":
            clock.advance(timedelta(seconds=0.1))
            await asyncio.Event().wait()

    return service


@pytest.mark.parametrize("queue", [None, "lane.fifo"], ids=["standard", "fifo"])
async def test_what_was_not_done_by_the_deadline_and_what_was_not_begun_are_reported(
    queue: str | None,
) -> None:
    clock = ManualClock()
    begun: list[str] = []
    service = until_the_deadline(clock, timedelta(seconds=30), queue, begun)
    host = OnLambda(service, cloud_for(service, clock=clock), concurrency=1)
    accounts = ["almost", "slow", "late", "later"]
    await host.send(*map(deposited, accounts), group="A" if queue else None)

    await host.handle(4, held_back=2)

    assert begun == ["almost", "slow"]
    assert host.left() == list(map(deposited, accounts[1:]))
    assert [await host.entity(Account, account) is not None for account in accounts] == [
        True,
        False,
        False,
        False,
    ]
    # They are not made to wait for their visibility: another invocation may have more time.
    again = await received(host.cloud, host.queue, 3)
    assert [delivery.body for delivery in again] == host.left()
