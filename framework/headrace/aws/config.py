"""Which AWS to talk to, and what names there begin with. Imports no AWS library."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from headrace.aws import localstack
from headrace.errors import ConfigurationError

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_events.client import EventBridgeClient
    from types_aiobotocore_scheduler.client import EventBridgeSchedulerClient
    from types_aiobotocore_sqs.client import SQSClient

    Client: TypeAlias = SQSClient | EventBridgeClient | DynamoDBClient | EventBridgeSchedulerClient

SERVICES: Final[Mapping[str, str]] = {
    "sqs": "AWS_ENDPOINT_URL_SQS",
    "events": "AWS_ENDPOINT_URL_EVENTBRIDGE",
    "dynamodb": "AWS_ENDPOINT_URL_DYNAMODB",
    "scheduler": "AWS_ENDPOINT_URL_SCHEDULER",
    "secretsmanager": "AWS_ENDPOINT_URL_SECRETS_MANAGER",
}
"""The clients headrace opens, and the variable that gives each its endpoint. The variables are
botocore's: they follow the service's id, and that of `events` is EventBridge."""

DEFAULT_BUS: Final = "default"


@dataclass(frozen=True, slots=True)
class AwsConfig:
    """Which AWS to talk to, and how names there begin.

    `endpoints` gives URLs by client name: `sqs`, `events`, `dynamodb`, `scheduler`,
    `secretsmanager`. Without one, botocore decides, and it reads `AWS_ENDPOINT_URL`, its
    per-service forms, and the shared config file. `scheduler_role` is the ARN of the role as which
    EventBridge Scheduler sends.
    """

    namespace: str = ""
    region: str | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)
    scheduler_role: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> AwsConfig:
        """Read HEADRACE_NAMESPACE, HEADRACE_SCHEDULER_ROLE_ARN, AWS_REGION or AWS_DEFAULT_REGION,
        AWS_ENDPOINT_URL and its per-service forms, LOCALSTACK_HOST and USE_LOCALSTACK.

        Raises `ConfigurationError` when LocalStack is asked for and localstack-client missing, and
        for a namespace that no name can begin with.
        """
        found = {service: _endpoint(service, environ) for service in SERVICES}
        return cls(
            namespace=_namespace(environ.get("HEADRACE_NAMESPACE", "").strip()),
            region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
            endpoints={service: url for service, url in found.items() if url},
            scheduler_role=environ.get("HEADRACE_SCHEDULER_ROLE_ARN", "").strip() or None,
        )

    def physical(self, name: str) -> str:
        """The name in AWS of the queue or table that is called `name` in code."""
        return f"{self.namespace}-{name}" if self.namespace else name

    def physical_bus(self, name: str) -> str:
        """The same for a bus. The account's default bus has one name everywhere."""
        return name if name == DEFAULT_BUS else self.physical(name)

    def logical(self, physical: str) -> str:
        """The name in code of what is called `physical` in AWS."""
        return physical.removeprefix(f"{self.namespace}-") if self.namespace else physical

    def is_local(self, service: str) -> bool:
        """Whether the endpoint of this client is somewhere else than AWS."""
        host = urlsplit(self.endpoints.get(service, "")).hostname
        return host is not None and not host.endswith(_AWS_DOMAINS)


_AWS_DOMAINS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")


def _namespace(text: str) -> str:
    # SQS, whose names take the fewest kinds of characters and are the shortest, takes these.
    if text and not _BEGINNING.fullmatch(text):
        raise ConfigurationError(
            f"HEADRACE_NAMESPACE is {text!r}: write 1 to 64 letters, digits, hyphens and "
            "underscores, as every name in AWS begins with it."
        )
    return text


_BEGINNING: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _endpoint(service: str, environ: Mapping[str, str]) -> str | None:
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").strip().lower() == "true":
        return None
    named = environ.get(SERVICES[service]) or environ.get("AWS_ENDPOINT_URL")
    return named or localstack.endpoint(service, environ)


def place(client: Client) -> str:
    """Where a client's calls go, for error sentences."""
    url = client.meta.endpoint_url
    if (urlsplit(url).hostname or "").endswith(_AWS_DOMAINS):
        return client.meta.region_name
    return f"{client.meta.region_name} at {url}"
