"""A queue is polled for what there is room for, whatever becomes of a poll, until the stop."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace import Delivery, Retry, RetryLater, Service, Transaction
from headrace.errors import NotProvisioned, Throttled, Unreachable
from headrace.hosts.pulse import Phase
from headrace.hosts.settings import WorkerSettings
from headrace.hosts.worker import Worker
from headrace.pipeline import running
from headrace.ports import EntryFailure, QueueEntry
from headrace.testing import delivery_of
from headrace.testing.memory import memory_ports
from headrace.topology.derive import topology
from tests.unit.kitchen import (
    Dish,
    DishOrdered,
    Kitchen,
    Longest,
    Noted,
    Shift,
    at_once,
    burning,
    now,
    taking,
)
from tests.unit.timeless import timeless

# --- how much, and how often -----------------------------------------------------------------


class Counting(Noted):
    """How many deliveries are held at the most, and how many receives are open."""

    def __init__(self, kitchen: Kitchen, *, seconds: float = 0) -> None:
        super().__init__(kitchen.cloud.queues)
        self.seconds = seconds
        self.shift: Shift | None = None
        self.most_held = self.open = self.most_open = 0

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(self.seconds)
            found = await super().receive(queue, **how)
        finally:
            self.open -= 1
        settled = len(self.shift.outcomes) if self.shift else 0
        self.most_held = max(self.most_held, len(self.received) - settled)
        return found


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (5, 0), (5, 7), (12, 30)])
@timeless
async def test_no_more_run_and_no_more_are_held_than_the_settings_say(
    concurrency: int, prefetch: int
) -> None:
    kitchen = Kitchen(taking(1))
    await kitchen.order(*range(80))
    queues = Counting(kitchen, seconds=0.01)
    async with kitchen.working(queues, concurrency=concurrency, prefetch=prefetch) as shift:
        queues.shift = shift
        await shift.settles(80)
    assert kitchen.most_running == concurrency
    # The last few places are filled by full batches, so that they may stay empty.
    assert concurrency + min(prefetch, 20) <= queues.most_held <= concurrency + prefetch
    assert set((await kitchen.served()).values()) == {1}


@timeless
async def test_without_prefetch_nothing_is_received_that_would_wait() -> None:
    kitchen = Kitchen(taking(60))
    await kitchen.order(*range(30))
    async with kitchen.working(concurrency=3, drain=timedelta(0)) as shift:
        await shift.begins(3)
        await asyncio.sleep(30)
        assert await kitchen.left() == (27, 3)
        assert shift.pulse.phase is Phase.FULL
        assert shift.pulse.is_ready


@timeless
async def test_handlers_that_end_together_are_followed_by_one_receive() -> None:
    kitchen = Kitchen(taking(1))
    await kitchen.order(*range(100))
    async with kitchen.working() as shift:
        await shift.settles(100)
        assert [call.count for call in shift.queues.of("receive")][:10] == [10] * 10


@pytest.mark.parametrize("pollers", [None, 1, 10])
@timeless
async def test_an_idle_worker_has_one_receive_open(pollers: int | None) -> None:
    kitchen = Kitchen(at_once)
    queues = Counting(kitchen)
    async with kitchen.working(queues, concurrency=100, pollers=pollers):
        await asyncio.sleep(600)
    assert 30 <= len(queues.of("receive")) <= 31
    assert queues.most_open == 1
    assert {call.count for call in queues.of("receive")} == {10}


@timeless
async def test_a_trickle_of_messages_is_received_by_one() -> None:
    kitchen = Kitchen(taking(5))
    queues = Counting(kitchen)
    async with kitchen.working(queues, concurrency=100):
        for number in range(60):
            await kitchen.order(number)
            await asyncio.sleep(10)
    assert queues.most_open == 1
    assert len(queues.of("receive")) <= 60 + 31


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({"concurrency": 20}, 2),
        ({"concurrency": 21}, 3),
        ({"concurrency": 120}, 10),
        ({"concurrency": 120, "pollers": 12}, 12),
        ({"concurrency": 100, "pollers": 3}, 3),
        ({"concurrency": 100, "pollers": 1}, 1),
    ],
    ids=str,
)
@timeless
async def test_under_load_several_receives_are_open_and_afterwards_one(
    settings: dict[str, int], most: int
) -> None:
    kitchen = Kitchen(at_once)
    await kitchen.order(*range(150))
    queues = Counting(kitchen, seconds=0.5)
    async with kitchen.working(queues, **settings) as shift:
        await shift.settles(150)
        assert queues.most_open == most
        await asyncio.sleep(60)
        assert queues.open == 1


@timeless
async def test_however_many_polls_there_are_one_probes_while_everything_fails() -> None:
    kitchen = Kitchen(burning)
    await kitchen.order(*range(300))
    queues = Counting(kitchen, seconds=0.1)
    async with kitchen.working(queues, concurrency=100, drain=timedelta(0)) as shift:
        await asyncio.sleep(60)
        assert shift.pulse.phase is Phase.SLOWED
        queues.most_open = queues.open
        await asyncio.sleep(600)
        assert queues.most_open == 1


@timeless
async def test_a_queue_that_hides_nothing_by_itself_is_asked_to_hide_for_a_second() -> None:
    kitchen = Kitchen(taking(10))
    kitchen.service.queue_settings = replace(
        kitchen.service.queue_settings, visibility=timedelta(0)
    )
    await kitchen.order(1)
    async with kitchen.working() as shift:
        await shift.settles()
        changes = shift.queues.of("change_visibility")
    assert {call.hidden for call in changes} == {(1.0,)}
    assert 10 < len(changes) < 40
    assert await kitchen.served() == {1: 1}


# --- tenants and groups ----------------------------------------------------------------------


@timeless
async def test_a_loud_tenant_does_not_keep_a_quiet_one_from_its_turn() -> None:
    most: Counter[str | None] = Counter()
    at_work: Counter[str | None] = Counter()

    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        at_work[delivery.group_id] += 1
        most[delivery.group_id] = max(most[delivery.group_id], at_work[delivery.group_id])
        await asyncio.sleep(10)
        at_work[delivery.group_id] -= 1

    kitchen = Kitchen(cook)
    await kitchen.order(*range(15), group="loud")
    await kitchen.order(*range(100, 103), group="quiet")
    async with kitchen.working(concurrency=4, per_tenant=2) as shift:
        await shift.settles(18)
    assert most == {"loud": 2, "quiet": 2}
    assert max(kitchen.begun.index(number) for number in (100, 101, 102)) < 8
    assert kitchen.most_running == 4
    assert [n for n in kitchen.begun if n < 100] == list(range(15))


@timeless
async def test_places_are_left_for_other_tenants_than_the_one_that_waits() -> None:
    kitchen = Kitchen(taking(10))
    await kitchen.order(*range(8), group="loud")
    async with kitchen.working(concurrency=2, per_tenant=1) as shift:
        await shift.begins()
        await asyncio.sleep(1)
        await kitchen.order(100, group="quiet")
        await shift.settles(2)
        assert 100 in kitchen.begun
        assert kitchen.begun[:2] == [0, 100]


@timeless
async def test_groups_run_side_by_side_and_one_that_fails_holds_back_itself_alone() -> None:
    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        await asyncio.sleep(1)
        if event.number == 11 and delivery.receive_count == 1:
            raise RetryLater(delay=timedelta(seconds=60))

    kitchen = Kitchen(cook, fifo=True)
    for group in range(3):
        await kitchen.order(*(10 * group + n for n in range(4)), group=f"G{group}")
    async with kitchen.working(concurrency=3) as shift:
        await shift.settles(10)
        assert now() < 10
        assert await kitchen.served() == dict.fromkeys([0, 1, 2, 3, 10, 20, 21, 22, 23], 1)
        await shift.settles(13)
        assert now() > 60
    assert kitchen.most_running == 3
    for group in range(3):
        order = [n for n in kitchen.begun if n // 10 == group]
        assert order == ([10, 11, 11, 12, 13] if group == 1 else sorted(order))
    assert set((await kitchen.served()).values()) == {1}


@timeless
async def test_those_behind_the_first_of_a_group_take_no_places() -> None:
    kitchen = Kitchen(taking(10), fifo=True)
    await kitchen.order(*range(9), group="A")
    async with kitchen.working(concurrency=9) as shift:
        await shift.begins()
        await kitchen.order(*range(10, 18), group="B")
        await kitchen.order(*range(20, 28), group="C")
        await shift.begins(3)
        assert now() < 1
        await shift.settles(25)
    assert kitchen.most_running == 3


# --- what becomes of a poll ------------------------------------------------------------------


class Broken(Noted):
    """`broken` answers in the place of a receive, or raises, as long as it is set."""

    def __init__(self, kitchen: Kitchen, broken: Callable[[], Any] | None = None) -> None:
        super().__init__(kitchen.cloud.queues)
        self.broken = broken

    async def receive(self, queue: str, **how: Any) -> list[Delivery]:
        if self.broken is None:
            return await super().receive(queue, **how)
        self.note("receive", how["limit"])
        found: list[Delivery] = await self.broken()
        return found


async def has_a_bug() -> None:
    raise RuntimeError("a bug: secret")


async def is_unreachable() -> None:
    raise Unreachable("no route to SQS")


async def is_throttled() -> None:
    raise Throttled("slow down")


async def is_gone() -> None:
    raise NotProvisioned("There is no queue kitchen.")


async def never_answers() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("broken", "cause", "restarts"),
    [
        (has_a_bug, "a bug: secret", True),
        (is_unreachable, "no route to SQS", False),
        (is_throttled, "slow down", False),
        (is_gone, "There is no queue kitchen.", False),
        (never_answers, "a receive was not answered within 30 s.", False),
    ],
)
@timeless
async def test_a_poll_that_fails_is_made_again_and_the_pulse_says_why(
    broken: Callable[[], Any], cause: str, restarts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kitchen = Kitchen(at_once)
    queues = Broken(kitchen)
    async with kitchen.working(queues) as shift:
        await kitchen.order(1)
        await shift.settles()
        assert shift.pulse.phase is Phase.RECEIVING
        queues.broken = broken
        await asyncio.sleep(300)
        assert (shift.pulse.phase, shift.pulse.cause) == (Phase.FAILING, cause)
        assert not shift.pulse.is_ready
        assert bool(shift.pulse.restarts) == restarts
        assert len(queues.of("receive")) >= 8
        assert caplog.text.count("cannot be received from for now") == 1
        queues.broken = None
        await kitchen.order(2)
        await shift.settles(2)
        assert shift.pulse.cause is None
        assert shift.pulse.phase is Phase.RECEIVING
    assert ("Traceback" in caplog.text) == restarts


@timeless
async def test_every_restart_of_a_poll_loop_counts() -> None:
    kitchen = Kitchen(at_once)
    queues = Broken(kitchen, has_a_bug)
    async with kitchen.working(queues) as shift:
        await asyncio.sleep(300)
        assert shift.pulse.restarts == len(queues.of("receive"))


@timeless
async def test_what_fails_again_and_again_is_tried_more_and_more_slowly() -> None:
    kitchen = Kitchen(at_once)
    queues = Broken(kitchen, is_unreachable)
    async with kitchen.working(queues, randomness=Longest()):
        await asyncio.sleep(100)
    assert queues.at("receive") == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 51.5, 71.5, 91.5]


@timeless
async def test_after_a_success_the_pauses_begin_anew(caplog: pytest.LogCaptureFixture) -> None:
    kitchen = Kitchen(at_once)
    queues = Broken(kitchen, is_unreachable)
    async with kitchen.working(queues, randomness=Longest()):
        await asyncio.sleep(20)
        queues.broken = None
        await asyncio.sleep(40)
        queues.broken = is_unreachable
        await asyncio.sleep(20)
        at = queues.at("receive")
        since = at[-1] - at[-2]
        assert since <= 8
    assert caplog.text.count("cannot be received from for now") == 2


@timeless
async def test_however_many_polls_fail_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    kitchen = Kitchen(taking(5))
    await kitchen.order(*range(400))
    queues = Broken(kitchen)
    async with kitchen.working(queues, concurrency=100, drain=timedelta(0)) as shift:
        await shift.settles(100)
        queues.broken = is_unreachable
        await asyncio.sleep(300)
        assert shift.pulse.phase is Phase.FAILING
    assert caplog.text.count("cannot be received from for now") == 1


@timeless
async def test_while_polls_fail_one_goes_on_trying() -> None:
    kitchen = Kitchen(taking(5))
    await kitchen.order(*range(200))
    queues = Broken(kitchen)
    async with kitchen.working(queues, concurrency=50, drain=timedelta(0)) as shift:
        await shift.settles(50)
        queues.broken = is_unreachable
        await asyncio.sleep(60)
        before = len(queues.of("receive"))
        await asyncio.sleep(300)
        assert 10 <= len(queues.of("receive")) - before <= 60


@timeless
async def test_a_poll_that_was_cancelled_by_nobody_here_does_not_end_the_worker() -> None:
    """A connection that several share may be cancelled under one of them."""

    async def was_cancelled() -> None:
        raise asyncio.CancelledError

    kitchen = Kitchen(at_once)
    queues = Broken(kitchen, was_cancelled)
    async with kitchen.working(queues) as shift:
        await asyncio.sleep(60)
        assert not shift.work.done()
        queues.broken = None
        await kitchen.order(1)
        await shift.settles()


@timeless
async def test_what_is_lost_by_a_poll_that_fails_is_not_lost_room() -> None:
    kitchen = Kitchen(at_once)
    queues = Broken(kitchen, has_a_bug)
    async with kitchen.working(queues, concurrency=3) as shift:
        await asyncio.sleep(300)
        queues.broken = None
        await kitchen.order(*range(9))
        await shift.settles(9)
    assert {call.count for call in queues.of("receive")[-3:]} == {3}


@timeless
async def test_a_queue_that_is_not_there_ends_the_worker_with_that_error_alone() -> None:
    kitchen = Kitchen(at_once)
    queues = Broken(kitchen, is_gone)
    with pytest.raises(NotProvisioned, match=r"^There is no queue kitchen\.$"):
        async with kitchen.working(queues, concurrency=100) as shift:
            await shift.work
    assert now() < 1


@timeless
async def test_a_worker_whose_queue_was_not_reached_before_it_was_missing_ends_as_well() -> None:
    answers = iter([is_unreachable, is_throttled])
    kitchen = Kitchen(at_once)
    queues = Broken(kitchen, lambda: next(answers, is_gone)())
    with pytest.raises(NotProvisioned):
        async with kitchen.working(queues) as shift:
            await shift.work


@timeless
async def test_before_the_first_answer_the_pulse_is_not_ready() -> None:
    kitchen = Kitchen(at_once)
    async with kitchen.working() as shift:
        seen = [(shift.pulse.phase, shift.pulse.is_ready, shift.pulse.last_receive is None)]
        await asyncio.sleep(21)
        seen.append((shift.pulse.phase, shift.pulse.is_ready, shift.pulse.last_receive is None))
    seen.append((shift.pulse.phase, shift.pulse.is_ready, shift.pulse.last_receive is None))
    assert seen == [
        (Phase.STARTING, False, True),
        (Phase.RECEIVING, True, False),
        (Phase.STOPPED, False, False),
    ]


@timeless
async def test_while_it_fails_a_poll_that_waits_for_room_does_not_say_that_all_is_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One poll fails while another waits for room, which it gets then."""
    go_on = asyncio.Event()

    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        await go_on.wait()

    kitchen = Kitchen(cook)
    await kitchen.order(*range(20))
    queues = Broken(kitchen)
    async with kitchen.working(queues, concurrency=20) as shift:
        await shift.begins(20)
        queues.broken = never_answers
        go_on.set()
        await shift.settles(20)
        await asyncio.sleep(300)
        assert shift.pulse.phase is Phase.FAILING
    assert caplog.text.count("cannot be received from for now") == 1


