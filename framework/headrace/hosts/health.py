"""`/healthz` and `/readyz` of a worker: whether it lives, and whether it does its work.

The answers come from a thread, so that they come also, and are true, while a handler blocks the
event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from errno import EADDRINUSE
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Lock, Thread
from typing import Any, Final

import orjson

from headrace.errors import ConfigurationError
from headrace.hosts.pulse import Phase, Pulse
from headrace.hosts.settings import Address
from headrace.ports import Clock
from headrace.text import shown

logger = logging.getLogger(__name__)

BEAT: Final = timedelta(seconds=1)
"""How often the event loop shows that it runs."""
BLOCKED_AFTER: Final = timedelta(seconds=30)
"""An event loop that has not run for so long extends no visibility timeout, and is not well."""

_CLIENT_SECONDS: Final = 2.0
"""How long a client may be silent."""
_LOOK_SECONDS: Final = 0.1
"""How often the thread looks whether it shall end, which the end of the block waits for."""


@asynccontextmanager
async def health_served(
    address: Address,
    pulses: Sequence[Pulse],
    *,
    stopping: Callable[[], bool],
    clock: Clock,
    blocked_after: timedelta = BLOCKED_AFTER,
) -> AsyncIterator[Address]:
    """Serve `/healthz` and `/readyz` at `address` within the block, which gets the real address.

    `/healthz` is 503 while the event loop has not run for longer than `blocked_after`, else 200.
    `/readyz` is 200 while the loop runs, `stopping()` is false and every pulse is ready, else 503.
    `stopping` is called on another thread. Both answer with a JSON object: `status`, `reasons`
    (sentences; none with a 200), `loop.seconds_since_beat`, and `queues`, a list of objects with
    `queue`, `phase`, `cause`, `restarts` and `seconds_since_receive` (`null` before the first).

    Raises `ConfigurationError` if nothing can listen at `address`.
    """
    heart = _Heart()
    server = _listening(address, _Health(heart, pulses, stopping, clock, blocked_after))
    beats = asyncio.create_task(heart.beat(min(BEAT, blocked_after / 4)))
    thread = Thread(
        target=server.serve_forever, args=(_LOOK_SECONDS,), name="headrace-health", daemon=True
    )
    thread.start()
    try:
        yield server.address
    finally:
        beats.cancel()
        server.end()
        thread.join()


class _Heart:
    """When the event loop ran last. Written on the loop, and read on any thread."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    async def beat(self, every: timedelta) -> None:
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(every.total_seconds())

    def since(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self._last)


@dataclass(frozen=True, slots=True)
class _Health:
    """What the two pages say. Read on any thread."""

    heart: _Heart
    pulses: Sequence[Pulse]
    stopping: Callable[[], bool]
    clock: Clock
    blocked_after: timedelta

    def lives(self) -> tuple[HTTPStatus, bytes]:
        since = self.heart.since()
        reasons = self._blocked(since)
        return self._page("blocked" if reasons else "alive", reasons, since, self._seen())

    def ready(self) -> tuple[HTTPStatus, bytes]:
        since, pulses = self.heart.since(), self._seen()
        reasons = self._blocked(since)
        if self.stopping():
            reasons.append("The worker stops, and receives nothing more.")
        reasons += [_unready(pulse) for pulse in pulses if not pulse.is_ready]
        return self._page("not ready" if reasons else "ready", reasons, since, pulses)

    def _seen(self) -> list[Pulse]:
        """The pulses as they are now: those of the worker go on changing."""
        return [replace(pulse) for pulse in self.pulses]

    def _blocked(self, since: timedelta) -> list[str]:
        if since <= self.blocked_after:
            return []
        return [
            f"The event loop has not run for {since.total_seconds():.0f} s: a handler probably "
            "blocks it. Make that handler a plain `def`, which runs in a thread, or await what it "
            "waits for."
        ]

    def _page(
        self, status: str, reasons: list[str], since: timedelta, pulses: Sequence[Pulse]
    ) -> tuple[HTTPStatus, bytes]:
        page = {
            "status": status,
            "reasons": reasons,
            "loop": {"seconds_since_beat": _seconds(since)},
            "queues": [self._queue(pulse) for pulse in pulses],
        }
        code = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return code, orjson.dumps(page)

    def _queue(self, pulse: Pulse) -> dict[str, Any]:
        last = pulse.last_receive
        return {
            "queue": pulse.queue,
            "phase": pulse.phase,
            "cause": None if pulse.cause is None else shown(pulse.cause),
            "restarts": pulse.restarts,
            "seconds_since_receive": None if last is None else _seconds(self.clock.now() - last),
        }


