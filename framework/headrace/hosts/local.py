"""One process on a laptop: an emulator of AWS, what the services need in it, and the services."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from headrace.aws.client import open_ports
from headrace.aws.config import SERVICES, AwsConfig
from headrace.aws.provision import provision
from headrace.errors import ConfigurationError, Unreachable
from headrace.hosts.emulator import HOST, REGION, dynoxide, localstack, ministack
from headrace.hosts.worker import run_worker
from headrace.observer import Observer
from headrace.service import Service
from headrace.topology.derive import topology

EMULATORS = ("ministack", "localstack", "none")
"""`localstack` has no DynamoDB without Docker, so dynoxide stands beside it; `none` uses what
`AWS_ENDPOINT_URL` names and starts nothing."""

_PATIENCE: Final = 3
"""Seconds until an endpoint that does not answer a connection counts as silent."""


async def run_local(
    services: Sequence[Service],
    *,
    emulator: str = "ministack",
    observer: Observer | None = None,
    concurrency: int = 10,
    ready: Callable[[AwsConfig], None] | None = None,
    stop: asyncio.Event | None = None,
    port: int | None = 4566,
    own: bool = False,
) -> None:
    """Run services on an emulator until SIGTERM, SIGINT or `stop`.

    `ready` is told where everything is, once it is provisioned. `port` is the emulator's;
    `None` takes a free one. `own` is that of `local_aws`, and so is what this raises.
    """
    async with (
        local_aws(services, emulator=emulator, port=port, own=own) as config,
        open_ports(config) as ports,
    ):
        if ready is not None:
            ready(config)
        await run_worker(services, ports, concurrency=concurrency, observer=observer, stop=stop)


@asynccontextmanager
async def local_aws(
    services: Sequence[Service],
    *,
    emulator: str = "ministack",
    port: int | None = None,
    own: bool = False,
) -> AsyncIterator[AwsConfig]:
    """An AWS that is not AWS, with the topology of these services in it.

    An endpoint that the environment names (`AWS_ENDPOINT_URL`, its per-service forms, LocalStack's
    variables) is used as it is; the emulator is started for what is left, and with `own` for
    everything. It ends on exit, with everything in it.

    Raises `ConfigurationError` for an unknown emulator, one that does not start, a taken port,
    and when something would go to AWS itself; `CloudError` when provisioning fails, and when
    nothing answers at an endpoint of the environment.
    """
    if emulator not in EMULATORS:
        raise ConfigurationError(
            f"There is no emulator {emulator!r}: choose one of {', '.join(EMULATORS)}."
        )
    named = AwsConfig.from_environment()
    if own and emulator != "none":
        named = replace(named, endpoints={})
    async with AsyncExitStack() as stack:
        config = named
        if emulator != "none" and not named.endpoints.keys() >= SERVICES.keys():
            started = await _start(stack, emulator, port)
            config = replace(
                named, region=named.region or REGION, endpoints={**started, **named.endpoints}
            )
        _refuse_aws(config)
        await _refuse_silent(named.endpoints)
        await provision(topology(*services), config)
        yield config


async def _start(stack: AsyncExitStack, emulator: str, port: int | None) -> dict[str, str]:
    """The endpoints of an emulator, which ends with `stack`."""
    if port is not None:
        _refuse_taken(port)
    if emulator == "ministack":
        return dict.fromkeys(SERVICES, await stack.enter_async_context(ministack(port=port)))
    tables = await stack.enter_async_context(dynoxide())
    rest = await stack.enter_async_context(localstack(port=port))
    return {**dict.fromkeys(SERVICES, rest), "dynamodb": tables}


def _refuse_aws(config: AwsConfig) -> None:
    remote = [service for service in SERVICES if not config.is_local(service)]
    if remote:
        raise ConfigurationError(
            f"No local endpoint is named for {', '.join(remote)}, and nothing here may touch an "
            f"AWS account: set AWS_ENDPOINT_URL or {SERVICES[remote[0]]}, or choose an emulator "
            "to start."
        )


def _refuse_taken(port: int) -> None:
    # Whoever listens there would answer the health check in the emulator's place.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} of {HOST} is taken: end what listens there, choose another port, or "
                f"use what is there with AWS_ENDPOINT_URL=http://{HOST}:{port}."
            ) from error


async def _refuse_silent(endpoints: Mapping[str, str]) -> None:
    """Raises `Unreachable` when nothing listens at one of the endpoints of the environment."""
    for service, url in endpoints.items():
        place = urlsplit(url)
        port = place.port or (443 if place.scheme == "https" else 80)
        try:
            async with asyncio.timeout(_PATIENCE):
                _, writer = await asyncio.open_connection(place.hostname, port)
        except OSError as error:
            variable = _variable_of(service, url)
            raise Unreachable(
                f"Nothing answers at {url}, which {variable} names: unset {variable} to have an "
                "emulator started here, or start what should be there."
            ) from error
        writer.close()


def _variable_of(service: str, url: str) -> str:
    names = (SERVICES[service], "AWS_ENDPOINT_URL")
    return next((name for name in names if os.environ.get(name) == url), "LOCALSTACK_HOST")
