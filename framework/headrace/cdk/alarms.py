"""Who is told that something is wrong: alarms on all that a deployment has, and one topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aws_cdk import Aws, RemovalPolicy, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from .alarm_kinds import FAILED_DEPLOYMENT, LAMBDA_CONCURRENCY, Watch, watches
from .dashboard import body
from .deployment import Deployment
from .measures import Measures, Metric, least_tasks
from .names import Names

MINUTE: Final = 60


class AlarmsStack(Stack):
    """One topic, an alarm for each thing that may go wrong with what the topology has, and a
    dashboard. `concurrency` is the account's quota of Lambda, if it has another than the first
    1,000."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        deployment: Deployment,
        *,
        concurrency: int = LAMBDA_CONCURRENCY,
        **options: Any,
    ) -> None:
        super().__init__(scope, id, description=f"Alarms of {deployment.system}", **options)
        self._deployment = deployment
        self._names = Names(deployment.namespace)
        self._topic = self._told()
        all_watches = list(watches(deployment, concurrency=concurrency))
        for watch in all_watches:
            self._alarm(watch)
        self._failed_deployments()
        self._dashboard(all_watches)

    # --- the topic ---

    def _told(self) -> sns.Topic:
        topic = sns.Topic(
            self,
            "Topic",
            topic_name=self._names.alarms_topic(),
            master_key=self._key(),
            enforce_ssl=True,
        )
        self._let_tell(topic)
        if self._deployment.alarms_to is not None:
            address = subscriptions.EmailSubscription(self._deployment.alarms_to)
            topic.add_subscription(address)
        return topic

    def _key(self) -> kms.Key:
        """A key of our own. AWS's own one for SNS, alias/aws/sns, lets no other service use it, and
        its policy cannot be changed: alarms would be raised, and nobody told."""
        key = kms.Key(
            self,
            "Key",
            alias=f"alias/{self._names.physical('alarms')}",
            description=f"Encrypts what the alarms of {self._deployment.system} say.",
            enable_key_rotation=True,
            # Nothing is kept in a topic that would have to be read later.
            removal_policy=RemovalPolicy.DESTROY,
        )
        key.add_to_resource_policy(
            _allow("cloudwatch", _USES, "*", self._of_this_account(self._alarm_arn("*")))
        )
        if self._tasks:
            # EventBridge does not tell KMS for which rule it asks: a condition would refuse it.
            # What it may do with the key, it may do for this topic alone, by the topic's policy.
            key.add_to_resource_policy(_allow("events", _USES, "*", {}))
        return key

    def _let_tell(self, topic: sns.Topic) -> None:
        """The alarms of this namespace, and the rule on failed deployments."""
        alarms = self._of_this_account(self._alarm_arn("*"))
        arn = topic.topic_arn
        topic.add_to_resource_policy(_allow("cloudwatch", _TELLS, arn, alarms))
        if self._tasks:
            rule = self._names.rule_arn("default", FAILED_DEPLOYMENT.name)
            only = {"ArnEquals": {"aws:SourceArn": rule}}
            topic.add_to_resource_policy(_allow("events", _TELLS, arn, only))

    def _of_this_account(self, arns: str) -> dict[str, Any]:
        return {
            "ArnLike": {"aws:SourceArn": arns},
            "StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID},
        }

    # --- alarms ---

    def _alarm(self, watch: Watch) -> None:
        kind = watch.kind
        assert kind.missing is not None, "an alarm on a metric knows what a missing value means"
        cloudwatch.CfnAlarm(
            self,
            f"Alarm-{watch.name}",
            alarm_name=self._names.physical(watch.name),
            alarm_description=watch.description,
            comparison_operator="LessThanThreshold" if kind.below else "GreaterThanThreshold",
            threshold=watch.threshold,
            evaluation_periods=kind.minutes,
            datapoints_to_alarm=kind.points,
            treat_missing_data=kind.missing.value,
            alarm_actions=[self._topic.topic_arn],
            ok_actions=[self._topic.topic_arn],
            metrics=_queries(watch),
        )

    @property
    def _tasks(self) -> list[str]:
        """The services of ECS, by their logical names."""
        placed = self._deployment.services
        return [name for each in placed for name in least_tasks(each)]

    def _failed_deployments(self) -> None:
        """ECS tells of them by an event, and has no metric."""
        if not self._tasks:
            return
        kind = FAILED_DEPLOYMENT
        cluster = Measures(self._deployment).cluster
        told = kind.means.format(resource="<service>")
        events.CfnRule(
            self,
            "FailedDeployments",
            name=self._names.physical(kind.name),
            event_pattern={
                "source": ["aws.ecs"],
                "detail-type": ["ECS Deployment State Change"],
                "resources": [self._task_arn(cluster, name) for name in self._tasks],
                "detail": {"eventName": ["SERVICE_DEPLOYMENT_FAILED"]},
            },
            state="ENABLED",
            targets=[
                events.CfnRule.TargetProperty(
                    id="topic",
                    arn=self._topic.topic_arn,
                    input_transformer=events.CfnRule.InputTransformerProperty(
                        input_paths_map={"service": "$.resources[0]", "why": "$.detail.reason"},
                        input_template=f'"{told} <why> See {kind.page}."',
                    ),
                )
            ],
        )

    # --- the dashboard ---

    def _dashboard(self, all_watches: Sequence[Watch]) -> None:
        alarms = [self._alarm_arn(watch.name) for watch in all_watches]
        cloudwatch.CfnDashboard(
            self,
            "Dashboard",
            dashboard_name=self._names.physical("services"),
            dashboard_body=self.to_json_string(body(self._deployment, Aws.REGION, alarms)),
        )

    def _alarm_arn(self, name: str) -> str:
        return _arn("cloudwatch", f"alarm:{self._names.physical(name)}")

    def _task_arn(self, cluster: str, service: str) -> str:
        return _arn("ecs", f"service/{cluster}/{self._names.physical(service)}")


