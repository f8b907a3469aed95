"""What a worker answers who asks how it is."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any

import orjson
import pytest

from headrace.errors import ConfigurationError
from headrace.hosts.health import health_served
from headrace.hosts.pulse import Phase, Pulse
from headrace.hosts.settings import Address
from headrace.testing.memory import ManualClock

HERE = Address("127.0.0.1", 0)
HANG = 20.0
"""Seconds after which a test that waits for nothing fails."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def page(self) -> Any:
        return orjson.loads(self.body)


def ask_now(address: Address, path: str, method: str = "GET") -> Answer:
    connection = HTTPConnection(*address, timeout=HANG)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


async def ask(address: Address, path: str, method: str = "GET") -> Answer:
    return await asyncio.to_thread(ask_now, address, path, method)


def served(
    *pulses: Pulse,
    address: Address = HERE,
    stopping: bool = False,
    clock: ManualClock | None = None,
    **limits: timedelta,
) -> AbstractAsyncContextManager[Address]:
    return health_served(
        address, pulses, stopping=lambda: stopping, clock=clock or ManualClock(), **limits
    )


def receiving(queue: str = "orders") -> Pulse:
    return Pulse(queue, Phase.RECEIVING)


# --- /healthz --------------------------------------------------------------------------


async def test_healthz_tells_of_every_queue() -> None:
    clock = ManualClock()
    orders = Pulse("orders", Phase.FAILING, "No answer.", last_receive=clock.now(), restarts=2)
    clock.advance(timedelta(seconds=7.25))
    async with served(orders, Pulse("returns"), clock=clock) as address:
        answer = await ask(address, "/healthz")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.page["status"] == "alive"
    assert answer.page["reasons"] == []
    assert answer.page["queues"] == [
        {
            "queue": "orders",
            "phase": "failing",
            "cause": "No answer.",
            "restarts": 2,
            "seconds_since_receive": 7.25,
        },
        {
            "queue": "returns",
            "phase": "starting",
            "cause": None,
            "restarts": 0,
            "seconds_since_receive": None,
        },
    ]


async def test_healthz_tells_how_long_ago_the_loop_ran() -> None:
    async with served() as address:
        answer = await ask(address, "/healthz")
    assert 0 <= answer.page["loop"]["seconds_since_beat"] <= HANG


async def test_a_receive_in_the_future_of_a_clock_set_back_was_just_now() -> None:
    clock = ManualClock()
    ahead = Pulse("orders", Phase.RECEIVING, last_receive=clock.now() + timedelta(hours=1))
    async with served(ahead, clock=clock) as address:
        answer = await ask(address, "/healthz")
    assert answer.page["queues"][0]["seconds_since_receive"] == 0


@pytest.mark.parametrize("phase", list(Phase))
async def test_a_worker_lives_whatever_its_queues_are_at(phase: Phase) -> None:
    async with served(Pulse("orders", phase), stopping=True) as address:
        assert (await ask(address, "/healthz")).status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_blocked_event_loop_is_told_while_it_is_blocked(path: str) -> None:
    answers: list[Answer] = []
    told, given_up = threading.Event(), threading.Event()

    def probe(address: Address) -> None:
        while not given_up.is_set() and not told.is_set():
            answers.append(ask_now(address, path))
            if answers[-1].status == 503:
                told.set()

    limit = timedelta(milliseconds=50)
    async with served(receiving(), blocked_after=limit) as address:
        prober = asyncio.create_task(asyncio.to_thread(probe, address))
        await asyncio.sleep(0)
        assert told.wait(HANG)  # blocks the loop, as a bad handler does
        given_up.set()
        await prober
        recovered = await eventually(address, path, 200)
    (reason,) = answers[-1].page["reasons"]
    assert "The event loop has not run for" in reason
    assert "a plain `def`" in reason
    assert answers[-1].page["status"] == {"/healthz": "blocked", "/readyz": "not ready"}[path]
    assert answers[-1].page["loop"]["seconds_since_beat"] >= limit.total_seconds()
    assert recovered.page["reasons"] == []


