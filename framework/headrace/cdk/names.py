"""ARNs by logical names: stacks refer to what others made by its name, so none holds another."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Aws

from headrace.aws.config import AwsConfig
from headrace.topology.access import Grant, Resource


@dataclass(frozen=True, slots=True)
class Names:
    """What is called what in AWS, within a namespace, the account and the region of a stack."""

    namespace: str

    def physical(self, name: str) -> str:
        return self._config.physical(name)

    def bus(self, name: str) -> str:
        return self._config.physical_bus(name)

    def bus_arn(self, name: str) -> str:
        return _arn("events", f"event-bus/{self.bus(name)}")

    def rule_arn(self, bus: str, rule: str) -> str:
        on = "" if self.bus(bus) == "default" else f"{self.bus(bus)}/"
        return _arn("events", f"rule/{on}{self.physical(rule)}")

    def queue_arn(self, name: str) -> str:
        return _arn("sqs", self.physical(name))

    def queue_url(self, name: str) -> str:
        host = f"sqs.{Aws.REGION}.{Aws.URL_SUFFIX}"
        return f"https://{host}/{Aws.ACCOUNT_ID}/{self.physical(name)}"

    def table_arn(self, name: str) -> str:
        return _arn("dynamodb", f"table/{self.physical(name)}")

    def index_arn(self, table: str, index: str) -> str:
        return f"{self.table_arn(table)}/index/{index}"

    def stream_arn(self, table: str) -> str:
        """Of any stream the table has had: their names end in the time they were turned on."""
        return f"{self.table_arn(table)}/stream/*"

    def stream_parameter(self, table: str) -> str:
        """Where the ARN of the stream that a table has now stands, in Systems Manager."""
        return f"/{self.namespace}/{table}/stream"

    def scheduler_role(self, service: str) -> str:
        return self.physical(f"{service}-scheduler")

    def scheduler_role_arn(self, service: str) -> str:
        return f"arn:{Aws.PARTITION}:iam::{Aws.ACCOUNT_ID}:role/{self.scheduler_role(service)}"

    def schedules_arn(self) -> str:
        """All that begin with the namespace, in the group in which headrace makes them."""
        return _arn("scheduler", f"schedule/default/{self.namespace}-*")

    def alarms_topic(self) -> str:
        return self.physical("alarms")

    def alarms_topic_arn(self) -> str:
        return _arn("sns", self.alarms_topic())

    def secret(self, service: str, name: str) -> str:
        return f"{self.namespace}/{service}/{name}"

    def secret_arn(self, service: str, name: str) -> str:
        """Secrets Manager adds six characters of its own to the name."""
        return _arn("secretsmanager", f"secret:{self.secret(service, name)}-??????")

    def arn_of(self, grant: Grant) -> str:
        if grant.resource is Resource.INDEX:
            return self.index_arn(*grant.name.split("/"))
        if grant.resource is Resource.SCHEDULE:
            return self.schedules_arn()
        return {
            Resource.BUS: self.bus_arn,
            Resource.QUEUE: self.queue_arn,
            Resource.TABLE: self.table_arn,
            Resource.STREAM: self.stream_arn,
            Resource.SCHEDULER_ROLE: self.scheduler_role_arn,
        }[grant.resource](grant.name)

    @property
    def _config(self) -> AwsConfig:
        return AwsConfig(namespace=self.namespace)


def _arn(service: str, resource: str) -> str:
    return f"arn:{Aws.PARTITION}:{service}:{Aws.REGION}:{Aws.ACCOUNT_ID}:{resource}"