def _seconds(since: timedelta) -> float:
    return round(max(since.total_seconds(), 0.0), 3)


def _unready(pulse: Pulse) -> str:
    if pulse.phase is Phase.STARTING:
        said = f"Nothing was received from queue {pulse.queue!r} yet"
    elif pulse.phase is Phase.STOPPED:
        said = f"Nothing more is received from queue {pulse.queue!r}"
    else:
        said = f"Receiving from queue {pulse.queue!r} fails, and is tried again"
    cause = f": {shown(pulse.cause).rstrip('.')}" if pulse.cause else ""
    return f"{said}{cause}."


class _Answer(BaseHTTPRequestHandler):
    """One answer on one connection: a kept connection would hold a thread while it is idle."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _CLIENT_SECONDS

    def __getattr__(self, name: str) -> Callable[[], None]:
        # The base class looks for do_GET, do_POST and so on, and answers 501 if there is none.
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        pages = {"/healthz": self.server.health.lives, "/readyz": self.server.health.ready}
        page = pages.get(self.path.partition("?")[0])
        if page is None:
            self._send(HTTPStatus.NOT_FOUND, b'{"status":"not found: see /healthz and /readyz"}')
        elif self.command not in ("GET", "HEAD"):
            self._send(HTTPStatus.METHOD_NOT_ALLOWED, b'{"status":"only GET and HEAD"}')
        else:
            self._send(*page())

    def _send(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "headrace"

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds, and are no news."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # those are not joined, and their sockets would outlive the block
    allow_reuse_port = False

    def __init__(self, address: Address, health: _Health) -> None:
        self.health = health
        self._open: set[socket.socket] = set()
        self._turn = Lock()
        if ":" in address.host:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Answer)

    @property
    def address(self) -> Address:
        return Address(*self.socket.getsockname()[:2])

    def server_bind(self) -> None:
        # HTTPServer looks the host's name up as well, and DNS may take its time.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.address

    def get_request(self) -> tuple[socket.socket, Any]:
        client, address = super().get_request()
        with self._turn:
            self._open.add(client)
        return client, address

    def shutdown_request(self, request: Any) -> None:
        with self._turn:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # a client that hung up is no news
            logger.error("The health of the worker could not be told.", exc_info=error)

    def end(self) -> None:
        """Hang up on all clients, and wait for their threads."""
        self.shutdown()
        with self._turn:
            for client in self._open:
                with suppress(OSError):  # it hung up first
                    client.shutdown(socket.SHUT_RDWR)
        self.server_close()


def _listening(address: Address, health: _Health) -> _Server:
    host, port = address
    try:
        return _Server(address, health)
    except OSError as error:
        if error.errno == EADDRINUSE:
            problem = f"port {port} of {host} is taken. End what listens there"
        else:
            problem = f"nothing can listen at {host}, port {port} ({error.strerror or error})"
        raise ConfigurationError(
            f"The health of the worker cannot be served: {problem}, or give another address; "
            "port 0 takes a free one."
        ) from error
    except OverflowError as error:
        raise ConfigurationError(
            f"The health of the worker cannot be served at port {port}: give one from 0 to 65535."
        ) from error
