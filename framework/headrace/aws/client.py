"""One session, its clients, one value that holds them: how headrace reaches AWS.

Importing this module imports no AWS library: that waits until ports are opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from headrace.aws.bodies import OF_DYNAMODB, OF_EVENTS, OF_SQS, write_bodies
from headrace.aws.config import AwsConfig
from headrace.errors import ConfigurationError
from headrace.limits import SQS_MAX_WAIT
from headrace.ports import Ports

if TYPE_CHECKING:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession
    from types_aiobotocore_dynamodb.client import DynamoDBClient
    from types_aiobotocore_events.client import EventBridgeClient
    from types_aiobotocore_scheduler.client import EventBridgeSchedulerClient
    from types_aiobotocore_sqs.client import SQSClient

T = TypeVar("T")

LOCAL_REGION: Final = "us-east-1"
LOCAL_CREDENTIALS: Final = ("test", "test")

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


_AT_ONCE: Final = ("sqs", "events", "dynamodb")
"""The clients that every service needs. Opening one reads a service model, which is most of a cold
start; so that of Scheduler waits for the first schedule."""


class Later(Generic[T]):
    """What is opened by the first who asks for it, and is the same for all."""

    def __init__(self, opening: Callable[[], Awaitable[T]]) -> None:
        self._opening = opening
        self._turn = asyncio.Lock()
        self._opened: list[T] = []

    async def __call__(self) -> T:
        async with self._turn:
            if not self._opened:
                self._opened.append(await self._opening())
        return self._opened[0]


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of one session: three that are open, and one that is opened when asked for."""

    sqs: SQSClient
    events: EventBridgeClient
    dynamodb: DynamoDBClient
    scheduler: Later[EventBridgeSchedulerClient]


def preload() -> None:
    """Import what opening ports will need: half a second that a host may want to spend while
    it starts. On Lambda that is INIT, which has the full processor, and a SnapStart snapshot
    then holds it; nothing is opened and nothing unique is made."""
    for module in ("aiobotocore.session", *_ADAPTERS):
        import_module(module)


_ADAPTERS: Final = tuple(
    f"headrace.aws.{name}" for name in ("dynamodb", "eventbridge", "scheduler", "sqs")
)


@asynccontextmanager
async def open_ports(config: AwsConfig | None = None) -> AsyncIterator[Ports]:
    """Ports on AWS, or on whatever emulator the endpoints name; closed on exit.

    Raises `ConfigurationError` when no region is set, unless every endpoint is local.
    """
    from headrace.aws.dynamodb import DynamoDbStore
    from headrace.aws.eventbridge import EventBridgeBus
    from headrace.aws.scheduler import EventBridgeScheduler
    from headrace.aws.sqs import SqsQueues
    from headrace.system import SystemClock, SystemRandomness

    config = config or AwsConfig.from_environment()
    clock, randomness = SystemClock(), SystemRandomness()
    async with open_clients(config) as clients:
        yield Ports(
            queues=SqsQueues(clients.sqs, config, randomness),
            bus=EventBridgeBus(clients.events, config),
            store=DynamoDbStore(clients.dynamodb, config, randomness),
            scheduler=EventBridgeScheduler(clients.scheduler, clients.sqs, config, clock),
            clock=clock,
            randomness=randomness,
        )


@asynccontextmanager
async def open_clients(config: AwsConfig) -> AsyncIterator[Clients]:
    """The clients, opened in turn and closed in reverse.

    In turn, because what costs here is reading service models, which blocks the loop; the one
    thing worth waiting for, the credentials, is fetched once and before.
    """
    origin = _origin(config)
    has_credentials = await origin.session.get_credentials() is not None
    async with AsyncExitStack() as stack:

        async def opened(service: str) -> Any:
            opening = _client(origin, service, config, has_credentials)
            return await stack.enter_async_context(opening)

        sqs, events, dynamodb = [await opened(service) for service in _AT_ONCE]
        write_bodies(sqs, OF_SQS)
        write_bodies(events, OF_EVENTS)
        write_bodies(dynamodb, OF_DYNAMODB)
        yield Clients(sqs, events, dynamodb, Later(lambda: opened("scheduler")))


@asynccontextmanager
async def open_client(service: str, config: AwsConfig) -> AsyncIterator[Any]:
    """One client alone, as `open_clients` opens them: for what is asked now and then."""
    origin = _origin(config)
    has_credentials = await origin.session.get_credentials() is not None
    async with _client(origin, service, config, has_credentials) as client:
        yield client


class _Origin(NamedTuple):
    """Where calls come from."""

    session: AioSession
    region: str
    user_agent: str


def _origin(config: AwsConfig) -> _Origin:
    from aiobotocore.session import get_session

    session = get_session()
    if all(map(config.is_local, _AT_ONCE)):
        # Nobody answers for the instance's role on a laptop; asking costs seconds.
        session.get_component("credential_provider").remove("iam-role")
    user_agent = session.user_agent()
    if app := session.get_config_variable("user_agent_appid"):
        user_agent += f" app/{app}"
    # botocore adds this to whichever user agent it is given.
    session.user_agent_extra = "lib/headrace"
    return _Origin(session, _region(config, session), user_agent)


def _client(
    origin: _Origin, service: str, config: AwsConfig, has_credentials: bool
) -> AbstractAsyncContextManager[Any]:
    dummies = config.is_local(service) and not has_credentials
    key, secret = LOCAL_CREDENTIALS if dummies else (None, None)
    endpoint = config.endpoints.get(service)
    # aiobotocore reads the certificates of all authorities for an emulator without TLS, too.
    without_tls = endpoint is not None and endpoint.startswith("http://")
    return origin.session.create_client(
        service,
        region_name=origin.region,
        endpoint_url=endpoint,
        verify=False if without_tls else None,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=_settings(service, origin.user_agent),
    )


def _region(config: AwsConfig, session: AioSession) -> str:
    region = config.region or session.get_config_variable("region")
    if region:
        return str(region)
    if all(map(config.is_local, _AT_ONCE)):
        return LOCAL_REGION
    raise ConfigurationError(
        "No AWS region is set: set AWS_REGION (or a region in the AWS profile), "
        "or name an emulator with AWS_ENDPOINT_URL."
    )


def _settings(service: str, user_agent: str) -> AioConfig:
    """The timeouts, retries and pool of one client.

    The user agent is given, or botocore would put it together twice for each request.

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
        user_agent=user_agent,
    )
