"""`make fifo`, for a moment."""

from __future__ import annotations

import logging

import pytest

from headrace.system import SystemClock
from headrace.testing import memory_ports
from headrace.topology.derive import topology
from tests.load.common import BRIEF, emulated
from tests.load.fifo import Load, Run, by_worker
from tests.load.lanes import Order

LOAD = Load(messages=100, groups=10, seed=1)
KEPT = Order(out_of_order=0, twice=0, missing=0)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "headrace.settle")


async def test_messages_that_fail_at_random_keep_the_order_of_their_group_in_memory() -> None:
    run = Run("lanes", LOAD, by_worker(BRIEF))
    cloud = memory_ports(clock=SystemClock())
    cloud.provision(topology(run.service))

    assert (await run.result(cloud.ports)).order == KEPT


@pytest.mark.emulator
async def test_messages_that_fail_at_random_keep_the_order_of_their_group_on_the_emulator(
    ministack_url: str,
) -> None:
    run = Run("lanes", LOAD, by_worker(BRIEF))
    async with emulated(run.service, url=ministack_url) as on:
        assert (await run.result(on.ports)).order == KEPT
