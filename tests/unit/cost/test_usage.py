"""What AWS bills for calls and bytes, by its own rules."""

from __future__ import annotations

import pytest

from headrace.cost.usage import (
    QueueKind,
    chunks,
    event_bytes,
    kind_of,
    message_bytes,
    units,
)
from headrace.ports import Attribute, BusEntry, QueueEntry
from headrace.testing import ManualClock


@pytest.mark.parametrize(
    ("size", "billed"), [(0, 1), (1, 1), (65_536, 1), (65_537, 2), (262_144, 4), (1_048_576, 16)]
)
def test_every_64_kb_that_are_begun_are_billed(size: int, billed: int) -> None:
    assert chunks(size) == billed


@pytest.mark.parametrize(("size", "of", "billed"), [(0, 1024, 1), (1024, 1024, 1), (1025, 1024, 2)])
def test_an_item_is_rounded_up_and_one_that_is_not_there_counts(
    size: int, of: int, billed: int
) -> None:
    assert units(size, of) == billed


def test_a_message_counts_in_utf_8_with_the_names_and_types_of_its_attributes() -> None:
    attributes = {"é": Attribute("1", "Number"), "b": Attribute(b"123", "Binary")}
    # "ü" has 2 bytes; the first attribute 2 + 6 + 1, the second 1 + 6 + 3.
    assert message_bytes(QueueEntry("ü", attributes=attributes)) == 2 + 9 + 10


def test_the_time_of_an_event_counts_14_bytes() -> None:
    bare = BusEntry("shop", "Placed", "{}")
    timed = BusEntry("shop", "Placed", "{}", time=ManualClock().now())
    assert (event_bytes(bare), event_bytes(timed)) == (12, 26)


def test_a_group_makes_a_standard_queue_a_fair_one_and_a_fifo_queue_stays_fifo() -> None:
    grouped = [QueueEntry("{}"), QueueEntry("{}", group_id="g")]
    assert kind_of("orders", [QueueEntry("{}")]) is QueueKind.STANDARD
    assert kind_of("orders", grouped) is QueueKind.FAIR
    assert kind_of("orders.fifo", grouped) is QueueKind.FIFO