# --- the stop --------------------------------------------------------------------------------


@timeless
async def test_at_a_stop_what_runs_finishes_and_what_waits_is_handed_back_at_once() -> None:
    kitchen = Kitchen(taking(9))
    await kitchen.order(*range(10))
    async with kitchen.working(concurrency=1, prefetch=9) as shift:
        await shift.begins()
        await asyncio.sleep(1)
        shift.stop.set()
        await asyncio.sleep(1)
        assert await kitchen.left() == (9, 1)
        assert await shift.ends() < 10
    assert kitchen.begun == [0]
    assert await kitchen.served() == {0: 1}
    assert await kitchen.left() == (9, 0)
    assert sum(call.count for call in shift.queues.of("change_visibility")) == 9
    assert {h for call in shift.queues.of("change_visibility") for h in call.hidden} == {0}


@timeless
async def test_after_a_stop_nothing_more_is_received() -> None:
    kitchen = Kitchen(taking(10))
    await kitchen.order(0)
    async with kitchen.working() as shift:
        await shift.begins()
        shift.stop.set()
        await asyncio.sleep(1)
        await kitchen.order(1)
        await shift.ends()
    assert kitchen.begun == [0]
    assert await kitchen.left() == (1, 0)


@timeless
async def test_an_idle_worker_stops_within_a_second() -> None:
    kitchen = Kitchen(at_once)
    async with kitchen.working() as shift:
        await asyncio.sleep(30)
        assert await shift.ends() < 1


