"""The stack of a service on Lambda."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from aws_cdk import App, Stack
from aws_cdk.assertions import Match, Template

from headrace import Service
from headrace.cdk.deployment import Deployment, Placed, Placement, ServiceOptions
from headrace.cdk.on_lambda import ServiceOnLambda
from headrace.record import shard
from tests.infra.code import NO_CODE
from tests.infra.resolved import resolved


def template_of(deployment: Deployment, name: str, **options: object) -> Template:
    """The stack of one service; `options` are of its table `lambda` in deploy.toml."""
    placed = next(placed for placed in deployment.services if placed.name == name)
    changed = placed.options.on_lambda.model_copy(update=options)
    own = Placed(placed.service, placed.options.model_copy(update={"on_lambda": changed}))
    stack = Stack(App(), name)
    ServiceOnLambda(stack, "Service", own, deployment, NO_CODE)
    return Template.from_stack(stack)


@pytest.fixture(scope="module")
def order(deployment: Deployment) -> Template:
    return template_of(deployment, "order")


@pytest.fixture(scope="module")
def inventory(deployment: Deployment) -> Template:
    return template_of(deployment, "inventory", max_concurrency=20, window=0)


@pytest.fixture(scope="module")
def notification(deployment: Deployment) -> Template:
    return template_of(deployment, "notification")


def functions(template: Template) -> dict[str, dict[str, Any]]:
    found = resolved(template.find_resources("AWS::Lambda::Function"), template)
    return {f["Properties"]["FunctionName"]: f["Properties"] for f in found.values()}


def mappings(template: Template) -> list[dict[str, Any]]:
    found = resolved(template.find_resources("AWS::Lambda::EventSourceMapping"), template)
    return [mapping["Properties"] for mapping in found.values()]


def test_a_service_is_a_function_on_arm_with_the_python_of_the_file(inventory: Template) -> None:
    (function,) = functions(inventory).values()
    assert function["FunctionName"] == "prod-inventory"
    assert function["Handler"] == "services.inventory.lambda_handler.handler"
    assert function["Architectures"] == ["arm64"]
    assert function["Runtime"] == "python3.13"
    assert function["TracingConfig"] == {"Mode": "Active"}


def test_a_batch_that_half_failed_is_not_taken_for_done(inventory: Template) -> None:
    (mapping,) = mappings(inventory)
    assert mapping["EventSourceArn"] == "arn:aws:sqs:eu-west-1:123456789012:prod-inventory"
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 20}
    assert mapping["BatchSize"] == 10


def test_a_message_is_hidden_for_six_times_as_long_as_the_function_may_run(
    deployment: Deployment, order: Template
) -> None:
    visible = deployment.topology.queue("order").visibility.total_seconds()
    assert 6 * functions(order)["prod-order"]["Timeout"] <= visible


def test_a_new_version_takes_a_tenth_first_and_goes_back_when_it_fails(inventory: Template) -> None:
    inventory.has_resource(
        "AWS::Lambda::Alias",
        {
            "Properties": {"Name": "live"},
            "UpdatePolicy": {"CodeDeployLambdaAliasUpdate": Match.any_value()},
        },
    )
    inventory.has_resource_properties(
        "AWS::CodeDeploy::DeploymentGroup",
        {
            "DeploymentConfigName": "CodeDeployDefault.LambdaCanary10Percent5Minutes",
            "AutoRollbackConfiguration": {
                "Enabled": True,
                "Events": Match.array_with(["DEPLOYMENT_STOP_ON_ALARM"]),
            },
            "AlarmConfiguration": {"Enabled": True},
        },
    )


def test_only_errors_of_the_new_version_take_it_back(inventory: Template) -> None:
    """Those of the version before are what a deployment may mend."""
    (alarm,) = resolved(inventory.find_resources("AWS::CloudWatch::Alarm"), inventory).values()
    dimensions = {d["Name"]: d["Value"] for d in alarm["Properties"]["Dimensions"]}
    assert set(dimensions) == {"FunctionName", "Resource", "ExecutedVersion"}
    (version,) = inventory.find_resources("AWS::Lambda::Version")
    assert dimensions["ExecutedVersion"] == {"Fn::GetAtt": [version, "Version"]}
    # Somebody is woken by the errors of a function, and not by this as well.
    assert "AlarmActions" not in alarm["Properties"]


def test_a_service_that_reads_no_queue_has_no_handler(deployment: Deployment) -> None:
    placed = Placed(Service("edge"), ServiceOptions(app="edge:edge", host=Placement.LAMBDA))
    stack = Stack(App(), "edge")
    ServiceOnLambda(stack, "Service", placed, deployment, NO_CODE)
    Template.from_stack(stack).resource_count_is("AWS::Lambda::Function", 0)


def test_without_tracing_nothing_of_it_is_allowed_or_paid_for(deployment: Deployment) -> None:
    silent = template_of(replace(deployment, tracing="off"), "inventory")
    (function,) = functions(silent).values()
    assert function.get("TracingConfig", {}).get("Mode") != "Active"
    assert not [on for on in resources_by_action(silent).values() if "*" in on]


def test_lines_are_kept_for_a_month(order: Template) -> None:
    groups = resolved(order.find_resources("AWS::Logs::LogGroup"), order)
    assert {g["Properties"]["LogGroupName"] for g in groups.values()} == {
        "/aws/lambda/prod-order",
        "/aws/lambda/prod-order-relay",
        "/aws/lambda/prod-order-http",
    }
    assert {g["Properties"]["RetentionInDays"] for g in groups.values()} == {30}


def test_what_is_published_outside_of_handlers_is_relayed_by_stream_and_clock(
    order: Template, inventory: Template
) -> None:
    (stream,) = [m for m in mappings(order) if "StartingPosition" in m]
    assert stream["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert stream["MaximumRetryAttempts"] == 3
    order.has_resource_properties(
        "AWS::Scheduler::Schedule",
        {"ScheduleExpression": "rate(1 minute)", "Name": "prod-order-sweep"},
    )
    inventory.resource_count_is("AWS::Scheduler::Schedule", 0)


def test_the_stream_is_filtered_by_what_is_left_to_be_sent(order: Template) -> None:
    (stream,) = [m for m in mappings(order) if "StartingPosition" in m]
    (filtered,) = stream["FilterCriteria"]["Filters"]
    pattern = json.loads(filtered["Pattern"])["dynamodb"]["NewImage"]
    assert pattern == {"relay_pk": {"S": [{"prefix": f"{shard('order', 0).rpartition('#')[0]}#"}]}}


def test_http_is_for_those_alone_who_are_allowed_to_call_it(
    order: Template, inventory: Template
) -> None:
    order.has_resource_properties("AWS::Lambda::Url", {"AuthType": "AWS_IAM"})
    order.resource_count_is("AWS::Lambda::Url", 1)
    inventory.resource_count_is("AWS::Lambda::Url", 0)
    for template in (order, inventory):
        permissions = template.find_resources("AWS::Lambda::Permission").values()
        assert not [p for p in permissions if p["Properties"]["Principal"] == "*"]


def test_no_secret_stands_in_a_variable(notification: Template) -> None:
    (function,) = functions(notification).values()
    variables = function["Environment"]["Variables"]
    assert variables["MAIL_URL_SECRET"] == "prod/notification/MAIL_URL"
    assert "MAIL_URL" not in variables


def test_a_function_may_read_its_own_secrets(notification: Template, inventory: Template) -> None:
    secret = (
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/notification/MAIL_URL-??????"
    )
    assert secret in resources_of(notification, "secretsmanager:GetSecretValue")
    assert not resources_of(inventory, "secretsmanager:GetSecretValue")


def test_a_service_is_told_how_to_schedule_if_it_does(
    inventory: Template, notification: Template
) -> None:
    (function,) = functions(inventory).values()
    role = "arn:aws:iam::123456789012:role/prod-inventory-scheduler"
    assert function["Environment"]["Variables"]["HEADRACE_SCHEDULER_ROLE_ARN"] == role
    (other,) = functions(notification).values()
    assert "HEADRACE_SCHEDULER_ROLE_ARN" not in other["Environment"]["Variables"]


def test_all_functions_of_a_service_have_one_role(order: Template) -> None:
    assert len({str(function["Role"]) for function in functions(order).values()}) == 1


def test_nothing_is_allowed_on_everything_but_to_send_traces(order: Template) -> None:
    everywhere = resources_by_action(order)
    assert {action for action, on in everywhere.items() if "*" in on} == {
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
    }
    assert not [action for action in everywhere if "*" in action]


def test_a_snapshot_is_taken_if_the_file_says_so(
    deployment: Deployment, inventory: Template
) -> None:
    snappy = template_of(deployment, "inventory", snap_start=True)
    (function,) = functions(snappy).values()
    assert function["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    (plain,) = functions(inventory).values()
    assert "SnapStart" not in plain


def resources_of(template: Template, action: str) -> list[str]:
    return resources_by_action(template).get(action, [])


def resources_by_action(template: Template) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    policies = resolved(template.find_resources("AWS::IAM::Policy"), template)
    for policy in policies.values():
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            for action in listed(statement["Action"]):
                found.setdefault(action, []).extend(map(str, listed(statement["Resource"])))
    return found


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
