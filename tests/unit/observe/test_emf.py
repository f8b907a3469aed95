"""Metrics in the embedded metric format: what is counted, and how it is written."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from headrace import Ack, DeadLetter, Event, Outcome, Retry
from headrace.context import bind_delivery, identify
from headrace.envelope import Outgoing, root_metadata
from headrace.observe.emf import EmfMetrics
from headrace.observer import Handled, SagaChange
from headrace.testing import ManualClock, delivery_of
from tests.unit.observe.emf_schema import problems


class LampLit(Event, source="shop.emf"):
    lamp: str


LIT = LampLit(lamp="L1")
DELIVERY = delivery_of(LIT, "lights")
OUT = Outgoing("e-2", "LampLit", "{}", ManualClock().now(), source="shop.emf")


class Page:
    """The lines that were written, and what they come to in CloudWatch."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.lines: list[str] = []
        self.metrics = EmfMetrics(write=self.lines.append, clock=self.clock, **options)

    def flushed(self) -> list[dict[str, Any]]:
        """What the next flush writes."""
        self.lines.clear()
        self.metrics.flush()
        assert [problem for line in self.lines for problem in problems(line)] == []
        return [json.loads(line) for line in self.lines]

    def values(self) -> dict[tuple[str, ...], dict[str, list[float]]]:
        return values_of(self.flushed())

    def handled(self, outcome: Outcome, **options: Any) -> None:
        given = {"handler": "light", "event": "LampLit", "seconds": 0.01, **options}
        self.metrics.handled("lights", Handled(outcome=outcome, **given))

    def settled(self, outcome: Outcome, *, is_decoded: bool = True) -> None:
        with bind_delivery("lights", DELIVERY):
            if is_decoded:
                identify(root_metadata(LIT, id="e-1", now=self.clock.now()), None)
            self.metrics.settled("lights", DELIVERY, outcome)


def values_of(
    documents: Iterable[dict[str, Any]],
) -> dict[tuple[str, ...], dict[str, list[float]]]:
    """By the values of the dimensions, as CloudWatch makes a metric of each set of them."""
    found: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for document in documents:
        for directive in document["_aws"]["CloudWatchMetrics"]:
            for dimensions in directive["Dimensions"]:
                metrics = found[tuple(document[name] for name in dimensions)]
                for metric in directive["Metrics"]:
                    metrics[metric["Name"]] += as_list(document[metric["Name"]])
    return {dimensions: dict(metrics) for dimensions, metrics in found.items()}


def as_list(target: float | Sequence[float]) -> list[float]:
    return [target] if isinstance(target, (int, float)) else list(target)


HANDLER = ("lights", "light", "LampLit")
SERVICE = ("lights",)


def test_nothing_is_written_before_a_flush_and_nothing_if_nothing_happened() -> None:
    page = Page()
    assert page.flushed() == []
    page.metrics.received("lights", DELIVERY)
    page.handled(Ack())
    page.metrics.committed("lights", 3)
    page.metrics.sent("lights", OUT)
    page.settled(Ack())
    assert page.lines == []
    assert len(page.flushed()) == 2
    assert page.flushed() == []


def test_what_a_handler_did_counts_for_it_and_for_its_service() -> None:
    page = Page()
    page.handled(Ack(), seconds=0.0125, age=timedelta(seconds=2), conflicts=3)
    values = page.values()
    assert values[HANDLER] == {
        "Handled": [1],
        "Conflicts": [3],
        "HandlingTime": [12.5],
        "MessageAge": [2000],
    }
    assert values[SERVICE] == values[HANDLER]


def test_handlers_events_and_services_are_kept_apart() -> None:
    page = Page()
    page.handled(Ack())
    page.handled(Ack(), handler="dim")
    page.handled(Ack(), event="LampBroken")
    page.metrics.handled("repairs", Handled("light", "LampLit", Ack(), 0.01))

    handled = {dimensions: found["Handled"] for dimensions, found in page.values().items()}
    assert handled == {
        HANDLER: [1],
        ("lights", "dim", "LampLit"): [1],
        ("lights", "light", "LampBroken"): [1],
        ("repairs", "light", "LampLit"): [1],
        ("lights",): [1, 1, 1],
        ("repairs",): [1],
    }


