"""A service on Lambda: its handlers, its relay and its HTTP edge, each behind an alias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aws_cdk import Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from headrace.record import RELAY_INDEX
from headrace.topology.access import Host

from .assets import CodeOf
from .deployment import Deployment, Placed
from .excuses import Excuse, excuse
from .names import Names
from .roles import allow_xray, service_role
from .variables import variables

ALIAS: Final = "live"
CANARY: Final = codedeploy.LambdaDeploymentConfig.CANARY_10_PERCENT_5_MINUTES
SWEEP: Final = "rate(1 minute)"
STREAM_BATCH: Final = 100
LOG_RETENTION: Final = logs.RetentionDays.ONE_MONTH


class ServiceOnLambda(Construct):
    """The functions of one service.

    What `messaging` made is found by its names: the queues that invoke the function, and the
    table whose stream invokes the relay. A new version takes a tenth of the messages for five
    minutes, and goes back when it fails.
    """

    def __init__(
        self, scope: Construct, id: str, placed: Placed, deployment: Deployment, code: CodeOf
    ) -> None:
        super().__init__(scope, id)
        self._placed = placed
        self._deployment = deployment
        self._names = Names(deployment.namespace)
        self._code = code
        self._options = placed.options.on_lambda
        self._deployments = codedeploy.LambdaApplication(self, "Deployments")
        self.role = self._role()
        if placed.service.queues:
            self._handler()
        if placed.service.emits:
            self._relay()
        if placed.options.http:
            self._http()

    @property
    def handler_entry(self) -> str:
        return self._options.handler or f"{self._placed.package}.lambda_handler.handler"

    @property
    def relay_entry(self) -> str:
        return self._options.relay or f"{self._placed.package}.relay_lambda_handler.handler"

    @property
    def http_entry(self) -> str:
        return self._options.http or f"{self._placed.package}.http_lambda.handler"

    # --- functions ---

    def _role(self) -> iam.Role:
        role = service_role(self, self._placed, self._names, Host.LAMBDA, "lambda.amazonaws.com")
        if self._deployment.tracing != "off":
            allow_xray(role)
        return role

    def _function(self, id: str, name: str, entry: str, *, http: bool = False) -> lambda_.Function:
        called = self._names.physical(name)
        group = self._log_group(id, called)
        self.role.add_to_policy(
            iam.PolicyStatement(
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                resources=[group.log_group_arn],
            )
        )
        function = lambda_.Function(
            self,
            id,
            function_name=called,
            description=f"{entry} of {self._deployment.system}",
            runtime=_runtime(self._deployment.python),
            architecture=lambda_.Architecture.ARM_64,
            handler=entry,
            code=self._code(self._placed, entry, http=http),
            role=self.role,
            memory_size=self._options.memory,
            ephemeral_storage_size=Size.mebibytes(512),
            timeout=Duration.seconds(self._options.timeout),
            environment=variables(self._placed, self._deployment),
            tracing=lambda_.Tracing.DISABLED
            if self._deployment.tracing == "off"
            else lambda_.Tracing.ACTIVE,
            log_group=group,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS
            if self._options.snap_start
            else None,
        )
        excuse(function, *_FUNCTION)
        return function

    def _log_group(self, id: str, function: str) -> logs.LogGroup:
        group = logs.LogGroup(
            self,
            f"{id}Logs",
            log_group_name=f"/aws/lambda/{function}",
            retention=LOG_RETENTION,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
        )
        excuse(group, *_LOGS)
        return group

    def _alias(self, id: str, function: lambda_.Function) -> lambda_.Alias:
        """What is invoked. CodeDeploy moves it to a new version bit by bit."""
        alias = lambda_.Alias(
            self, f"{id}Alias", alias_name=ALIAS, version=function.current_version
        )
        group = codedeploy.LambdaDeploymentGroup(
            self,
            f"{id}Deployment",
            application=self._deployments,
            alias=alias,
            deployment_config=CANARY,
            alarms=[self._failing(id, function, alias)],
        )
        excuse(
            group,
            Excuse(
                "AwsSolutions-IAM4", "It is AWS's own policy for CodeDeploy, of its least kind."
            ),
        )
        return alias

    def _failing(
        self, id: str, function: lambda_.Function, alias: lambda_.Alias
    ) -> cloudwatch.Alarm:
        # Of the new version alone: where the one before fails, this is how it is mended. A message
        # that fails is no error of a function; one that cannot be imported, or does not end in
        # time, is.
        version = {
            "FunctionName": function.function_name,
            "Resource": f"{function.function_name}:{ALIAS}",
            "ExecutedVersion": function.current_version.version,
        }
        return cloudwatch.Alarm(
            self,
            f"{id}Failing",
            alarm_name=f"{self._names.physical(self._placed.name)}-{id.lower()}-rollback",
            alarm_description="A new version fails: its deployment is rolled back.",
            metric=alias.metric_errors(
                dimensions_map=version, period=Duration.minutes(1), statistic="Sum"
            ),
            threshold=1,
            evaluation_periods=1,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )

    # --- what invokes them ---

    def _handler(self) -> None:
        alias = self._alias(
            "Handler", self._function("Handler", self._placed.name, self.handler_entry)
        )
        for queue in self._placed.service.queues:
            self._mapping(queue, alias)

    def _mapping(self, queue: str, alias: lambda_.Alias) -> None:
        fifo = queue.endswith(".fifo")
        window = self._options.window
        lambda_.EventSourceMapping(
            self,
            f"Mapping-{queue}",
            target=alias,
            event_source_arn=self._names.queue_arn(queue),
            batch_size=self._options.batch,
            max_batching_window=None if fifo else Duration.seconds(window),
            max_concurrency=self._options.max_concurrency,
            # Without it a batch that half failed is taken for done, or for failed as a whole.
            report_batch_item_failures=True,
        )

    def _relay(self) -> None:
        """By the clock, which is enough, and by the stream, which is at once."""
        name = f"{self._placed.name}-relay"
        function = self._function("Relay", name, self.relay_entry)
        alias = self._alias("Relay", function)
        self._sweep(alias)
        self._stream(alias)

    def _sweep(self, alias: lambda_.Alias) -> None:
        role = iam.Role(
            self,
            "SweepRole",
            assumed_by=iam.ServicePrincipal(
                "scheduler.amazonaws.com",
                conditions={"StringEquals": {"aws:SourceAccount": Stack.of(self).account}},
            ),
            description=f"Invokes the relay of {self._placed.name}.",
        )
        role.add_to_policy(
            iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[alias.function_arn])
        )
        schedule = scheduler.CfnSchedule(
            self,
            "Sweep",
            name=self._names.physical(f"{self._placed.name}-sweep"),
            schedule_expression=SWEEP,
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=alias.function_arn,
                role_arn=role.role_arn,
                # The next one comes in a minute.
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_retry_attempts=0, maximum_event_age_in_seconds=60
                ),
            ),
        )
        schedule.node.add_dependency(role.node.find_child("DefaultPolicy"))
        excuse(schedule, Excuse("CKV_AWS_297", "Nothing of anybody is in what it sends."))

    def _stream(self, alias: lambda_.Alias) -> None:
        table = self._placed.service.table
        assert table is not None, "what emits outside of handlers has a table"
        lambda_.EventSourceMapping(
            self,
            "Stream",
            target=alias,
            event_source_arn=ssm.StringParameter.value_for_string_parameter(
                self, self._names.stream_parameter(table)
            ),
            starting_position=lambda_.StartingPosition.LATEST,
            batch_size=STREAM_BATCH,
            report_batch_item_failures=True,
            # The sweep sends what the stream gives up on, so it never holds up its shard for long.
            retry_attempts=3,
            max_record_age=Duration.minutes(5),
            bisect_batch_on_error=True,
            # Records that something is left of. A saga stands in the index too, in other places.
            filters=[lambda_.FilterCriteria.filter(_left_by(self._placed.name))],
        )

    def _http(self) -> None:
        """A function URL that only those may call who are allowed to by IAM: whoever puts an edge
        in front of it decides what is public."""
        function = self._function("Http", f"{self._placed.name}-http", self.http_entry, http=True)
        alias = self._alias("Http", function)
        self.url = alias.add_function_url(auth_type=lambda_.FunctionUrlAuthType.AWS_IAM)


def _runtime(python: str) -> lambda_.Runtime:
    return lambda_.Runtime(
        f"python{python}",
        lambda_.RuntimeFamily.PYTHON,
        supports_inline_code=True,
        supports_snap_start=python not in ("3.11",),
    )


def _left_by(service: str) -> Mapping[str, Any]:
    place = {"S": lambda_.FilterRule.begins_with(f"{service}#")}
    return {"dynamodb": {"NewImage": {f"{RELAY_INDEX}_pk": place}}}


_FUNCTION: Final = (
    Excuse(
        "AwsSolutions-L1", "The locked packages are tested on this Python, and not yet on newer."
    ),
    Excuse("CKV_AWS_115", "Concurrency is bounded at the mapping, where a message waits for it."),
    Excuse("CKV_AWS_116", "What it cannot handle goes to the dead-letter queue of its own queue."),
    Excuse(
        "CKV_AWS_117", "It speaks to AWS alone, over TLS; a VPC would add endpoints to pay for."
    ),
    Excuse("CKV_AWS_173", "Its variables are names. Secrets are read from Secrets Manager."),
)
_LOGS: Final = (
    Excuse("CKV_AWS_158", "Log groups are encrypted, by a key of CloudWatch Logs' own."),
    Excuse("CKV_AWS_338", "Lines are for finding faults, and a month is long enough for that."),
)