@timeless
async def test_what_runs_is_kept_hidden_until_the_end_of_the_drain() -> None:
    kitchen = Kitchen(taking(95))
    await kitchen.order(0)
    async with kitchen.working(drain=timedelta(seconds=120)) as shift:
        await shift.begins()
        assert await shift.ends() == pytest.approx(95, abs=1)
    assert [delivery.receive_count for delivery in shift.queues.received] == [1]
    assert len(shift.queues.of("change_visibility")) == 9
    assert await kitchen.served() == {0: 1}


@timeless
async def test_what_is_not_finished_after_the_drain_is_cut_short_and_handed_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kitchen = Kitchen(taking(100))
    await kitchen.order(0, 1, 2)
    async with kitchen.working(drain=timedelta(seconds=5), concurrency=2) as shift:
        await shift.begins(2)
        assert 5 <= await shift.ends() < 6
    assert await kitchen.left() == (3, 0)
    assert await kitchen.served() == {}
    assert "There was no time to finish 2 messages of kitchen" in caplog.text


@timeless
async def test_without_time_to_drain_everything_is_handed_back_at_once() -> None:
    kitchen = Kitchen(taking(100))
    await kitchen.order(*range(10))
    async with kitchen.working(drain=timedelta(0), concurrency=2, prefetch=8) as shift:
        await shift.begins(2)
        assert await shift.ends() < 1
    assert await kitchen.left() == (10, 0)
    assert kitchen.running == 0


