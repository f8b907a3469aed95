"""What comes again takes effect once; what could not be settled is not lost. On both hosts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from headrace import (
    Ack,
    DeadLetter,
    Outcome,
    PoisonMessage,
    Retry,
    RetryLater,
    Service,
    Transaction,
)
from headrace.dead_letter import NOTE_ATTRIBUTE
from headrace.envelope import derived_id
from headrace.pipeline import running
from headrace.ports import Delivery, EntryFailure
from tests.integration.hosts.app import PATIENT, auditor, ledger
from tests.integration.hosts.bank import Account, Bounced, Credited, Deposited, Forged
from tests.integration.hosts.bodies import event
from tests.integration.hosts.faults import (
    FaultyQueues,
    Gate,
    LostAnswers,
    LostBus,
    is_unreachable,
    refuses,
)
from tests.integration.hosts.memory_hosts import (
    MemoryHost,
    OnLambda,
    OnWorker,
    cloud_for,
    received,
    with_ports,
)

HOSTS: Sequence[type[OnLambda] | type[OnWorker]] = (OnLambda, OnWorker)

both_hosts = pytest.mark.parametrize("on", HOSTS, ids=lambda cls: cls.__name__)


def deposited(id: str = "d-1", *, account: str = "A", bridge_id: str = "b-1") -> str:
    return event(Deposited(account=account, amount=5), id=id, bridge_id=bridge_id)


def published(host: MemoryHost) -> list[dict[str, Any]]:
    """The details of all that reached the auditor through the bus."""
    return [json.loads(entry.body)["detail"] for entry in host.cloud.queues.peek("auditor")]


def statuses(host: MemoryHost) -> list[str]:
    return [item["status"]["S"] for item in host.items() if item["pk"]["S"].startswith("inbox#")]


def outcomes_of(watched: Sequence[tuple[Delivery, Outcome]]) -> list[type[Outcome]]:
    return [type(outcome) for _, outcome in watched]


# --- settling that fails -----------------------------------------------------------------------


@both_hosts
@pytest.mark.parametrize("send", [refuses, is_unreachable])
@pytest.mark.parametrize(
    "body", ["no json", event(Forged(account="A"), id="f-1")], ids=["undecodable", "poison"]
)
async def test_a_dead_letter_that_cannot_be_copied_is_kept_and_copied_when_it_comes_again(
    on: type[MemoryHost], send: Callable[[Sequence[object]], list[EntryFailure]], body: str
) -> None:
    host = on(ledger, cloud_for(ledger, auditor))
    await host.send(body, deposited())
    faulty = with_ports(host.cloud, queues=FaultyQueues(host.cloud.queues, on_send=send))

    watch = await host.handle(2, ports=faulty)

    (kept,) = [outcome for _, outcome in watch.outcomes if isinstance(outcome, Retry)]
    assert "its copy was not written" in kept.reason
    assert (host.left(), host.dead_letters()) == ([body], [])

    host.later()
    await host.handle(1)

    assert host.left() == []
    (letter,) = host.dead_letters()
    assert letter.body == body
    assert json.loads(str(letter.attributes[NOTE_ATTRIBUTE].value))["attempts"] == 2


@pytest.mark.parametrize("delete", [refuses, is_unreachable])
async def test_a_message_that_the_worker_cannot_delete_comes_again_without_a_second_effect(
    delete: Callable[[Sequence[object]], list[EntryFailure]],
) -> None:
    host = OnWorker(ledger, cloud_for(ledger, auditor))
    await host.send(deposited())
    faulty = with_ports(host.cloud, queues=FaultyQueues(host.cloud.queues, on_delete=delete))

    first = await host.handle(1, ports=faulty)
    assert (first.duplicates, host.left()) == ([False], [deposited()])
    await comes_again_without_effect(host)


async def test_a_message_that_lambda_cannot_delete_comes_again_without_a_second_effect() -> None:
    host = OnLambda(ledger, cloud_for(ledger, auditor), deletes=False)
    await host.send(deposited())

    first = await host.handle(1)
    assert (first.duplicates, host.left()) == ([False], [deposited()])
    host.deletes = True
    await comes_again_without_effect(host)


async def comes_again_without_effect(host: MemoryHost) -> None:
    before = host.items()
    host.later()
    again = await host.handle(1)

    assert again.duplicates == [True]
    assert (host.left(), host.items()) == ([], before)
    assert len(published(host)) == 1
    assert await host.entity(Account, "A") == Account(number="A", balance=5, movements=1)


@pytest.mark.parametrize("delete", [refuses, is_unreachable])
async def test_a_dead_letter_that_cannot_be_deleted_makes_two_letters_and_never_none(
    delete: Callable[[Sequence[object]], list[EntryFailure]],
) -> None:
    host = OnWorker(ledger, cloud_for(ledger, auditor))
    await host.send("no json")
    faulty = with_ports(host.cloud, queues=FaultyQueues(host.cloud.queues, on_delete=delete))

    await host.handle(1, ports=faulty)
    host.later()
    await host.handle(1)

    assert host.left() == []
    assert [letter.body for letter in host.dead_letters()] == ["no json", "no json"]


# --- crashes -----------------------------------------------------------------------------------


async def lost_while_dispatching(host: MemoryHost, bus: LostBus) -> None:
    """One delivery of a process that is lost when it has committed and calls the bus."""
    (delivery,) = await received(host.cloud, host.queue, 1)
    async with running(host.service, with_ports(host.cloud, bus=bus)) as pipeline:
        consumed = asyncio.ensure_future(pipeline.consume(delivery))
        await bus.gate.reached.wait()
        consumed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumed
        bus.gate.over.set()


@both_hosts
async def test_what_a_crash_kept_back_is_sent_at_the_redelivery_as_it_was_committed(
    on: type[MemoryHost],
) -> None:
    host = on(ledger, cloud_for(ledger, auditor))
    await host.send(deposited())
    bus = LostBus(host.cloud.bus, Gate())
    await lost_while_dispatching(host, bus)
    assert (published(host), statuses(host)) == ([], ["pending"])

    host.later()
    watch = await host.handle(1)

    assert watch.duplicates == [True]
    assert [json.loads(detail) for detail in bus.put_before] == published(host)
    (sent,) = published(host)
    assert sent["metadata"]["id"] == derived_id("ledger.credit", "d-1", "0")
    assert sent["metadata"]["causation_id"] == "d-1"
    assert sent["metadata"]["correlation_id"] == "c-d-1"
    assert sent["data"] == {"account": "A", "balance": 5}
    assert (host.left(), statuses(host)) == ([], ["done"])
    assert await host.entity(Account, "A") == Account(number="A", balance=5, movements=1)


@both_hosts
async def test_what_was_sent_before_a_crash_is_sent_again_under_the_same_id(
    on: type[MemoryHost],
) -> None:
    host = on(ledger, cloud_for(ledger, auditor))
    await host.send(deposited())
    await lost_while_dispatching(host, LostBus(host.cloud.bus, Gate(), late=True))
    assert (len(published(host)), statuses(host)) == (1, ["pending"])

    host.later()
    await host.handle(1)

    first, second = published(host)
    assert first == second
    assert statuses(host) == ["done"]
    assert await host.entity(Account, "A") == Account(number="A", balance=5, movements=1)


@both_hosts
async def test_a_commit_whose_answer_is_lost_is_found_and_finished(on: type[MemoryHost]) -> None:
    host = on(ledger, cloud_for(ledger, auditor))
    await host.send(deposited())
    faulty = with_ports(host.cloud, store=LostAnswers(host.cloud.store))

    watch = await host.handle(1, ports=faulty)
    assert outcomes_of(watch.outcomes) == [Ack]
    assert len(published(host)) == 1
    assert await host.entity(Account, "A") == Account(number="A", balance=5, movements=1)


@both_hosts
async def test_a_commit_after_which_nothing_is_answered_is_finished_at_the_redelivery(
    on: type[MemoryHost],
) -> None:
    host = on(ledger, cloud_for(ledger, auditor))
    await host.send(deposited())
    faulty = with_ports(host.cloud, store=LostAnswers(host.cloud.store, for_good=True))

    watch = await host.handle(1, ports=faulty)
    assert outcomes_of(watch.outcomes) == [Retry]
    assert published(host) == []

    host.later()
    watch = await host.handle(1)
    assert watch.duplicates == [True]
    assert len(published(host)) == 1
    assert await host.entity(Account, "A") == Account(number="A", balance=5, movements=1)


# --- duplicates --------------------------------------------------------------------------------


@both_hosts
async def test_two_deliveries_of_one_event_at_once_take_effect_once(on: type[MemoryHost]) -> None:
    both = asyncio.Barrier(2)
    service = Service("ledger", bus="bank")

    @service.on(Deposited)
    async def credit(event: Deposited, tx: Transaction) -> Credited:
        account = await tx.get(Account, event.account) or Account(number=event.account)
        await both.wait()
        tx.put(account.after(event.amount))
        return Credited(account="A", balance=account.balance)

    host = on(service, cloud_for(service, auditor))
    await host.send(deposited(bridge_id="b-1"), deposited(bridge_id="b-2"))

    watch = await host.handle(2)

    assert sorted(watch.duplicates) == [False, True]
    assert (host.left(), statuses(host)) == ([], ["done"])
    assert await host.entity(Account, "A") == Account(number="A", balance=5, movements=1)
    assert {sent["metadata"]["id"] for sent in published(host)} == {
        derived_id("ledger.credit", "d-1", "0")
    }


@both_hosts
async def test_two_events_that_change_one_item_at_once_both_take_effect(
    on: type[MemoryHost],
) -> None:
    host = on(ledger, cloud_for(ledger, auditor))
    await host.send(deposited("d-1"), deposited("d-2"))

    watch = await host.handle(2)

    assert watch.duplicates == [False, False]
    assert await host.entity(Account, "A") == Account(number="A", balance=10, movements=2)
    assert sorted(sent["data"]["balance"] for sent in published(host)) == [5, 10]


# --- handlers that fail ------------------------------------------------------------------------


@both_hosts
async def test_a_failing_handler_is_given_up_after_five_attempts_with_its_reason(
    on: type[MemoryHost],
) -> None:
    host = on(ledger, cloud_for(ledger, auditor))
    await host.send(event(Bounced(account="A"), id="n-1"))
    for _ in range(4):
        watch = await host.handle(1)
        assert outcomes_of(watch.outcomes) == [Retry]
        host.later()

    watch = await host.handle(1)

    assert outcomes_of(watch.outcomes) == [DeadLetter]
    (letter,) = host.dead_letters()
    note = json.loads(str(letter.attributes[NOTE_ATTRIBUTE].value))
    assert note["reason"] == "Gave up after 5 receives: RuntimeError: no cover for A"
    assert (note["handler"], note["attempts"]) == ("ledger.bounce", 5)
    assert (note["error"], note["correlation_id"]) == ("RuntimeError", "c-n-1")
    assert host.items() == []


@both_hosts
async def test_a_handler_that_is_cancelled_from_within_is_tried_again_and_nothing_is_lost(
    on: type[MemoryHost],
) -> None:
    """Awaiting a task that was cancelled raises CancelledError in a handler that was not."""
    service = Service("ledger", bus="bank", policy=PATIENT)

    @service.on(Deposited)
    async def credit(event: Deposited, delivery: Delivery, tx: Transaction) -> None:
        if delivery.receive_count == 1:
            inner = asyncio.ensure_future(asyncio.Event().wait())
            inner.cancel()
            await inner
        tx.put(Account(number=event.account))

    host = on(service, cloud_for(service))
    await host.send(deposited())

    watch = await host.handle(1)
    assert outcomes_of(watch.outcomes) == [Retry]
    assert host.left() == [deposited()]

    host.later()
    await host.handle(1)
    assert host.left() == []
    assert await host.entity(Account, "A") is not None


@both_hosts
@pytest.mark.parametrize(
    "exit", [SystemExit(2), asyncio.CancelledError(), StopIteration()], ids=repr
)
async def test_a_handler_that_would_end_the_process_only_fails_beside_the_others(
    on: type[MemoryHost], exit: BaseException
) -> None:
    service = Service("ledger", bus="bank", policy=PATIENT)

    @service.on(Bounced)
    def leave(event: Bounced) -> None:
        raise exit

    @service.on(Deposited)
    async def credit(event: Deposited, tx: Transaction) -> None:
        tx.put(Account(number=event.account))

    host = on(service, cloud_for(service))
    bounced = event(Bounced(account="B"), id="n-1")
    await host.send(deposited("d-1", account="A"), bounced, deposited("d-2", account="C"))

    await host.handle(3)

    assert host.left() == [bounced]
    assert await host.entity(Account, "A") is not None
    assert await host.entity(Account, "C") is not None


@both_hosts
@pytest.mark.parametrize(
    "words",
    ["bad \uffff", "bad \ud800", "bad \x00", "long " * 500_000],
    ids=["not in XML", "half a character", "control character", "megabytes"],
)
async def test_a_reason_that_sqs_does_not_carry_is_made_to_fit(
    on: type[MemoryHost], words: str
) -> None:
    service = Service("ledger", bus="bank")

    @service.on(Forged)
    async def detect(event: Forged) -> None:
        raise PoisonMessage(words)

    host = on(service, cloud_for(service))
    await host.send(event(Forged(account="A"), id="f-1"))

    await host.handle(1)

    assert host.left() == []
    (letter,) = host.dead_letters()
    note = json.loads(str(letter.attributes[NOTE_ATTRIBUTE].value))
    assert note["reason"].startswith(words[:4])
    assert note["error"] == "PoisonMessage"


@both_hosts
async def test_a_dead_letter_of_a_fair_queue_keeps_its_tenant(on: type[MemoryHost]) -> None:
    host = on(ledger, cloud_for(ledger, auditor))
    await host.send("no json", group="tenant 7")

    await host.handle(1)

    (letter,) = host.dead_letters()
    assert letter.group_id == "tenant 7"


@both_hosts
async def test_a_delay_beyond_what_sqs_allows_is_cut_to_it(on: type[MemoryHost]) -> None:
    service = Service("ledger", bus="bank")

    @service.on(Bounced)
    async def wait(event: Bounced) -> None:
        raise RetryLater(delay=timedelta(days=3))

    host = on(service, cloud_for(service))
    await host.send(event(Bounced(account="A"), id="n-1"))

    await host.handle(1)

    host.cloud.clock.advance(timedelta(hours=11))
    assert await host.cloud.queues.receive("ledger", limit=1, wait=timedelta(0)) == []
    host.cloud.clock.advance(timedelta(hours=1))
    assert len(await host.cloud.queues.receive("ledger", limit=1, wait=timedelta(0))) == 1
