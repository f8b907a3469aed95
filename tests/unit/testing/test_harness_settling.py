"""A harness is settled when nothing is left to do, and says why when it cannot be."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from headrace import Entity, Event, PoisonMessage, Policy, RetryLater, Service, Transaction
from headrace.ports import BusEntry, EntryFailure, QueueEntry
from headrace.testing.harness import Harness, Unsettled, harness


class TrainArrived(Event, source="station.tracks"):
    number: int


class TrainLeft(Event, source="station.platform"):
    number: int


class Platform(Entity, pk="platform#{number}"):
    number: int


class Derailed(Exception):
    """Nothing helps."""


station = Service("station", bus="rails")


@station.on(TrainArrived)
async def receive_train(event: TrainArrived, tx: Transaction) -> TrainLeft:
    if event.number < 0:
        raise Derailed(f"There is no train {event.number}.")
    if event.number == 0:
        raise PoisonMessage("Train 0 is a joke.")
    tx.put(Platform(number=event.number))
    return TrainLeft(number=event.number)


async def failure(aws: Harness, *, dead_letters: int = 0) -> Unsettled:
    with pytest.raises(Unsettled) as caught:
        await aws.settled(dead_letters=dead_letters)
    return caught.value


# --- retries ---------------------------------------------------------------------------


async def test_a_handler_that_fails_at_first_is_retried_at_once_in_a_time_of_its_own() -> None:
    outcomes: Iterator[Exception | None] = iter([OSError(), RetryLater(), None])
    service = Service("station", bus="rails")

    @service.on(TrainArrived)
    async def receive(event: TrainArrived) -> TrainLeft:
        error = next(outcomes)
        if error:
            raise error
        return TrainLeft(number=event.number)

    async with harness(service) as aws:
        began = aws.clock.now()
        await aws.publish(TrainArrived(number=1))
        await aws.settled()
        assert aws.published(TrainLeft) == [TrainLeft(number=1)]
        assert aws.clock.now() > began


async def test_the_clock_stands_still_where_nothing_has_to_wait() -> None:
    async with harness(station) as aws:
        began = aws.clock.now()
        await aws.publish(TrainArrived(number=1))
        await aws.settled()
        assert aws.clock.now() == began


async def test_one_message_that_is_retried_does_not_hold_up_the_others() -> None:
    async with harness(station) as aws:
        for number in (-1, 1, 2):
            await aws.publish(TrainArrived(number=number))
        await aws.settled(dead_letters=1)
        assert {train.number for train in aws.published(TrainLeft)} == {1, 2}


# --- dead letters ----------------------------------------------------------------------


async def test_a_dead_letter_that_nobody_expected_fails_the_test_with_its_reason() -> None:
    async with harness(station) as aws:
        await aws.publish(TrainArrived(number=0))
        error = await failure(aws)
    assert str(error) == (
        "1 new dead letter, where the test expects none: TrainArrived from the queue 'station', "
        "given up by station.receive_train: Train 0 is a joke."
    )
    assert "aws.settled(dead_letters=1)" in error.__notes__[0]


async def test_the_exception_of_the_handler_is_the_cause_and_says_where_it_was_raised() -> None:
    async with harness(station) as aws:
        await aws.publish(TrainArrived(number=-7))
        error = await failure(aws)
    assert isinstance(error.__cause__, Derailed)
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert frames[-1].name == "receive_train"
    assert "Gave up after 5 receives: Derailed: There is no train -7." in str(error)


async def test_a_dead_letter_that_is_expected_is_there_with_all_that_is_known_of_it() -> None:
    async with harness(station) as aws:
        await aws.publish(TrainArrived(number=-1))
        await aws.settled(dead_letters=1)
        [letter] = aws.dead_letters(station)
    assert letter.reason == "Gave up after 5 receives: Derailed: There is no train -1."
    assert (letter.queue, letter.handler, letter.attempts) == (
        "station",
        "station.receive_train",
        5,
    )
    assert letter.message == TrainArrived(number=-1)
    assert isinstance(letter.error, Derailed)
    assert letter.correlation_id is not None
    assert '"number":-1' in letter.body


async def test_a_body_that_cannot_be_read_is_a_dead_letter_of_no_handler() -> None:
    async with harness(station) as aws:
        await aws.cloud.queues.send("station", [QueueEntry("five past nine"), QueueEntry("[]")])
        await aws.settled(dead_letters=2)
        first, second = aws.dead_letters()
    assert (first.handler, first.message, first.attempts) == (None, None, 1)
    assert str(first).startswith("A body that is not JSON from the queue 'station': The body is ")
    assert str(second).startswith("A body without a detail-type from the queue 'station': The ")


async def test_an_expected_dead_letter_that_does_not_come_fails_the_test() -> None:
    async with harness(station) as aws:
        await aws.publish(TrainArrived(number=1))
        error = await failure(aws, dead_letters=1)
        assert str(error) == "No new dead letter, where the test expects 1."


async def test_one_dead_letter_too_few_fails_the_test_with_the_one_there_is() -> None:
    async with harness(station) as aws:
        await aws.publish(TrainArrived(number=0))
        error = await failure(aws, dead_letters=2)
        assert str(error).startswith("1 new dead letter, where the test expects 2: TrainArrived")


async def test_every_unexpected_dead_letter_is_named() -> None:
    async with harness(station) as aws:
        await aws.publish(TrainArrived(number=0))
        await aws.publish(TrainArrived(number=-1))
        error = await failure(aws, dead_letters=1)
    assert "2 new dead letters, where the test expects 1" in str(error)
    assert "Train 0 is a joke." in str(error)
    assert "There is no train -1." in str(error)


async def test_a_dead_letter_is_new_only_once() -> None:
    async with harness(station) as aws:
        await aws.publish(TrainArrived(number=0))
        await aws.settled(dead_letters=1)
        await aws.settled()
        await aws.publish(TrainArrived(number=-1))
        await aws.settled(dead_letters=1)
        assert len(aws.dead_letters()) == 2


async def test_the_dead_letters_of_one_service_are_not_those_of_another() -> None:
    other = Service("yard", bus="rails")

    @other.on(TrainArrived)
    async def park(event: TrainArrived) -> None:
        return None

    async with harness(station, other) as aws:
        await aws.publish(TrainArrived(number=0))
        await aws.settled(dead_letters=1)
        assert len(aws.dead_letters(station)) == 1
        assert aws.dead_letters(other) == []


async def test_a_message_that_sqs_gives_up_says_what_its_last_attempt_said() -> None:
    service = Service("station", bus="rails")

    @service.on(TrainArrived)
    async def receive(event: TrainArrived) -> None:
        raise RetryLater("The platform is taken.")

    async with harness(service) as aws:
        await aws.publish(TrainArrived(number=1))
        await aws.settled(dead_letters=1)
        [letter] = aws.dead_letters()
    assert letter.attempts == 10
    assert letter.reason == (
        "SQS moved it after 10 receives, none of which settled it: The platform is taken."
    )
    assert letter.handler == "station.receive"
    assert isinstance(letter.error, RetryLater)


# --- what takes long -------------------------------------------------------------------


def patient(delay: timedelta) -> Service:
    """A service that lets each train wait once."""
    waited: set[int] = set()
    service = Service("station", bus="rails")

    @service.on(TrainArrived)
    async def receive(event: TrainArrived) -> TrainLeft:
        if event.number not in waited:
            waited.add(event.number)
            raise RetryLater("The signal is red.", delay=delay)
        return TrainLeft(number=event.number)

    return service


async def test_more_than_an_hour_is_waited_for_only_if_the_test_says_so() -> None:
    async with harness(patient(timedelta(hours=2))) as aws:
        await aws.publish(TrainArrived(number=1))
        error = await failure(aws)
        assert str(error) == (
            "An hour of retries has not settled everything: the queue 'station' holds 1 message "
            "(TrainArrived, retried by station.receive: The signal is red.)."
        )
        assert "aws.elapsed(" in error.__notes__[0]
        assert isinstance(error.__cause__, RetryLater)
        await aws.elapsed(timedelta(hours=2))
        assert aws.published(TrainLeft) == [TrainLeft(number=1)]


async def test_what_is_due_later_than_the_time_that_passes_is_left() -> None:
    async with harness(patient(timedelta(minutes=5))) as aws:
        began = aws.clock.now()
        await aws.publish(TrainArrived(number=1))
        await aws.elapsed(timedelta(minutes=4))
        assert aws.published(TrainLeft) == []
        assert aws.clock.now() == began + timedelta(minutes=4)
        await aws.elapsed(timedelta(minutes=1))
        assert aws.published(TrainLeft) == [TrainLeft(number=1)]


async def test_when_no_time_passes_what_can_be_handled_now_is_handled() -> None:
    async with harness(patient(timedelta(minutes=5))) as aws:
        await aws.publish(TrainArrived(number=1))
        await aws.elapsed(timedelta(0))
        aws.clock.advance(timedelta(minutes=5))
        await aws.elapsed(timedelta(0))
        assert aws.published(TrainLeft) == [TrainLeft(number=1)]


async def test_what_becomes_a_dead_letter_in_the_time_that_passes_is_told_too() -> None:
    async with harness(station) as aws:
        await aws.publish(TrainArrived(number=-1))
        await aws.elapsed(timedelta(0))
        with pytest.raises(Unsettled, match="1 new dead letter"):
            await aws.elapsed(timedelta(minutes=5))
        await aws.elapsed(timedelta(minutes=5), dead_letters=0)


async def test_what_is_scheduled_comes_when_the_test_lets_its_time_pass() -> None:
    async with harness(station) as aws:
        tomorrow = aws.clock.now() + timedelta(days=1)
        body = '{"detail-type": "TrainArrived", "detail": {"number": 2}}'
        await aws.ports.scheduler.schedule("later", tomorrow, "station", QueueEntry(body))
        await aws.settled()
        assert aws.published(TrainLeft) == []
        await aws.elapsed(timedelta(days=2))
        assert aws.published(TrainLeft) == [TrainLeft(number=2)]


async def test_events_that_set_each_other_off_for_ever_are_told_apart_from_long_chains() -> None:
    service = Service("station", bus="rails")

    @service.on(TrainArrived, idempotent=True)
    async def depart(event: TrainArrived) -> TrainLeft | None:
        return None if event.number == 100 else TrainLeft(number=event.number)

    @service.on(TrainLeft, idempotent=True)
    async def arrive(event: TrainLeft) -> TrainArrived:
        return TrainArrived(number=event.number + 1)

    async def begin_with(number: int) -> None:
        async with harness(service) as aws:
            await aws.publish(TrainArrived(number=number))
            await aws.settled()
            assert len(aws.published(TrainLeft)) == 100

    await begin_with(0)
    with pytest.raises(Unsettled, match=r"no end to what the services do: the queue 'station'"):
        await begin_with(101)


async def test_a_relay_that_never_gets_through_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service("station", bus="rails", emits=[TrainLeft])
    async with harness(service) as aws:
        with monkeypatch.context() as patched:
            patched.setattr(aws.cloud.bus, "put", refusing)
            async with aws.connect() as connection, connection.transaction() as tx:
                tx.publish(TrainLeft(number=1))
            error = await failure(aws)
        assert str(error) == (
            "What is committed does not go out: the relay of 'station' has 1 record left to send."
        )
        await aws.settled()
        assert aws.published(TrainLeft) == [TrainLeft(number=1)]


async def test_a_bus_that_is_down_for_minutes_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service("station", bus="rails", emits=[TrainLeft])
    async with harness(service) as aws:
        with monkeypatch.context() as patched:
            patched.setattr(aws.cloud.bus, "put", refusing)
            async with aws.connect() as connection, connection.transaction() as tx:
                tx.publish(TrainLeft(number=1))
            await aws.elapsed(timedelta(minutes=5))
            assert aws.published(TrainLeft) == []
        await aws.elapsed(timedelta(minutes=1))
        assert aws.published(TrainLeft) == [TrainLeft(number=1)]


async def refusing(bus: str, entries: Sequence[BusEntry]) -> list[EntryFailure]:
    return [EntryFailure(index, "AccessDenied", retryable=False) for index in range(len(entries))]


async def test_a_policy_that_is_patient_for_minutes_needs_no_more_than_settled() -> None:
    attempts = []
    service = Service("station", bus="rails", policy=Policy(attempts=9))

    @service.on(TrainArrived)
    async def receive(event: TrainArrived) -> None:
        attempts.append(event)
        raise Derailed

    async with harness(service) as aws:
        await aws.publish(TrainArrived(number=1))
        await aws.settled(dead_letters=1)
    assert len(attempts) == 9
