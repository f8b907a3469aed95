"""Stacks on an emulator: one that is written by hand, and how any is deployed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from headrace.aws.client import open_client
from headrace.aws.config import SERVICES, AwsConfig
from headrace.topology.model import Bus, Queue, Rule, Table, Topology

BOOTSTRAP: Final = "/cdk-bootstrap/hnb659fds/version"
"""A parameter that every account has in which the CDK deploys; templates look for it."""

PATTERN: Final = {"source": ["farm.field"], "detail-type": ["HayMade", "RainFell"]}
VISIBILITY: Final = timedelta(seconds=60)
WEEKS: Final = timedelta(days=14)

FARM: Final = Topology(
    buses=(Bus("farm"),),
    rules=(
        Rule("barn", "farm", PATTERN, "barn", "barn-dlq"),
        Rule("cart.fifo", "farm", PATTERN, "cart.fifo", "cart-undelivered"),
    ),
    queues=(
        Queue("barn", VISIBILITY, timedelta(days=4), False, "barn-dlq", 10),
        Queue("barn-dlq", VISIBILITY, WEEKS),
        Queue("cart-dlq.fifo", VISIBILITY, WEEKS, True),
        Queue("cart-undelivered", VISIBILITY, WEEKS),
        Queue("cart.fifo", VISIBILITY, timedelta(days=4), True, "cart-dlq.fifo", 10),
    ),
    tables=(Table("barn", indexes=("relay",)),),
)
"""What the template of `farm` makes, as headrace would say it."""


def config_at(endpoint: str, namespace: str) -> AwsConfig:
    """Everything at one endpoint."""
    clients = (*SERVICES, "cloudformation", "lambda", "ssm")
    return AwsConfig(namespace=namespace, endpoints=dict.fromkeys(clients, endpoint))


async def form(config: AwsConfig, stack: str, template: Mapping[str, Any]) -> None:
    """Create or update a stack, and wait until that is done."""
    async with open_client("ssm", config) as ssm, open_client("cloudformation", config) as made:
        await ssm.put_parameter(Name=BOOTSTRAP, Value="21", Type="String", Overwrite=True)
        there = {each["StackName"] for each in (await made.describe_stacks())["Stacks"]}
        verb = "update" if stack in there else "create"
        await getattr(made, f"{verb}_stack")(
            StackName=stack,
            TemplateBody=json.dumps(template),
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        waiter = made.get_waiter(f"stack_{verb}_complete")
        await waiter.wait(StackName=stack, WaiterConfig={"Delay": 0.1, "MaxAttempts": 300})


# --- the farm, by hand -------------------------------------------------------------------


def farm(namespace: str) -> dict[str, Any]:
    """A template as somebody would write it who has no CDK."""
    return {
        "Resources": {
            "Farm": _of("Events::EventBus", Name=f"{namespace}-farm"),
            "BarnLetters": _queue(f"{namespace}-barn-dlq", 1_209_600),
            "Barn": _queue(f"{namespace}-barn", 345_600, "BarnLetters"),
            "CartLetters": _queue(f"{namespace}-cart-dlq.fifo", 1_209_600),
            "CartUndelivered": _queue(f"{namespace}-cart-undelivered", 1_209_600),
            "Cart": _queue(f"{namespace}-cart.fifo", 345_600, "CartLetters"),
            "BarnRule": _rule(namespace, "barn", "Barn", "BarnLetters"),
            "CartRule": _rule(namespace, "cart.fifo", "Cart", "CartUndelivered"),
            "BarnPolicy": _policy("Barn", "BarnRule"),
            "BarnLettersPolicy": _policy("BarnLetters", "BarnRule"),
            "CartPolicy": _policy("Cart", "CartRule"),
            "CartLettersPolicy": _policy("CartLetters", None),
            "CartUndeliveredPolicy": _policy("CartUndelivered", "CartRule"),
            "BarnTable": _table(f"{namespace}-barn", "relay"),
        },
        "Outputs": {"HeadraceNamespace": {"Value": namespace}},
    }


def barn_function(namespace: str) -> dict[str, Any]:
    """What feeds the queue `barn` to a function."""
    queue: Any = {"Fn::Sub": f"arn:aws:sqs:${{AWS::Region}}:${{AWS::AccountId}}:{namespace}-barn"}
    return {
        "Resources": {
            "Function": _of(
                "Lambda::Function",
                FunctionName=f"{namespace}-barn",
                Runtime="python3.13",
                Handler="index.handler",
                Role="arn:aws:iam::000000000000:role/barn",
                Code={"ZipFile": "def handler(event, context): ..."},
                Timeout=10,
            ),
            "Mapping": _of(
                "Lambda::EventSourceMapping",
                EventSourceArn=queue,
                FunctionName={"Ref": "Function"},
                BatchSize=10,
                FunctionResponseTypes=["ReportBatchItemFailures"],
                ScalingConfig={"MaximumConcurrency": 5},
            ),
        }
    }


def _of(type: str, **properties: Any) -> dict[str, Any]:
    return {"Type": f"AWS::{type}", "Properties": properties}


def _queue(name: str, retention: int, letters: str | None = None) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "QueueName": name,
        "VisibilityTimeout": 60,
        "MessageRetentionPeriod": retention,
        "SqsManagedSseEnabled": True,
    }
    if letters:
        arn = {"Fn::GetAtt": [letters, "Arn"]}
        properties["RedrivePolicy"] = {"deadLetterTargetArn": arn, "maxReceiveCount": 10}
    if name.endswith(".fifo"):
        properties |= {
            "FifoQueue": True,
            "ContentBasedDeduplication": True,
            "DeduplicationScope": "messageGroup",
            "FifoThroughputLimit": "perMessageGroupId",
        }
    return _of("SQS::Queue", **properties)


def _rule(namespace: str, name: str, queue: str, undelivered: str) -> dict[str, Any]:
    target: dict[str, Any] = {
        "Id": "queue",
        "Arn": {"Fn::GetAtt": [queue, "Arn"]},
        "DeadLetterConfig": {"Arn": {"Fn::GetAtt": [undelivered, "Arn"]}},
    }
    if name.endswith(".fifo"):
        target["SqsParameters"] = {"MessageGroupId": name}
    rule = _of(
        "Events::Rule",
        Name=f"{namespace}-{name}",
        EventBusName=f"{namespace}-farm",
        EventPattern={"detail-type": ["RainFell", "HayMade"], "source": ["farm.field"]},
        State="ENABLED",
        Targets=[target],
    )
    return {**rule, "DependsOn": ["Farm"]}


def _policy(queue: str, rule: str | None) -> dict[str, Any]:
    of = {"Resource": {"Fn::GetAtt": [queue, "Arn"]}}
    statements: list[dict[str, Any]] = [
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "sqs:*",
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            **of,
        }
    ]
    if rule:
        statements.append(
            {
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": ["sqs:SendMessage"],
                "Condition": {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": [rule, "Arn"]}}},
                **of,
            }
        )
    document = {"Version": "2012-10-17", "Statement": statements}
    return _of("SQS::QueuePolicy", Queues=[{"Ref": queue}], PolicyDocument=document)


def _table(name: str, index: str) -> dict[str, Any]:
    prefixes = ("", f"{index}_")
    return _of(
        "DynamoDB::Table",
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": f"{prefix}{key}", "AttributeType": "S"}
            for prefix in prefixes
            for key in ("pk", "sk")
        ],
        KeySchema=_keys(""),
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": _keys(f"{index}_"),
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
        TimeToLiveSpecification={"AttributeName": "expires_at", "Enabled": True},
        PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
        DeletionProtectionEnabled=True,
        StreamSpecification={"StreamViewType": "NEW_IMAGE"},
    )


def _keys(prefix: str) -> Sequence[Mapping[str, str]]:
    return [
        {"AttributeName": f"{prefix}pk", "KeyType": "HASH"},
        {"AttributeName": f"{prefix}sk", "KeyType": "RANGE"},
    ]
