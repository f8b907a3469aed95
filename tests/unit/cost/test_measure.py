"""Work is done on services in memory, and what it is billed for is counted."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from headrace import Command, Event, Service, Transaction
from headrace.cost import Account, Work
from headrace.cost.hosts import EventSource, Host
from headrace.cost.measure import Load, Measured, Unfinished, measure
from headrace.cost.usage import Action, Invocation, QueueKind, Request
from headrace.errors import ConfigurationError, DefinitionError
from services.demo.work import orders
from services.inventory.app import inventory
from services.notification.app import notification
from services.order.app import order

logger = logging.getLogger(__name__)


class CountTickets(Command, owner="tickets"):
    number: int
    fails: bool = False
    sleeps: float = 0.0


class TicketsCounted(Event, source="cost.tickets"):
    number: int


class TicketsAreLate(Event, source="cost.tickets"):
    number: int


class RemindOfTickets(Command, owner="tickets"):
    number: int


class PrintTickets(Command, owner="printers"):
    number: int


tickets = Service("tickets", bus="cost", emits=[TicketsAreLate])


@tickets.on(CountTickets)
async def count_tickets(command: CountTickets) -> TicketsCounted:
    if command.fails:
        raise ValueError("There are no such tickets.")
    await asyncio.sleep(command.sleeps)
    logger.info("Counted.")
    return TicketsCounted(number=command.number)


@tickets.on(TicketsAreLate, emits=[RemindOfTickets, PrintTickets])
async def ask_for_tickets(event: TicketsAreLate, tx: Transaction) -> None:
    tx.publish(PrintTickets(number=event.number))
    tx.schedule(
        RemindOfTickets(number=event.number),
        at=tx.now + timedelta(hours=event.number),
        name=f"remind-{event.number}",
    )


@tickets.on(RemindOfTickets, idempotent=True)
async def remind(command: RemindOfTickets) -> None:
    await asyncio.sleep(0.5)


class TailChased(Event, source="cost.tails"):
    pass


class RiseAgain(Command, owner="tails"):
    day: int


tails = Service("tails", bus="cost")


@tails.on(TailChased)
async def chase(event: TailChased) -> TailChased:
    return event


@tails.on(RiseAgain, emits=[RiseAgain])
async def rise(command: RiseAgain, tx: Transaction) -> None:
    tx.schedule(
        RiseAgain(day=command.day + 1),
        at=tx.now + timedelta(hours=10),
        name=f"rise-{command.day}",
    )


async def ten_at_once(aws: Account) -> None:
    async for number in aws.units():
        await aws.send(*(CountTickets(number=10 * number + each) for each in range(10)))


def used(host: Host, work: Work, *, times: int = 1, at_a_time: int = 10) -> Measured:
    return measure(host, [tickets], work, Load(times=times, at_a_time=at_a_time))


# --- counts that can be worked by hand -------------------------------------------------


@pytest.mark.parametrize("host", Host)
def test_ten_commands_in_one_call_are_received_and_deleted_in_one(host: Host) -> None:
    found = used(host, Work(ten_at_once), times=3, at_a_time=1)

    usage = found.usage["tickets"]
    assert found.units == 3
    assert (usage.received, usage.receives, usage.events) == (30, 3, 30)
    assert usage.requests[Request(Action.RECEIVE, QueueKind.STANDARD)] == 3
    assert usage.requests[Request(Action.DELETE, QueueKind.STANDARD)] == 3
    assert found.usage[""].requests == {Request(Action.SEND, QueueKind.STANDARD): 3}
    # A record for each, which is put by itself, and again when it is noted that all is out.
    assert usage.write_units == 3 * 10 * (1 + 1)
    assert usage.calls == {
        "ReceiveMessage": 3,
        "PutItem": 30,
        "PutEvents": 3,
        "BatchWriteItem": 3,
        "DeleteMessageBatch": 3,
    }
    assert found.log_lines == 30


def test_a_function_is_invoked_once_for_a_batch_and_waits_as_long_as_its_calls_take() -> None:
    load = Load(times=2, at_a_time=1, call=timedelta(milliseconds=10))
    found = measure(Host.LAMBDA, [tickets], Work(ten_at_once), load)

    first, second = found.usage["tickets"].invocations
    # A commit, a dispatch and the note that all is out, one after the other, in full batches; it
    # may be that one lingers for 2 ms.
    assert first.messages == second.messages == 10
    assert 0.030 <= first.waited <= 0.036
    assert found.usage["tickets"].receives == 2


def test_a_worker_has_no_invocations() -> None:
    assert used(Host.FARGATE, Work(ten_at_once)).usage["tickets"].invocations == []


def test_smaller_batches_are_more_invocations() -> None:
    load = Load(times=1, source=EventSource(batch=4))
    found = measure(Host.LAMBDA, [tickets], Work(ten_at_once), load)
    messages = [each.messages for each in found.usage["tickets"].invocations]
    assert sorted(messages) == [2, 4, 4]


def test_in_a_window_a_batch_is_gathered_from_several_receives() -> None:
    source = EventSource(batch=100, window=timedelta(seconds=2), pollers=1)
    load = Load(times=3, at_a_time=3, source=source)
    found = measure(Host.LAMBDA, [tickets], Work(ten_at_once), load)
    usage = found.usage["tickets"]
    assert [each.messages for each in usage.invocations] == [30]
    # Lambda deletes ten at a time.
    assert usage.receives == usage.calls["DeleteMessageBatch"] == 3


async def late(aws: Account) -> None:
    async for _ in aws.units():
        await aws.publish(TicketsAreLate(number=2))


@pytest.mark.parametrize("host", Host)
def test_what_rules_and_schedules_bring_is_paid_for_by_who_receives_it(host: Host) -> None:
    found = used(host, Work(late))

    usage = found.usage["tickets"]
    assert found.usage[""].events == 1
    assert usage.requests[Request(Action.ARRIVE, QueueKind.STANDARD)] == 2
    assert (usage.schedules, found.later) == (1, 0)
    assert found.elsewhere == ("printers",)
    assert usage.requests[Request(Action.SEND, QueueKind.STANDARD)] == 1
    if host is Host.LAMBDA:
        # What a handler awaits is billed, too.
        assert usage.invocations[-1].waited >= 0.5


async def very_late(aws: Account) -> None:
    async for _ in aws.units():
        await aws.publish(TicketsAreLate(number=25))


def test_a_schedule_more_than_a_day_ahead_is_not_waited_for() -> None:
    found = used(Host.FARGATE, Work(very_late))
    assert (found.usage["tickets"].schedules, found.later) == (0, 1)


def test_what_comes_before_the_first_unit_is_not_counted() -> None:
    async def prepared(aws: Account) -> None:
        await aws.send(CountTickets(number=-1))
        await ten_at_once(aws)

    found = used(Host.LAMBDA, Work(prepared))
    assert found.usage["tickets"].received == 10
    assert found.usage[""].calls == {"SendMessageBatch": 1}


def test_the_relay_of_a_service_looks_through_eight_shards_and_costs_the_same_at_all_times() -> (
    None
):
    load = Load(times=1, call=timedelta(milliseconds=10))
    found = measure(Host.FARGATE, [tickets], Work(ten_at_once), load)
    sweep = found.sweeps["tickets"]
    assert sweep.read_units == 8 * 0.5
    assert sweep.seconds == pytest.approx(0.080)
    assert found.usage["tickets"].index_read_units == 0


def test_a_transaction_outside_of_a_handler_counts_and_is_shown_to_the_relay() -> None:
    async def requests(aws: Account) -> None:
        async for number in aws.units():
            async with aws.connect(tickets) as service, service.transaction(key=f"{number}") as tx:
                tx.publish(TicketsAreLate(number=1))

    found = used(Host.LAMBDA, Work(requests), times=2)
    assert found.usage["tickets"].relayed == 2
    # Into the index, and out of it again.
    assert found.usage["tickets"].index_units == 4


def test_the_same_work_costs_the_same_twice() -> None:
    first, second = (used(Host.FARGATE, Work(late), times=3) for _ in range(2))
    assert first == second


# --- what cannot be paid for -----------------------------------------------------------


def test_work_that_becomes_dead_letters_is_refused_with_the_reason() -> None:
    async def failing(aws: Account) -> None:
        async for number in aws.units():
            await aws.send(CountTickets(number=number, fails=True))

    with pytest.raises(Unfinished, match=r"1 message .* There are no such tickets"):
        used(Host.LAMBDA, Work(failing))


@pytest.mark.parametrize("done", [0, 2])
def test_work_that_is_not_done_to_the_end_is_refused(done: int) -> None:
    async def idle(aws: Account) -> None:
        if done:
            async for number in aws.units():
                if number == done:
                    break

    with pytest.raises(Unfinished, match=f"{done} of 5 units of work were done"):
        used(Host.FARGATE, Work(idle), times=5)


def test_work_without_an_end_is_refused() -> None:
    async def chasing(aws: Account) -> None:
        async for _ in aws.units():
            await aws.publish(TailChased())

    load = Load(times=1, call=timedelta(seconds=5))
    with pytest.raises(Unfinished, match=r"An hour was not enough .* 'tails' holds 1 message"):
        measure(Host.LAMBDA, [tails], Work(chasing), load)


def test_what_schedules_itself_again_and_again_is_looked_at_for_a_day() -> None:
    async def rising(aws: Account) -> None:
        async for _ in aws.units():
            await aws.send(RiseAgain(day=0))

    found = measure(Host.FARGATE, [tails], Work(rising), Load(times=1))
    assert 2 <= found.usage["tails"].schedules <= 3
    assert found.later == 1


def test_a_service_without_a_queue_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'silent' has no queue"):
        measure(Host.LAMBDA, [Service("silent", bus="cost")], Work(ten_at_once), Load())


def test_services_that_check_refuses_are_refused() -> None:
    with pytest.raises(DefinitionError):
        measure(Host.LAMBDA, [tickets, tickets], Work(ten_at_once), Load())


def test_nothing_outside_is_reached() -> None:
    async def reaching(aws: Account) -> None:
        async for _ in aws.units():
            socket.create_connection(("127.0.0.1", 9))

    with pytest.raises(Exception, match="does not reach the network"):
        used(Host.FARGATE, Work(reaching))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"batch": 11}, "--window 1"),
        ({"batch": 0}, "1 to 10,000"),
        ({"batch": 10_001}, "1 to 10,000"),
        ({"window": timedelta(seconds=301)}, "0 to 300"),
        ({"pollers": 0}, "at least once"),
        ({"timeout": timedelta(hours=1)}, "1 to 900"),
    ],
)
def test_a_mapping_that_lambda_does_not_take_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        EventSource(**wrong)


async def trickle(aws: Account) -> None:
    async for number in aws.units():
        await aws.send(CountTickets(number=number))


def test_polls_beside_each_other_make_smaller_batches_than_one() -> None:
    batches = [
        len(measure(Host.LAMBDA, [tickets], Work(trickle), load).usage["tickets"].invocations)
        for load in (
            Load(times=20, at_a_time=20, source=EventSource(pollers=pollers)) for pollers in (1, 5)
        )
    ]
    assert batches[0] < batches[1] <= 20


@pytest.mark.parametrize("window", [1.0, 2.5])
def test_a_window_ends_whatever_fraction_of_a_second_is_left_of_it(window: float) -> None:
    source = EventSource(batch=100, window=timedelta(seconds=window))
    load = Load(times=40, at_a_time=10, source=source)
    usage = measure(Host.LAMBDA, [tickets], Work(trickle), load).usage["tickets"]
    # Ten at a time, which all of the five polls have a part of.
    assert [each.messages for each in usage.invocations] == [2] * 20


async def stuck(aws: Account) -> None:
    async for number in aws.units():
        await aws.send(CountTickets(number=number, sleeps=10))


def test_what_a_function_has_no_time_for_is_billed_until_its_timeout_and_comes_again() -> None:
    load = Load(times=1, source=EventSource(timeout=timedelta(seconds=5)))
    with pytest.raises(Unfinished, match="became"):
        measure(Host.LAMBDA, [tickets], Work(stuck), load)
    (once,) = used(Host.LAMBDA, Work(stuck)).usage["tickets"].invocations
    assert 10 < once.waited < 11


# --- the sample ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample() -> Sequence[Measured]:
    services = [order, inventory, notification]
    return [measure(host, services, orders, Load(times=20)) for host in Host]


def test_twenty_orders_of_the_sample_come_to_their_end_on_both_hosts(
    sample: Sequence[Measured],
) -> None:
    for found in sample:
        assert (found.units, found.elsewhere, found.later) == (20, (), 0)
        # One mail for each order.
        assert found.usage["notification"].received == 20
        assert found.usage["notification"].events == 20


def test_an_order_says_the_same_on_both_hosts(sample: Sequence[Measured]) -> None:
    on_lambda, on_fargate = sample
    for name in ("", "order", "inventory", "notification"):
        assert on_lambda.usage[name].events == on_fargate.usage[name].events
        assert on_lambda.usage[name].index_units == on_fargate.usage[name].index_units


def test_only_functions_are_invoked_and_for_every_message(sample: Sequence[Measured]) -> None:
    on_lambda, _ = sample
    for usage in on_lambda.usage.values():
        assert sum(each.messages for each in usage.invocations) == usage.received
        assert all(isinstance(each, Invocation) and each.waited > 0 for each in usage.invocations)
