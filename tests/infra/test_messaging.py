"""The stack of what has state: bus, rules, queues and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App
from aws_cdk.assertions import Match, Template

from headrace import Command, Event, Service, Transaction
from headrace.cdk.deployment import Deployment, Placed, Placement, ServiceOptions
from headrace.cdk.messaging import EventBusStack
from headrace.topology.model import Topology
from tests.infra.resolved import resolved


@pytest.fixture(scope="module")
def template(deployment: Deployment) -> Template:
    return Template.from_stack(EventBusStack(App(), "messaging", deployment))


@pytest.fixture(scope="module")
def wanted(deployment: Deployment) -> Topology:
    return deployment.topology


def found(template: Template, kind: str, key: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a kind, by one of them."""
    resources = resolved(template.find_resources(kind), template)
    return {r["Properties"][key]: r["Properties"] for r in resources.values()}


def test_there_is_a_queue_for_each_of_the_topology_and_no_other(
    template: Template, wanted: Topology
) -> None:
    queues = found(template, "AWS::SQS::Queue", "QueueName")
    assert set(queues) == {f"prod-{queue.name}" for queue in wanted.queues}
    for queue in wanted.queues:
        made = queues[f"prod-{queue.name}"]
        assert made["VisibilityTimeout"] == queue.visibility.total_seconds()
        assert made["MessageRetentionPeriod"] == queue.retention.total_seconds()
        assert made["SqsManagedSseEnabled"] is True


def test_a_queue_gives_up_into_its_dead_letter_queue(template: Template, wanted: Topology) -> None:
    queues = found(template, "AWS::SQS::Queue", "QueueName")
    for queue in wanted.queues:
        made = queues[f"prod-{queue.name}"]
        if queue.dead_letters is None:
            assert "RedrivePolicy" not in made
        else:
            redrive = made["RedrivePolicy"]
            assert redrive["deadLetterTargetArn"].endswith(f":prod-{queue.dead_letters}")
            assert redrive["maxReceiveCount"] == queue.max_receive_count


def test_a_rule_has_the_pattern_of_the_topology_and_keeps_what_it_cannot_deliver(
    template: Template, wanted: Topology
) -> None:
    rules = found(template, "AWS::Events::Rule", "Name")
    assert set(rules) == {f"prod-{rule.name}" for rule in wanted.rules}
    for rule in wanted.rules:
        made = rules[f"prod-{rule.name}"]
        assert made["EventPattern"] == rule.pattern
        assert made["EventBusName"] == "prod-shop"
        (target,) = made["Targets"]
        assert target["Arn"].endswith(f":prod-{rule.queue}")
        assert target["DeadLetterConfig"]["Arn"].endswith(f":prod-{rule.undelivered}")


def test_only_its_own_rules_may_send_into_a_queue_and_nobody_without_tls(
    template: Template, wanted: Topology
) -> None:
    policies = resolved(template.find_resources("AWS::SQS::QueuePolicy"), template)
    by_queue = {p["Properties"]["Queues"][0]: p["Properties"] for p in policies.values()}
    for queue in wanted.queues:
        statements = by_queue[f"queue-url:prod-{queue.name}"]["PolicyDocument"]["Statement"]
        denied = [s for s in statements if s["Effect"] == "Deny"]
        assert [s["Condition"] for s in denied] == [{"Bool": {"aws:SecureTransport": "false"}}]
        allowed = [s for s in statements if s["Effect"] == "Allow"]
        senders = {rule.name for rule in wanted.rules_to(queue.name)}
        assert len(allowed) == bool(senders)
        for statement in allowed:
            assert statement["Principal"] == {"Service": "events.amazonaws.com"}
            assert statement["Action"] == "sqs:SendMessage"
            arns = statement["Condition"]["ArnEquals"]["aws:SourceArn"]
            assert {arn.rpartition("/")[2] for arn in arns} == {f"prod-{s}" for s in senders}
            assert not any("*" in arn for arn in arns)


