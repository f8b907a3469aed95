"""How many tasks a service has: as many as its backlog wants.

    backlog per task = messages that wait in the fullest queue / running tasks
    target           = latency × concurrency / seconds_per_message

A task handles `concurrency` messages of each queue at a time, and so
`concurrency / seconds_per_message` a second: with as many waiting for it as it handles within
`latency`, the last one waits that long. There are places for every queue on each task, so the
fullest queue decides, and others beside it do not count.

Queues are measured once a minute, and an idle one not at all: what is not measured counts as
nothing, as a policy without figures would leave the tasks that a backlog has brought. Scale-in is
slow on purpose, as each task that ends makes others wait for their share.

For the source see "Create a target tracking scaling policy for Application Auto Scaling using
metric math".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aws_cdk import Aws, Duration
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from .deployment import FargateOptions

SCALE_OUT: Final = 60
"""Seconds until the next step up: a measure of the queue, and a task that has begun."""
SCALE_IN: Final = 300
BUSY: Final = 60
"""Percent of the processor at which the HTTP edge gets more tasks."""

_MINUTE: Final = Duration.minutes(1)


def backlog_target(options: FargateOptions) -> float:
    """How many messages may wait for each task."""
    return options.latency * options.concurrency / options.seconds_per_message


def backlog_per_task(queues: int) -> str:
    """In metric math, of `queue0`, `queue1` … and `running`. There is a task even where none is
    counted: nothing can be divided by none."""
    depths = _depths(queues)
    fullest = depths[0] if queues == 1 else f"MAX([{', '.join(depths)}])"
    return f"{fullest} / {_AT_LEAST_ONE}"


def _depths(queues: int) -> list[str]:
    return [f"FILL(queue{number}, 0)" for number in range(queues)]


_RUNNING: Final = "FILL(running, 0)"
_AT_LEAST_ONE: Final = f"IF({_RUNNING} > 0, {_RUNNING}, 1)"


@dataclass(frozen=True, slots=True)
class Measured:
    """A service in a cluster, and the physical names of the queues it takes from."""

    cluster: str
    service: str
    queues: tuple[str, ...]


def scalable(
    scope: Construct, service: ecs.FargateService, cluster: str, least: int, most: int
) -> scaling.ScalableTarget:
    """The number of tasks of a service, as what can be scaled."""
    role = (
        f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/aws-service-role/"
        "ecs.application-autoscaling.amazonaws.com/"
        "AWSServiceRoleForApplicationAutoScaling_ECSService"
    )
    return scaling.ScalableTarget(
        scope,
        "Tasks",
        service_namespace=scaling.ServiceNamespace.ECS,
        scalable_dimension="ecs:service:DesiredCount",
        resource_id=f"service/{cluster}/{service.service_name}",
        min_capacity=least,
        max_capacity=most,
        # AWS's own, which it makes at the first use.
        role=iam.Role.from_role_arn(scope, "ScalingRole", role),
    )


def scale_on_backlog(
    scope: Construct, target: scaling.ScalableTarget, measured: Measured, options: FargateOptions
) -> None:
    """Keep the backlog per task at its target; from no task at all, begin with one."""
    scaling.CfnScalingPolicy(
        scope,
        "Backlog",
        policy_name=f"{measured.service}-backlog",
        policy_type="TargetTrackingScaling",
        scaling_target_id=target.scalable_target_id,
        target_tracking_scaling_policy_configuration=_TRACKING(
            target_value=backlog_target(options),
            scale_out_cooldown=SCALE_OUT,
            scale_in_cooldown=SCALE_IN,
            customized_metric_specification=_METRIC(metrics=list(_metrics(measured))),
        ),
    )
    if options.least == 0:
        _first_task(scope, target, measured)


def scale_on_processor(scope: Construct, target: scaling.ScalableTarget, service: str) -> None:
    """For what answers requests, which leave no backlog."""
    target.scale_to_track_metric(
        "Processor",
        policy_name=f"{service}-processor",
        predefined_metric=scaling.PredefinedMetric.ECS_SERVICE_AVERAGE_CPU_UTILIZATION,
        target_value=BUSY,
        scale_out_cooldown=Duration.seconds(SCALE_OUT),
        scale_in_cooldown=Duration.seconds(SCALE_IN),
    )


# --- target tracking ---------------------------------------------------------------------

_POLICY: Final = scaling.CfnScalingPolicy
_TRACKING: Final = _POLICY.TargetTrackingScalingPolicyConfigurationProperty
_METRIC: Final = _POLICY.CustomizedMetricSpecificationProperty
_QUERY: Final = _POLICY.TargetTrackingMetricDataQueryProperty
_STAT: Final = _POLICY.TargetTrackingMetricStatProperty
_NAMED: Final = _POLICY.TargetTrackingMetricProperty
_DIMENSION: Final = _POLICY.TargetTrackingMetricDimensionProperty


def _metrics(
    measured: Measured,
) -> Iterator[scaling.CfnScalingPolicy.TargetTrackingMetricDataQueryProperty]:
    for id, namespace, name, dimensions, statistic in _sources(measured):
        yield _QUERY(
            id=id,
            return_data=False,
            metric_stat=_STAT(
                stat=statistic,
                metric=_NAMED(
                    namespace=namespace,
                    metric_name=name,
                    dimensions=[_DIMENSION(name=k, value=v) for k, v in dimensions.items()],
                ),
            ),
        )
    yield _QUERY(
        id="backlog",
        label="Backlog per task",
        expression=backlog_per_task(len(measured.queues)),
        return_data=True,
    )


def _sources(measured: Measured) -> Iterator[tuple[str, str, str, dict[str, str], str]]:
    """Id, namespace, name, dimensions and statistic of what the expression is made of."""
    for number, queue in enumerate(measured.queues):
        visible = "ApproximateNumberOfMessagesVisible"
        yield f"queue{number}", "AWS/SQS", visible, {"QueueName": queue}, "Maximum"
    running = {"ClusterName": measured.cluster, "ServiceName": measured.service}
    yield "running", "ECS/ContainerInsights", "RunningTaskCount", running, "Average"


# --- from nothing ------------------------------------------------------------------------


def _first_task(scope: Construct, target: scaling.ScalableTarget, measured: Measured) -> None:
    """Target tracking multiplies what there is, and gets nowhere from nothing."""
    metrics: dict[str, cloudwatch.IMetric] = {
        id: cloudwatch.Metric(
            namespace=namespace,
            metric_name=name,
            dimensions_map=dimensions,
            statistic=statistic,
            period=_MINUTE,
        )
        for id, namespace, name, dimensions, statistic in _sources(measured)
    }
    waiting = " + ".join(_depths(len(measured.queues)))
    alarm = cloudwatch.Alarm(
        scope,
        "Waiting",
        alarm_description=f"Messages wait for {measured.service}, and no task is running.",
        metric=cloudwatch.MathExpression(
            expression=f"IF({_RUNNING} < 1, {waiting}, 0)",
            using_metrics=metrics,
            period=_MINUTE,
        ),
        threshold=1,
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        evaluation_periods=1,
        treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
    )
    first = scaling.StepScalingAction(
        scope,
        "First",
        scaling_target=target,
        # Not to one: more may be on their way already, which are not running yet.
        adjustment_type=scaling.AdjustmentType.CHANGE_IN_CAPACITY,
        cooldown=Duration.seconds(SCALE_IN),
    )
    first.add_adjustment(adjustment=1, lower_bound=0)
    alarm.add_alarm_action(actions.ApplicationScalingAction(first))
