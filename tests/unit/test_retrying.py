"""Calls that are made again: when, how often, and what is raised in the end."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from headrace.retrying import after, retried


class Failing:
    """A call that fails with these errors, one after the other, and then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.waits: list[tuple[int, BaseException | None]] = []

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    def wait(self, attempt: int, error: BaseException | None) -> float:
        self.waits.append((attempt, error))
        return 0

    async def retried(self, attempts: int = 3) -> str:
        return await retried(self, again=_passes, stop=after(attempts), wait=self.wait)


def _passes(error: BaseException) -> bool:
    return isinstance(error, ConnectionError)


async def test_a_call_that_succeeds_is_made_once() -> None:
    call = Failing()
    assert await call.retried() == "answer"
    assert (call.calls, call.waits) == (1, [])


async def test_a_call_is_made_again_until_it_succeeds() -> None:
    call = Failing(ConnectionError(), ConnectionError())
    assert await call.retried() == "answer"
    assert call.calls == 3


async def test_how_long_to_wait_is_asked_with_the_number_of_attempts_and_the_last_error() -> None:
    errors = [ConnectionError("first"), ConnectionError("second")]
    call = Failing(*errors)
    await call.retried()
    assert call.waits == [(1, errors[0]), (2, errors[1])]


async def test_after_the_last_attempt_its_error_is_raised_as_it_is() -> None:
    errors = [ConnectionError("first"), ConnectionError("second")]
    call = Failing(*errors, ConnectionError("third"))
    with pytest.raises(ConnectionError) as raised:
        await call.retried(attempts=2)
    assert raised.value is errors[1]
    assert raised.value.__cause__ is raised.value.__context__ is None
    assert call.calls == 2


@pytest.mark.parametrize("before", [(), (ConnectionError(),)])
async def test_another_error_ends_it_at_once(before: tuple[Exception, ...]) -> None:
    call = Failing(*before, ZeroDivisionError(), ConnectionError())
    with pytest.raises(ZeroDivisionError) as raised:
        await call.retried()
    assert raised.value.__context__ is None
    assert call.calls == len(before) + 1


@pytest.mark.parametrize("before", [(), (ConnectionError(),)])
async def test_whoever_is_cancelled_is_not_tried_again(before: tuple[Exception, ...]) -> None:
    call = Failing(*before, asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await call.retried()
    assert call.calls == len(before) + 1


def test_what_succeeds_at_once_never_needs_tenacity() -> None:
    """Its import is a part of every cold start."""
    ends = "import sys, headrace.hosts.lambda_; sys.exit('tenacity' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ends], check=False).returncode == 0


async def test_where_tenacity_cannot_be_imported_the_error_is_that_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tenacity", None)
    call = Failing(ConnectionError("first"))
    with pytest.raises(ConnectionError, match="first"):
        await call.retried()
