"""`make moving`, for a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.move import moved
from tests.load.two_hosts import OnLambda, OnWorker

pytestmark = [pytest.mark.emulator, pytest.mark.slow]


async def test_a_service_that_moves_between_its_hosts_under_load_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    ended = await moved(orders=40, moves=2, folder=tmp_path, seed=1, limit=120)

    assert ended.wrong == []
    there, back = ended.moves
    assert (there.source, there.target) == (back.target, back.source) == ("lambda", "worker")
    assert all(move.alone and all(move.together.values()) for move in ended.moves)
    assert there.cut_short > 0
    assert ended.witness.handled.keys() == {OnLambda.name, OnWorker.name}
