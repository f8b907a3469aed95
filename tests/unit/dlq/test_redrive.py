"""Sending letters back: what is done, what is not, and wherever it is interrupted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace.dlq.edits import Edits, InvalidEdit, Setting
from headrace.dlq.groups import Selection
from headrace.dlq.redrive import ramp
from headrace.errors import Refused, Throttled
from headrace.ports import Attribute, Ports, QueueEntry
from tests.unit.dlq.office import Office, Steps, ids
from tests.unit.timeless import timeless

EACH = 30


@timeless
async def test_a_group_that_is_mended_is_drained_through_a_canary() -> None:
    office = Office()
    await office.four_causes(EACH)
    others = office.there()
    office.mended.add("franking")
    steps = Steps()

    async with office.open():
        report = await office.redrive(
            Selection(group=await office.group_of("franking")), watcher=steps
        )

    assert report.succeeded
    assert len(report.done) == EACH
    assert steps.sizes == [1, 10, 19]
    assert office.times() == ids(range(EACH))
    assert office.there() < others
    assert office.there().total() == 3 * EACH
    assert not any('"franking"' in body for body in office.there())


@timeless
async def test_a_group_that_is_not_mended_stops_at_the_canary_and_says_why() -> None:
    office = Office()
    await office.four_causes(EACH)
    before = office.there()
    steps = Steps()

    async with office.open():
        report = await office.redrive(
            Selection(group=await office.group_of("franking")), watcher=steps
        )

    assert not report.succeeded
    assert steps.sizes == [1]
    (failed,) = report.failed
    assert failed.why.startswith("Gave up after 1 receive: RuntimeError: The franking machine")
    assert (report.left, report.done) == (EACH - 1, [])
    assert office.there() == before


@timeless
async def test_a_letter_that_failed_again_is_known_by_its_original_and_by_the_run() -> None:
    office = Office()
    await office.post("franking")
    await office.handled()
    (before,) = await office.letters()

    async with office.open():
        await office.redrive(run="run-7")

    (after,) = await office.letters()
    assert after.id != before.id
    assert after.original_id == before.original_id
    assert (after.note.redrive, after.note.attempts) == ("run-7", 1)
    assert after.first_time == before.first_time
    assert not after.reconstructed


@timeless
async def test_a_step_that_fails_after_the_canary_stops_the_run_and_is_all_awaited() -> None:
    office = Office()
    await office.post("franking", times=40)
    await office.handled()
    office.mended.add("franking")

    def break_again(step: int) -> None:
        if step == 2:
            office.mended.remove("franking")

    async with office.open():
        report = await office.redrive(watcher=Steps(break_again))

    assert (len(report.done), len(report.failed), report.left) == (11, 20, 9)
    assert office.there().total() == 29
    assert office.times().total() == 11


@timeless
async def test_each_group_has_a_canary_of_its_own() -> None:
    office = Office()
    await office.post("franking", times=5)
    await office.post("address", times=3)
    await office.handled()
    office.mended |= {"franking", "address"}
    steps = Steps()

    async with office.open():
        report = await office.redrive(watcher=steps)

    assert report.succeeded
    assert steps.sizes == [1, 4, 1, 2]


@timeless
async def test_what_was_done_already_is_only_deleted() -> None:
    office = Office()
    await office.post("franking")
    await office.handled()
    (entry,) = office.cloud.queues.peek(office.dead_letters)
    office.mended.add("franking")
    async with office.open():
        await office.redrive()
    await office.cloud.queues.send(office.dead_letters, [entry])
    runs = dict(office.runs)
    steps = Steps()

    report = await office.redrive(watcher=steps)

    assert (len(report.already), steps.sizes) == (1, [])
    assert office.runs == runs
    assert not office.there()


@timeless
async def test_a_letter_with_messages_left_to_send_is_handled_until_they_are_out() -> None:
    office = Office(publishes=True)
    await office.post("none")
    bus = office.cloud.bus
    async with office.open():
        await office.emptied()
    (record,) = [i for i in office.cloud.store.items("office") if "commit_id" in i]
    assert record["status"]["S"] == "done"
    assert bus.calls["put"] == 1
    pending = {**record, "status": {"S": "pending"}, "outgoing": _outgoing()}
    await office.cloud.store.write([_put(pending)])
    await _letter_about(office, "parcel-0")

    async with office.open():
        report = await office.redrive()

    assert len(report.done) == 1
    assert bus.calls["put"] == 2
    assert office.times() == ids([0])


@timeless
async def test_an_idempotent_handler_leaves_only_silence_to_judge_by() -> None:
    office = Office(idempotent=True)
    await office.post("franking", "franking")
    await office.handled()
    office.mended.add("franking")

    async with office.open():
        report = await office.redrive(patience=timedelta(seconds=5))

    assert report.succeeded
    assert len(report.assumed) == 2
    assert "did not come back" in report.assumed[0].why
    assert not office.there()


@timeless
async def test_an_idempotent_handler_that_fails_again_is_noticed() -> None:
    office = Office(idempotent=True)
    await office.post("franking", "franking")
    await office.handled()

    async with office.open():
        report = await office.redrive(patience=timedelta(seconds=5))

    assert (len(report.failed), report.left) == (1, 1)


@timeless
async def test_without_a_worker_the_run_ends_and_says_what_is_in_the_queue() -> None:
    office = Office()
    await office.post("franking", "franking")
    await office.handled()
    steps = Steps()

    report = await office.redrive(limit=timedelta(seconds=60), watcher=steps)

    (unknown,) = report.unknown
    assert "its queue holds 1 message: see whether a worker runs" in unknown.why
    assert steps.said_[0] == "1 to wait for; office holds 1 message."
    assert (report.left, office.there().total()) == (1, 1)


@timeless
async def test_a_message_that_somebody_else_takes_away_is_not_called_done() -> None:
    office = Office()
    await office.post("franking")
    await office.handled()

    async def take_away() -> None:
        (taken,) = await office.cloud.queues.receive(
            office.queue, limit=1, wait=timedelta(seconds=20)
        )
        await office.cloud.queues.delete(office.queue, [taken.receipt_handle])

    thief = asyncio.create_task(take_away())
    report = await office.redrive(patience=timedelta(seconds=5))
    await thief

    (unknown,) = report.unknown
    assert "no inbox record says that it is done" in unknown.why


@timeless
async def test_the_copy_is_the_letter_with_a_note_of_the_run() -> None:
    office = Office()
    body = '{"detail-type": "ParcelPosted"}'
    attributes = {"colour": Attribute("red"), "seal": Attribute(b"\x00\x01", "Binary")}
    entry = QueueEntry(body, group_id="tenant-1", attributes=attributes)
    await office.cloud.queues.send(office.queue, [entry])
    await office.handled()
    (before,) = await office.letters()

    await office.redrive(limit=timedelta(seconds=1))

    (copy,) = office.cloud.queues.peek(office.queue)
    note = json.loads(copy.attributes["headrace"].value)
    assert copy.body == body
    assert copy.group_id == "tenant-1"
    assert {name: copy.attributes[name] for name in attributes} == attributes
    assert (note["message_id"], note["redrive"]) == (before.original_id, "run-1")
    assert note["before"]["reason"] == before.reason


@timeless
async def test_a_letter_without_room_for_the_note_stays_and_the_others_go() -> None:
    office = Office()
    await office.post("franking")
    crowded = {f"a{number}": Attribute("x") for number in range(10)}
    await office.handled()
    body = next(iter(office.there()))
    await office.cloud.queues.send(
        office.dead_letters, [QueueEntry(body.replace("parcel-0", "parcel-1"), attributes=crowded)]
    )
    office.mended.add("franking")

    async with office.open():
        report = await office.redrive()

    assert len(report.done) == 1
    ((letter, why),) = report.unfit
    assert letter.event_id == "parcel-1"
    assert "send it back with --all" in why
    assert office.there().total() == 1


@timeless
async def test_two_letters_of_one_message_take_effect_once() -> None:
    office = Office()
    await office.post("franking")
    await office.handled()
    (entry,) = office.cloud.queues.peek(office.dead_letters)
    await office.cloud.queues.send(office.dead_letters, [entry])
    office.mended.add("franking")

    async with office.open():
        report = await office.redrive()

    assert (len(report.done), len(report.already)) == (1, 1)
    assert office.times() == ids([0])
    assert not office.there()


# --- edits -------------------------------------------------------------------------------


@timeless
async def test_a_field_is_set_in_what_is_sent_back() -> None:
    office = Office()
    await office.post("scale", "scale")
    await office.handled()
    edits = Edits((Setting.parse('fault="none"'), Setting.parse("weight=2")))

    async with office.open():
        report = await office.redrive(edits=edits)

    assert len(report.done) == 2
    assert office.times() == ids([0, 1])


@timeless
async def test_an_invalid_edit_is_refused_before_anything_is_sent() -> None:
    office = Office()
    await office.post("scale", "scale")
    await office.handled()
    before = office.there()

    with pytest.raises(InvalidEdit, match=r"weight: Input should be a valid integer"):
        await office.redrive(edits=Edits((Setting.parse('weight="heavy"'),)))

    assert office.cloud.queues.is_empty(office.queue)
    assert office.there() == before
    assert len(await office.letters()) == 2


@timeless
async def test_a_whole_body_is_for_one_letter_and_keeps_its_id() -> None:
    office = Office()
    await office.post("scale", "scale")
    await office.handled()
    (first, second) = await office.letters()
    body = first.delivery.body.replace('"scale"', '"none"')

    with pytest.raises(InvalidEdit, match="One body is given for 2 letters"):
        await office.redrive(edits=Edits(body=body))
    with pytest.raises(InvalidEdit, match="keep its id"):
        await office.redrive(Selection(id=second.id), edits=Edits(body=body))
    async with office.open():
        report = await office.redrive(Selection(id=first.original_id), edits=Edits(body=body))

    assert len(report.done) == 1
    assert office.times().total() == 1


# --- FIFO --------------------------------------------------------------------------------


@timeless
async def test_letters_of_a_message_group_go_back_one_at_a_time_in_their_order() -> None:
    office = Office(fifo=True)
    for group in ("a", "b"):
        await office.post("franking", times=12, group=group)
        await office.handled()
    office.mended.add("franking")
    office.order.clear()
    steps = Steps()

    async with office.open():
        report = await office.redrive(watcher=steps)

    assert len(report.done) == 24
    assert max(steps.sizes) == 2
    assert [number for number in office.order if number < 12] == list(range(12))
    assert [number for number in office.order if number >= 12] == list(range(12, 24))


@timeless
async def test_a_letter_of_a_message_group_that_fails_again_is_seen_behind_the_others() -> None:
    office = Office(fifo=True)
    await office.post("franking", times=5, group="a")
    await office.handled()

    async with office.open():
        report = await office.redrive()

    (failed,) = report.failed
    assert failed.letter.event_id == "parcel-0"
    assert (report.left, office.there().total()) == (4, 5)


@timeless
async def test_what_was_parked_behind_a_letter_goes_on_when_it_is_done() -> None:
    office = Office(fifo=True, park=True)
    await office.post("franking", "none", "none", group="a")
    await office.handled()
    assert office.there().total() == 1
    office.mended.add("franking")

    async with office.open():
        report = await office.redrive()
        await office.emptied()

    assert len(report.done) == 1
    assert office.order == [0, 1, 2]


@timeless
async def test_what_was_parked_behind_a_letter_goes_on_although_its_run_was_killed() -> None:
    office = Office(fifo=True, park=True)
    await office.post("franking", "none", group="a")
    await office.handled()
    office.mended.add("franking")
    (letter,) = await office.cloud.queues.receive(office.dead_letters, limit=1, wait=timedelta(0))
    entry = QueueEntry(
        letter.body,
        group_id="a",
        deduplication_id=letter.message_id,
        attributes=letter.attributes,
    )
    await office.cloud.queues.send(office.queue, [entry])
    await office.cloud.queues.delete(office.dead_letters, [letter.receipt_handle])
    await office.handled()
    assert office.order == [0]

    async with office.open():
        await office.redrive()
        await office.emptied()

    assert office.order == [0, 1]


@timeless
async def test_an_edited_copy_is_not_swallowed_after_a_run_that_was_killed() -> None:
    office = Office(fifo=True)
    await office.post("scale", group="a")
    await office.handled()

    # The copy is in the queue, and the letter was not deleted.
    queues: Any = Mortal(office.cloud.ports.queues, [4], after=True)
    with pytest.raises(Killed):
        await office.redrive(ports=replace(office.cloud.ports, queues=queues))
    assert len(office.cloud.queues.peek(office.queue)) == 1
    await asyncio.sleep(61)
    async with office.open():
        edits = Edits((Setting.parse('fault="none"'),))
        report = await office.redrive(edits=edits, run="run-2")

    assert len(report.done) == 1
    assert office.times() == ids([0])


@timeless
async def test_the_other_groups_go_on_although_one_cannot() -> None:
    office = Office(fifo=True, park=True)
    for group in ("a", "b", "c"):
        await office.post("franking", "none", group=group)
    await office.handled()
    office.mended.add("franking")
    store: Any = _NotAbout(office.cloud.ports.store, "a")
    steps = Steps()

    async with office.open():
        report = await office.redrive(ports=replace(office.cloud.ports, store=store), watcher=steps)
        await office.emptied()

    assert len(report.done) == 3
    (stuck,) = report.stuck
    assert stuck.startswith("The message group a waits still: You may not.")
    assert stuck.endswith("Run this again.")
    assert not report.succeeded
    assert sorted(office.order) == [0, 2, 3, 4, 5]

    async with office.open():
        assert (await office.redrive()).succeeded
        await office.emptied()
    assert sorted(office.order) == list(range(6))


@timeless
async def test_a_run_waits_out_what_aws_refuses_for_now_while_it_looks_what_became_of_letters() -> (
    None
):
    office = Office()
    await office.post("franking", times=5)
    await office.handled()
    office.mended.add("franking")
    store: Any = _ThrottledReads(office.cloud.ports.store, after=3, times=4)

    async with office.open():
        report = await office.redrive(ports=replace(office.cloud.ports, store=store))

    assert (len(report.done), report.succeeded, store.left) == (5, True, 0)


class _NotAbout:
    """A store that refuses to let go of one message group's block."""

    def __init__(self, inner: Any, group: str) -> None:
        self._inner = inner
        self._group = group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def change(self, action: Any) -> None:
        if action.key.sk == self._group:
            raise Refused("You may not.")
        await self._inner.change(action)


