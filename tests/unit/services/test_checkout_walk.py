"""Every way that a checkout can take, and what is seen when it is not as it should be."""

from __future__ import annotations

from dataclasses import replace

from headrace.saga.definition import Definition, Step, definition_of
from headrace.saga.explore import explore
from services.order.saga import Checkout

CHECKOUT = definition_of(Checkout)


def with_steps(steps: dict[str, Step]) -> Definition:
    """A checkout of other steps; an answer to an undo that is gone is gone as well."""
    answers = {
        cls: (steps[step.name], undo)
        for cls, (step, undo) in CHECKOUT.answers.items()
        if undo is None or steps[step.name].reverse is not None
    }
    return replace(CHECKOUT, steps=steps, answers=answers)


def test_every_way_of_a_checkout_ends_well() -> None:
    walked = explore(Checkout)
    assert walked.problems == ()
    assert walked.states > 1000


def test_a_checkout_without_its_release_is_found_with_the_way_to_it() -> None:
    careless = {**CHECKOUT.steps, "reserve": replace(CHECKOUT.steps["reserve"], reverse=None)}
    problem = explore(with_steps(careless)).problems[0]
    assert "reserve" in problem.what
    assert any("StockReserved" in each for each in problem.path)


def test_a_checkout_that_waits_for_ever_is_found_with_the_way_to_it() -> None:
    patient = {name: replace(step, timeout=None) for name, step in CHECKOUT.steps.items()}
    problem = explore(replace(with_steps(patient), deadline=None)).problems[0]
    assert "does not end" in problem.what
    assert problem.path
