"""The messaging adapters against LocalStack, where HEADRACE_LOCALSTACK_PYTHON names one."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio

from headrace.aws.config import AwsConfig
from headrace.aws.provision import provision
from headrace.hosts import emulator
from headrace.ports import BusEntry, Ports, QueueEntry
from tests.integration.aws import topologies

pytestmark = [pytest.mark.emulator, pytest.mark.slow]

SOON = timedelta(seconds=5)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def localstack_url() -> AsyncIterator[str]:
    python = os.environ.get("HEADRACE_LOCALSTACK_PYTHON")
    if not python:
        pytest.skip("HEADRACE_LOCALSTACK_PYTHON names no interpreter")
    async with emulator.localstack(python=Path(python)) as url:
        yield url


@pytest.fixture
def config(localstack_url: str, ministack_url: str) -> AwsConfig:
    return AwsConfig(
        namespace=f"test{uuid4().hex[:10]}",
        # This LocalStack has no DynamoDB.
        endpoints={"sqs": localstack_url, "events": localstack_url, "dynamodb": ministack_url},
    )


def test_localstack_listens_on_the_loopback_interface_only(localstack_url: str) -> None:
    port = urlsplit(localstack_url).port
    # All of 127.0.0.0/8 is this machine; a server that is bound to every interface answers here.
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize("suffix", ["", ".fifo"])
async def test_the_second_run_changes_nothing(config: AwsConfig, suffix: str) -> None:
    topology = topologies.shop({"source": ["shop.order"]}, suffix=suffix)
    await provision(topology, config)

    lines: list[str] = []
    await provision(topology, config, progress=lines.append)

    assert lines == []


async def test_an_event_goes_through_its_rule_into_its_queue(
    config: AwsConfig, ports: Ports
) -> None:
    await provision(topologies.shop({"source": ["shop.order"]}), config)

    await ports.bus.put("shop", [BusEntry("shop.order", "OrderPlaced", '{"total": 1}')])
    [delivery] = await ports.queues.receive("inventory", limit=10, wait=SOON)

    assert json.loads(delivery.body)["detail"] == {"total": 1}


async def test_the_trace_header_of_a_sent_message_is_received(
    config: AwsConfig, ports: Ports
) -> None:
    await provision(topologies.queue(), config)
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"

    await ports.queues.send("inventory", [QueueEntry("{}", trace_header=header)])
    [delivery] = await ports.queues.receive("inventory", limit=10, wait=SOON)

    assert delivery.trace_header == header


async def test_an_entry_without_json_detail_is_refused_for_good(
    config: AwsConfig, ports: Ports
) -> None:
    entries = [BusEntry("shop.order", "Good", "{}"), BusEntry("shop.order", "Bad", "not json")]

    [failure] = await ports.bus.put("default", entries)

    assert (failure.index, failure.code, failure.retryable) == (1, "MalformedDetail", False)