_TELLS: Final = ("sns:Publish",)
_USES: Final = ("kms:Decrypt", "kms:GenerateDataKey*")


def _allow(
    service: str, actions: Sequence[str], resource: str, conditions: Mapping[str, Any]
) -> iam.PolicyStatement:
    """For a service of AWS. In the policy of a key the resource `*` is that key."""
    return iam.PolicyStatement(
        sid=f"Told{service.title()}",
        principals=[iam.ServicePrincipal(f"{service}.amazonaws.com")],
        actions=list(actions),
        resources=[resource],
        conditions=dict(conditions),
    )


def _arn(service: str, resource: str) -> str:
    return f"arn:{Aws.PARTITION}:{service}:{Aws.REGION}:{Aws.ACCOUNT_ID}:{resource}"


# --- what an alarm looks at ------------------------------------------------------------------


def _queries(watch: Watch) -> list[cloudwatch.CfnAlarm.MetricDataQueryProperty]:
    if watch.query:
        return [
            cloudwatch.CfnAlarm.MetricDataQueryProperty(
                id="found", expression=watch.query, period=MINUTE, return_data=True
            )
        ]
    alone = len(watch.metrics) == 1
    asked = [_asked(f"m{n}", metric, alone) for n, metric in enumerate(watch.metrics)]
    return asked if alone else [*asked, _sum(len(asked))]


def _asked(id: str, metric: Metric, alone: bool) -> cloudwatch.CfnAlarm.MetricDataQueryProperty:
    dimensions = [
        cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value)
        for name, value in metric.dimensions.items()
    ]
    return cloudwatch.CfnAlarm.MetricDataQueryProperty(
        id=id,
        metric_stat=cloudwatch.CfnAlarm.MetricStatProperty(
            metric=cloudwatch.CfnAlarm.MetricProperty(
                namespace=metric.namespace, metric_name=metric.name, dimensions=dimensions
            ),
            period=MINUTE,
            stat=metric.statistic,
        ),
        return_data=alone,
    )


def _sum(metrics: int) -> cloudwatch.CfnAlarm.MetricDataQueryProperty:
    """Where one of them has no value, it counts as 0; where none has, the sum has none either."""
    terms = " + ".join(f"FILL(m{n}, 0)" for n in range(metrics))
    return cloudwatch.CfnAlarm.MetricDataQueryProperty(id="sum", expression=terms, return_data=True)
