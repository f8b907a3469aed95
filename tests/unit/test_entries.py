"""Of a batch call that says what failed, every entry has its own answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from headrace.entries import answers
from headrace.errors import CloudError, NotProvisioned, Refused, Throttled, Unreachable
from headrace.ports import EntryFailure


class Call:
    """Remembers what it was given, and answers as it is told."""

    def __init__(self, answer: Callable[[Sequence[str]], list[EntryFailure]]) -> None:
        self.answer = answer
        self.given: list[list[str]] = []

    async def __call__(self, entries: Sequence[str]) -> list[EntryFailure]:
        self.given.append(list(entries))
        return self.answer(entries)


def takes_all(entries: Sequence[str]) -> list[EntryFailure]:
    return []


def raises(error: Exception) -> Callable[[Sequence[str]], list[EntryFailure]]:
    def answer(entries: Sequence[str]) -> list[EntryFailure]:
        raise error

    return answer


async def test_what_was_taken_has_nothing_against_it() -> None:
    call = Call(takes_all)
    assert await answers(["a", "b", "c"], call) == [None, None, None]
    assert call.given == [["a", "b", "c"]]


async def test_a_failed_entry_has_its_error_and_the_others_have_none() -> None:
    call = Call(lambda entries: [EntryFailure(1, "InternalError", "try again")])
    first, second, third = await answers(["a", "b", "c"], call)
    assert (first, third) == (None, None)
    assert isinstance(second, Throttled)
    assert second.code == "InternalError"
    assert str(second) == "The entry was refused (InternalError: try again)."


async def test_an_entry_that_failed_for_good_is_not_worth_another_try() -> None:
    call = Call(lambda entries: [EntryFailure(0, "Invalid", "no", retryable=False)])
    (error,) = await answers(["a"], call)
    assert isinstance(error, Refused)
    assert not error.retryable


async def test_a_call_that_is_refused_as_a_whole_is_made_for_each_entry_by_itself() -> None:
    def answer(entries: Sequence[str]) -> list[EntryFailure]:
        if "bad" in entries:
            raise Refused("too long")
        return []

    call = Call(answer)
    good, bad, other = await answers(["good", "bad", "other"], call)
    assert (good, other) == (None, None)
    assert isinstance(bad, Refused)
    assert str(bad) == "too long"
    assert call.given == [["good", "bad", "other"], ["good"], ["bad"], ["other"]]


async def test_alone_an_entry_may_fail_otherwise_and_costs_the_others_nothing() -> None:
    def answer(entries: Sequence[str]) -> list[EntryFailure]:
        if len(entries) > 1:
            raise Refused("too long")
        if entries == ["b"]:
            raise Unreachable("no answer")
        return [EntryFailure(0, "Busy")] if entries == ["c"] else []

    given = await answers(["a", "b", "c"], Call(answer))
    assert [type(each) for each in given] == [type(None), Unreachable, Throttled]


@pytest.mark.parametrize("error", [Throttled(), Unreachable(), NotProvisioned()], ids=repr)
async def test_another_failure_of_the_call_is_that_of_all_entries(error: CloudError) -> None:
    call = Call(raises(error))
    with pytest.raises(type(error)):
        await answers(["a", "b"], call)
    assert call.given == [["a", "b"]]


async def test_a_call_for_one_entry_that_fails_is_the_answer_to_it() -> None:
    for error in (Refused("no"), Unreachable("no answer")):
        call = Call(raises(error))
        assert await answers(["a"], call) == [error]
        assert call.given == [["a"]]


async def test_a_bug_is_nobodys_answer() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        await answers(["a"], Call(raises(RuntimeError("a bug"))))
