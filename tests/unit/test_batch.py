"""A batch runs what it can at once, keeps the order of a group, and keeps to its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import Any

from headrace.batch import Batch, in_lanes, one_by_one
from headrace.hosts.deadline import Deadline
from headrace.observe.tally import Tally
from headrace.outcome import Ack, DeadLetter, Outcome, Retry
from headrace.ports import Delivery
from headrace.system import SystemClock
from headrace.turns import Turns


def delivery(id: str, group: str | None = None, **fields: Any) -> Delivery:
    return Delivery(id, f"r-{id}", "{}", "q", group_id=group, fifo=group is not None, **fields)


def soon(milliseconds: int) -> Deadline:
    """A deadline that is so far away, with a margin of half a second."""
    return Deadline(
        SystemClock(), timedelta(milliseconds=milliseconds), timedelta(milliseconds=500)
    )


class Host:
    """Answers deliveries as it is told, and remembers what was started and settled."""

    def __init__(self, **answers: Outcome) -> None:
        self.answers = answers
        self.started: list[str] = []
        self.settled: list[str] = []
        self.running = self.most_running = 0

    async def consume(self, delivery: Delivery) -> Outcome:
        self.started.append(delivery.message_id)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        await asyncio.sleep(0)
        self.running -= 1
        return self.answers.get(delivery.message_id, Ack())

    async def settle(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        self.settled.append(delivery.message_id)
        return outcome

    async def run(
        self, deliveries: Sequence[Delivery], turns: Turns | None = None, **changes: Any
    ) -> dict[str, Outcome]:
        batch = Batch(
            "service",
            changes.get("consume", self.consume),
            changes.get("settle", self.settle),
            turns=turns or Turns(),
            observer=changes.get("observer", Tally()),
            stay=changes.get("stay", lambda delivery: nullcontext()),
            closing=changes.get("closing", lambda: False),
        )
        return await batch.run(deliveries)


async def test_every_delivery_has_its_own_outcome() -> None:
    host = Host(b=Retry("later"), c=DeadLetter("never"))
    outcomes = await host.run([delivery("a"), delivery("b"), delivery("c")])
    assert outcomes == {"a": Ack(), "b": Retry("later"), "c": DeadLetter("never")}


async def test_no_more_run_at_a_time_than_there_are_turns() -> None:
    host = Host()
    await host.run([delivery(str(n)) for n in range(9)], Turns(3))
    assert host.most_running == 3


async def test_a_group_runs_in_order_and_beside_other_groups() -> None:
    host = Host()
    await host.run([delivery(f"{group}{n}", group) for n in range(3) for group in "ab"])
    assert [id for id in host.started if id.startswith("a")] == ["a0", "a1", "a2"]
    assert [id for id in host.started if id.startswith("b")] == ["b0", "b1", "b2"]
    assert host.most_running == 2


async def test_a_failed_message_holds_back_its_group_and_no_other() -> None:
    host = Host(a1=Retry("later"))
    outcomes = await host.run([delivery(f"{group}{n}", group) for n in range(3) for group in "ab"])
    assert "a2" not in host.started
    assert isinstance(outcomes["a2"], Retry)
    assert [outcomes[f"b{n}"] for n in range(3)] == [Ack()] * 3


async def test_what_is_left_of_a_group_when_its_host_closes_is_handed_back() -> None:
    host = Host()
    group = [delivery(f"a{n}", "a") for n in range(3)]
    outcomes = await host.run(group, closing=lambda: bool(host.started))
    assert host.started == ["a0"]
    assert host.settled == ["a0", "a1", "a2"]
    assert [type(outcomes[f"a{n}"]) for n in range(3)] == [Ack, Retry, Retry]


async def test_a_dead_letter_does_not_hold_back_its_group() -> None:
    host = Host(a0=DeadLetter("never"))
    outcomes = await host.run([delivery("a0", "a"), delivery("a1", "a")])
    assert outcomes["a1"] == Ack()


async def test_a_dead_letter_that_could_not_be_copied_holds_back_its_group() -> None:
    async def settle(delivery: Delivery, outcome: Outcome) -> Outcome:
        return Retry("no copy") if isinstance(outcome, DeadLetter) else outcome

    host = Host(a0=DeadLetter("never"))
    outcomes = await host.run([delivery("a0", "a"), delivery("a1", "a")], settle=settle)
    assert host.started == ["a0"]
    assert isinstance(outcomes["a1"], Retry)


async def test_a_tenant_on_a_standard_queue_is_not_an_order() -> None:
    deliveries = [Delivery(id, id, "{}", "q", group_id="tenant") for id in "abc"]
    assert [len(lane.left) for lane in in_lanes(deliveries)] == [1, 1, 1]


async def test_what_cannot_end_before_the_deadline_is_not_started() -> None:
    host = Host()
    deadline = soon(0)
    outcomes = await host.run([delivery("late")], stay=deadline.stay)
    assert host.started == []
    assert outcomes["late"] == Retry("There was no time left to start it.", timedelta(0))


async def test_what_runs_at_the_deadline_is_stopped_and_comes_again() -> None:
    stopped = asyncio.Event()

    async def consume(delivery: Delivery) -> Outcome:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError("nothing sets that event")

    deadline = soon(510)
    outcomes = await Host().run([delivery("slow")], consume=consume, stay=deadline.stay)
    assert stopped.is_set()
    assert isinstance(outcomes["slow"], Retry)


async def test_a_handler_that_was_told_to_stop_and_ends_all_the_same_keeps_its_outcome() -> None:
    async def consume(delivery: Delivery) -> Outcome:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return Ack()

    deadline = soon(510)
    outcomes = await Host().run([delivery("stubborn")], consume=consume, stay=deadline.stay)
    assert outcomes["stubborn"] == Ack()


async def test_lanes_are_taken_as_there_is_room_for_them() -> None:
    taken = ahead = 0
    outcomes: dict[str, Outcome] = {}

    def deliveries() -> Iterator[Delivery]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield delivery(str(number))

    async def consume(delivery: Delivery) -> Outcome:
        nonlocal ahead
        ahead = max(ahead, taken - len(outcomes))
        return Ack()

    host = Host()
    batch = Batch("service", consume, host.settle, turns=Turns(10), observer=Tally())
    await batch.run_lanes(one_by_one(deliveries()), outcomes)
    assert len(outcomes) == 10_000
    assert ahead <= 10 + 100 + 1


async def test_a_failure_of_headrace_itself_does_not_disturb_the_batch(caplog: Any) -> None:
    async def settle(delivery: Delivery, outcome: Outcome) -> Outcome:
        if delivery.message_id == "b":
            raise RuntimeError("bug")
        return outcome

    outcomes = await Host().run([delivery("a"), delivery("b"), delivery("c")], settle=settle)
    assert outcomes["a"] == outcomes["c"] == Ack()
    assert isinstance(outcomes["b"], Retry)
    assert "could not be settled" in caplog.text


async def test_the_observer_sees_every_delivery_come_and_go() -> None:
    tally = Tally()
    host = Host(b=Retry("later"), c=DeadLetter("never"), d=Ack(duplicate=True))
    await host.run([delivery(id) for id in "abcd"], observer=tally)
    counts = tally.services["service"]
    assert (counts.received, counts.in_flight) == (4, 0)
    assert (counts.done, counts.duplicates, counts.retried, counts.dead_letters) == (1, 1, 1, 1)
