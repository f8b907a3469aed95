"""The note on a dead letter, as it is written and as it is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from headrace import Event, Service, Transaction
from headrace.dead_letter import (
    FRAMES,
    Note,
    digest,
    frames,
    is_redriven,
    note,
    original_id,
    redrive_note,
)
from headrace.errors import DefinitionError
from headrace.outcome import DeadLetter
from headrace.pipeline import running
from headrace.ports import Attribute, Delivery
from headrace.testing import delivery_of
from headrace.testing.memory import memory_ports
from headrace.topology.derive import topology

SENT = datetime(2026, 1, 1, tzinfo=UTC)
NOW = SENT + timedelta(hours=1)

MESSAGE = Delivery("m-1", "r-1", "{}", "orders", receive_count=3, sent_at=SENT)


def raised(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("Nothing was raised.")


def outer() -> None:
    inner()


def inner() -> None:
    raise ValueError("no")


def deep(levels: int = 30) -> None:
    if levels:
        deep(levels - 1)
    inner()


def letter_of(message: Delivery, error: Exception | None = None) -> Delivery:
    """The copy in the dead-letter queue."""
    outcome = DeadLetter("It is no good.", "orders.place", error, "c-1")
    attribute = note(message, outcome, NOW)
    return Delivery(
        "m-2", "r-2", "{}", "orders-dlq", sent_at=NOW, attributes={"headrace": attribute}
    )


def test_a_note_is_read_as_it_was_written() -> None:
    found = Note.of(letter_of(MESSAGE, raised(outer)))

    assert found is not None
    assert (found.reason, found.handler, found.queue) == (
        "It is no good.",
        "orders.place",
        "orders",
    )
    assert (found.attempts, found.message_id, found.correlation_id) == (3, "m-1", "c-1")
    assert (found.first_time, found.last_time) == (SENT, NOW)
    assert found.error == "ValueError"
    assert found.frames[-2:] == ("test_notes.py:outer", "test_notes.py:inner")
    assert (found.redrive, found.before) == (None, None)


def test_a_note_names_the_innermost_places_only() -> None:
    found = Note.of(letter_of(MESSAGE, raised(deep)))

    assert found is not None
    assert len(found.frames) == FRAMES
    assert found.frames[-1] == "test_notes.py:inner"


def test_a_message_without_a_note_is_not_redriven() -> None:
    assert Note.of(MESSAGE) is None
    assert not is_redriven(MESSAGE)


def test_a_dead_letter_that_sqs_moves_back_is_not_redriven() -> None:
    failed_twice = letter_of(redriven(letter_of(MESSAGE), "run-1"))
    for letter in (letter_of(MESSAGE), failed_twice):
        moved = replace(letter, queue="orders")
        assert not is_redriven(moved)
        found = Note.of(letter_of(moved))
        assert found is not None
        assert (found.message_id, found.redrive) == ("m-1", None)


def test_a_redriven_copy_says_what_it_is_known_by_and_what_was_the_matter() -> None:
    copy = redriven(letter_of(MESSAGE), "run-1")
    found = Note.of(copy)

    assert found is not None
    assert is_redriven(copy)
    assert original_id(copy) == "m-1"
    assert (found.redrive, found.before, found.reason) == ("run-1", "It is no good.", None)
    assert found.first_time == SENT


def test_a_redriven_message_that_fails_again_keeps_its_id_its_run_and_its_age() -> None:
    again = letter_of(redriven(letter_of(MESSAGE), "run-1"))
    found = Note.of(again)

    assert found is not None
    assert (found.message_id, found.redrive, found.first_time) == ("m-1", "run-1", SENT)
    assert (found.reason, found.attempts) == ("It is no good.", 1)


def test_a_letter_without_a_note_is_known_by_its_own_id_when_it_is_redriven() -> None:
    moved = Delivery("m-1", "r-9", "{}", "orders-dlq", sent_at=SENT)

    assert original_id(redriven(moved, "run-1")) == "m-1"


def test_names_that_are_no_utf_8_are_written_all_the_same() -> None:
    code = compile("def fail():\n    raise ValueError\n", "caf\udce9.py", "exec")
    namespace: dict[str, Callable[[], None]] = {}
    exec(code, namespace)

    found = Note.of(letter_of(MESSAGE, raised(namespace["fail"])))

    assert found is not None
    assert found.frames[-1] == "caf\\udce9.py:fail"


def test_a_message_of_which_somebody_else_wrote_the_attribute_is_read_as_far_as_it_goes() -> None:
    for text, expected in (("nonsense", None), ("[]", None), ('{"frames": [1, "a"]}', ("a",))):
        found = Note.of(replace(MESSAGE, attributes={"headrace": Attribute(text)}))
        assert (found.frames if found else None) == expected


def redriven(letter: Delivery, run: str) -> Delivery:
    """The copy that a redrive sends, as it comes to a worker."""
    attribute = redrive_note(letter, run)
    assert json.loads(attribute.value)["redrive"] == run
    return Delivery("m-3", "r-3", "{}", "orders", sent_at=NOW, attributes={"headrace": attribute})


class PlateStamped(Event, source="press.notes"):
    plate: str


@pytest.mark.parametrize("is_plain", [False, True])
async def test_the_places_begin_where_the_handler_is_called(is_plain: bool) -> None:
    press = Service("press", table=None)

    async def stamp(event: PlateStamped) -> None:
        outer()

    def stamp_plainly(event: PlateStamped) -> None:
        outer()

    press.on(PlateStamped, idempotent=True)(stamp_plainly if is_plain else stamp)
    delivery = delivery_of(PlateStamped(plate="A"), "press", receive_count=9)
    async with running(press, memory_ports().ports) as pipeline:
        outcome = await pipeline.consume(delivery)

    assert isinstance(outcome, DeadLetter)
    assert outcome.error is not None
    name = "stamp_plainly" if is_plain else "stamp"
    assert frames(outcome.error) == [f"test_notes.py:{f}" for f in (name, "outer", "inner")]


class PlateShipped(Event, source="press.notes"):
    plate: str


async def fails_with(press: Service) -> Exception:
    """What the one delivery of this service is given up with."""
    cloud = memory_ports()
    cloud.provision(topology(press))
    delivery = delivery_of(PlateStamped(plate="A"), "press", receive_count=9)
    async with running(press, cloud.ports) as pipeline:
        outcome = await pipeline.consume(delivery)
    assert isinstance(outcome, DeadLetter)
    assert isinstance(outcome.error, Exception)
    return outcome.error


async def test_what_fails_after_the_handler_has_no_place_in_its_code() -> None:
    press = Service("press")

    @press.on(PlateStamped)
    async def stamp(event: PlateStamped, tx: Transaction) -> None:
        tx.publish(PlateShipped(plate=event.plate))

    error = await fails_with(press)

    assert "without declaring it" in str(error)
    assert frames(error) == []
    assert digest(error) == digest(DefinitionError("raised anywhere"))


async def test_what_a_handler_returns_wrongly_has_no_place_in_its_code() -> None:
    press = Service("press")

    @press.on(PlateStamped)
    async def stamp(event: PlateStamped) -> None:
        return "stamped"  # type: ignore[return-value]  # what is not checked for types

    assert frames(await fails_with(press)) == []


async def test_what_a_task_of_the_handler_raises_in_a_group_keeps_its_places() -> None:
    press = Service("press")

    async def beside() -> None:
        outer()

    @press.on(PlateStamped)
    async def stamp(event: PlateStamped) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(beside())

    error = await fails_with(press)

    assert frames(error) == [f"test_notes.py:{f}" for f in ("beside", "outer", "inner")]