class _ThrottledReads:
    """A store in which some reads in a row are refused for now, after some that are not."""

    def __init__(self, inner: Any, *, after: int, times: int) -> None:
        self._inner = inner
        self._after = after
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def get(self, keys: Any) -> Any:
        self._after -= 1
        if self._after < 0 and self.left:
            self.left -= 1
            raise Throttled("Too many.")
        return await self._inner.get(keys)


# --- interruptions -----------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """A port of a process that is killed at its n-th call: before it takes effect, or after."""

    def __init__(self, inner: Any, life: list[int], *, after: bool) -> None:
        self._inner = inner
        self._life = life
        self._after = after

    def __getattr__(self, method: str) -> Callable[..., Any]:
        async def call(*given: Any, **options: Any) -> Any:
            self._life[0] -= 1
            if self._life[0] < 0 or (self._life[0] == 0 and not self._after):
                raise Killed
            answer = await getattr(self._inner, method)(*given, **options)
            if self._life[0] == 0:
                raise Killed
            return answer

        return call


def mortal(ports: Ports, life: list[int], *, after: bool) -> Ports:
    queues: Any = Mortal(ports.queues, life, after=after)
    store: Any = Mortal(ports.store, life, after=after)
    return replace(ports, queues=queues, store=store)


@pytest.mark.parametrize("fifo", [False, True], ids=["standard", "fifo"])
@pytest.mark.parametrize("after", [False, True], ids=["before a call", "after a call"])
def test_a_run_that_is_killed_anywhere_loses_nothing_and_repeats_nothing(
    after: bool, fifo: bool
) -> None:
    calls = 1
    while _survives(calls, after=after, fifo=fifo):
        calls += 1
    assert calls > 15


