"""What a service is granted, by what its handlers declare."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.service import Service
from headrace.topology.access import Grant, Host, Resource, access, schedules_to
from services.order.app import order
from tests.infra.small import SMALL, crier, dam, echo, gauge_reader, listener, locks, sluice, watch

ROOT = Path(__file__).parents[3]

RECORD = {"BatchGetItem", "PutItem"}
SENT = {"BatchWriteItem"}
ENTITIES = {"BatchGetItem", "ConditionCheckItem", "DeleteItem", "PutItem", "Query", "UpdateItem"}
SCHEDULING = {"iam:PassRole", "scheduler:CreateSchedule", "scheduler:DeleteSchedule"}
SENDING = ("sqs:GetQueueUrl", "sqs:SendMessage")

TABLES: dict[str, set[str]] = {
    "listener": RECORD,
    "crier": RECORD | SENT,
    "gauge-reader": RECORD | SENT,
    "basin": set(),
    "echo": set(),
    "siren": RECORD | {"UpdateItem"},
    "levels": RECORD | ENTITIES,
    "keeper": ENTITIES,
    "sluice": RECORD | SENT | ENTITIES,
    "watch": RECORD | SENT | ENTITIES,
    "dam": RECORD | SENT,
    "locks": RECORD | {"ConditionCheckItem", "UpdateItem"},
}
"""By service: what is done with its table, whatever the host."""


def granted(
    service: Service, resource: Resource, name: str = "", host: Host = Host.WORKER
) -> set[str]:
    """The actions on this resource, or on all of its kind."""
    return {
        action
        for grant in access(service, host)
        if grant.resource is resource and name in ("", grant.name)
        for action in grant.actions
    }


def actions_of(service: Service, host: Host = Host.WORKER) -> set[str]:
    return {action for grant in access(service, host) for action in grant.actions}


@pytest.mark.parametrize("host", list(Host))
@pytest.mark.parametrize("service", SMALL, ids=lambda service: service.name)
def test_a_table_is_for_what_handlers_declare(service: Service, host: Host) -> None:
    wanted = {f"dynamodb:{action}" for action in TABLES[service.name]}
    assert granted(service, Resource.TABLE, host=host) == wanted


def test_each_resource_has_one_grant_and_they_are_in_order() -> None:
    for service in SMALL:
        grants = access(service)
        named = [(grant.resource, grant.name) for grant in grants]
        assert named == sorted(set(named))
        assert all(list(grant.actions) == sorted(set(grant.actions)) for grant in grants)
        assert all(grant.why for grant in grants)


def test_a_worker_takes_its_messages_itself() -> None:
    assert granted(listener, Resource.QUEUE, "listener") == {
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueUrl",
        "sqs:ReceiveMessage",
    }


def test_on_lambda_the_poller_looks_at_the_queue_as_well() -> None:
    beyond = actions_of(listener, Host.LAMBDA) - actions_of(listener)
    assert beyond == {"sqs:GetQueueAttributes"}


def test_dead_letters_are_written_and_never_taken() -> None:
    assert granted(locks, Resource.QUEUE, "locks-lane-dlq.fifo") == set(SENDING)


def test_nothing_is_granted_on_what_only_eventbridge_writes_to() -> None:
    assert granted(locks, Resource.QUEUE, "locks-lane-undelivered") == set()


def test_who_publishes_may_look_whether_its_bus_is_there() -> None:
    published = {"events:DescribeEventBus", "events:PutEvents"}
    assert granted(crier, Resource.BUS, "weather") == published


def test_who_sends_commands_alone_has_nothing_to_do_with_a_bus() -> None:
    assert granted(gauge_reader, Resource.BUS) == set()
    assert Grant(Resource.QUEUE, "basin", SENDING, "sends commands") in access(gauge_reader)


def test_who_does_neither_has_its_queues_alone() -> None:
    assert {grant.resource for grant in access(echo)} == {Resource.QUEUE}


def test_a_command_that_a_handler_with_a_transaction_sends_can_be_scheduled() -> None:
    assert schedules_to(sluice) == ("sluice",)
    assert actions_of(sluice) >= SCHEDULING
    assert granted(sluice, Resource.SCHEDULER_ROLE, "sluice") == {"iam:PassRole"}


def test_a_command_that_a_handler_returns_without_a_transaction_cannot() -> None:
    assert schedules_to(gauge_reader) == ()
    assert not actions_of(gauge_reader) & SCHEDULING


def test_a_command_that_is_sent_outside_of_handlers_can_be_scheduled() -> None:
    assert schedules_to(watch) == ("sluice",)
    assert actions_of(watch) >= SCHEDULING


def test_of_a_saga_its_timers_are_scheduled_and_none_of_its_commands() -> None:
    assert schedules_to(dam) == ("dam",)
    assert schedules_to(order) == ("order",)


def test_the_index_and_the_stream_are_for_the_relay() -> None:
    assert granted(watch, Resource.INDEX, "watch/relay") == {"dynamodb:Query"}
    assert granted(watch, Resource.STREAM) == set()
    assert "dynamodb:GetRecords" in granted(watch, Resource.STREAM, "watch", Host.LAMBDA)


def test_the_index_of_a_saga_is_for_operators() -> None:
    assert granted(dam, Resource.INDEX) == granted(dam, Resource.STREAM, host=Host.LAMBDA) == set()


def test_the_page_of_permissions_names_every_action_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "permissions.md").read_text()
    granted_, _, _ = text.partition("\nA role has besides:")
    named = set(re.findall(r"`([a-z]+:[A-Z][A-Za-z]+)`", granted_))
    made = {a for each in SMALL for host in Host for a in actions_of(each, host)}
    assert named == made
