"""A consumer ends at any await between decode and delete; the next one finishes what it began.

One effect, each event and command out at least once and under one id, the message gone: whatever
went wrong besides. On AWS in memory, in every scenario.
"""

from __future__ import annotations

from concurrent.futures import Executor

import pytest

from tests.crash import memory
from tests.crash.memory import End
from tests.crash.scenarios import SCENARIOS


@pytest.mark.parametrize("end", End, ids=lambda end: end.name.lower())
@pytest.mark.parametrize("scenario", [scenario.name for scenario in SCENARIOS])
def test_wherever_a_consumer_ends_there_is_one_effect_and_every_event_is_out_under_one_id(
    scenario: str, end: End, instrumented: Executor
) -> None:
    moments, wrong = instrumented.submit(memory.ended_everywhere, scenario, end).result()
    assert wrong == []
    # It was started, has called, and was closed: there is no life without a moment.
    assert moments > 2
