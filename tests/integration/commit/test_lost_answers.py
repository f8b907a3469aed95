"""Answers of AWS that are lost or too late: what was told takes effect once, and gets out.

The faults happen on the wire, below the AWS clients: their own retries are part of it.
"""

from __future__ import annotations

import pytest

from headrace import Ack, Retry
from tests.integration.commit.emulated_mill import EmulatedMill
from tests.integration.commit.mill import SackWeighed
from tests.integration.commit.proxy import Fault
from tests.integration.commit.steps import (
    COMMANDS,
    COMMIT,
    DELETE,
    EVENTS,
    MARK,
    RECORD,
    STORE,
    Step,
    every_step,
    faults_in,
    first,
    told_of,
    until_it_comes_again,
    until_settled,
)

pytestmark = [pytest.mark.emulator, pytest.mark.dynoxide]

lost = pytest.mark.parametrize("fault", [Fault.DROP, Fault.HOLD], ids=["dropped", "late"])


@every_step
@lost
async def test_an_answer_that_is_lost_once_is_asked_for_again(
    mill: EmulatedMill, step: Step, fault: Fault
) -> None:
    await told_of(mill, step.told)
    mill.proxy.decide = first(1, step, fault)

    await mill.work()

    assert faults_in(mill, step) == 1
    assert mill.watch.kinds() == {Ack}
    await mill.require_effects_once()


@pytest.mark.parametrize("step", [COMMIT, RECORD], ids=str)
@lost
async def test_a_step_none_of_whose_answers_arrive_in_one_delivery_has_taken_place(
    mill: EmulatedMill, step: Step, fault: Fault
) -> None:
    await told_of(mill, step.told)
    mill.proxy.decide = until_settled(mill, step, fault)

    # Waiting for what is late takes its time, so there it is one attempt for each call.
    await mill.work(attempts=1 if fault is Fault.HOLD else None)

    assert faults_in(mill, step) >= (1 if fault is Fault.HOLD else 3)
    await mill.require_effects_once()


@lost
async def test_a_delete_none_of_whose_answers_arrive_has_taken_place(
    mill: EmulatedMill, fault: Fault
) -> None:
    await told_of(mill, SackWeighed)
    mill.proxy.decide = until_it_comes_again(mill, DELETE, fault)

    await mill.work(attempts=1)

    assert faults_in(mill, DELETE) >= 1
    assert mill.watch.kinds() == {Ack}
    await mill.require_effects_once()


async def test_a_done_mark_none_of_whose_answers_arrive_holds_nothing_up(
    mill: EmulatedMill,
) -> None:
    """Nobody waits for it, so it does not matter when the delivery is over."""
    await told_of(mill, SackWeighed)
    mill.proxy.decide = first(3, MARK, Fault.DROP)

    await mill.work()

    assert faults_in(mill, MARK) == 3
    await mill.require_effects_once()


@pytest.mark.parametrize("step", [EVENTS, COMMANDS, STORE], ids=str)
@lost
async def test_a_delivery_that_hears_nothing_of_what_it_sends_comes_again_until_it_does(
    mill: EmulatedMill, step: Step, fault: Fault
) -> None:
    await told_of(mill, step.told)
    mill.proxy.decide = until_settled(mill, step, fault)

    # One attempt for each call: the retries of the AWS clients are the subject above.
    await mill.work(attempts=1)

    assert faults_in(mill, step) >= 2
    assert mill.watch.kinds() == {Retry, Ack}
    await mill.require_effects_once()