@timeless
async def test_whoever_is_in_a_hurry_waits_for_nothing() -> None:
    kitchen = Kitchen(taking(100))
    await kitchen.order(0)
    async with kitchen.working(drain=timedelta(seconds=60)) as shift:
        await shift.begins()
        shift.stop.set()
        await asyncio.sleep(10)
        assert not shift.work.done()
        shift.hurry.set()
        assert await shift.ends() < 1
    assert await kitchen.left() == (1, 0)


class Deaf(Noted):
    """SQS does not notice that a receive was given up: what comes within its time goes there."""

    async def receive(
        self, queue: str, *, limit: int, wait: timedelta, visibility: timedelta | None = None
    ) -> list[Delivery]:
        receiving = asyncio.ensure_future(
            super().receive(queue, limit=limit, wait=wait, visibility=visibility)
        )
        return await asyncio.shield(receiving)


@pytest.mark.parametrize(
    ("dishes", "settings"),
    [
        (3, {"drain": timedelta(seconds=1)}),
        (15, {"prefetch": 20, "drain": timedelta(seconds=90)}),
        (15, {"prefetch": 20, "drain": timedelta(seconds=1)}),
    ],
    ids=["what is cut short", "what waits", "both"],
)
@timeless
async def test_what_is_handed_back_does_not_go_to_a_receive_that_was_given_up(
    dishes: int, settings: dict[str, Any]
) -> None:
    kitchen = Kitchen(taking(60))
    await kitchen.order(*range(dishes))
    async with kitchen.working(Deaf(kitchen.cloud.queues), **settings) as shift:
        await shift.begins(min(dishes, 10))
        await asyncio.sleep(1)
        told = now()
        await shift.ends()
    done = sum((await kitchen.served()).values())
    await asyncio.sleep(max(0, told + 21 - now()))
    assert await kitchen.left() == (dishes - done, 0)


