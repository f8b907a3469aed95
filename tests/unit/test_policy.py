"""What an exception means: a table."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from headrace.errors import (
    Conflict,
    DefinitionError,
    NotJson,
    PoisonMessage,
    RetryLater,
    Throttled,
    TooLarge,
    Unreachable,
)
from headrace.outcome import Ack, DeadLetter, Outcome, Retry, combine
from headrace.policy import Backoff, Policy
from headrace.testing.memory import SeededRandomness


class CardStolen(Exception):
    pass


def decide(error: Exception, receive_count: int = 1, policy: Policy | None = None) -> Outcome:
    return (policy or Policy()).decide(
        error, receive_count=receive_count, randomness=SeededRandomness(), handler="shop.pay"
    )


@pytest.mark.parametrize(
    ("error", "receive_count", "outcome"),
    [
        (PoisonMessage("no such order"), 1, DeadLetter),
        (NotJson(), 1, DeadLetter),
        (TooLarge("too large", size=2, limit=1), 1, DeadLetter),
        (DefinitionError("no key"), 1, Retry),
        (RetryLater("not yet"), 99, Retry),
        (ValueError("odd"), 1, Retry),
        (ValueError("odd"), 4, Retry),
        (ValueError("odd"), 5, DeadLetter),
        (TimeoutError(), 5, DeadLetter),
        (Conflict(), 99, Retry),
        (Throttled(), 99, Retry),
        (Unreachable(), 99, Retry),
    ],
)
def test_every_kind_of_exception_has_its_outcome(
    error: Exception, receive_count: int, outcome: type[Outcome]
) -> None:
    decided = decide(error, receive_count)
    assert isinstance(decided, outcome)
    assert isinstance(decided, (Retry, DeadLetter))
    assert decided.error is error
    assert decided.handler == "shop.pay"


def test_a_service_may_name_its_own_exceptions_that_no_retry_can_help() -> None:
    outcome = decide(CardStolen("4711"), 1, Policy(dead_letter=(CardStolen,)))
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "CardStolen: 4711"


def test_naming_exceptions_of_ones_own_leaves_poison_messages_what_they_are() -> None:
    policy = Policy(dead_letter=(CardStolen,))
    assert isinstance(decide(PoisonMessage("never"), 1, policy), DeadLetter)


def test_the_handler_may_say_when_the_message_comes_again() -> None:
    outcome = decide(RetryLater("stock is counted", delay=timedelta(minutes=3)))
    assert isinstance(outcome, Retry)
    assert outcome.delay == timedelta(minutes=3)
    assert outcome.reason == "stock is counted"


def test_where_failures_are_counted_receives_are_not() -> None:
    def decide_after(failures: int) -> Outcome:
        return Policy(attempts=3).decide(
            ValueError("odd"),
            receive_count=9,
            failures=failures,
            randomness=SeededRandomness(),
        )

    assert isinstance(decide_after(2), Retry)
    outcome = decide_after(3)
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "Gave up after 3 failures: ValueError: odd"


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ValueError("odd"), True),
        (TimeoutError(), True),
        (ExceptionGroup("two", [ValueError("odd"), KeyError("odd")]), True),
        (ExceptionGroup("two", [ValueError("odd"), Throttled()]), False),
        (PoisonMessage("never"), False),
        (CardStolen(), False),
        (RetryLater("not yet"), False),
        (Conflict(), False),
        (Throttled(), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_a_failure_counts_if_it_is_the_handlers_own(error: BaseException, counts: bool) -> None:
    assert Policy(dead_letter=(CardStolen,)).counts(error) is counts


def test_a_dead_letter_after_the_last_attempt_says_how_many_there_were_and_why() -> None:
    outcome = decide(ValueError("odd"), 5)
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "Gave up after 5 receives: ValueError: odd"


@pytest.mark.parametrize("receive_count", [1, 2, 3, 10, 5000])
def test_waiting_times_grow_are_spread_and_never_exceed_the_cap(receive_count: int) -> None:
    backoff = Backoff(base=timedelta(seconds=2), cap=timedelta(minutes=1))
    ceiling = min(timedelta(minutes=1), timedelta(seconds=2) * 2 ** min(receive_count - 1, 9))
    delays = {backoff.delay(receive_count, SeededRandomness(seed)) for seed in range(50)}
    assert len(delays) > 10
    assert timedelta(0) <= min(delays) <= max(delays) <= ceiling
    assert max(delays) > ceiling / 2


def test_a_policy_prints_its_rules_as_sentences() -> None:
    text = str(Policy(attempts=7, dead_letter=(CardStolen,)))
    assert "PoisonMessage or CardStolen goes to the dead-letter queue at once" in text
    assert "up to 7 attempts in all" in text
    assert "1 s doubling up to 900 s" in text


RETRY, DEAD, DONE, AGAIN = Retry("later"), DeadLetter("never"), Ack(), Ack(duplicate=True)


@pytest.mark.parametrize(
    ("outcomes", "fate"),
    [
        ([], DONE),
        ([DONE], DONE),
        ([AGAIN, AGAIN], AGAIN),
        ([AGAIN, DONE], DONE),
        ([DONE, DEAD], DEAD),
        ([DEAD, RETRY, DONE], RETRY),
    ],
)
def test_several_handlers_make_one_fate(outcomes: list[Outcome], fate: Outcome) -> None:
    assert combine(outcomes) == fate
