"""A worker's task is protected while something takes long, and only then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise

import pytest

from headrace.errors import CloudError, Refused, Throttled, Unreachable
from headrace.hosts.protection import (
    FAREWELL,
    LOOK_EVERY,
    PROTECTED,
    RENEWED,
    RETRIED,
    protected_while_slow,
)
from tests.unit.timeless import timeless

AFTER = timedelta(seconds=12)
MINUTES = PROTECTED // timedelta(minutes=1)
LOOK = LOOK_EVERY.total_seconds()
PROTECT = f"protect for {MINUTES} minutes"


class Recorder:
    """What was asked of the protection, and when; and what it raises, in turn."""

    def __init__(self, *raised: CloudError | None) -> None:
        self.calls: list[tuple[float, str]] = []
        self._raised: Iterator[CloudError | None] = iter(raised)

    async def protect(self, minutes: int) -> None:
        self._record(f"protect for {minutes} minutes")

    async def release(self) -> None:
        self._record("release")

    @property
    def asked(self) -> list[str]:
        return [what for _, what in self.calls]

    @property
    def times(self) -> list[int]:
        return [round(when) for when, _ in self.calls]

    def _record(self, what: str) -> None:
        self.calls.append((asyncio.get_running_loop().time(), what))
        error = next(self._raised, None)
        if error is not None:
            raise error


class Stuck(Recorder):
    """Takes a call and does not answer it until it is cancelled."""

    def __init__(self, *stuck: str) -> None:
        super().__init__()
        self._stuck = stuck
        self.reached = asyncio.Event()

    async def protect(self, minutes: int) -> None:
        await super().protect(minutes)
        await self._answer("protect")

    async def release(self) -> None:
        await super().release()
        await self._answer("release")

    async def _answer(self, what: str) -> None:
        if what in self._stuck:
            self.reached.set()
            await asyncio.Event().wait()


class Work:
    """Deliveries that run from one second to another, by the loop's time."""

    def __init__(self, *spans: tuple[float, float]) -> None:
        self._spans = spans

    def oldest(self) -> timedelta | None:
        now = asyncio.get_running_loop().time()
        ages = [now - start for start, end in self._spans if start <= now < end]
        return timedelta(seconds=max(ages)) if ages else None


@asynccontextmanager
async def guarded(protection: Recorder, work: Work) -> AsyncIterator[None]:
    """Keep the task protected within the block, and stop at its end."""
    guard = asyncio.create_task(protected_while_slow(protection, work.oldest, after=AFTER))
    try:
        yield
    finally:
        guard.cancel()
        await asyncio.gather(guard, return_exceptions=True)


async def watched(protection: Recorder, work: Work, seconds: float) -> None:
    async with guarded(protection, work):
        await asyncio.sleep(seconds)


@timeless
async def test_a_worker_with_nothing_to_do_asks_for_nothing() -> None:
    protection = Recorder()
    await watched(protection, Work(), 3_600)
    assert protection.calls == []


@timeless
async def test_quick_deliveries_ask_for_nothing_however_many_there_are() -> None:
    protection = Recorder()
    quick = [(float(start), start + 12.0) for start in range(0, 3_600, 6)]
    await watched(protection, Work(*quick), 3_600)
    assert protection.calls == []


@timeless
async def test_a_delivery_that_runs_just_as_long_as_allowed_asks_for_nothing() -> None:
    protection = Recorder()
    guard = asyncio.create_task(protected_while_slow(protection, lambda: AFTER, after=AFTER))
    await asyncio.sleep(60)
    guard.cancel()
    await asyncio.gather(guard, return_exceptions=True)
    assert protection.calls == []


@timeless
async def test_a_delivery_that_runs_longer_than_allowed_protects_the_task_once() -> None:
    protection = Recorder()
    async with guarded(protection, Work((10.0, 10_000.0))):
        await asyncio.sleep(60)
        assert protection.asked == [PROTECT]
        (time,) = protection.times
        assert 10 + AFTER.total_seconds() <= time <= 10 + AFTER.total_seconds() + LOOK


@timeless
async def test_the_task_is_released_once_the_slow_delivery_has_ended() -> None:
    protection = Recorder()
    await watched(protection, Work((0.0, 100.0)), 3_600)
    assert protection.asked == [PROTECT, "release"]
    assert 100 <= protection.times[1] <= 100 + LOOK


@timeless
async def test_quick_deliveries_that_go_on_do_not_keep_the_task_protected() -> None:
    protection = Recorder()
    quick = [(float(start), start + 5.0) for start in range(0, 3_600, 5)]
    await watched(protection, Work((0.0, 100.0), *quick), 3_600)
    assert protection.asked == [PROTECT, "release"]


@timeless
async def test_the_protection_is_renewed_before_it_ends_for_as_long_as_the_delivery_runs() -> None:
    protection = Recorder()
    async with guarded(protection, Work((0.0, 100_000.0))):
        await asyncio.sleep(3_600)
    renewals = protection.times[:-1]
    gaps = [later - earlier for earlier, later in pairwise(renewals)]
    assert protection.asked[:-1] == [PROTECT] * len(renewals)
    assert len(gaps) >= 10
    assert all(RENEWED.total_seconds() <= gap < PROTECTED.total_seconds() for gap in gaps)


@timeless
async def test_a_second_slow_delivery_protects_the_task_again_at_once() -> None:
    protection = Recorder()
    await watched(protection, Work((0.0, 30.0), (40.0, 100.0)), 200)
    assert protection.asked == [PROTECT, "release", PROTECT, "release"]


@timeless
async def test_two_slow_deliveries_at_a_time_are_one_reason_to_be_protected() -> None:
    protection = Recorder()
    await watched(protection, Work((0.0, 60.0), (30.0, 120.0)), 200)
    assert protection.asked == [PROTECT, "release"]
    assert protection.times[1] >= 120