@timeless
async def test_what_is_left_of_a_group_at_the_stop_is_handed_back_and_not_handled() -> None:
    kitchen = Kitchen(taking(10), fifo=True)
    await kitchen.order(0, 1, 2, group="A")
    async with kitchen.working() as shift:
        await shift.begins()
        await shift.ends()
    assert kitchen.begun == [0]
    assert await kitchen.left() == (2, 0)


class Silent(Noted):
    """SQS does not answer to these methods any more."""

    def __init__(self, kitchen: Kitchen, *methods: str) -> None:
        super().__init__(kitchen.cloud.queues)
        self.methods = methods

    async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
        if "delete" in self.methods:
            await asyncio.Event().wait()
        return await super().delete(queue, receipts)

    async def change_visibility(
        self, queue: str, changes: Sequence[tuple[str, timedelta]]
    ) -> list[EntryFailure]:
        if "change_visibility" in self.methods:
            self.note("change_visibility", len(changes))
            await asyncio.Event().wait()
        return await super().change_visibility(queue, changes)


@timeless
async def test_a_stop_waits_for_the_last_deletes() -> None:
    class Slow(Noted):
        async def delete(self, queue: str, receipts: Sequence[str]) -> list[EntryFailure]:
            await asyncio.sleep(1.5)
            return await super().delete(queue, receipts)

    kitchen = Kitchen(at_once)
    await kitchen.order(0)
    async with kitchen.working(Slow(kitchen.cloud.queues)) as shift:
        await shift.settles()
    assert await kitchen.left() == (0, 0)


