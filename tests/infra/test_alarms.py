"""The stack of the alarms, as CloudFormation gets it."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from headrace.cdk.alarm_kinds import watches
from headrace.cdk.deployment import Deployment
from tests.infra.system import deployment

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="the CDK needs Node: install it, and node on the PATH"
)

Resources = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deployment(tmp_path_factory.mktemp("system"))


@pytest.fixture(scope="module")
def resources(deployed: Deployment) -> Resources:
    """By their logical ids. Importing the CDK starts Node, so it waits for who needs it."""
    from aws_cdk import App
    from aws_cdk.assertions import Template

    from headrace.cdk.alarms import AlarmsStack

    app = App(outdir=str(deployed.root / "out"))
    stack = AlarmsStack(app, "shop-alarms", deployed, concurrency=2_000)
    made: Resources = Template.from_stack(stack).to_json()["Resources"]
    return made


def of(kind: str, resources: Resources) -> dict[str, dict[str, Any]]:
    return {id: each["Properties"] for id, each in resources.items() if each["Type"] == kind}


def alarms(resources: Resources) -> dict[str, dict[str, Any]]:
    found = of("AWS::CloudWatch::Alarm", resources)
    return {each["AlarmName"]: each for each in found.values()}


def one(kind: str, resources: Resources) -> tuple[str, dict[str, Any]]:
    ((id, properties),) = of(kind, resources).items()
    return id, properties


def text(value: Any) -> str:
    """A value with its references, as one would read it: `arn:<AWS::Partition>:…`."""
    if isinstance(value, str):
        return value
    if "Ref" in value:
        return f"<{value['Ref']}>"
    separator, parts = value["Fn::Join"]
    joined: str = separator.join(map(text, parts))
    return joined


# --- alarms --------------------------------------------------------------------------------


def test_there_is_an_alarm_for_all_that_is_watched(
    deployed: Deployment, resources: Resources
) -> None:
    wanted = {f"shop-test-{watch.name}" for watch in watches(deployed)}
    assert alarms(resources).keys() == wanted


def test_each_alarm_tells_the_topic_when_it_goes_off_and_when_it_is_over(
    resources: Resources,
) -> None:
    topic, _ = one("AWS::SNS::Topic", resources)
    for alarm in alarms(resources).values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic}]
        assert "docs/runbooks/" in alarm["AlarmDescription"]
        assert alarm["TreatMissingData"] in {"notBreaching", "breaching", "ignore"}


def test_each_dead_letter_queue_has_an_alarm_that_one_letter_sets_off(
    deployed: Deployment, resources: Resources
) -> None:
    letters = {queue.dead_letters for queue in deployed.topology.queues} - {None}
    assert len(letters) == 5
    for name in letters:
        alarm = alarms(resources)[f"shop-test-dead-letters-{name}"]
        assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)
        assert (alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == (1, 1)
        assert alarm["TreatMissingData"] == "ignore"
        *asked, total = alarm["Metrics"]
        queues = [each["MetricStat"]["Metric"]["Dimensions"][0] for each in asked]
        assert queues == 2 * [{"Name": "QueueName", "Value": f"shop-test-{name}"}]
        assert total["Expression"] == "FILL(m0, 0) + FILL(m1, 0)"


def test_of_the_metrics_of_an_alarm_one_is_compared(resources: Resources) -> None:
    for alarm in alarms(resources).values():
        assert [m["ReturnData"] for m in alarm["Metrics"]].count(True) == 1


def test_thresholds_are_those_of_the_topology(resources: Resources) -> None:
    thresholds = {name: alarm["Threshold"] for name, alarm in alarms(resources).items()}
    assert thresholds["shop-test-old-messages-notification"] == 315
    assert thresholds["shop-test-in-flight-order"] == 96_000
    assert thresholds["shop-test-outbox-lag-order"] == 300_000
    assert thresholds["shop-test-concurrency-account"] == 1_600


def test_too_few_tasks_are_noticed_also_when_nobody_counts_them(resources: Resources) -> None:
    alarm = alarms(resources)["shop-test-too-few-tasks-ledger"]
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("LessThanThreshold", 3)
    assert alarm["TreatMissingData"] == "breaching"
    (asked,) = alarm["Metrics"]
    dimensions = asked["MetricStat"]["Metric"]["Dimensions"]
    assert {d["Name"]: d["Value"] for d in dimensions} == {
        "ClusterName": "shop-test",
        "ServiceName": "shop-test-ledger",
    }


def test_a_deployment_that_ecs_gives_up_is_told_of(resources: Resources) -> None:
    topic, _ = one("AWS::SNS::Topic", resources)
    _, rule = one("AWS::Events::Rule", resources)
    assert rule["EventPattern"]["detail"] == {"eventName": ["SERVICE_DEPLOYMENT_FAILED"]}
    services = [text(arn).rpartition(":")[2] for arn in rule["EventPattern"]["resources"]]
    assert services == [
        "service/shop-test/shop-test-inventory",
        "service/shop-test/shop-test-notification",
        "service/shop-test/shop-test-notification-http",
        "service/shop-test/shop-test-ledger",
    ]
    (target,) = rule["Targets"]
    assert target["Arn"] == {"Ref": topic}
    assert json.loads(target["InputTransformer"]["InputTemplate"])


# --- the topic -----------------------------------------------------------------------------


def test_the_topic_is_encrypted_with_a_key_that_alarms_may_use(resources: Resources) -> None:
    id, key = one("AWS::KMS::Key", resources)
    _, topic = one("AWS::SNS::Topic", resources)
    assert topic["KmsMasterKeyId"] == {"Fn::GetAtt": [id, "Arn"]}
    assert key["EnableKeyRotation"] is True
    statements = {each.get("Sid"): each for each in key["KeyPolicy"]["Statement"]}
    told = statements["ToldCloudwatch"]
    assert told["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert told["Action"] == ["kms:Decrypt", "kms:GenerateDataKey*"]
    assert "Condition" not in statements["ToldEvents"]


def test_only_alarms_of_this_namespace_and_one_rule_may_tell_the_topic_something(
    resources: Resources,
) -> None:
    _, policy = one("AWS::SNS::TopicPolicy", resources)
    statements = policy["PolicyDocument"]["Statement"]
    allowed = {
        each["Principal"]["Service"]: sorted(
            text(arn) for condition in each["Condition"].values() for arn in condition.values()
        )
        for each in statements
        if each["Effect"] == "Allow"
    }
    here = "<AWS::Region>:<AWS::AccountId>"
    alarms = f"arn:<AWS::Partition>:cloudwatch:{here}:alarm:shop-test-*"
    rule = f"arn:<AWS::Partition>:events:{here}:rule/shop-test-failed-deployment"
    assert allowed == {
        "cloudwatch.amazonaws.com": ["<AWS::AccountId>", alarms],
        "events.amazonaws.com": [rule],
    }


def test_nobody_may_tell_the_topic_something_without_tls(resources: Resources) -> None:
    _, policy = one("AWS::SNS::TopicPolicy", resources)
    (denied,) = (s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Deny")
    assert denied["Principal"] == "*"
    assert denied["Action"] == "sns:Publish"
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_whoever_is_to_be_told_is_subscribed(resources: Resources) -> None:
    topic, _ = one("AWS::SNS::Topic", resources)
    _, subscription = one("AWS::SNS::Subscription", resources)
    assert subscription == {
        "Endpoint": "oncall@example.com",
        "Protocol": "email",
        "TopicArn": {"Ref": topic},
    }


# --- the dashboard -------------------------------------------------------------------------


def test_the_dashboard_is_json_and_shows_every_alarm(resources: Resources) -> None:
    _, dashboard = one("AWS::CloudWatch::Dashboard", resources)
    assert dashboard["DashboardName"] == "shop-test-services"
    drawn = json.loads(text(dashboard["DashboardBody"]))["widgets"]
    shown = [arn for w in drawn for arn in w["properties"].get("alarms", [])]
    assert {arn.rpartition(":")[2] for arn in shown} == alarms(resources).keys()
    regions = {w["properties"]["region"] for w in drawn if w["type"] == "metric"}
    assert regions == {"<AWS::Region>"}
