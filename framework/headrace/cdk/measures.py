"""The metrics in CloudWatch of what a deployment consists of: AWS's own, and headrace's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.aws.config import AwsConfig
from headrace.topology.model import Rule

from .deployment import Deployment, Placed


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with the statistic that says something."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    statistic: str


@dataclass(frozen=True, slots=True)
class Measures:
    """The metrics of a deployment's resources, by the names that code gives these."""

    deployment: Deployment

    def queue(self, queue: str, name: str) -> Metric:
        """Of SQS: what it counts of a queue is how much there is, so the most of a minute."""
        return Metric("AWS/SQS", name, {"QueueName": self._physical(queue)}, "Maximum")

    def service(self, service: str, name: str, statistic: str = "Sum") -> Metric:
        """Of headrace: the sum over the handlers of a service."""
        return Metric(self.deployment.metrics_namespace, name, {"Service": service}, statistic)

    def table(self, table: str, name: str, index: str | None = None) -> Metric:
        """Of DynamoDB: of the table without its indexes, or of one of these."""
        of_index = {} if index is None else {"GlobalSecondaryIndexName": index}
        return Metric("AWS/DynamoDB", name, {"TableName": self._physical(table), **of_index}, "Sum")

    def function(self, function: str, name: str, statistic: str = "Sum") -> Metric:
        """Of Lambda: over all versions of a function."""
        return Metric("AWS/Lambda", name, {"FunctionName": self._physical(function)}, statistic)

    def lambda_account(self, name: str) -> Metric:
        """Of Lambda: over all functions of the account in this region."""
        return Metric("AWS/Lambda", name, {}, "Maximum")

    def tasks(self, service: str, name: str, statistic: str) -> Metric:
        """Of ECS: over all tasks of a service."""
        return Metric("AWS/ECS", name, self._of_tasks(service), statistic)

    def task_count(self, service: str) -> Metric:
        """Of Container Insights, which alone counts the tasks that run. `Minimum` notices one that
        is missing for a part of the minute."""
        return Metric(
            "ECS/ContainerInsights", "RunningTaskCount", self._of_tasks(service), "Minimum"
        )

    def rule(self, rule: Rule, name: str) -> Metric:
        """Of EventBridge. A rule on the account's default bus is known by its name alone."""
        bus = self._config.physical_bus(rule.bus)
        on_bus = {} if bus == "default" else {"EventBusName": bus}
        return Metric("AWS/Events", name, {**on_bus, "RuleName": self._physical(rule.name)}, "Sum")

    def schedules(self, name: str) -> Metric:
        """Of EventBridge Scheduler: over all schedules of the group that headrace uses."""
        return Metric("AWS/Scheduler", name, {"ScheduleGroup": "default"}, "Sum")

    @property
    def cluster(self) -> str:
        """The name of the ECS cluster."""
        return self.deployment.namespace

    def _of_tasks(self, service: str) -> dict[str, str]:
        return {"ClusterName": self.cluster, "ServiceName": self._physical(service)}

    def _physical(self, name: str) -> str:
        return self._config.physical(name)

    @property
    def _config(self) -> AwsConfig:
        return AwsConfig(namespace=self.deployment.namespace)


def functions(placed: Placed) -> tuple[str, ...]:
    """The functions of a service that runs on Lambda, by their logical names."""
    if not placed.options.host.on_lambda:
        return ()
    relay = (f"{placed.name}-relay",) if placed.service.emits else ()
    http = (f"{placed.name}-http",) if placed.options.http else ()
    return (placed.name, *relay, *http)


def least_tasks(placed: Placed) -> dict[str, int]:
    """The services of ECS that a service on Fargate has, by their logical names, and how many
    tasks each has at least. Nobody counts requests that find no task, so of those that serve HTTP
    there is always one."""
    if not placed.options.host.on_fargate:
        return {}
    least = placed.options.on_fargate.least
    http = {f"{placed.name}-http": max(1, least)} if placed.options.http else {}
    return {placed.name: least, **http}
