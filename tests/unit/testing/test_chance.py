"""Time and chance that a test decides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from headrace.testing import ManualClock, SeededRandomness, memory_ports


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    start = datetime(2026, 5, 6, tzinfo=UTC)
    clock = ManualClock(start)

    assert clock.now() == clock.now() == start
    assert clock.advance(timedelta(minutes=5)) == start + timedelta(minutes=5)
    assert clock.now() == start + timedelta(minutes=5)


def test_a_manual_clock_does_not_go_back() -> None:
    clock = ManualClock()
    before = clock.now()

    with pytest.raises(ValueError, match="forward"):
        clock.advance(timedelta(seconds=-1))

    assert clock.now() == before


def test_a_manual_clock_tells_who_listens() -> None:
    clock = ManualClock()
    seen: list[datetime] = []
    clock.on_advance(lambda: seen.append(clock.now()))

    moved = clock.advance(timedelta(seconds=1))

    assert seen == [moved]


def test_the_same_seed_draws_the_same() -> None:
    def draws(seed: int) -> list[object]:
        chance = SeededRandomness(seed)
        return [chance.uuid(), chance.uniform(0, 10), chance.uuid()]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_a_drawn_uuid_is_one_of_version_four() -> None:
    assert SeededRandomness().uuid().version == 4


def test_a_cloud_without_a_clock_has_one_of_its_own() -> None:
    one, other = memory_ports(), memory_ports()
    one.clock.advance(timedelta(days=1))

    assert one.ports.clock.now() - other.ports.clock.now() == timedelta(days=1)
