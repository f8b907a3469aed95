"""What AWS answers about what stands, as plain values."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final

import pytest

from headrace.aws.answers import Namespace, mapping_of, queue_of, rule_of
from headrace.aws.config import AwsConfig
from headrace.aws.declared import declared
from headrace.aws.stacks import Resource, Stack
from headrace.aws.standing import Gate

KNOWN: Final = Namespace(AwsConfig(namespace="prod"))
QUEUE: Final = "arn:aws:sqs:eu-west-1:123456789012:prod-order"
RULE: Final = "arn:aws:events:eu-west-1:123456789012:rule/prod-shop/prod-order"


def sending(source: Any = RULE, **changes: Any) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": QUEUE,
        "Condition": {"ArnEquals": {"aws:SourceArn": source}},
        **changes,
    }


def gate(*statements: dict[str, Any]) -> Gate:
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return queue_of(KNOWN, {"QueueArn": QUEUE, "Policy": policy}).gate


@pytest.mark.parametrize(
    "statement",
    [
        sending(),
        sending([RULE]),
        sending(Action=["SQS:SendMessage"]),
        sending(Condition={"ArnLike": {"aws:SourceArn": RULE}}),
    ],
    ids=["one rule", "a list", "in capitals", "ArnLike"],
)
def test_a_rule_that_may_send_is_known_however_it_is_written(statement: dict[str, Any]) -> None:
    assert gate(statement) == Gate(frozenset({("shop", "order")}))


@pytest.mark.parametrize(
    "statement",
    [
        sending("arn:aws:events:eu-west-1:123456789012:rule/prod-shop/*"),
        sending("arn:aws:events:eu-west-1:210987654321:rule/prod-shop/prod-order"),
        sending("arn:aws:events:eu-west-1:123456789012:rule/test-shop/prod-order"),
        sending("arn:aws:sns:eu-west-1:123456789012:prod-order"),
        sending(Principal="*"),
        sending(Action="sqs:*"),
        sending(Action=["sqs:SendMessage", "sqs:ReceiveMessage"]),
        sending(Condition={}),
    ],
    ids=[
        "any rule",
        "another account",
        "another namespace",
        "a topic",
        "everyone",
        "any action",
        "one action more",
        "no condition",
    ],
)
def test_anybody_else_who_is_let_in_is_somebody_else(statement: dict[str, Any]) -> None:
    found = gate(statement)

    assert found.rules == frozenset()
    assert len(found.others) == 1


@pytest.mark.parametrize("who", ["*", {"AWS": "*"}])
def test_a_denial_of_all_calls_without_tls_is_known(who: Any) -> None:
    condition = {"Bool": {"aws:SecureTransport": "false"}}
    deny = {"Effect": "Deny", "Principal": who, "Action": "sqs:*", "Condition": condition}

    assert gate(deny) == Gate(tls_only=True)
    assert gate({**deny, "Action": "sqs:SendMessage"}).tls_only is False
    assert gate({**deny, "Condition": {}}).denied == ("everyone: sqs:*",)


def test_a_queue_without_a_policy_lets_nobody_in() -> None:
    assert queue_of(KNOWN, {"QueueArn": QUEUE}).gate == Gate()


def test_a_queue_of_somewhere_else_is_named_by_its_arn() -> None:
    elsewhere = QUEUE.replace("eu-west-1", "us-east-1")
    targets = [{"Id": "1", "Arn": elsewhere}, {"Id": "2", "Arn": QUEUE}]

    found = rule_of(KNOWN, {"Name": "prod-order", "Arn": RULE, "EventPattern": "{}"}, targets)

    assert found.targets is not None
    assert [target.queue for target in found.targets] == [elsewhere, "order"]


@pytest.mark.parametrize(
    ("state", "enabled"), [("Enabled", True), ("Creating", True), ("Disabling", False)]
)
def test_a_mapping_is_enabled_or_not(state: str, enabled: bool) -> None:
    answer = {
        "UUID": "1b9d",
        "EventSourceArn": QUEUE,
        "FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:prod-order:live",
        "State": state,
    }

    found = mapping_of(KNOWN, answer, {"Timeout": 10}, None)

    assert (found.source, found.function) == ("order", "prod-order:live")
    assert found.enabled is enabled
    assert (found.partial, found.function_timeout) == (False, timedelta(seconds=10))


# --- stacks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "physical", "name"),
    [
        ("AWS::Events::Rule", "prod-shop|prod-order", "prod-order"),
        ("AWS::Events::Rule", "prod-order", "prod-order"),
        ("AWS::SQS::Queue", "https://sqs.eu-west-1.amazonaws.com/1/prod-order", "prod-order"),
        ("AWS::DynamoDB::Table", "prod-order", "prod-order"),
    ],
)
def test_a_resource_is_known_by_its_name(type: str, physical: str, name: str) -> None:
    assert Resource("Made", type, physical).name == name


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        ("UPDATE_COMPLETE", True),
        ("UPDATE_IN_PROGRESS", False),
        ("UPDATE_ROLLBACK_COMPLETE", False),
        ("CREATE_FAILED", False),
    ],
)
def test_a_stack_is_settled_when_its_deployment_came_through(status: str, settled: bool) -> None:
    assert Stack("shop", "arn", status).is_settled is settled


STACK: Final = Stack(
    "shop", "arn:aws:cloudformation:eu-west-1:123456789012:stack/shop/1", "CREATE_COMPLETE"
)


def said(properties: dict[str, Any]) -> Any:
    """The template of a stack with one queue."""
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/prod-order"
    queue = {"Type": "AWS::SQS::Queue", "Properties": properties}
    resource = Resource("Order", "AWS::SQS::Queue", url)
    return declared(KNOWN, STACK, [resource], {"Resources": {"Order": queue}})


def test_a_template_that_leaves_something_out_gets_what_sqs_gives_by_itself() -> None:
    (queue,) = said({}).queues

    assert (queue.name, queue.visibility) == ("order", timedelta(seconds=30))
    assert queue.encrypted is True


def test_what_only_cloudformation_can_work_out_is_left_to_it() -> None:
    found = said({"VisibilityTimeout": {"Fn::If": ["Slow", 60, 30]}})

    assert found.queues == ()
    assert [each.subject for each in found.unseen] == ["queue prod-order"]