def test_a_table_is_on_demand_forgets_can_be_restored_and_is_not_deleted(
    template: Template, wanted: Topology
) -> None:
    tables = found(template, "AWS::DynamoDB::Table", "TableName")
    assert set(tables) == {f"prod-{table.name}" for table in wanted.tables}
    for made in tables.values():
        assert made["BillingMode"] == "PAY_PER_REQUEST"
        assert made["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
        assert made["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
        assert made["DeletionProtectionEnabled"] is True
    for resource in template.find_resources("AWS::DynamoDB::Table").values():
        assert resource["DeletionPolicy"] == "Retain"


def test_what_is_relayed_has_a_sparse_index_and_a_stream(template: Template) -> None:
    tables = found(template, "AWS::DynamoDB::Table", "TableName")
    (index,) = tables["prod-order"]["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "relay"
    assert index["Projection"] == {"ProjectionType": "KEYS_ONLY"}
    assert tables["prod-order"]["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert "StreamSpecification" not in tables["prod-notification"]


def test_scheduler_sends_as_a_role_that_may_do_nothing_else(template: Template) -> None:
    template.has_resource_properties(
        "AWS::IAM::Role",
        {
            "RoleName": "prod-inventory-scheduler",
            "AssumeRolePolicyDocument": {
                "Statement": [
                    Match.object_like(
                        {
                            "Principal": {"Service": "scheduler.amazonaws.com"},
                            "Condition": {"StringEquals": {"aws:SourceAccount": Match.any_value()}},
                        }
                    )
                ]
            },
        },
    )
    policies = resolved(template.find_resources("AWS::IAM::Policy"), template)
    (statement,) = next(
        policy["Properties"]["PolicyDocument"]["Statement"]
        for name, policy in policies.items()
        if "inventory" in name
    )
    assert statement["Action"] == "sqs:SendMessage"
    assert {arn.rpartition(":")[2] for arn in statement["Resource"]} == {
        "prod-inventory",
        "prod-inventory-dlq",
    }


class HoneyPoured(Event, source="infra.bees"):
    jar: str


class PourHoney(Command, owner="bees"):
    jar: str


def test_a_fifo_queue_has_one_group_and_a_standard_queue_for_what_cannot_be_delivered() -> None:
    bees = Service("bees", bus="meadow")

    @bees.on(HoneyPoured, queue="jars.fifo")
    async def fill(event: HoneyPoured, tx: Transaction) -> None: ...

    options = ServiceOptions(app="bees:bees", host=Placement.LAMBDA)
    deployment = deployment_of(Placed(bees, options))
    template = Template.from_stack(EventBusStack(App(), "messaging", deployment))

    queues = found(template, "AWS::SQS::Queue", "QueueName")
    assert queues["prod-bees-jars.fifo"]["FifoQueue"] is True
    assert queues["prod-bees-jars.fifo"]["DeduplicationScope"] == "messageGroup"
    assert queues["prod-bees-jars.fifo"]["FifoThroughputLimit"] == "perMessageGroupId"
    assert queues["prod-bees-jars-dlq.fifo"]["FifoQueue"] is True
    assert "FifoQueue" not in queues["prod-bees-jars-undelivered"]
    ((target,),) = [r["Targets"] for r in found(template, "AWS::Events::Rule", "Name").values()]
    assert target["SqsParameters"] == {"MessageGroupId": "bees-jars.fifo"}
    assert target["DeadLetterConfig"]["Arn"].endswith(":prod-bees-jars-undelivered")


def test_the_default_bus_is_not_made() -> None:
    bees = Service("wasps")

    @bees.on(HoneyPoured)
    async def steal(event: HoneyPoured, tx: Transaction) -> None: ...

    options = ServiceOptions(app="wasps:wasps", host=Placement.LAMBDA)
    template = Template.from_stack(
        EventBusStack(App(), "messaging", deployment_of(Placed(bees, options)))
    )
    template.resource_count_is("AWS::Events::EventBus", 0)
    (rule,) = found(template, "AWS::Events::Rule", "Name").values()
    assert rule["EventBusName"] == "default"


def test_the_same_code_gives_the_same_template(deployment: Deployment, template: Template) -> None:
    again = Template.from_stack(EventBusStack(App(), "messaging", deployment))
    assert json.dumps(again.to_json()) == json.dumps(template.to_json())


def deployment_of(*placed: Placed) -> Deployment:
    return Deployment("farm", "prod", placed, Path(), Path(), {})
