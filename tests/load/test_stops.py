"""`make stops`, for a few seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.stop import Trial
from tests.load.stops import stops

pytestmark = pytest.mark.emulator


async def test_a_worker_that_is_stopped_under_load_hides_nothing_and_has_handled_nothing_twice(
    ministack_url: str, tmp_path: Path
) -> None:
    patient = Trial(0, tmp_path, slowest=0.5)
    hasty = Trial(1, tmp_path, slowest=0.5, outlasts=True)

    done = await stops([patient, hasty], together=2, url=ministack_url)

    assert [stop.wrong for stop in done] == [[], []]
    assert [stop.cut_short > 0 for stop in done] == [False, True]