async def eventually(address: Address, path: str, status: int) -> Answer:
    async with asyncio.timeout(HANG):
        while (answer := await ask(address, path)).status != status:
            pass
    return answer


# --- /readyz ---------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.RECEIVING, Phase.FULL, Phase.SLOWED])
async def test_a_worker_that_receives_is_ready(phase: Phase) -> None:
    async with served(Pulse("orders", phase), receiving("returns")) as address:
        answer = await ask(address, "/readyz")
    assert answer.status == 200
    assert answer.page["status"] == "ready"
    assert answer.page["reasons"] == []
    assert [queue["phase"] for queue in answer.page["queues"]] == [phase.value, "receiving"]


async def test_a_worker_without_queues_is_ready() -> None:
    async with served() as address:
        assert (await ask(address, "/readyz")).status == 200


@pytest.mark.parametrize(
    ("pulse", "reason"),
    [
        (Pulse("orders"), "Nothing was received from queue 'orders' yet."),
        (
            Pulse("orders", Phase.STARTING, "No such queue."),
            "Nothing was received from queue 'orders' yet: No such queue.",
        ),
        (
            Pulse("orders", Phase.FAILING, "No answer."),
            "Receiving from queue 'orders' fails, and is tried again: No answer.",
        ),
        (
            Pulse("orders", Phase.FAILING),
            "Receiving from queue 'orders' fails, and is tried again.",
        ),
        (Pulse("orders", Phase.STOPPED), "Nothing more is received from queue 'orders'."),
    ],
)
async def test_a_queue_that_is_not_received_from_is_named_with_its_cause(
    pulse: Pulse, reason: str
) -> None:
    async with served(receiving("returns"), pulse) as address:
        answer = await ask(address, "/readyz")
    assert answer.status == 503
    assert answer.page["status"] == "not ready"
    assert answer.page["reasons"] == [reason]


async def test_a_worker_is_ready_once_its_first_receive_was_answered() -> None:
    pulse = Pulse("orders")
    async with served(pulse) as address:
        before = await ask(address, "/readyz")
        pulse.phase = Phase.RECEIVING
        after = await ask(address, "/readyz")
    assert [before.status, after.status] == [503, 200]


async def test_a_worker_that_stops_is_not_ready() -> None:
    async with served(receiving(), stopping=True) as address:
        answer = await ask(address, "/readyz")
    assert answer.status == 503
    assert answer.page["reasons"] == ["The worker stops, and receives nothing more."]


async def test_every_reason_is_given() -> None:
    failing = Pulse("orders", Phase.FAILING)
    async with served(failing, Pulse("returns"), stopping=True) as address:
        answer = await ask(address, "/readyz")
    assert len(answer.page["reasons"]) == 3


async def test_a_cause_of_any_length_makes_a_short_answer() -> None:
    async with served(Pulse("orders", Phase.FAILING, "x" * 1_000_000)) as address:
        answer = await ask(address, "/readyz")
    assert answer.status == 503
    assert len(answer.body) < 10_000


async def test_a_cause_that_is_no_utf_8_is_told_all_the_same() -> None:
    async with served(Pulse("orders", Phase.FAILING, "half \ud83d")) as address:
        answer = await ask(address, "/readyz")
    assert answer.status == 503
    assert answer.page["queues"][0]["cause"] == r"half \ud83d"


# --- HTTP ------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/readyz", 503)])
async def test_head_is_get_without_a_body(path: str, status: int) -> None:
    async with served(Pulse("orders")) as address:
        answer = await ask(address, path, "HEAD")
    assert answer.status == status
    assert int(answer.headers["Content-Length"]) > 0
    assert answer.body == b""