@timeless
async def test_a_stop_ends_although_sqs_does_not_answer_to_the_last_deletes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kitchen = Kitchen(at_once)
    await kitchen.order(*range(25))
    async with kitchen.working(Silent(kitchen, "delete"), concurrency=25) as shift:
        await shift.settles(25)
        assert await shift.ends() < 4
    assert "SQS does not answer" in caplog.text


@timeless
async def test_a_stop_ends_although_sqs_answers_to_no_heartbeat_of_many() -> None:
    kitchen = Kitchen(taking(100))
    await kitchen.order(*range(40))
    queues = Silent(kitchen, "change_visibility")
    async with kitchen.working(queues, concurrency=40, drain=timedelta(0)) as shift:
        await shift.begins(40)
        await asyncio.sleep(15)
        assert len(queues.of("change_visibility")) == 4
        assert await shift.ends() < 5


@timeless
async def test_a_handler_that_swallows_its_cancellation_is_left_behind() -> None:
    over = asyncio.Event()

    async def cook(event: DishOrdered, delivery: Delivery) -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    kitchen = Kitchen(cook)
    await kitchen.order(0)
    async with kitchen.working(drain=timedelta(seconds=5)) as shift:
        await shift.begins()
        assert await shift.ends() < 6
        assert await kitchen.left() == (1, 0)
        over.set()


async def test_a_plain_function_that_outlives_the_worker_commits_nothing() -> None:
    service, over, ended = Service("kitchen"), threading.Event(), threading.Event()
    loop, started = asyncio.get_running_loop(), asyncio.Event()

    @service.on(DishOrdered)
    def serve(event: DishOrdered, tx: Transaction) -> None:
        loop.call_soon_threadsafe(started.set)
        over.wait()
        try:
            tx.put(Dish(number=event.number))
        finally:
            ended.set()

    cloud, stop = memory_ports(), asyncio.Event()
    cloud.provision(topology(service))
    body = delivery_of(DishOrdered(number=1), "kitchen").body
    await cloud.queues.send("kitchen", [QueueEntry(body)])
    async with running(service, cloud.ports) as pipeline:
        settings = WorkerSettings(concurrency=1, drain=timedelta(0))
        work = asyncio.create_task(Worker([pipeline], settings=settings).run(stop))
        await started.wait()
        stop.set()
        await work
        depth = await cloud.queues.depth("kitchen")
        assert (depth.visible, depth.in_flight) == (1, 0)
    over.set()
    await asyncio.to_thread(ended.wait)
    assert cloud.store.items("kitchen") == []


@timeless
async def test_a_bug_in_settling_one_message_is_not_in_the_way_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Bug(Noted):
        async def send(self, queue: str, entries: Sequence[QueueEntry]) -> list[EntryFailure]:
            raise RuntimeError("a bug")

    kitchen = Kitchen(at_once)
    await kitchen.spoil(1)
    await kitchen.order(1, 2)
    async with kitchen.working(Bug(kitchen.cloud.queues), concurrency=1) as shift:
        await shift.settles(3)
    assert isinstance(shift.outcomes[0][1], Retry)
    assert await kitchen.served() == {1: 1, 2: 1}
    assert "could not be settled" in caplog.text
