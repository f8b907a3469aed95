"""The published cost of a message holds."""

from __future__ import annotations

from benchmarks.calls import CASES, cost_of


async def test_a_reservation_costs_seven_tenths_of_a_call_and_the_one_for_its_schedule() -> None:
    cost = await cost_of(CASES[1], 100)
    # Scheduler takes one schedule at a time.
    assert cost.meter.calls["CreateSchedule"] == 100
    assert cost.calls <= 1.7
    # The record and three items, each twice for the transaction; and the note that all is out.
    assert cost.write_units == 9


async def test_confirming_an_order_costs_six_tenths_of_a_call_and_five_write_units() -> None:
    cost = await cost_of(CASES[0], 50)
    assert cost.calls <= 0.6
    assert cost.write_units == 5