@timeless
async def test_a_stop_releases_a_protected_task() -> None:
    protection = Recorder()
    await watched(protection, Work((0.0, 1_000.0)), 60)
    assert protection.asked == [PROTECT, "release"]


@timeless
async def test_a_stop_after_the_release_asks_for_nothing_more() -> None:
    protection = Recorder()
    async with guarded(protection, Work((0.0, 30.0))):
        await asyncio.sleep(60)
        before = list(protection.calls)
    assert protection.calls == before


@timeless
async def test_a_stop_waits_only_a_moment_for_the_release(caplog: pytest.LogCaptureFixture) -> None:
    protection = Stuck("release")
    async with guarded(protection, Work((0.0, 1_000.0))):
        await asyncio.sleep(60)
    assert protection.asked == [PROTECT, "release"]
    assert asyncio.get_running_loop().time() == pytest.approx(60 + FAREWELL.total_seconds())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@timeless
async def test_a_stop_amid_the_call_that_protects_releases_what_it_may_have_done() -> None:
    protection = Stuck("protect")
    async with guarded(protection, Work((0.0, 1_000.0))):
        await protection.reached.wait()
    assert protection.asked == [PROTECT, "release"]


@timeless
async def test_the_stop_passes_through_as_a_cancellation() -> None:
    protection = Recorder()
    guard = asyncio.create_task(protected_while_slow(protection, lambda: AFTER * 2, after=AFTER))
    await asyncio.sleep(10)
    guard.cancel()
    with pytest.raises(asyncio.CancelledError):
        await guard
    assert protection.asked == [PROTECT, "release"]


@timeless
async def test_a_refused_release_at_the_stop_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    protection = Recorder(None, Refused("Not this task.", code="TASK_NOT_VALID"))
    await watched(protection, Work((0.0, 1_000.0)), 60)
    assert protection.asked == [PROTECT, "release"]
    assert "Not this task." in caplog.text


@pytest.mark.parametrize("error", [Throttled("Too often."), Unreachable("No answer.")])
def test_a_call_without_effect_is_tried_again_soon(error: CloudError) -> None:
    @timeless
    async def run() -> None:
        protection = Recorder(error, error, None)
        async with guarded(protection, Work((0.0, 1_000.0))):
            await asyncio.sleep(120)
        assert protection.asked == [PROTECT, PROTECT, PROTECT, "release"]
        first, second, third, _ = protection.times
        pause = RETRIED.total_seconds()
        assert pause <= second - first <= pause + LOOK
        assert pause <= third - second <= pause + LOOK

    run()


@timeless
async def test_a_refusal_is_asked_about_again_rarely() -> None:
    protection = Recorder(*[Refused("No.", code="AccessDeniedException")] * 100)
    await watched(protection, Work((0.0, 10_000.0)), 3_600)
    assert set(protection.asked) == {PROTECT}
    assert 2 <= len(protection.calls) <= timedelta(hours=1) / RENEWED


@pytest.mark.parametrize("error", [Refused("No.", code="X"), Throttled("Too often.")])
def test_what_was_never_protected_is_not_released(error: CloudError) -> None:
    @timeless
    async def run() -> None:
        protection = Recorder(error)
        await watched(protection, Work((0.0, 20.0)), 60)
        assert protection.asked == [PROTECT]

    run()


@timeless
async def test_what_may_be_protected_although_no_answer_came_is_released() -> None:
    protection = Recorder(Unreachable("No answer."))
    await watched(protection, Work((0.0, 20.0)), 60)
    assert protection.asked == [PROTECT, "release"]


@timeless
async def test_a_refused_renewal_leaves_a_protection_that_is_released() -> None:
    renewed_at = RENEWED.total_seconds() + AFTER.total_seconds() + 2 * LOOK
    protection = Recorder(None, Refused("No.", code="X"))
    await watched(protection, Work((0.0, renewed_at + 5)), renewed_at + 60)
    assert protection.asked == [PROTECT, PROTECT, "release"]


@timeless
async def test_a_release_that_fails_is_tried_again_until_the_protection_has_ended() -> None:
    protection = Recorder(None, *[Unreachable("No answer.")] * 1_000)
    async with guarded(protection, Work((0.0, 100.0))):
        await asyncio.sleep(10_000)
    assert set(protection.asked[1:]) == {"release"}
    assert len(protection.calls) > 10
    assert protection.times[-1] < protection.times[0] + PROTECTED.total_seconds()


@timeless
async def test_what_is_slow_after_a_release_that_failed_protects_the_task_at_once() -> None:
    protection = Recorder(None, Unreachable("No answer."))
    async with guarded(protection, Work((0.0, 30.0), (20.0, 100.0))):
        await asyncio.sleep(40)
    assert protection.asked == [PROTECT, "release", PROTECT, "release"]
    assert protection.times[2] <= 20 + AFTER.total_seconds() + LOOK


@timeless
async def test_a_release_after_a_new_protection_does_not_wait_for_an_old_failure() -> None:
    protection = Recorder(None, Refused("No.", code="X"))
    await watched(protection, Work((0.0, 30.0), (20.0, 40.0)), 60)
    assert protection.asked == [PROTECT, "release", PROTECT, "release"]
    assert protection.times[3] <= 40 + LOOK


@timeless
async def test_one_cause_is_logged_once_and_another_one_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    denied = Refused("No role.", code="AccessDeniedException")
    protection = Recorder(denied, denied, Throttled("Too often."), denied, denied)
    await watched(protection, Work((0.0, 10_000.0)), 3_000)
    assert len(protection.calls) > 5
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert ["No role." in caplog.text, "Too often." in caplog.text] == [True, True]
