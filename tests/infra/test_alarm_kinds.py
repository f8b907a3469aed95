"""What a deployment is watched for comes from its topology, whole and once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from headrace.cdk.alarm_kinds import (
    DEAD_LETTERS,
    FAILED_DELIVERIES,
    FAILED_DEPLOYMENT,
    FUNCTION_ERRORS,
    KINDS,
    LOST_EVENTS,
    OLD_MESSAGES,
    OUTBOX,
    STUCK_SAGAS,
    TABLE_ERRORS,
    TABLE_THROTTLES,
    TOO_FEW_TASKS,
    UNDELIVERED,
    Kind,
    Watch,
    patience,
    watches,
)
from headrace.cdk.dashboard import body
from headrace.cdk.deployment import Deployment
from headrace.observe.emf import _UNITS as EMITTED
from tests.infra.system import deployment

REGION = "eu-central-1"


@pytest.fixture
def deployed(tmp_path: Path) -> Deployment:
    return deployment(tmp_path)


def of(kind: Kind, deployed: Deployment) -> dict[str, Watch]:
    return {each.resource: each for each in watches(deployed) if each.kind is kind}


# --- alarms --------------------------------------------------------------------------------


def test_every_kind_but_the_one_that_is_an_event_watches_something(deployed: Deployment) -> None:
    used = {watch.kind for watch in watches(deployed)}
    assert used == set(KINDS) - {FAILED_DEPLOYMENT}


def test_no_two_alarms_have_one_name(deployed: Deployment) -> None:
    names = Counter(watch.name for watch in watches(deployed))
    assert [name for name, times in names.items() if times > 1] == []


def test_each_queue_is_watched_as_what_it_is(deployed: Deployment) -> None:
    queues = {"order", "inventory", "notification", "ledger", "ledger-entries.fifo"}
    assert of(OLD_MESSAGES, deployed).keys() == queues
    letters = {queue.dead_letters for queue in deployed.topology.queues if queue.dead_letters}
    assert of(DEAD_LETTERS, deployed).keys() == letters
    assert of(UNDELIVERED, deployed).keys() == {"ledger-entries-undelivered"}


def test_letters_that_somebody_hides_while_looking_count_as_well(deployed: Deployment) -> None:
    watch = of(DEAD_LETTERS, deployed)["order-dlq"]
    assert {metric.name for metric in watch.metrics} == {
        "ApproximateNumberOfMessagesVisible",
        "ApproximateNumberOfMessagesNotVisible",
    }
    assert {metric.dimensions["QueueName"] for metric in watch.metrics} == {"shop-test-order-dlq"}
    assert watch.threshold == 0


def test_services_are_watched_for_what_they_have(deployed: Deployment) -> None:
    assert of(OUTBOX, deployed).keys() == {"order"}
    assert of(STUCK_SAGAS, deployed).keys() == {"order"}
    functions = {"order", "order-relay", "order-http", "inventory"}
    assert of(FUNCTION_ERRORS, deployed).keys() == functions


def test_the_tasks_of_a_service_are_compared_with_its_least(deployed: Deployment) -> None:
    least = {name: watch.threshold for name, watch in of(TOO_FEW_TASKS, deployed).items()}
    assert least == {"inventory": 1, "ledger": 3, "notification-http": 1}


def test_each_rule_is_watched_on_its_bus(deployed: Deployment) -> None:
    rules = {rule.name for rule in deployed.topology.rules}
    assert of(FAILED_DELIVERIES, deployed).keys() == of(LOST_EVENTS, deployed).keys() == rules
    (metric,) = of(FAILED_DELIVERIES, deployed)["order"].metrics
    assert metric.dimensions == {"EventBusName": "shop-test-shop", "RuleName": "shop-test-order"}


def test_a_table_is_watched_with_its_index(deployed: Deployment) -> None:
    watch = of(TABLE_THROTTLES, deployed)["order"]
    indexes = {metric.dimensions.get("GlobalSecondaryIndexName") for metric in watch.metrics}
    assert indexes == {None, "relay"}
    assert "WHERE TableName = 'shop-test-order'" in of(TABLE_ERRORS, deployed)["order"].query


def test_what_an_alarm_says_ends_with_the_path_of_its_page(deployed: Deployment) -> None:
    for watch in watches(deployed):
        assert watch.description.endswith(f" See docs/runbooks/{watch.kind.name}.md.")
        assert "{" not in watch.description


# --- how old a message may get --------------------------------------------------------------


def test_a_message_may_get_as_old_as_all_its_attempts_take(deployed: Deployment) -> None:
    # Five attempts of 60 s each, and waits of 1, 2, 4 and 8 s.
    queue = deployed.topology.queue("notification")
    assert patience(queue, deployed) == timedelta(seconds=5 * 60 + 15)


def test_what_may_be_sent_with_a_delay_may_get_older_by_the_longest(deployed: Deployment) -> None:
    queue = deployed.topology.queue("inventory")
    assert patience(queue, deployed) == timedelta(seconds=5 * 60 + 15 + 15 * 60)


def test_nobody_is_woken_for_a_message_of_a_few_minutes(deployed: Deployment) -> None:
    queue = replace(deployed.topology.queue("notification"), visibility=timedelta(seconds=1))
    assert patience(queue, deployed) == timedelta(minutes=5)


def test_somebody_is_woken_long_before_a_message_is_deleted_for_its_age(
    deployed: Deployment,
) -> None:
    queue = replace(deployed.topology.queue("order"), retention=timedelta(minutes=20))
    assert patience(queue, deployed) == timedelta(minutes=5)


# --- the dashboard -------------------------------------------------------------------------


def drawn(deployed: Deployment) -> list[list[Any]]:
    widgets = body(deployed, REGION, [])["widgets"]
    return [line for each in widgets for line in each["properties"].get("metrics", [])]


def test_graphs_and_alarms_name_only_metrics_that_headrace_emits(deployed: Deployment) -> None:
    shown = {line[1] for line in drawn(deployed) if line[0] == deployed.metrics_namespace}
    watched = {
        metric.name
        for watch in watches(deployed)
        for metric in watch.metrics
        if metric.namespace == deployed.metrics_namespace
    }
    assert (shown | watched) - EMITTED.keys() == set()
    assert {"Received", "HandlingTime", "OutboxLag", "SagasStuck"} <= shown


def test_graphs_name_only_what_the_topology_has(deployed: Deployment) -> None:
    topology = deployed.topology
    expected = {
        "QueueName": {queue.name for queue in topology.queues},
        "TableName": {table.name for table in topology.tables},
        "RuleName": {rule.name for rule in topology.rules},
        "EventBusName": {bus.name for bus in topology.buses},
        "FunctionName": {"order", "order-relay", "order-http", "inventory"},
        "ServiceName": {"inventory", "notification", "notification-http", "ledger"},
    }
    shown: dict[str, set[str]] = {dimension: set() for dimension in expected}
    for _, _, *dimensions, _ in drawn(deployed):
        for name, value in zip(dimensions[::2], dimensions[1::2], strict=True):
            if name in shown:
                assert value.startswith("shop-test-")
                shown[name].add(value.removeprefix("shop-test-"))
    assert shown == expected


def test_a_service_has_a_row_of_its_own(deployed: Deployment) -> None:
    widgets = body(deployed, REGION, [])["widgets"]
    headings = {w["y"]: w["properties"]["markdown"] for w in widgets if w["type"] == "text"}
    assert [headings[y] for y in sorted(headings)] == [
        "## order, on lambda",
        "## inventory, on both",
        "## notification, on fargate",
        "## ledger, on fargate",
        "## what services share with others of the account",
    ]


def test_no_widget_lies_upon_another(deployed: Deployment) -> None:
    alarms = [f"arn:aws:cloudwatch:{REGION}:123456789012:alarm:a{n}" for n in range(101)]
    widgets = body(deployed, REGION, alarms)["widgets"]
    taken = Counter(
        (x, y)
        for w in widgets
        for x in range(w["x"], w["x"] + w["width"])
        for y in range(w["y"], w["y"] + w["height"])
    )
    assert max(taken.values()) == 1
    assert max(x for x, _ in taken) < 24
    assert [len(w["properties"]["alarms"]) for w in widgets if w["type"] == "alarm"] == [100, 1]