@pytest.mark.parametrize(
    ("outcome", "name"),
    [(Ack(), "Handled"), (Ack(duplicate=True), "Duplicates"), (Ack(parked=True), "Parked")],
)
def test_what_a_handler_came_to_counts_once(outcome: Outcome, name: str) -> None:
    page = Page()
    page.handled(outcome)
    page.settled(outcome)
    assert page.values()[HANDLER].keys() == {name, "HandlingTime"}


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        (Retry("not yet", handler="lights.light"), "Retried"),
        (DeadLetter("never", handler="lights.light"), "DeadLettered"),
    ],
)
def test_a_failure_counts_when_its_fate_was_carried_out(outcome: Outcome, name: str) -> None:
    page = Page()
    page.handled(outcome)
    assert page.values()[HANDLER].keys() == {"HandlingTime"}
    page.settled(outcome)
    assert page.values() == {HANDLER: {name: [1]}, SERVICE: {name: [1]}}


def test_a_dead_letter_that_could_not_be_written_is_a_retry() -> None:
    page = Page()
    page.handled(DeadLetter("never", handler="lights.light"))
    page.settled(Retry("its copy was not written", handler="lights.light"))
    values = page.values()[HANDLER]
    assert ("DeadLettered" in values, values["Retried"]) == (False, [1])


def test_what_no_handler_saw_counts_for_the_service_alone() -> None:
    page = Page()
    page.settled(DeadLetter("not JSON"), is_decoded=False)
    page.settled(Retry("its visibility was lost"))
    assert page.values() == {SERVICE: {"DeadLettered": [1], "Retried": [1]}}


def test_a_message_that_two_handlers_take_is_received_once_and_handled_twice() -> None:
    page = Page()
    page.metrics.received("lights", DELIVERY)
    page.handled(Ack())
    page.handled(Ack(), handler="dim")
    page.settled(Ack())
    values = page.values()[SERVICE]
    assert (values["Received"], values["Handled"]) == ([1], [1, 1])


def test_the_lag_of_the_outbox_is_from_the_time_of_the_event() -> None:
    page = Page()
    page.clock.advance(timedelta(seconds=1.5))
    page.metrics.sent("lights", OUT)
    assert page.values() == {SERVICE: {"OutboxLag": [1500]}}


def test_each_look_of_a_relay_counts_also_if_it_left_nothing() -> None:
    page = Page()
    page.metrics.swept("lights", timedelta(seconds=90))
    page.metrics.swept("lights", None)
    assert page.values() == {SERVICE: {"OutboxAge": [90_000, 0]}}


def test_what_became_of_sagas_counts_for_each_and_for_their_service() -> None:
    page = Page()
    for status in ("started", "started", "compensating", "compensated", "stuck"):
        page.metrics.saga("lights", SagaChange("renewal", "L1", status, None))
    page.metrics.saga("lights", SagaChange("removal", "L1", "started", None))
    page.metrics.saga("lights", SagaChange("removal", "L1", "completed", None))

    assert page.values() == {
        ("lights", "renewal"): {
            "SagasStarted": [2],
            "SagasCompensated": [1],
            "SagasStuck": [1],
        },
        ("lights", "removal"): {"SagasStarted": [1], "SagasCompleted": [1]},
        SERVICE: {
            "SagasStarted": [2, 1],
            "SagasCompleted": [1],
            "SagasCompensated": [1],
            "SagasStuck": [1],
        },
    }
    assert page.flushed() == []


def test_the_key_of_a_saga_is_in_no_metric() -> None:
    page = Page()
    page.metrics.saga("lights", SagaChange("renewal", "L-4711", "stuck", "of lamp L-4711"))
    (document,) = page.flushed()
    assert "4711" not in json.dumps(document)
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["Service", "Handler"], ["Service"]]


def test_an_event_of_a_clock_that_is_ahead_has_no_lag() -> None:
    page = Page()
    later = page.clock.now() + timedelta(seconds=1)
    page.metrics.sent("lights", Outgoing("e-2", "LampLit", "{}", later, source="shop.emf"))
    assert page.values() == {SERVICE: {"OutboxLag": [0]}}