def _survives(calls: int, *, after: bool, fifo: bool) -> bool:
    """Whether a run was killed at this call; without, it ended before."""
    killed = False

    @timeless
    async def scenario() -> None:
        nonlocal killed
        office, letters = Office(fifo=fifo), 3 if fifo else 6
        group_id = "a" if fifo else None
        await office.post("franking", times=letters, group=group_id)
        await office.post("scale", group=group_id)
        await office.handled()
        group = Selection(group=await office.group_of("franking"))
        office.mended.add("franking")
        async with office.open():
            try:
                ports = mortal(office.cloud.ports, [calls], after=after)
                await office.redrive(group, ports=ports, first=2)
            except Killed:
                killed = True
            # What the killed process held comes back by itself.
            await asyncio.sleep(61)
            report = await office.redrive(group, run="run-2")
        assert report.succeeded
        assert office.times() == ids(range(letters))
        (other,) = office.there()
        assert json.loads(other)["detail"]["data"]["number"] == letters
        assert office.cloud.queues.is_empty(office.queue)

    scenario()
    return killed


def test_the_steps_grow_up_to_a_limit() -> None:
    sizes = ramp(10, 100)
    assert [next(sizes) for _ in range(7)] == [1, 10, 20, 40, 80, 100, 100]


# --- beside ------------------------------------------------------------------------------


def _outgoing() -> Any:
    fields = {
        "id": "franked-0",
        "type": "ParcelFranked",
        "detail": "{}",
        "time": "2026-01-01T00:00:00+00:00",
        "source": "office",
    }
    return {"L": [{"M": {name: {"S": text} for name, text in fields.items()}}]}


def _put(item: Any) -> Any:
    from headrace.ports import Put

    return Put("office", item)


async def _letter_about(office: Office, id: str) -> None:
    from headrace.testing import delivery_of
    from tests.unit.dlq.office import ParcelPosted

    body = delivery_of(ParcelPosted(number=0), office.queue, id=id).body
    await office.cloud.queues.send(office.dead_letters, [QueueEntry(body)])


@timeless
async def test_more_letters_of_a_fifo_queue_than_are_held_at_a_time_all_go_back() -> None:
    office = Office(fifo=True)
    for number in range(30):
        await office.post("franking", group=f"g-{number}")
    await office.handled()
    assert office.there().total() == 30
    office.mended.add("franking")

    async with office.open():
        report = await office.redrive(held=10)

    assert (len(report.done), report.succeeded) == (30, True)
    assert office.there().total() == 0
