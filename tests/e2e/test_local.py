"""Services on one laptop: an emulator, what they need in it, and the services at work."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from headrace.aws.client import open_ports
from headrace.aws.config import AwsConfig
from headrace.client import read, send
from headrace.envelope import Outgoing
from headrace.errors import ConfigurationError
from headrace.hosts.emulator import endpoints_environment, ministack
from headrace.hosts.local import local_aws, run_local
from headrace.observe.tally import Tally
from schemas.order import Customer, OrderLine, PlaceOrder
from services.inventory.app import inventory
from services.order.app import order
from services.order.model import Order, OrderStatus
from tests.e2e.program import run

pytestmark = pytest.mark.emulator

LINE = OrderLine.model_validate({"sku": "UNICORN", "quantity": 1, "unit_price": "9.99"})
PLACE = PlaceOrder(
    order_id="W1", customer=Customer(name="Chiara", email="c@example.com"), lines=(LINE,)
)


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the shell is set to, these tests begin without it."""
    for name in ("", "_SQS", "_EVENTBRIDGE", "_DYNAMODB"):
        monkeypatch.delenv(f"AWS_ENDPOINT_URL{name}", raising=False)
    for name in ("AWS_PROFILE", "LOCALSTACK_HOST", "USE_LOCALSTACK", "HEADRACE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


class UntilSent(Tally):
    """Sets an event when a message of this type is sent."""

    def __init__(self, type: str) -> None:
        super().__init__()
        self._type = type
        self.happened = asyncio.Event()

    def sent(self, service: str, outgoing: Outgoing) -> None:
        super().sent(service, outgoing)
        if outgoing.detail_type == self._type:
            self.happened.set()


async def test_services_run_on_an_emulator_of_their_own_until_they_are_stopped() -> None:
    where: asyncio.Future[AwsConfig] = asyncio.get_running_loop().create_future()
    stop, observer = asyncio.Event(), UntilSent("OrderCancelled")
    running = asyncio.create_task(
        run_local(
            [order, inventory], observer=observer, ready=where.set_result, stop=stop, port=None
        )
    )
    async with open_ports(await where) as ports:
        await send(ports, [PLACE], bus="shop")
        await observer.happened.wait()
        [found] = await read(ports, Order, ["W1"], table="order")
    stop.set()
    await running
    assert found is not None
    assert found.status is OrderStatus.CANCELLED


async def test_an_endpoint_that_the_environment_names_is_used_and_left_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ministack() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        async with local_aws([order]) as config:
            assert set(config.endpoints.values()) == {endpoint}
        async with open_ports(config) as ports:
            assert (await ports.queues.depth("order")).visible == 0


async def test_an_emulator_is_started_for_what_has_no_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ministack() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", endpoint)
        async with local_aws([order]) as config:
            assert config.endpoints["dynamodb"] == endpoint
            assert config.endpoints["sqs"] == config.endpoints["events"] != endpoint


async def test_an_emulator_that_is_not_known_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="choose one of ministack, localstack, none"):
        async with local_aws([order], emulator="moto"):
            pass


async def test_without_an_endpoint_and_an_emulator_nothing_is_touched() -> None:
    with pytest.raises(ConfigurationError, match="set AWS_ENDPOINT_URL or AWS_ENDPOINT_URL_SQS"):
        async with local_aws([order], emulator="none"):
            pass


async def test_a_port_that_somebody_listens_on_is_refused_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {port} .* is taken"):
            async with local_aws([order], port=port):
                pass


async def test_an_order_placed_from_the_command_line_is_in_the_queue(tmp_path: Path) -> None:
    async with local_aws([order]) as config, open_ports(config) as ports:
        environ = endpoints_environment(config.endpoints["sqs"])
        placed = await asyncio.to_thread(
            run,
            "services.order",
            "place",
            "--order-id=W1",
            "--line=MUG:2:14.00",
            "--line=TEA:1:7.20",
            "--id=c1",
            environ=environ,
            scratch=tmp_path,
        )
        assert (placed.returncode, placed.stdout) == (0, "sent PlaceOrder W1 as c1\n"), placed
        (delivery,) = await ports.queues.receive("order", limit=10, wait=timedelta(seconds=2))
        lines = json.loads(delivery.body)["detail"]["data"]["lines"]
        assert [line["sku"] for line in lines] == ["MUG", "TEA"]


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [("--line=MUG", "write SKU:QUANTITY:PRICE"), ("--currency=euro", "currency")],
)
def test_a_command_line_that_is_no_order_is_refused(
    tmp_path: Path, argument: str, complaint: str
) -> None:
    refused = run(
        *("services.order", "place", "--order-id=W1", "--line=MUG:2:14.00", argument),
        environ=endpoints_environment("http://127.0.0.1:1"),
        scratch=tmp_path,
    )
    assert refused.returncode == 2
    assert complaint in refused.stderr