def test_in_flight_is_what_it_is_at_the_flush_and_what_it_was_at_most() -> None:
    page = Page()
    for _ in range(5):
        page.metrics.received("lights", DELIVERY)
    for _ in range(3):
        page.settled(Ack())
    assert page.values()[SERVICE]["InFlight"] == [2, 5]
    assert page.values()[SERVICE]["InFlight"] == [2, 2]
    for _ in range(2):
        page.settled(Ack())
    assert page.values()[SERVICE]["InFlight"] == [0, 2]
    assert page.flushed() == []


def test_a_metric_with_many_values_is_written_on_several_lines_and_counts_once() -> None:
    page = Page()
    times = [number / 1000 for number in range(250)]
    for seconds in times:
        page.handled(Ack(), seconds=seconds, age=None)
    page.handled(Ack(duplicate=True), seconds=9, age=timedelta(seconds=1))
    for _ in range(101):
        page.metrics.committed("lights", 2)

    documents = page.flushed()
    values = values_of(documents)

    assert len(documents) == 3 + 2
    for dimensions in (HANDLER, SERVICE):
        assert values[dimensions]["HandlingTime"] == [*range(250), 9000]
        assert values[dimensions]["Handled"] == [250]
        assert values[dimensions]["MessageAge"] == [1000]
    assert values[SERVICE]["GroupCommitSize"] == [2] * 101


def test_a_value_of_nothing_counts_as_a_value() -> None:
    page = Page()
    page.handled(Ack(), seconds=0.0, age=timedelta(0))
    values = page.values()[HANDLER]
    assert (values["HandlingTime"], values["MessageAge"]) == ([0], [0])


def test_a_line_has_its_namespace_its_time_and_its_units() -> None:
    page = Page(namespace="shop/staging")
    page.handled(Ack(), age=timedelta(seconds=1))
    (document,) = page.flushed()
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert document["_aws"]["Timestamp"] == page.clock.now().timestamp() * 1000
    assert directive["Namespace"] == "shop/staging"
    assert directive["Dimensions"] == [["Service", "Handler", "Event"], ["Service"]]
    assert directive["Metrics"] == [
        {"Name": "Handled", "Unit": "Count"},
        {"Name": "HandlingTime", "Unit": "Milliseconds"},
        {"Name": "MessageAge", "Unit": "Milliseconds"},
    ]


@pytest.mark.parametrize(
    ("event", "dimension"),
    [
        ("Object Created", "Object Created"),
        ("Lampe gelöscht", "Lampe gel\\xf6scht"),
        (": dark\x00 ", "dark?"),
        ("a\tb", "a?b"),
        (" ", "-"),
        ("x" * 2000, "x" * 1024),
    ],
)
def test_the_name_of_an_event_becomes_what_cloudwatch_takes(event: str, dimension: str) -> None:
    page = Page()
    page.handled(Ack(), event=event)
    (document,) = page.flushed()
    assert document["Event"] == dimension


def test_lines_go_to_stdout_each_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Stdout:
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

        def flush(self) -> None:
            written.append("")

    metrics = EmfMetrics()
    metrics.received("lights", DELIVERY)
    metrics.handled("lights", Handled("light", "LampLit", Ack(), 0.01))
    monkeypatch.setattr("sys.stdout", Stdout())
    metrics.flush()

    assert [problems(line) for line in written if line] == [[], []]
    assert written[-1] == ""


def test_a_line_that_cannot_be_written_is_not_written_with_the_next_ones() -> None:
    lines: list[str] = []

    def write(line: str) -> None:
        if not lines:
            lines.append("lost")
            raise OSError("The pipe is closed.")
        lines.append(line)

    metrics = EmfMetrics(write=write)
    metrics.handled("lights", Handled("light", "LampLit", Ack(), 0.01))
    with pytest.raises(OSError, match="closed"):
        metrics.flush()
    metrics.committed("lights", 1)
    metrics.flush()
    assert [json.loads(line)["GroupCommitSize"] for line in lines[1:]] == [1]
