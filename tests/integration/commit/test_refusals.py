"""Calls that AWS refuses for a while, on the wire: what was told takes effect once all the same."""

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
    HIDE,
    READ,
    RECEIVE,
    RECORD,
    Step,
    every_step,
    faults_in,
    first,
    told_of,
    until_it_comes_again,
    until_settled,
)

pytestmark = [pytest.mark.emulator, pytest.mark.dynoxide]


@every_step
async def test_a_step_that_is_refused_twice_is_done_at_the_third_time(
    mill: EmulatedMill, step: Step
) -> None:
    await told_of(mill, step.told)
    mill.proxy.decide = first(2, step, Fault.UNAVAILABLE)

    await mill.work()

    assert faults_in(mill, step) == 2
    await mill.require_effects_once()


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (COMMIT, Fault.UNAVAILABLE),
        (COMMIT, Fault.THROTTLE),
        (RECORD, Fault.UNAVAILABLE),
        (RECORD, Fault.THROTTLE),
        (EVENTS, Fault.THROTTLE),
        (COMMANDS, Fault.THROTTLE),
        (READ, Fault.THROTTLE),
    ],
    ids=str,
)
async def test_a_delivery_that_is_refused_a_step_throughout_comes_again_until_it_is_not(
    mill: EmulatedMill, step: Step, fault: Fault
) -> None:
    await told_of(mill, step.told)
    mill.proxy.decide = until_settled(mill, step, fault, after=RECEIVE)

    await mill.work(attempts=1)

    assert faults_in(mill, step) >= 1
    assert mill.watch.kinds() == {Retry, Ack}
    await mill.require_effects_once()


async def test_a_message_whose_delete_is_refused_comes_again_without_a_second_effect(
    mill: EmulatedMill,
) -> None:
    await told_of(mill, SackWeighed)
    mill.proxy.decide = until_it_comes_again(mill, DELETE, Fault.THROTTLE)

    await mill.work(attempts=1)

    assert faults_in(mill, DELETE) >= 1
    assert Ack(duplicate=True) in [outcome for _, outcome in mill.watch.outcomes]
    await mill.require_effects_once()


async def test_a_message_that_cannot_be_hidden_comes_again_when_its_visibility_ends(
    mill: EmulatedMill,
) -> None:
    await told_of(mill, SackWeighed)
    events = until_settled(mill, EVENTS, Fault.UNAVAILABLE)
    hiding = until_it_comes_again(mill, HIDE, Fault.UNAVAILABLE)
    mill.proxy.decide = lambda operation: events(operation) or hiding(operation)

    await mill.work(attempts=1)

    assert faults_in(mill, HIDE) >= 1
    assert mill.watch.kinds() == {Retry, Ack}
    await mill.require_effects_once()
