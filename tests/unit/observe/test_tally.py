"""The last things that happened, for whoever sits in front of it."""

from __future__ import annotations

from headrace.observe.tally import Tally
from headrace.observer import SagaChange


def test_what_a_saga_came_to_is_among_the_last_things() -> None:
    tally = Tally()
    tally.saga("movers", SagaChange("removal", "P1", "started", None))
    tally.saga("movers", SagaChange("removal", "P1", "stuck", "the crane is jammed"))

    assert list(tally.recent) == [
        "movers: removal P1 is started",
        "movers: removal P1 is stuck: the crane is jammed",
    ]
