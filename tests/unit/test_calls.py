"""The published cost of a message holds."""

from __future__ import annotations

from benchmarks.calls import CASES, cost_of


async def test_a_message_of_a_full_batch_costs_six_tenths_of_a_call_at_most() -> None:
    cost = await cost_of(CASES[0], 100)
    assert cost.calls <= 0.6
    # The record and two items, each twice for the transaction; and the note that all is out.
    assert cost.write_units == 7


async def test_a_message_that_changes_one_item_costs_five_write_units() -> None:
    cost = await cost_of(CASES[2], 50)
    assert cost.calls <= 0.6
    assert cost.write_units == 5
