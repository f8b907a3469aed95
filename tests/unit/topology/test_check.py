"""What `check` finds, and that it finds nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from pydantic import ConfigDict

from headrace import Command, Event, Policy, QueueSettings, Service, Transaction, one_of
from headrace.topology.check import Finding, Severity, check


class Sown(Event, source="check.field"):
    plant: str


class Grown(Event, source="check.field"):
    plant: str


class Harvested(Event, source="check.field", version=3):
    plant: str


class Rained(Event, source="aws.weather", name="Check Rain", native=True):
    litres: int


class Water(Command, owner="garden"):
    plant: str


def complete(
    *,
    queues: QueueSettings | None = None,
    policy: Policy | None = None,
    timeout: timedelta | None = None,
    table: str = "field",
    bus: str = "default",
) -> tuple[Service, Service]:
    """Two services that talk to each other and are in order."""
    field = Service("field", queues=queues, policy=policy, table=table, bus=bus)
    garden = Service("garden", bus=bus)

    @field.on(Sown, timeout=timeout)
    async def grow(event: Sown, tx: Transaction) -> Grown | None: ...

    @garden.on(Grown)
    async def sow(event: Grown) -> Sown | None: ...

    return field, garden


def found(*services: Service) -> list[str]:
    return [str(finding) for finding in check(*services)]


def only(*services: Service) -> Finding:
    (finding,) = check(*services)
    return finding


def test_services_that_are_in_order_have_no_findings() -> None:
    assert check(*complete()) == []


def test_the_same_service_twice_is_one() -> None:
    field, garden = complete()

    assert check(field, garden, field) == []


# --- one service -----------------------------------------------------------------------


def test_a_handler_that_needs_a_table_where_there_is_none_is_an_error() -> None:
    field = Service("field", table=None)

    @field.on(Rained)
    async def soak(event: Rained) -> None: ...

    finding = only(field)
    assert finding.severity is Severity.ERROR
    assert "soak needs one" in finding.sentence


def test_an_idempotent_handler_needs_no_table() -> None:
    field = Service("field", table=None)

    @field.on(Rained, idempotent=True)
    async def soak(event: Rained) -> None: ...

    assert check(field) == []


@pytest.mark.parametrize(
    ("timeout", "severity", "said"),
    [
        (timedelta(seconds=60), "error", "raise visibility to 6 min"),
        (timedelta(seconds=20), "warning", "6 times that, 2 min"),
    ],
)
def test_a_visibility_too_short_for_the_timeout_is_found(
    timeout: timedelta, severity: str, said: str
) -> None:
    finding = only(*complete(timeout=timeout))

    assert finding.severity == severity
    assert finding.subject == "field.grow"
    assert said in finding.sentence


def test_a_visibility_of_six_timeouts_is_enough() -> None:
    assert check(*complete(timeout=timedelta(seconds=10))) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (QueueSettings(dead_letter_retention=timedelta(days=4)), "dead_letter_retention longer"),
        (QueueSettings(visibility=timedelta(hours=13)), "0 to 12 h"),
        (QueueSettings(retention=timedelta(seconds=5)), "60 s to 14 days"),
        (QueueSettings(dead_letter_retention=timedelta(days=15)), "60 s to 14 days"),
        (QueueSettings(max_receive_count=5), "Raise max_receive_count above attempts"),
    ],
)
def test_settings_that_lose_messages_or_that_sqs_refuses_are_errors(
    settings: QueueSettings, said: str
) -> None:
    finding = only(*complete(queues=settings))

    assert finding.severity is Severity.ERROR
    assert said in finding.sentence


def test_few_receives_are_a_warning() -> None:
    settings, policy = QueueSettings(max_receive_count=4), Policy(attempts=3)

    finding = only(*complete(queues=settings, policy=policy))

    assert finding.severity is Severity.WARNING
    assert "max_receive_count is 4" in finding.sentence


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: complete(table="ab"), "DynamoDB takes 3 to 255"),
        (lambda: complete(table="a b c"), "DynamoDB takes 3 to 255"),
        (lambda: complete(bus="a b"), "EventBridge takes 1 to 256"),
    ],
)
def test_a_name_that_aws_refuses_is_an_error(
    make: Callable[[], tuple[Service, Service]], said: str
) -> None:
    assert any(said in line and line.startswith("error") for line in found(*make()))


@pytest.mark.parametrize("queue", ["q" * 71, "ümlaut", "with space", "two.fifo.fifo"])
def test_a_queue_name_that_sqs_refuses_is_an_error(queue: str) -> None:
    field = Service("field")

    @field.on(Rained, queue=queue)
    async def soak(event: Rained) -> None: ...

    assert any("SQS takes 80" in line for line in found(field))


def test_events_into_a_fifo_queue_are_a_warning() -> None:
    field = Service("field")

    @field.on(Rained, queue="ordered.fifo")
    async def soak(event: Rained) -> None: ...

    assert "one message group" in only(field).sentence


def test_a_filter_beside_a_handler_that_takes_everything_is_a_warning() -> None:
    field = Service("field")

    @field.on(Rained, where=lambda e: e.litres > 10)
    async def flood_warning(event: Rained) -> None: ...

    @field.on(Rained)
    async def soak(event: Rained) -> None: ...

    finding = only(field)
    assert finding.subject == "field.flood_warning"
    assert 'queue="flood-warning"' in finding.sentence


def test_a_pattern_that_two_filters_make_too_long_is_an_error() -> None:
    field, garden = complete()
    plants = [f"plant-{number:03}" for number in range(150)]

    @field.on(Grown, where=lambda e: one_of(e.plant, *plants))
    async def cut(event: Grown) -> None: ...

    @field.on(Grown, where=lambda e: one_of(e.plant, *(f"old-{plant}" for plant in plants[:120])))
    async def dig(event: Grown) -> None: ...

    finding = only(field, garden)
    assert finding.subject == "field"
    assert "EventBridge takes 2,048" in finding.sentence


# --- between services ------------------------------------------------------------------


def test_two_services_of_one_name_are_an_error() -> None:
    assert found(Service("field"), Service("field"))[0] == (
        "error: services: Two definitions make a service named 'field': rename a service, or the "
        "queue= of one of its handlers."
    )


def test_an_event_that_nobody_here_emits_is_a_warning() -> None:
    _, garden = complete()

    lines = found(garden)
    assert any("none of these services emits it" in line and "Grown" in line for line in lines)


def test_a_native_event_may_come_from_anywhere() -> None:
    field = Service("field")

    @field.on(Rained)
    async def soak(event: Rained) -> None: ...

    assert check(field) == []


def test_an_event_that_nobody_here_handles_is_a_warning() -> None:
    field = Service("field")

    @field.on(Rained)
    async def soak(event: Rained) -> Grown | None: ...

    finding = only(field)
    assert finding.severity is Severity.WARNING
    assert finding.sentence == "is emitted by field, and none of these handles it."


def test_a_command_to_a_service_that_is_not_here_is_a_warning() -> None:
    field = Service("field")

    @field.on(Rained)
    async def soak(event: Rained) -> Water | None: ...

    finding = only(field)
    assert finding.severity is Severity.WARNING
    assert "'garden', which is not among these services" in finding.sentence


def test_a_command_that_its_owner_does_not_handle_is_an_error() -> None:
    field, garden = complete()

    @field.on(Rained)
    async def soak(event: Rained) -> Water | None: ...

    finding = only(field, garden)
    assert finding.severity is Severity.ERROR
    assert "write @garden.on(Water)" in finding.sentence


def test_an_event_published_on_another_bus_is_an_error() -> None:
    field = Service("field", bus="north")
    garden = Service("garden", bus="south")

    @field.on(Rained)
    async def grow(event: Rained) -> Grown | None: ...

    @garden.on(Grown)
    async def pick(event: Grown) -> None: ...

    finding = only(field, garden)
    assert finding.severity is Severity.ERROR
    assert "'south'" in finding.sentence
    assert "north" in finding.sentence


def test_versions_that_nothing_upcasts_are_a_warning() -> None:
    field = Service("field")

    @field.on(Harvested)
    async def store(event: Harvested) -> Harvested | None: ...

    finding = only(field)
    assert finding.severity is Severity.WARNING
    assert "@upcaster(Harvested, from_version=2)" in finding.sentence


def test_an_event_without_a_json_schema_is_an_error() -> None:
    class Soil:
        """Something that JSON has no form for."""

    class Dug(Event, source="check.field", name="CheckDug"):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        soil: Soil

    field = Service("field")

    @field.on(Dug)
    async def store(event: Dug) -> Dug | None: ...

    assert [finding.severity for finding in check(field)] == [Severity.ERROR]


def test_errors_stand_before_warnings() -> None:
    field = Service("field", table="x")

    @field.on(Sown)
    async def grow(event: Sown) -> None: ...

    assert [finding.severity for finding in check(field)] == [Severity.ERROR, Severity.WARNING]


def test_a_service_without_handlers_is_a_warning() -> None:
    (finding,) = check(Service("empty"))
    assert finding.severity is Severity.WARNING
    assert "has no handlers" in finding.sentence
