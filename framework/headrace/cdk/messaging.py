"""Everything with state: the bus, its rules, the queues and the tables of all services.

It is a stack of its own, so that deploying a service, moving it to another host or taking it away
touches no message and no item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from headrace.topology.access import schedules_to
from headrace.topology.model import Bus, Queue, Rule, Table, Topology, dead_letter_queue

from .deployment import Deployment, Placed
from .excuses import Excuse, excuse
from .names import Names


class EventBusStack(Stack):
    """What `topology(*services)` says, as CloudFormation."""

    def __init__(self, scope: Construct, id: str, deployment: Deployment, **options: Any) -> None:
        super().__init__(
            scope, id, description=f"Bus, queues and tables of {deployment.system}", **options
        )
        self._names = Names(deployment.namespace)
        # `headrace check --deployed` reads it.
        CfnOutput(self, "HeadraceNamespace", value=deployment.namespace)
        wanted = deployment.topology
        queues = self._queues(wanted.queues)
        buses = {bus.name: self._bus(bus) for bus in wanted.buses}
        for name, queue in queues.items():
            self._let_in(name, queue, wanted)
        for rule in wanted.rules:
            self._rule(rule, queues, buses.get(rule.bus))
        relayed = {p.service.table for p in deployment.services if p.service.emits}
        for table in wanted.tables:
            self._table(table, streams=table.name in relayed)
        for placed in deployment.services:
            self._scheduler_role(placed)

    def _bus(self, bus: Bus) -> events.CfnEventBus:
        return events.CfnEventBus(self, f"Bus-{bus.name}", name=self._names.bus(bus.name))

    def _queues(self, queues: Iterable[Queue]) -> dict[str, sqs.Queue]:
        """Those that others name come first."""
        made: dict[str, sqs.Queue] = {}
        for queue in sorted(queues, key=lambda queue: queue.dead_letters is not None):
            made[queue.name] = self._queue(queue, made)
        return made

    def _queue(self, queue: Queue, made: Mapping[str, sqs.Queue]) -> sqs.Queue:
        letters = None
        if queue.dead_letters is not None:
            letters = sqs.DeadLetterQueue(
                queue=made[queue.dead_letters], max_receive_count=queue.max_receive_count
            )
        resource = sqs.Queue(
            self,
            f"Queue-{queue.name}",
            queue_name=self._names.physical(queue.name),
            visibility_timeout=_seconds(queue.visibility.total_seconds()),
            retention_period=_seconds(queue.retention.total_seconds()),
            dead_letter_queue=letters,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            # Not when it cannot be made at all: the next try would find its name taken.
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
            # EventBridge gives no deduplication id, so the queue derives one from the content.
            # The other two are what SQS calls high throughput.
            **_FIFO if queue.fifo else {},
        )
        excuse(
            resource,
            Excuse(
                "CKV_AWS_27",
                "It is encrypted with the key that SQS owns. A key of the account's own would have "
                "to let EventBridge in, and adds a charge to calls.",
            ),
        )
        if letters is None:
            excuse(resource, Excuse("AwsSolutions-SQS3", "It is a dead-letter queue itself."))
        return resource

    def _rule(
        self, rule: Rule, queues: Mapping[str, sqs.Queue], bus: events.CfnEventBus | None
    ) -> None:
        queue = queues[rule.queue]
        fifo = {"message_group_id": rule.name} if rule.queue.endswith(".fifo") else None
        target = events.CfnRule.TargetProperty(
            id="queue",
            arn=queue.queue_arn,
            dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                arn=queues[rule.undelivered].queue_arn
            )
            if rule.undelivered
            else None,
            sqs_parameters=events.CfnRule.SqsParametersProperty(**fifo) if fifo else None,
        )
        resource = events.CfnRule(
            self,
            f"Rule-{rule.name}",
            name=self._names.physical(rule.name),
            event_bus_name=self._names.bus(rule.bus),
            event_pattern=cast(Any, rule.pattern),
            state="ENABLED",
            targets=[target],
        )
        # Not before the queue lets it in: EventBridge does not try again where it was refused.
        for name in filter(None, (rule.queue, rule.undelivered)):
            resource.node.add_dependency(queues[name].node.find_child("Policy"))
        if bus is not None:
            resource.node.add_dependency(bus)

    def _let_in(self, name: str, queue: sqs.Queue, wanted: Topology) -> None:
        """These rules may send, and no others; everyone else needs a permission of their own."""
        arns = sorted(self._names.rule_arn(rule.bus, rule.name) for rule in wanted.rules_to(name))
        if arns:
            queue.add_to_resource_policy(
                iam.PolicyStatement(
                    sid="RulesMaySend",
                    principals=[iam.ServicePrincipal("events.amazonaws.com")],
                    actions=["sqs:SendMessage"],
                    resources=[queue.queue_arn],
                    conditions={"ArnEquals": {"aws:SourceArn": arns}},
                )
            )

    def _table(self, table: Table, *, streams: bool) -> None:
        resource = dynamodb.Table(
            self,
            f"Table-{table.name}",
            table_name=self._names.physical(table.name),
            partition_key=_text("pk"),
            sort_key=_text("sk"),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            time_to_live_attribute=table.ttl_attribute,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            stream=dynamodb.StreamViewType.NEW_IMAGE if streams else None,
            deletion_protection=True,
            removal_policy=RemovalPolicy.RETAIN,
        )
        if resource.table_stream_arn is not None:
            ssm.StringParameter(
                self,
                f"Stream-{table.name}",
                parameter_name=self._names.stream_parameter(table.name),
                string_value=resource.table_stream_arn,
            )
        for index in table.indexes:
            resource.add_global_secondary_index(
                index_name=index,
                partition_key=_text(f"{index}_pk"),
                sort_key=_text(f"{index}_sk"),
                projection_type=dynamodb.ProjectionType.KEYS_ONLY,
            )
        excuse(
            resource,
            Excuse(
                "CKV_AWS_119",
                "Items are encrypted with the key that DynamoDB owns: one of the account's own "
                "adds a charge to each call, and is a choice of its owner.",
            ),
        )

    def _scheduler_role(self, placed: Placed) -> None:
        """As this role EventBridge Scheduler sends. It is here, as schedules outlive hosts."""
        queues = schedules_to(placed.service)
        if not queues:
            return
        role = iam.Role(
            self,
            f"SchedulerRole-{placed.name}",
            role_name=self._names.scheduler_role(placed.name),
            assumed_by=iam.ServicePrincipal(
                "scheduler.amazonaws.com",
                # Nobody else's schedule may use it.
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            ),
            description=f"Sends what the service {placed.name} has scheduled.",
        )
        letters = [dead_letter_queue(queue) for queue in queues if not queue.endswith(".fifo")]
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["sqs:SendMessage"],
                resources=[self._names.queue_arn(queue) for queue in (*queues, *letters)],
            )
        )


_FIFO: dict[str, Any] = {
    "fifo": True,
    "content_based_deduplication": True,
    "deduplication_scope": sqs.DeduplicationScope.MESSAGE_GROUP,
    "fifo_throughput_limit": sqs.FifoThroughputLimit.PER_MESSAGE_GROUP_ID,
}


def _text(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)


def _seconds(seconds: float) -> Duration:
    return Duration.seconds(int(seconds))
