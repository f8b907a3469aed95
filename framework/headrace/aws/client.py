"""One session, three clients, one value that holds them: how headrace reaches AWS.

Importing this module imports no AWS library: that waits until ports are opened.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from headrace.aws import localstack
from headrace.errors import ConfigurationError
from headrace.limits import SQS_MAX_WAIT
from headrace.ports import Ports

if TYPE_CHECKING:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_events.client import EventBridgeClient
    from types_aiobotocore_sqs.client import SQSClient

    Client: TypeAlias = SQSClient | EventBridgeClient | DynamoDBClient

SERVICES: Final[Mapping[str, str]] = {
    "sqs": "AWS_ENDPOINT_URL_SQS",
    "events": "AWS_ENDPOINT_URL_EVENTBRIDGE",
    "dynamodb": "AWS_ENDPOINT_URL_DYNAMODB",
}
"""The clients headrace opens, and the variable that gives each its endpoint. The variables are
botocore's: they follow the service's id, and that of `events` is EventBridge."""

LOCAL_REGION: Final = "us-east-1"
LOCAL_CREDENTIALS: Final = ("test", "test")
DEFAULT_BUS: Final = "default"

_CONNECT_SECONDS: Final = 3
_READ_SECONDS: Final = 10
_POLL_READ_SECONDS: Final = SQS_MAX_WAIT.total_seconds() + 10
"""A long poll is silent for 20 s; a read timeout within that would end every idle poll."""
_ATTEMPTS: Final = 3
"""The first retry is for a pooled connection that the server closed (a POST is not retried by
the HTTP client), the second for a 5xx. With full jitter they add 3 s at most; a longer outage is
for the caller, who knows the deadline of its delivery and may hand the message back."""
_CONNECTIONS: Final = 128
"""A pool that is full makes a call wait without a limit, and every poller keeps one connection
for 20 s. Connections are opened when they are needed, so a high number costs nothing."""


@dataclass(frozen=True, slots=True)
class AwsConfig:
    """Which AWS to talk to, and how names there begin.

    `endpoints` gives URLs by client name: `sqs`, `events`, `dynamodb`. Without one, botocore
    decides, and it reads `AWS_ENDPOINT_URL`, its per-service forms, and the shared config file.
    """

    namespace: str = ""
    region: str | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> AwsConfig:
        """Read HEADRACE_NAMESPACE, AWS_REGION or AWS_DEFAULT_REGION, AWS_ENDPOINT_URL and its
        per-service forms, LOCALSTACK_HOST and USE_LOCALSTACK.

        Raises `ConfigurationError` when LocalStack is asked for and localstack-client missing.
        """
        found = {service: _endpoint(service, environ) for service in SERVICES}
        return cls(
            namespace=environ.get("HEADRACE_NAMESPACE", "").strip(),
            region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
            endpoints={service: url for service, url in found.items() if url},
        )

    def physical(self, name: str) -> str:
        """The name in AWS of what is called `name` in code. The account's default bus has one
        name everywhere."""
        if not self.namespace or name == DEFAULT_BUS:
            return name
        return f"{self.namespace}-{name}"

    def logical(self, physical: str) -> str:
        """The name in code of what is called `physical` in AWS."""
        return physical.removeprefix(f"{self.namespace}-") if self.namespace else physical

    def is_local(self, service: str) -> bool:
        """Whether the endpoint of this client is somewhere else than AWS."""
        host = urlsplit(self.endpoints.get(service, "")).hostname
        return host is not None and not host.endswith(_AWS_DOMAINS)


_AWS_DOMAINS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")


def _endpoint(service: str, environ: Mapping[str, str]) -> str | None:
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").strip().lower() == "true":
        return None
    named = environ.get(SERVICES[service]) or environ.get("AWS_ENDPOINT_URL")
    return named or localstack.endpoint(service, environ)


@dataclass(frozen=True, slots=True)
class Clients:
    """The open clients of one session."""

    sqs: SQSClient
    events: EventBridgeClient
    dynamodb: DynamoDBClient


@asynccontextmanager
async def open_ports(config: AwsConfig | None = None) -> AsyncIterator[Ports]:
    """Ports on AWS, or on whatever emulator the endpoints name; closed on exit.

    Raises `ConfigurationError` when no region is set, unless every endpoint is local.
    """
    from headrace.aws.dynamodb import DynamoDbStore
    from headrace.aws.eventbridge import EventBridgeBus
    from headrace.aws.sqs import SqsQueues
    from headrace.system import SystemClock, SystemRandomness

    config = config or AwsConfig.from_environment()
    randomness = SystemRandomness()
    async with open_clients(config) as clients:
        yield Ports(
            queues=SqsQueues(clients.sqs, config, randomness),
            bus=EventBridgeBus(clients.events, config),
            store=DynamoDbStore(clients.dynamodb, config, randomness),
            clock=SystemClock(),
            randomness=randomness,
        )


@asynccontextmanager
async def open_clients(config: AwsConfig) -> AsyncIterator[Clients]:
    """The three clients, opened in turn and closed in reverse.

    In turn, because what costs here is reading service models, which blocks the loop; the one
    thing worth waiting for, the credentials, is fetched once and before.
    """
    from aiobotocore.session import get_session

    session = get_session()
    if all(config.is_local(service) for service in SERVICES):
        # Nobody answers for the instance's role on a laptop; asking costs seconds.
        session.get_component("credential_provider").remove("iam-role")
    region = _region(config, session)
    has_credentials = await session.get_credentials() is not None
    async with AsyncExitStack() as stack:

        async def opened(service: str) -> Any:
            dummies = config.is_local(service) and not has_credentials
            key, secret = LOCAL_CREDENTIALS if dummies else (None, None)
            return await stack.enter_async_context(
                session.create_client(
                    service,
                    region_name=region,
                    endpoint_url=config.endpoints.get(service),
                    aws_access_key_id=key,
                    aws_secret_access_key=secret,
                    config=_settings(service),
                )
            )

        yield Clients(await opened("sqs"), await opened("events"), await opened("dynamodb"))


def place(client: Client) -> str:
    """Where a client's calls go, for error sentences."""
    url = client.meta.endpoint_url
    if (urlsplit(url).hostname or "").endswith(_AWS_DOMAINS):
        return client.meta.region_name
    return f"{client.meta.region_name} at {url}"


def _region(config: AwsConfig, session: AioSession) -> str:
    region = config.region or session.get_config_variable("region")
    if region:
        return str(region)
    if all(config.is_local(service) for service in SERVICES):
        return LOCAL_REGION
    raise ConfigurationError(
        "No AWS region is set: set AWS_REGION (or a region in the AWS profile), "
        "or name an emulator with AWS_ENDPOINT_URL."
    )


def _settings(service: str) -> AioConfig:
    """The timeouts, retries and pool of one client.

    Parameters are not validated on this side. The adapters' types say what they may be and the
    service checks them anyway, but walking a transaction of 100 actions blocks the loop for
    about 5 ms, where signing it takes 0.2. There is no `tcp_keepalive` here because aiobotocore
    does not pass it on: a dead connection ends by the read timeout.
    """
    from aiobotocore.config import AioConfig

    return AioConfig(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_POLL_READ_SECONDS if service == "sqs" else _READ_SECONDS,
        # `max_attempts` would count without the first one; `total_max_attempts` is the number.
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=_CONNECTIONS,
        parameter_validation=False,
        endpoint_discovery_enabled=False,
    )
