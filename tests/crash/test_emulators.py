"""A real consumer is killed with SIGKILL, at every await, on a real DynamoDB emulator."""

from __future__ import annotations

from concurrent.futures import Executor

import pytest

from tests.crash.emulators import emulators
from tests.crash.scenarios import SCENARIOS, Scenario

pytestmark = [pytest.mark.emulator, pytest.mark.dynoxide]


@pytest.mark.parametrize(
    "scenario", [each for each in SCENARIOS if each.on_emulators], ids=lambda each: each.name
)
async def test_a_process_killed_at_any_await_leaves_one_effect_and_every_event_out_under_one_id(
    scenario: Scenario, instrumented: Executor, ministack_url: str, dynoxide_url: str
) -> None:
    async with emulators(ministack_url, dynoxide_url, instrumented) as world:
        moments, wrong = await world.kill_everywhere(scenario)
    assert wrong == []
    assert moments > 0