async def said_to(address: Address, request: bytes) -> bytes:
    """All that is answered to a request, as it is on the wire."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    async with asyncio.timeout(HANG):
        said = await reader.read()
    writer.close()
    await writer.wait_closed()
    return said


async def test_nothing_follows_the_head_that_was_asked_for() -> None:
    async with served(receiving()) as address:
        said = await said_to(address, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/", "/healthz/", "/metrics", "/HEALTHZ"])
async def test_any_other_path_is_not_found(path: str) -> None:
    async with served(receiving()) as address:
        assert (await ask(address, path)).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
async def test_any_other_method_is_not_allowed(method: str) -> None:
    async with served(receiving()) as address:
        answer = await ask(address, "/healthz", method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


async def test_a_query_makes_no_difference() -> None:
    async with served(receiving()) as address:
        assert (await ask(address, "/readyz?from=balancer")).status == 200


async def test_nothing_is_printed_or_logged(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(receiving()) as address:
        await ask(address, "/readyz")
        await ask(address, "/nowhere")
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("headrace")] == []


async def test_a_client_that_says_nothing_keeps_nobody_waiting_and_is_hung_up_on() -> None:
    async with served(receiving()) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /heal")
        assert (await ask(address, "/healthz")).status == 200
        async with asyncio.timeout(HANG):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_a_connection_is_for_one_answer() -> None:
    async with served(receiving()) as address:
        said = await said_to(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close\r\n" in said


async def test_a_page_that_cannot_be_told_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> bool:
        raise LookupError("no such flag")

    async with health_served(HERE, [], stopping=broken, clock=ManualClock()) as address:
        assert await said_to(address, b"GET /readyz HTTP/1.1\r\n\r\n") == b""
        assert (await ask(address, "/healthz")).status == 200
    assert "no such flag" in caplog.text


# --- the address -----------------------------------------------------------------------


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "headrace-health" in thread.name]


async def test_the_server_and_its_thread_end_with_the_block() -> None:
    async with served(receiving()) as address:
        await ask(address, "/healthz")
        assert threads() == ["headrace-health"]
    assert threads() == []
    with pytest.raises(ConnectionRefusedError):
        await ask(address, "/healthz")
    gc.collect()  # a socket that leaked warns now


async def test_the_server_ends_with_a_block_that_fails() -> None:
    with pytest.raises(LookupError):
        async with served(receiving()):
            raise LookupError
    assert threads() == []


def drip(address: Address, started: threading.Event, until: threading.Event) -> bool:
    """Send a request byte by byte, so that it is never silent; returns whether it was cut off."""
    with socket.create_connection(address) as client:
        try:
            while not until.wait(0.01):
                client.sendall(b"x")
                started.set()
        except OSError:
            return True
        return False


async def test_a_client_that_never_ends_is_hung_up_on_at_the_end() -> None:
    started, over = threading.Event(), threading.Event()
    given_up = threading.Timer(HANG, over.set)
    given_up.start()
    async with served(receiving()) as address:
        dripping = asyncio.create_task(asyncio.to_thread(drip, address, started, over))
        await asyncio.to_thread(started.wait)
        await ask(address, "/healthz")
    assert await dripping
    given_up.cancel()
    assert [t for t in threading.enumerate() if "process_request_thread" in t.name] == []


async def test_the_address_is_free_again_after_the_block() -> None:
    async with served(receiving()) as first:
        await ask(first, "/healthz")
    async with served(receiving(), address=first) as second:
        assert second == first
        assert (await ask(second, "/healthz")).status == 200


async def test_a_taken_port_says_what_to_do() -> None:
    async with served(receiving()) as taken:
        with pytest.raises(ConfigurationError, match=f"port {taken.port} of 127.0.0.1 is taken"):
            async with served(receiving(), address=taken):
                raise AssertionError("two servers listen at one address")
        assert (await ask(taken, "/healthz")).status == 200
    gc.collect()  # a socket that leaked warns now


@pytest.mark.parametrize("address", [Address("203.0.113.1", 0), Address("127.0.0.1", -1)])
async def test_an_address_that_cannot_be_listened_at_says_what_to_do(address: Address) -> None:
    with pytest.raises(ConfigurationError, match="cannot be served"):
        async with served(address=address):
            raise AssertionError("a server listens at an address that is none")


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_an_ipv6_address_is_listened_at() -> None:
    async with served(receiving(), address=Address("::1", 0)) as address:
        assert (await ask(address, "/readyz")).status == 200
