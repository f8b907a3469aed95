"""What the log shows of a handler that raises: its own code, for a person; all, for a program."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headrace import Event, Service
from headrace.observe.logs import JsonFormatter, TextFormatter
from headrace.outcome import Retry
from headrace.pipeline import running
from headrace.testing import delivery_of
from headrace.testing.memory import memory_ports
from headrace.text import shown
from headrace.topology.derive import topology


class BellRung(Event, source="tower.tracebacks"):
    """What every handler here takes."""


def swing() -> None:
    raise ValueError("The rope is torn.")


async def raised_by(handler: Callable[..., Any]) -> logging.LogRecord:
    """A record of the log with what this handler raises."""
    tower = Service("tower")
    tower.on(BellRung, name="ring")(handler)
    cloud = memory_ports()
    cloud.provision(topology(tower))
    async with running(tower, cloud.ports) as pipeline:
        outcome = await pipeline.consume(delivery_of(BellRung(), "tower"))
    assert isinstance(outcome, Retry)
    return record_of(outcome.error)


def record_of(error: BaseException | None) -> logging.LogRecord:
    assert error is not None
    told = (type(error), error, error.__traceback__)
    return logging.LogRecord("tower", logging.WARNING, "tower.py", 1, "It failed.", (), told)


async def ring(event: BellRung) -> None:
    swing()


def ring_plainly(event: BellRung) -> None:
    swing()


async def ring_again(event: BellRung) -> None:
    try:
        swing()
    except ValueError as error:
        raise KeyError("bell") from error


@pytest.mark.parametrize("handler", [ring, ring_plainly])
async def test_the_traceback_of_a_handler_shows_its_own_code_and_how_much_is_left_out(
    handler: Callable[[BellRung], Awaitable[None] | None],
) -> None:
    text = TextFormatter().format(await raised_by(handler))

    places = [line.split(", in ")[1] for line in text.splitlines() if line.startswith("  File ")]
    assert places == [handler.__name__, "swing"]
    assert text.splitlines()[-2] == "ValueError: The rope is torn."
    assert text.splitlines()[-1].endswith("frames of headrace left out; JSON logs have them.)")


async def test_json_logs_have_the_whole_traceback() -> None:
    line = json.loads(JsonFormatter().format(await raised_by(ring)))

    assert "pipeline.py" in line["exception"]["stack"]
    assert "left out" not in line["exception"]["stack"]


async def test_what_caused_an_error_is_shown_too() -> None:
    text = TextFormatter().format(await raised_by(ring_again))

    assert text.index("The rope is torn.") < text.index("the direct cause") < text.index("KeyError")
    assert "pipeline.py" not in text


def test_an_error_of_headrace_alone_is_shown_whole() -> None:
    with pytest.raises(AttributeError) as caught:
        shown(None)  # type: ignore[arg-type]  # something that fails in headrace
    trace = caught.value.__traceback__
    assert trace is not None
    caught.value.__traceback__ = trace.tb_next

    text = TextFormatter().format(record_of(caught.value))

    assert "text.py" in text
    assert "left out" not in text
