"""`make bad-one`, for a moment."""

from __future__ import annotations

from tests.load.bad_one import in_memory


async def test_of_ten_messages_only_the_bad_one_comes_again_or_is_a_dead_letter() -> None:
    outcome = await in_memory(messages=200, seed=1)

    assert outcome.findings == []
    assert (outcome.bad, outcome.dead_letters) == (20, 20)
    assert (outcome.good_redelivered, outcome.lost) == (0, 0)
